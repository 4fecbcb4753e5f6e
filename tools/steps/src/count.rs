//! Counts steps by where they are, and puts each down to a layer, a function and a line.
//!
//! Code that says nothing of itself (the C library, `core`, assembly) is put down with whoever
//! called it: the last instruction before it that did say something.

use crate::layer::{Layer, Place, Spot, judge_symbol};
use std::collections::HashMap;

/// So many instructions of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which part of the work.
    pub part: usize,
    /// Where they are put down; for a callee, where it was called.
    pub place: Place,
    /// What was called there, when that is not code of the place itself.
    pub callee: Option<String>,
    /// How many.
    pub count: u64,
}

/// What an address is before it is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// In the program's file.
    Program(u64),
    /// In another file: the number of a function by its entry.
    Library(usize),
}

/// Where an instruction was reached from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct From {
    /// The last address that said whose it is; not kept where the instruction itself does.
    address: Option<u64>,
    /// Header protection was entered, and the engine has not been since.
    header: bool,
}

/// Counts addresses together with the place that they were reached from.
#[derive(Default)]
pub struct Counter {
    counts: HashMap<(usize, Address, From), u64>,
    from: From,
    entry: Option<usize>,
    entries: Vec<u64>,
}

impl Counter {
    /// One instruction in the program's file; `speaks` is its layer when it is known whose it is.
    pub fn program(&mut self, part: usize, address: u64, speaks: Option<Layer>) {
        self.entry = None;
        match speaks {
            Some(Layer::HeaderProtection) => self.from.header = true,
            Some(layer) if layer != Layer::Aead => self.from.header = false,
            _ => {}
        }
        let mut from = self.from;
        if speaks.is_some() {
            from.address = None;
            self.from.address = Some(address);
        }
        self.add(part, Address::Program(address), from);
    }

    /// One instruction in another file: it is the function's by whose entry that was reached.
    pub fn library(&mut self, part: usize, address: u64) {
        let entry = *self.entry.get_or_insert_with(|| {
            let known = self.entries.iter().position(|e| *e == address);
            known.unwrap_or_else(|| {
                self.entries.push(address);
                self.entries.len() - 1
            })
        });
        self.add(part, Address::Library(entry), self.from);
    }

    fn add(&mut self, part: usize, address: Address, from: From) {
        *self.counts.entry((part, address, from)).or_default() += 1;
    }

    /// Everything that was counted. `spot` resolves addresses of the program, `name` entries of
    /// other files.
    pub fn rows(
        &self,
        mut spot: impl FnMut(u64) -> Spot,
        name: impl Fn(u64) -> String,
    ) -> Vec<Row> {
        let mut rows: HashMap<(usize, Place, Option<String>), u64> = HashMap::new();
        for (&(part, address, from), &count) in &self.counts {
            let caller = match from.address.map(&mut spot) {
                Some(Spot::Here(place)) => Some(place),
                _ => None,
            };
            let spot = match address {
                Address::Program(address) => spot(address),
                Address::Library(entry) => judge_symbol(&name(self.entries[entry])),
            };
            let (mut place, callee) = settle(spot, caller, matches!(address, Address::Library(_)));
            if from.header && place.layer == Layer::Aead {
                place.layer = Layer::HeaderProtection;
            }
            *rows.entry((part, place, callee)).or_default() += count;
        }
        let mut rows: Vec<Row> = rows
            .into_iter()
            .map(|((part, place, callee), count)| Row {
                part,
                place,
                callee,
                count,
            })
            .collect();
        rows.sort_by(|a, b| {
            let key = |r: &Row| (r.part, u64::MAX - r.count);
            key(a).cmp(&key(b)).then_with(|| a.place.cmp(&b.place))
        });
        rows
    }
}

/// Whose an instruction is, given who called it.
fn settle(spot: Spot, caller: Option<Place>, library: bool) -> (Place, Option<String>) {
    let caller = caller.unwrap_or_else(|| Place {
        layer: Layer::Other,
        function: "?".into(),
        line: String::new(),
    });
    match spot {
        Spot::Here(place) if !library => (place, None),
        Spot::Here(Place {
            layer, function, ..
        }) => (Place { layer, ..caller }, Some(function)),
        Spot::Callers(name) if library => (
            Place {
                layer: Layer::Other,
                ..caller
            },
            Some(name),
        ),
        Spot::Callers(name) => (caller, Some(name)),
        Spot::Cipher(name) => {
            let layer = match caller.layer {
                layer if layer.is_engine() => Layer::Tls,
                layer => layer,
            };
            (Place { layer, ..caller }, Some(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(layer: Layer, function: &str) -> Place {
        Place {
            layer,
            function: function.into(),
            line: String::new(),
        }
    }

    fn spot(address: u64) -> Spot {
        match address {
            1 => Spot::Here(place(Layer::Conn, "fill")),
            2 => Spot::Here(place(Layer::HeaderProtection, "mask")),
            3 => Spot::Cipher("aes_hw_ctr32".into()),
            5 => Spot::Cipher("jent_measure_jitter".into()),
            4 => Spot::Here(place(Layer::Aead, "encrypt_block")),
            _ => Spot::Callers("core::slice::sort".into()),
        }
    }

    fn rows(steps: &[(u64, bool)]) -> Vec<(Layer, Option<String>, u64)> {
        let mut counter = Counter::default();
        for &(address, program) in steps {
            match program {
                true => counter.program(
                    0,
                    address,
                    match spot(address) {
                        Spot::Here(place) => Some(place.layer),
                        _ => None,
                    },
                ),
                false => counter.library(0, address),
            }
        }
        let name = |entry| match entry {
            100 => "memcpy".to_string(),
            _ => "clock_gettime".to_string(),
        };
        counter
            .rows(spot, name)
            .into_iter()
            .map(|row| (row.place.layer, row.callee, row.count))
            .collect()
    }

    #[test]
    fn code_that_says_nothing_is_its_callers() {
        assert_eq!(
            rows(&[(1, true), (1, true), (9, true)]),
            [
                (Layer::Conn, None, 2),
                (Layer::Conn, Some("core::slice::sort".into()), 1)
            ]
        );
    }

    #[test]
    fn a_cipher_serves_headers_or_payloads() {
        let cipher = Some("aes_hw_ctr32".to_string());
        assert_eq!(
            rows(&[(2, true), (3, true), (3, true)]),
            [
                (Layer::HeaderProtection, cipher.clone(), 2),
                (Layer::HeaderProtection, None, 1)
            ]
        );
        assert_eq!(
            rows(&[(4, true), (3, true), (3, true)]),
            [(Layer::Aead, cipher, 2), (Layer::Aead, None, 1)]
        );
    }

    #[test]
    fn the_rest_of_cryptography_is_no_engine_work() {
        assert_eq!(
            rows(&[(1, true), (5, true), (5, true)]),
            [
                (Layer::Tls, Some("jent_measure_jitter".into()), 2),
                (Layer::Conn, None, 1)
            ]
        );
    }

    #[test]
    fn what_header_protection_calls_is_its_own() {
        let rows = rows(&[(2, true), (4, true), (4, true), (1, true), (4, true)]);
        let sum = |layer| {
            rows.iter()
                .filter(|r| r.0 == layer)
                .map(|r| r.2)
                .sum::<u64>()
        };
        assert_eq!(sum(Layer::HeaderProtection), 3);
        assert_eq!(sum(Layer::Aead), 1);
    }

    #[test]
    fn a_library_function_is_known_by_its_entry() {
        let steps = [(1, true), (100, false), (101, false), (1, true), (7, false)];
        assert_eq!(
            rows(&steps),
            [
                (Layer::Memcpy, Some("memcpy".into()), 2),
                (Layer::Conn, None, 2),
                (Layer::Other, Some("clock_gettime".into()), 1)
            ]
        );
    }
}
