//! The table of where each requirement is kept: read, and held against requirements and sources.

use crate::extract::Requirement;
use crate::source::Source;
use std::collections::BTreeMap;
use std::path::Path;

/// Whom a requirement binds, when it is not this code.
pub const CLASSES: [(&str, &str); 5] = [
    (
        "spec",
        "binds authors of specifications, registries or TLS itself",
    ),
    ("others", "binds deployments, routers and load balancers"),
    (
        "embedder",
        "belongs to the application that embeds corelane",
    ),
    (
        "absent",
        "binds only who uses something that is not built here",
    ),
    ("open", "binds this code, which does not keep it yet"),
];

/// What the table says of one requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Places that keep it and tests that show it, as `file::item`.
    Kept(Vec<String>),
    /// A class of [`CLASSES`] and the reason.
    Outside(String, String),
}

/// The table, by requirement.
pub type Table = BTreeMap<String, Entry>;

/// Reads the table: a line is an ID and places, or an ID, a class with a colon, and a reason.
///
/// # Errors
/// A line that is neither, or an ID for the second time.
pub fn parse(text: &str) -> Result<Table, String> {
    let mut table = Table::new();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (id, rest) = line
            .split_once(' ')
            .ok_or(format!("{line}: says nothing"))?;
        let class = CLASSES
            .iter()
            .find_map(|(c, _)| Some((*c, rest.trim().strip_prefix(c)?.strip_prefix(':')?)));
        let entry = match class {
            Some((_, reason)) if reason.trim().is_empty() => {
                return Err(format!("{id}: without a reason"));
            }
            Some((class, reason)) => Entry::Outside(class.to_owned(), reason.trim().to_owned()),
            None => Entry::Kept(rest.split_whitespace().map(str::to_owned).collect()),
        };
        if table.insert(id.to_owned(), entry).is_some() {
            return Err(format!("{id}: twice"));
        }
    }
    Ok(table)
}

/// What became of the requirements of one RFC.
#[derive(Debug, Default)]
pub struct Report {
    /// Requirements in all.
    pub all: usize,
    /// Those outside, by class.
    pub outside: BTreeMap<String, usize>,
    /// Requirements with a place in the code.
    pub in_code: usize,
    /// Requirements with a test.
    pub in_tests: usize,
    /// Requirements without a place in the code.
    pub uncited_in_code: Vec<String>,
    /// Requirements without a test.
    pub uncited_in_tests: Vec<String>,
}

/// Holds the table against requirements and sources below `root`; what is wrong with the table
/// itself goes to `broken`.
pub fn check(
    root: &Path,
    requirements: &[Requirement],
    table: &Table,
    broken: &mut Vec<String>,
) -> BTreeMap<String, Report> {
    let mut sources: BTreeMap<String, Option<Source>> = BTreeMap::new();
    let mut out: BTreeMap<String, Report> = BTreeMap::new();
    for r in requirements {
        let report = out.entry(r.rfc().to_owned()).or_default();
        report.all += 1;
        let (mut code, mut test) = (false, false);
        match table.get(&r.id) {
            Some(Entry::Outside(class, _)) => {
                *report.outside.entry(class.clone()).or_default() += 1;
                continue;
            }
            Some(Entry::Kept(places)) => {
                for place in places {
                    match look(root, r, place, &mut sources) {
                        Ok(is_test) => {
                            code |= !is_test;
                            test |= is_test;
                        }
                        Err(why) => broken.push(format!("{}: {why}", r.id)),
                    }
                }
            }
            None => {}
        }
        let line = format!("{} {}", r.id, r.text);
        report.in_code += usize::from(code);
        report.in_tests += usize::from(test);
        if !code {
            report.uncited_in_code.push(line.clone());
        }
        if !test {
            report.uncited_in_tests.push(line);
        }
    }
    for id in table.keys() {
        if !requirements.iter().any(|r| r.id == *id) {
            broken.push(format!("{id}: no such requirement"));
        }
    }
    out
}

/// Whether a place is a test; an error when it is not there or does not cite the section.
fn look(
    root: &Path,
    r: &Requirement,
    place: &str,
    sources: &mut BTreeMap<String, Option<Source>>,
) -> Result<bool, String> {
    let (file, item) = place
        .split_once("::")
        .ok_or(format!("{place} is no file::item"))?;
    let source = sources
        .entry(file.to_owned())
        .or_insert_with(|| Source::read(&root.join(file)));
    let source = source.as_ref().ok_or(format!("no file {file}"))?;
    let spans = source.items(item);
    if spans.is_empty() {
        return Err(format!("{file} has no {item}"));
    }
    if file.starts_with("tests/") || spans.iter().any(|s| source.is_test(*s)) {
        return Ok(true);
    }
    let section = format!("{}-{}", r.rfc(), r.section());
    let cites = spans.iter().any(|s| source.cited(*s).contains(&section));
    if cites {
        Ok(false)
    } else {
        Err(format!(
            "{place} does not cite RFC {} §{}",
            r.rfc(),
            r.section()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_places_and_classes() {
        let text = "# a comment\n\n9000-1-1 src/a.rs::b tests/c.rs::d\n9000-1-2 spec: IANA's\n";
        let table = parse(text).expect("a table");
        assert_eq!(
            table["9000-1-1"],
            Entry::Kept(vec!["src/a.rs::b".into(), "tests/c.rs::d".into()])
        );
        let outside = Entry::Outside("spec".into(), "IANA's".into());
        assert_eq!(table["9000-1-2"], outside);
        assert!(parse("9000-1-1").is_err());
        assert!(parse("9000-1-1 spec:").is_err());
        assert!(parse("9000-1-1 a::b\n9000-1-1 a::c").is_err());
    }

    #[test]
    fn what_is_not_there_is_broken_and_what_is_not_said_is_uncited() {
        let requirement = |id: &str| Requirement {
            id: id.to_owned(),
            text: "One MUST.".to_owned(),
        };
        let all = ["9000-1-1", "9000-1-2", "9000-1-3"].map(requirement);
        let table = parse("9000-1-1 no/file.rs::x\n9000-1-3 spec: so\n9000-9-9 a.rs::b");
        let mut broken = Vec::new();
        let reports = check(Path::new("."), &all, &table.expect("a table"), &mut broken);
        assert_eq!(broken.len(), 2, "{broken:?}");
        let report = &reports["9000"];
        assert_eq!((report.all, report.in_code, report.in_tests), (3, 0, 0));
        assert_eq!(report.uncited_in_code.len(), 2);
        assert_eq!(report.outside["spec"], 1);
    }
}
