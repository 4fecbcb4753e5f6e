//! What is compared: the work, under a name that says all of it.
//!
//! A name is the kind of work and its size: `bulk-down-8`, `rr-open-20k`, `idle-10000`. The usual
//! ones are listed; any other that reads is a case, too. `metric` has the numbers taken from each.

use super::metric::{self, Metric};

/// The work of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Bulk data on so many streams of one connection, from the client or to it.
    Bulk {
        /// Streams at a time.
        streams: u32,
        /// From the server to the client.
        down: bool,
    },
    /// Requests of 64 bytes on one connection, so many at a time.
    RequestResponse {
        /// Requests at a time.
        depth: u32,
    },
    /// Requests of 64 bytes on one connection at fixed times, whatever the answers do.
    OpenLoop {
        /// Requests a second; none is half of what the best peer answers 64 at a time.
        rate: Option<u32>,
    },
    /// Handshakes, so many at a time.
    Handshake {
        /// Handshakes at a time.
        parallel: u32,
        /// Each with a session ticket of an earlier connection.
        resumed: bool,
    },
    /// Datagrams of so many bytes on one connection.
    Datagram {
        /// A datagram's length.
        size: u32,
    },
    /// So many connections that do nothing.
    Idle {
        /// Connections.
        connections: u32,
    },
    /// Bulk data of many connections, with so many shards on each side.
    Scale {
        /// Shards on each side.
        shards: u32,
    },
}

/// One kind of work, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name on the command line.
    pub name: String,
    /// The work.
    pub work: Work,
}

/// What `all` stands for, in the order in which it is run: an open loop at half of a rate comes
/// after the case that finds the rate.
pub const ALL: &[&str] = &[
    "bulk-up",
    "bulk-down",
    "bulk-up-8",
    "bulk-down-8",
    "rr-1",
    "rr-64",
    "rr-open",
    "rr-open-20k",
    "rr-open-100k",
    "handshake-32",
    "handshake-32-resumed",
    "datagram-100",
    "datagram-1100",
    "idle-1000",
    "idle-10000",
    "scale-2",
];

/// The case that finds the rate of [`Work::OpenLoop`] without one.
pub const RATE_FROM: &str = "rr-64";

impl Case {
    /// The case of that name.
    pub fn parse(name: &str) -> Option<Self> {
        let (kind, rest) = name.split_once('-')?;
        let work = match (kind, rest) {
            ("bulk", "up") => bulk(1, false),
            ("bulk", "down") => bulk(1, true),
            ("bulk", rest) => {
                let (direction, streams) = rest.split_once('-')?;
                let down = match direction {
                    "up" => false,
                    "down" => true,
                    _ => return None,
                };
                bulk(number(streams, 1000)?, down)
            }
            ("rr", "open") => Work::OpenLoop { rate: None },
            ("rr", rest) => match rest.strip_prefix("open-") {
                Some(rate) => Work::OpenLoop {
                    rate: Some(number(rate, 10_000_000)?),
                },
                None => Work::RequestResponse {
                    depth: number(rest, 1000)?,
                },
            },
            ("handshake", rest) => {
                let full = rest.strip_suffix("-resumed");
                Work::Handshake {
                    parallel: number(full.unwrap_or(rest), 1000)?,
                    resumed: full.is_some(),
                }
            }
            ("datagram", size) => Work::Datagram {
                size: number(size, 65_000)?,
            },
            ("idle", connections) => Work::Idle {
                connections: number(connections, 1_000_000)?,
            },
            // One shard beside one is no case.
            ("scale", shards) => Work::Scale {
                shards: number(shards, 64).filter(|n| *n > 1)?,
            },
            _ => return None,
        };
        let name = name.to_string();
        Some(Self { name, work })
    }

    /// What it is, for people.
    pub fn title(&self) -> String {
        match self.work {
            Work::Bulk { streams, down } => {
                let way = if down {
                    ("server", "client")
                } else {
                    ("client", "server")
                };
                let streams = match streams {
                    1 => "one stream".into(),
                    8 => "eight streams".into(),
                    n => format!("{n} streams"),
                };
                format!("bulk, {streams}, {} to {}", way.0, way.1)
            }
            Work::RequestResponse { depth: 1 } => {
                "request and response, 64 B, one at a time".into()
            }
            Work::RequestResponse { depth } => {
                format!("request and response, 64 B, {depth} at a time")
            }
            Work::OpenLoop { rate: None } => {
                "open loop, 64 B, half of the best QUIC peer's rate 64 at a time".into()
            }
            Work::OpenLoop { rate: Some(rate) } => {
                let rate = thousands(rate);
                let half = match self.name.ends_with("open") {
                    true => ": half of the best QUIC peer's 64 at a time",
                    false => "",
                };
                format!("open loop, 64 B, {rate} requests a second{half}")
            }
            Work::Handshake { parallel, resumed } => {
                let kind = if resumed { "resumed" } else { "full" };
                format!("{kind} handshakes, {parallel} at a time")
            }
            Work::Datagram { size } => format!("datagrams of {} B", thousands(size)),
            Work::Idle { connections } => format!("{} idle connections", thousands(connections)),
            Work::Scale { shards } => format!("bulk, {shards} shards on each side"),
        }
    }

    /// How many cores it needs: one for each thread of either side.
    pub fn cores(&self) -> usize {
        match self.work {
            Work::Scale { shards } => 2 * shards as usize,
            _ => 1,
        }
    }

    /// The workload's name in a report.
    pub fn workload(&self) -> &'static str {
        match self.work {
            Work::Bulk { .. } | Work::Scale { .. } => "throughput",
            Work::RequestResponse { .. } | Work::OpenLoop { .. } => "rr",
            Work::Handshake { .. } => "handshake",
            Work::Datagram { .. } => "datagram",
            Work::Idle { .. } => "idle",
        }
    }

    /// What is taken from a report; the first is what the ratio is of.
    pub fn metrics(&self) -> &'static [Metric] {
        match self.work {
            Work::Bulk { .. } | Work::Scale { .. } => metric::BULK,
            Work::RequestResponse { depth: 1 } => metric::LATENCY,
            Work::RequestResponse { .. } => metric::REQUESTS,
            Work::OpenLoop { .. } => metric::OPEN_LOOP,
            Work::Handshake { .. } => metric::HANDSHAKES,
            Work::Datagram { .. } => metric::DATAGRAMS,
            Work::Idle { .. } => metric::IDLE,
        }
    }

    /// The cases that `names` ask for, each once; `all` is [`ALL`], of which jumbo packets concern
    /// only bulk data. A case that needs another one's result gets it.
    ///
    /// # Errors
    /// When a name is none.
    pub fn list(names: &[String], only_bulk: bool) -> Result<Vec<Self>, String> {
        let mut cases: Vec<Self> = Vec::new();
        let mut add = |case: Self| {
            if !cases.contains(&case) {
                cases.push(case);
            }
        };
        for name in names {
            let all: &[&str] = if name == "all" { ALL } else { &[name] };
            for one in all {
                let case = Self::parse(one).ok_or_else(|| {
                    format!(
                        "no case `{name}`: all, {}; or with other numbers",
                        ALL.join(", ")
                    )
                })?;
                if name == "all" && only_bulk && !matches!(case.work, Work::Bulk { .. }) {
                    continue;
                }
                if case.work == (Work::OpenLoop { rate: None }) {
                    Self::parse(RATE_FROM).into_iter().for_each(&mut add);
                }
                add(case);
            }
        }
        Ok(cases)
    }
}

fn bulk(streams: u32, down: bool) -> Work {
    Work::Bulk { streams, down }
}

/// A number from 1 to `most`, where `k` at its end is a thousand.
fn number(text: &str, most: u32) -> Option<u32> {
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1000),
        None => (text, 1),
    };
    let n = digits.parse::<u32>().ok()?.checked_mul(unit)?;
    (1..=most).contains(&n).then_some(n)
}

/// With a comma between thousands.
pub fn thousands(n: u32) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_name_reads_and_has_a_title_of_its_own() {
        let mut titles: Vec<_> = ALL
            .iter()
            .map(|n| Case::parse(n).unwrap().title())
            .collect();
        titles.sort();
        titles.dedup();
        assert_eq!(titles.len(), ALL.len());
        let work = |name: &str| Case::parse(name).map(|case| case.work);
        assert_eq!(work("bulk-down-8"), Some(bulk(8, true)));
        assert_eq!(work("rr-open"), Some(Work::OpenLoop { rate: None }));
        let open = Work::OpenLoop { rate: Some(20_000) };
        assert_eq!(work("rr-open-20k"), Some(open));
        let resumed = Work::Handshake {
            parallel: 32,
            resumed: true,
        };
        assert_eq!(work("handshake-32-resumed"), Some(resumed));
        let scale = Case::parse("scale-2").unwrap();
        assert_eq!((scale.work, scale.cores()), (Work::Scale { shards: 2 }, 4));
    }

    #[test]
    fn names_that_say_nothing_are_none() {
        for name in [
            "",
            "bulk",
            "bulk-",
            "bulk-8",
            "bulk-up-0",
            "bulk-side-1",
            "rr-",
            "rr-0",
            "rr-open-",
            "rr-open-5m",
            "handshake-resumed",
            "datagram-65001",
            "idle--1",
            "idle-5000000k",
            "idle-1M",
            "scale-1",
            "scale-65",
        ] {
            assert_eq!(Case::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_list_has_each_case_once_and_what_it_needs() {
        let names = |list: &[&str], only_bulk| {
            let list: Vec<_> = list.iter().map(ToString::to_string).collect();
            let cases = Case::list(&list, only_bulk)?;
            Ok::<_, String>(cases.into_iter().map(|c| c.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["all"], false).unwrap(), ALL);
        assert_eq!(names(&["all"], true).unwrap(), ALL[..4]);
        assert_eq!(
            names(&["rr-open", "rr-64"], true).unwrap(),
            ["rr-64", "rr-open"]
        );
        assert!(names(&["rr-1", "no"], false).unwrap_err().contains("`no`"));
    }

    #[test]
    fn thousands_are_set_apart() {
        let all = [0, 999, 1000, 20_000, 1_234_567].map(thousands);
        assert_eq!(all, ["0", "999", "1,000", "20,000", "1,234,567"]);
    }
}
