//! `corelane-spec-coverage [--specs DIR [--write]]`: counts the requirements of RFC 9000, 9001,
//! 9002 and 10069 that are cited at the code that keeps them and at a test that shows it, and lists
//! those that are not. `coverage.txt` says where each is kept; that the place exists and cites the
//! section is checked here. With the RFCs' texts in DIR (`rfc9000.txt` and so on),
//! `requirements.txt` is checked against them, or written. Exit code 1 when anything is uncited,
//! missing or out of date.

mod extract;
mod source;
mod table;

use extract::{Requirement, extract, from_list, to_list};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const RFCS: [&str; 3] = ["9000", "9001", "9002"];
const USAGE: &str = "usage: corelane-spec-coverage [--specs DIR [--write]]";

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (specs, write) = match args[..] {
        [] => (None, false),
        ["--specs", dir] => (Some(PathBuf::from(dir)), false),
        ["--specs", dir, "--write"] => (Some(PathBuf::from(dir)), true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(specs.as_deref(), write) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("corelane-spec-coverage: {e}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// True when everything is cited and in order.
fn run(specs: Option<&Path>, write: bool) -> Result<bool, String> {
    let list = here().join("requirements.txt");
    if let Some(dir) = specs {
        let mut all: Vec<Requirement> = Vec::new();
        for rfc in RFCS {
            all.extend(extract(rfc, &read(&dir.join(format!("rfc{rfc}.txt")))?));
        }
        // Those of RFC 10069 are kept by hand: its text is at hand as a draft in another form.
        let kept = from_list(&read(&list)?);
        all.extend(kept.into_iter().filter(|r| !RFCS.contains(&r.rfc())));
        if write {
            fs::write(&list, to_list(&all)).map_err(|e| e.to_string())?;
        } else if read(&list)? != to_list(&all) {
            return Err("requirements.txt is not what the RFCs say: use --write".to_owned());
        }
    }
    let requirements = from_list(&read(&list)?);
    let table = table::parse(&read(&here().join("coverage.txt"))?)?;
    let mut broken = Vec::new();
    let root = here().join("../..");
    let reports = table::check(&root, &requirements, &table, &mut broken);
    let mut complete = broken.is_empty();
    for line in &broken {
        println!("broken: {line}");
    }
    for (what, of) in [("uncited in code", 0), ("uncited in tests", 1)] {
        for report in reports.values() {
            let lines = [&report.uncited_in_code, &report.uncited_in_tests][of];
            complete &= lines.is_empty();
            for line in lines {
                println!("{what}: {line}");
            }
        }
    }
    for (id, entry) in &table {
        if let table::Entry::Outside(class, reason) = entry
            && class == "open"
        {
            println!("open: {id}: {reason}");
        }
    }
    for (rfc, r) in &reports {
        let outside: usize = r.outside.values().sum();
        let classes: Vec<String> = r.outside.iter().map(|(c, n)| format!("{n} {c}")).collect();
        println!(
            "RFC {rfc}: {} requirements, {outside} outside ({}), of {} are {} cited in code and {} \
             in tests",
            r.all,
            classes.join(", "),
            r.all - outside,
            r.in_code,
            r.in_tests,
        );
    }
    Ok(complete)
}

#[cfg(test)]
mod tests {
    /// The table and the sources agree; `cargo run -p corelane-spec-coverage` says where not.
    #[test]
    fn every_requirement_is_cited_in_code_and_in_tests() {
        assert_eq!(super::run(None, false), Ok(true));
    }
}
