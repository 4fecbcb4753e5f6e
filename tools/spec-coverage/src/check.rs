//! What is said of requirements: which citations lead nowhere, and how many have one.

use super::list::Requirement;
use super::source::{self, Tree};
use std::fmt::Write;

/// Citations of one requirement that do not hold, in words.
pub(crate) fn faults(r: &Requirement, tree: &mut Tree) -> Vec<String> {
    let mut out = Vec::new();
    for place in &r.code {
        match tree.text(&place.file) {
            None => out.push(format!("there is no {}", place.file)),
            Some(text) => {
                if !source::defines(text, &place.item) {
                    out.push(format!("{} has no `{}`", place.file, place.item));
                }
                if !source::cites(text, r.rfc, &r.section) {
                    out.push(format!(
                        "{} does not cite RFC {} §{}",
                        place.file, r.rfc, r.section
                    ));
                }
            }
        }
    }
    for place in &r.test {
        match tree.text(&place.file) {
            None => out.push(format!("there is no {}", place.file)),
            Some(text) if !source::tests(text, &place.item) => {
                out.push(format!("{} has no test `{}`", place.file, place.item));
            }
            Some(_) => {}
        }
    }
    if r.none.is_some() && !(r.code.is_empty() && r.test.is_empty()) {
        out.push("is said to bind nothing here, and has a citation".into());
    }
    out
}

/// How many requirements of a document are cited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    all: u32,
    code: u32,
    test: u32,
    none: u32,
}

impl Count {
    /// Counts a requirement; says what it lacks.
    pub(crate) fn add(&mut self, r: &Requirement) -> Option<&'static str> {
        self.all += 1;
        if r.none.is_some() {
            self.none += 1;
            return None;
        }
        self.code += u32::from(!r.code.is_empty());
        self.test += u32::from(!r.test.is_empty());
        match (r.code.is_empty(), r.test.is_empty()) {
            (true, true) => Some("uncited"),
            (true, false) => Some("no code"),
            (false, true) => Some("no test"),
            (false, false) => None,
        }
    }
}

/// The counts as a table.
pub(crate) fn table(totals: &[(u32, Count)]) -> String {
    let mut out = format!(
        "{:<10}{:>14}{:>14}{:>10}{:>10}\n",
        "", "requirements", "not ours", "in code", "in tests"
    );
    for (rfc, c) in totals {
        let _ = writeln!(
            out,
            "RFC {rfc:<6}{:>14}{:>14}{:>10}{:>10}",
            c.all, c.none, c.code, c.test
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list;

    #[test]
    fn a_citation_that_leads_nowhere_is_a_fault_and_a_missing_one_is_counted() {
        let mut tree = Tree::new(std::path::Path::new(env!("CARGO_MANIFEST_DIR")));
        let text = "§1-1  a\n  code: src/none.rs x\n  test: src/check.rs nothing\n\
                    §2-1  b\n  none: binds nobody\n§3-1  c\n  test: src/check.rs \
                    a_citation_that_leads_nowhere_is_a_fault_and_a_missing_one_is_counted\n";
        let all = list::parse(9000, text).expect("a list");
        let faults: Vec<_> = all
            .iter()
            .map(|r| super::faults(r, &mut tree).len())
            .collect();
        assert_eq!(faults, [2, 0, 0]);
        let mut count = Count::default();
        let missing: Vec<_> = all.iter().map(|r| count.add(r)).collect();
        assert_eq!(missing, [None, None, Some("no code")]);
        assert_eq!(table(&[(9000, count)]).lines().count(), 2);
    }
}
