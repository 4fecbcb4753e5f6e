//! Counts the instructions of the engine in memory, by layer: exactly, without counters of the
//! hardware or another program, however busy the machine is.
//!
//! `cargo run --profile steps -p corelane-steps -- --help`

mod ceilings;
mod work;

use clap::{Parser, ValueEnum};
use corelane_steps::count::{Counter, Row};
use corelane_steps::layer::{Layer, Spot};
use corelane_steps::symbols::Symbols;
use corelane_steps::table::{self, By};
use corelane_steps::trace::{self, Module, Step};
use std::cell::RefCell;
use std::fs;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use work::Case;

/// The file that `--check` reads and `--update` writes.
const CEILINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ceilings.txt");

/// Counts the engine's instructions by layer, packet protection and the C library apart.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The work; all of it by default.
    #[arg(long, value_enum)]
    case: Vec<Case>,
    /// Also the N most expensive functions of each part.
    #[arg(long, value_name = "N")]
    functions: Option<usize>,
    /// Also the N most expensive lines of each part.
    #[arg(long, value_name = "N")]
    lines: Option<usize>,
    /// Fail where a ceiling is exceeded.
    #[arg(long, conflicts_with_all = ["update", "case"])]
    check: bool,
    /// Write the ceilings anew.
    #[arg(long, conflicts_with = "case")]
    update: bool,
    /// The table of ceilings.
    #[arg(long, value_name = "FILE", default_value = CEILINGS)]
    ceilings: PathBuf,
    /// Do the work under the eyes of a parent.
    #[arg(long, hide = true, value_enum)]
    child: Option<Case>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.child {
        Some(case) => child(case),
        None => count(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(stderr(), "steps: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output; a reader that went away is no failure.
fn show(text: &str) -> Result<(), String> {
    let mut out = stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {e}"))
        }
        _ => Ok(()),
    }
}

/// The process that is watched; says how many units the window had.
fn child(case: Case) -> Result<(), String> {
    let result = RefCell::new(Ok(()));
    let units = work::run(
        case,
        || *result.borrow_mut() = trace::ready(),
        |part| trace::mark(part),
    );
    show(&units.to_string())?;
    result.into_inner()
}

fn count(args: &Args) -> Result<(), String> {
    let cases = match args.case.as_slice() {
        [] => Case::value_variants(),
        some => some,
    };
    let mut sums = Vec::new();
    for &case in cases {
        let (rows, units) = watch(case)?;
        print(case, &rows, units, args)?;
        sums.extend(sums_of(case, &rows, units));
    }
    if args.update {
        let text = ceilings::write(&sums);
        fs::write(&args.ceilings, text)
            .map_err(|e| format!("cannot write {}: {e}", args.ceilings.display()))?;
    }
    if args.check {
        check(&sums, &args.ceilings)?;
    }
    Ok(())
}

fn check(sums: &[(String, f64)], file: &Path) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let violations = ceilings::violations(sums, &ceilings::parse(&text)?);
    if violations.is_empty() {
        return show("every layer is within its ceiling");
    }
    Err(format!("too many instructions:\n{}", violations.join("\n")))
}

/// The sums that have ceilings: each of the engine's layers in each part, and all of them together.
fn sums_of(case: Case, rows: &[Row], units: u64) -> Vec<(String, f64)> {
    let mut sums = Vec::new();
    for (part, name) in case.parts().into_iter().enumerate() {
        let mut add = |layer: &str, sum: u64| {
            if sum > 0 {
                sums.push((
                    format!("{}/{name}/{layer}", case.name()),
                    table::per(sum, units),
                ));
            }
        };
        add("all", table::engine(rows, part));
        for layer in Layer::ALL.into_iter().filter(|l| l.is_engine()) {
            add(layer.name(), table::layer(rows, part, layer));
        }
    }
    sums
}

fn print(case: Case, rows: &[Row], units: u64, args: &Args) -> Result<(), String> {
    let parts = case.parts().map(|part| (part, units));
    let (name, unit) = (case.name(), case.unit());
    show(&format!("## {name}: instructions per {unit} ({units})\n"))?;
    show(&table::layers(rows, &parts))?;
    for (by, n) in [(By::Function, args.functions), (By::Line, args.lines)] {
        for (part, (of, units)) in parts.iter().enumerate() {
            if let Some(n) = n {
                show(&format!("### {name}, {of}\n"))?;
                show(&table::top(rows, part, *units, by, n))?;
            }
        }
    }
    Ok(())
}

/// Counts one case in a process of its own.
fn watch(case: Case) -> Result<(Vec<Row>, u64), String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let symbols = RefCell::new(Symbols::of(&program)?);
    let counter = RefCell::new(Counter::default());
    let mapped = RefCell::new(Vec::new());
    let mut command = Command::new(&program);
    command.args(["--child", case.name()]);
    let output = trace::steps(&mut command, |modules| {
        *mapped.borrow_mut() = modules.to_vec();
        let own = modules.first().cloned().ok_or("no program is mapped")?;
        let (symbols, counter) = (&symbols, &counter);
        Ok(move |Step { part, address }: Step| {
            let mut counter = counter.borrow_mut();
            if (own.base..own.end).contains(&address) {
                let address = address - own.base;
                let speaks = match symbols.borrow_mut().spot(address).as_ref() {
                    Spot::Here(place) => Some(place.layer),
                    _ => None,
                };
                counter.program(part, address, speaks);
            } else {
                counter.library(part, address);
            }
        })
    })?;
    let units = output
        .trim()
        .parse()
        .map_err(|_| format!("the child said {output:?}"))?;
    let names = names(&mapped.into_inner())?;
    let rows = counter.into_inner().rows(
        |address| symbols.borrow_mut().spot(address).as_ref().clone(),
        |entry| match names.iter().find(|(_, at)| *at == entry) {
            Some((name, _)) => (*name).into(),
            None => "another library".into(),
        },
    );
    Ok((rows, units))
}

/// Where the functions of the C library are in the child: as far from the library's beginning as
/// they are here.
fn names(theirs: &[Module]) -> Result<Vec<(&'static str, u64)>, String> {
    let here = [
        ("memcpy", libc::memcpy as *const () as u64),
        ("memmove", libc::memmove as *const () as u64),
        ("memset", libc::memset as *const () as u64),
        ("memcmp", libc::memcmp as *const () as u64),
        ("malloc", libc::malloc as *const () as u64),
        ("calloc", libc::calloc as *const () as u64),
        ("realloc", libc::realloc as *const () as u64),
        ("free", libc::free as *const () as u64),
    ];
    let ours = trace::modules(std::process::id())?;
    let names = here.into_iter().filter_map(|(name, at)| {
        let module = ours.iter().find(|m| (m.base..m.end).contains(&at))?;
        let same = theirs.iter().find(|m| m.path == module.path)?;
        Some((name, at - module.base + same.base))
    });
    Ok(names.collect())
}
