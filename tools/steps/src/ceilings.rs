//! The table of ceilings: what was measured, and what may not be exceeded.

use std::fmt::Write;

/// One sum with its ceiling, in instructions of each unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Ceiling {
    /// Case, part and layer, as `bulk/send/conn`.
    pub name: String,
    /// What was measured when the ceiling was set.
    pub measured: f64,
    /// What may not be exceeded.
    pub ceiling: f64,
}

const HEADER: &str = "\
# Instructions of the engine's own code, per packet, datagram or request: what was measured, and the
# ceiling. `cargo run --profile steps -p corelane-steps -- --check` holds a change to it; `--update`
# writes this file anew: after a gain, or when a feature is worth its price.
";

/// Room above what was measured: compilers place code differently from day to day.
fn room(measured: f64) -> f64 {
    (measured * 1.05).max(measured + 4.0)
}

/// The file's text for these sums.
pub fn write(sums: &[(String, f64)]) -> String {
    let mut out = String::from(HEADER);
    for (name, measured) in sums {
        let _ = writeln!(out, "{name:<26}{measured:>9.1}{:>9.0}", room(*measured));
    }
    out
}

/// The file's rows.
///
/// # Errors
/// A line that is none.
pub fn parse(text: &str) -> Result<Vec<Ceiling>, String> {
    let lines = text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    lines
        .map(|line| row(line).ok_or(format!("not a row: {line}")))
        .collect()
}

fn row(line: &str) -> Option<Ceiling> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let ceiling = words.pop()?.parse().ok()?;
    let measured = words.pop()?.parse().ok()?;
    let name = words.join(" ");
    (!name.is_empty()).then_some(Ceiling {
        name,
        measured,
        ceiling,
    })
}

/// What exceeds its ceiling or has none, and what has a ceiling but was not counted.
pub fn violations(sums: &[(String, f64)], ceilings: &[Ceiling]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, sum) in sums {
        match ceilings.iter().find(|c| c.name == *name) {
            None if *sum > room(0.0) => found.push(format!("{name}: {sum:.1} and no ceiling")),
            Some(c) if *sum > c.ceiling => found.push(format!(
                "{name}: {sum:.1} exceeds {:.0}; {:.1} when that was set",
                c.ceiling, c.measured
            )),
            _ => {}
        }
    }
    let gone = ceilings
        .iter()
        .filter(|c| c.measured >= 1.0 && !sums.iter().any(|(n, _)| *n == c.name));
    found.extend(gone.map(|c| format!("{}: nothing was counted", c.name)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(sums: &[(&str, f64)]) -> Vec<(String, f64)> {
        sums.iter()
            .map(|(name, sum)| (name.to_string(), *sum))
            .collect()
    }

    #[test]
    fn what_was_measured_is_within_what_is_written() {
        let sums = sums(&[("bulk/send/conn", 500.0), ("bulk/be acked/wire", 0.4)]);
        let ceilings = parse(&write(&sums)).expect("a table");
        assert_eq!(ceilings[0].ceiling, 525.0);
        assert_eq!(ceilings[1].name, "bulk/be acked/wire");
        assert!(violations(&sums, &ceilings).is_empty());
    }

    #[test]
    fn more_than_the_ceiling_is_a_violation() {
        let ceilings = parse(&write(&sums(&[("a", 500.0), ("gone", 7.0)]))).expect("a table");
        let found = violations(
            &sums(&[("a", 526.0), ("new", 5.0), ("small", 0.5)]),
            &ceilings,
        );
        assert_eq!(
            found,
            [
                "a: 526.0 exceeds 525; 500.0 when that was set",
                "new: 5.0 and no ceiling",
                "gone: nothing was counted"
            ]
        );
    }

    #[test]
    fn a_broken_table_is_an_error() {
        assert!(parse("bulk/send/conn 500").is_err());
        assert!(parse("500 525").is_err());
    }
}
