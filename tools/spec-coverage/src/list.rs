//! The lists of requirements: one text file an RFC, made for people to read and to edit.
//!
//! ```text
//! §8.1-2  ... endpoints MUST limit the amount of data they send ...
//!   code: src/path/validate.rs Validation::allowance
//!   test: tests/conn/address.rs a_client_gets_three_times_what_it_sent
//! §6.3-1  ...
//!   none: binds future versions of QUIC
//! ```
//!
//! `§8.1-2` is the second requirement of section 8.1. `code` names a file and an item in it, `test`
//! a file and a test function; both may be repeated. `none` says why nothing of ours keeps it.

use std::fmt::Write;

/// A place in the tree: a file, and an item or a test in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) item: String,
}

/// One sentence that requires something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    pub(crate) rfc: u32,
    pub(crate) section: String,
    /// Its number within the section, from 1.
    pub(crate) number: u32,
    pub(crate) text: String,
    pub(crate) code: Vec<Place>,
    pub(crate) test: Vec<Place>,
    /// Why nothing has to keep it here.
    pub(crate) none: Option<String>,
}

impl Requirement {
    /// How it is called in lists.
    pub(crate) fn name(&self) -> String {
        format!("RFC {} §{}-{}", self.rfc, self.section, self.number)
    }
}

/// Reads a list.
pub(crate) fn parse(rfc: u32, text: &str) -> Result<Vec<Requirement>, String> {
    let mut all: Vec<Requirement> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let bad = |why: &str| format!("rfc{rfc}.txt:{}: {why}: {line}", n + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix('§') {
            let (id, text) = rest
                .split_once("  ")
                .ok_or_else(|| bad("two spaces after the number"))?;
            let (section, number) = id.split_once('-').ok_or_else(|| bad("§section-number"))?;
            all.push(Requirement {
                rfc,
                section: section.into(),
                number: number.parse().map_err(|_| bad("§section-number"))?,
                text: text.trim().into(),
                code: Vec::new(),
                test: Vec::new(),
                none: None,
            });
            continue;
        }
        let last = all
            .last_mut()
            .ok_or_else(|| bad("stands before any requirement"))?;
        let (key, value) = line
            .trim()
            .split_once(": ")
            .ok_or_else(|| bad("`key: value`"))?;
        let place = || {
            let (file, item) = value
                .split_once(' ')
                .ok_or_else(|| bad("a file and an item"))?;
            Ok::<_, String>(Place {
                file: file.into(),
                item: item.trim().into(),
            })
        };
        match key {
            "code" => last.code.push(place()?),
            "test" => last.test.push(place()?),
            "none" => last.none = Some(value.into()),
            _ => return Err(bad("neither code, test nor none")),
        }
    }
    Ok(all)
}

/// Writes one requirement as a list has it.
pub(crate) fn print_one(r: &Requirement) -> String {
    let mut out = format!("§{}-{}  {}\n", r.section, r.number, r.text);
    for (key, places) in [("code", &r.code), ("test", &r.test)] {
        for p in places {
            let _ = writeln!(out, "  {key}: {} {}", p.file, p.item);
        }
    }
    if let Some(why) = &r.none {
        let _ = writeln!(out, "  none: {why}");
    }
    out
}

/// Writes a list.
pub(crate) fn print(rfc: u32, all: &[Requirement]) -> String {
    let mut out = format!(
        "# What RFC {rfc} requires (MUST, MUST NOT, SHALL, REQUIRED), in its words and order.\n\
         # The format is described in src/list.rs.\n"
    );
    let mut section = "";
    for r in all {
        if r.section != section {
            section = &r.section;
            out.push('\n');
        }
        out += &print_one(r);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# a comment\n\n§8.1-2  An endpoint MUST limit.\n  code: src/a.rs A::b\n  \
                        test: tests/a.rs shows\n§8.2-1  IANA MUST act.\n  none: binds IANA\n";

    #[test]
    fn a_list_reads_back_as_it_was_written() {
        let all = parse(9000, LIST).expect("a list");
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].name(), "RFC 9000 §8.1-2");
        assert_eq!(all[0].code[0].item, "A::b");
        assert_eq!(all[1].none.as_deref(), Some("binds IANA"));
        assert_eq!(parse(9000, &print(9000, &all)), Ok(all));
    }

    #[test]
    fn what_is_no_list_is_named_with_its_line() {
        for (text, line) in [
            ("§8.1  x", ":1:"),
            ("  code: a b", ":1:"),
            ("§8.1-1  x\n  what: a", ":2:"),
            ("§8.1-1  x\n  code: a", ":2:"),
        ] {
            let e = parse(9000, text).expect_err(text);
            assert!(e.contains(line), "{e}");
        }
    }
}
