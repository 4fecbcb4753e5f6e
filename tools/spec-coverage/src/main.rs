//! Which requirements of RFC 9000, 9001 and 9002 are kept where, and which test shows it.
//!
//! `corelane-spec-coverage` reads the lists in `requirements/`, checks that every place they name
//! exists and cites its section, counts, and lists what is not cited. `--strict` fails when
//! anything is. `extract --specs DIR` compares the lists with the RFCs' texts and adds what they
//! lack. The lists' format is in `list.rs`, the reading of an RFC in `extract.rs`, of code in
//! `source.rs`.

mod check;
mod extract;
mod list;
mod source;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The documents, by number.
const RFCS: [u32; 3] = [9000, 9001, 9002];

const USAGE: &str = "usage: corelane-spec-coverage [--strict] [--section N.N] [RFC]
       corelane-spec-coverage extract --specs DIR

Without a command: checks and counts the requirements, and lists those that no code or test cites.
  --strict       exit 1 when one is uncited
  --section N.N  only the list of that section, cited or not
extract          adds to the lists what DIR/rfc9000.txt, rfc9001.txt and rfc9002.txt require";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = root();
    let out = match args.first().map(String::as_str) {
        Some("extract") => match args.get(1..) {
            Some([flag, dir]) if flag == "--specs" => extract_all(&root, Path::new(dir)),
            _ => Err(USAGE.into()),
        },
        Some("-h" | "--help") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => check_all(&root, &args),
    };
    match out {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// The repository: two folders above this tool, where cargo runs it, or the present folder.
fn root() -> PathBuf {
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(tool) => Path::new(&tool).join("../.."),
        None => PathBuf::from("."),
    }
}

fn list_path(root: &Path, rfc: u32) -> PathBuf {
    root.join(format!("tools/spec-coverage/requirements/rfc{rfc}.txt"))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn extract_all(root: &Path, specs: &Path) -> Result<bool, String> {
    for rfc in RFCS {
        let text = read(&specs.join(format!("rfc{rfc}.txt")))?;
        let path = list_path(root, rfc);
        let known = match std::fs::read_to_string(&path) {
            Ok(text) => list::parse(rfc, &text)?,
            Err(_) => Vec::new(),
        };
        let merged = extract::merge(extract::requirements(rfc, &text), known)?;
        std::fs::write(&path, list::print(rfc, &merged))
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        println!("RFC {rfc}: {} requirements", merged.len());
    }
    Ok(true)
}

fn check_all(root: &Path, args: &[String]) -> Result<bool, String> {
    let (mut strict, mut section, mut only) = (false, None, None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--strict" => strict = true,
            "--section" => section = Some(rest.next().ok_or(USAGE)?.clone()),
            number => only = Some(number.parse::<u32>().map_err(|_| USAGE)?),
        }
    }
    let mut code = source::Tree::new(root);
    let mut totals = Vec::new();
    let (mut broken, mut uncited) = (0, 0);
    for rfc in RFCS
        .into_iter()
        .filter(|rfc| only.is_none_or(|o| o == *rfc))
    {
        let all = list::parse(rfc, &read(&list_path(root, rfc))?)?;
        let mut count = check::Count::default();
        for requirement in &all {
            if section.as_ref().is_some_and(|s| *s != requirement.section) {
                continue;
            }
            let faults = check::faults(requirement, &mut code);
            broken += faults.len();
            for fault in &faults {
                println!("broken  {}: {fault}", requirement.name());
            }
            let missing = count.add(requirement);
            if let Some(missing) = missing {
                uncited += 1;
                println!("{missing:7} {}: {}", requirement.name(), requirement.text);
            } else if section.is_some() {
                print!("{}", list::print_one(requirement));
            }
        }
        totals.push((rfc, count));
    }
    print!("{}", check::table(&totals));
    Ok(broken == 0 && !(strict && uncited > 0))
}
