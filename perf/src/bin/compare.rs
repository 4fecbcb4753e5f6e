//! The one command: corelane, its peers and the machine's ceilings on the same work, interleaved.
//!
//! It builds nothing; the programs stand beside it. Progress goes to stderr, the tables to stdout,
//! every run to a JSON file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use corelane_perf::clock;
use corelane_perf::compare::case::{CASES, Case};
use corelane_perf::compare::noise::{self, LIMIT_CORES};
use corelane_perf::compare::peer::{self, PEERS, Packets, Peer, Role, Settings};
use corelane_perf::compare::rounds::{Plan, Rounds};
use corelane_perf::compare::run::{Program, Run, locate};
use corelane_perf::compare::{machine, stats, table};
use serde_json::json;

/// Measures corelane beside its peers over loopback.
#[derive(Parser)]
#[command(name = "compare", version)]
struct Args {
    /// Rounds that shall count, for each case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Rounds made beyond that when noisy ones were discarded [default: as many as rounds]
    #[arg(long)]
    extra: Option<u16>,
    /// Seconds measured in each run
    #[arg(long, default_value_t = 3.0, value_parser = clock::seconds)]
    seconds: f64,
    /// Seconds left out before
    #[arg(long, default_value_t = 0.5, value_parser = clock::seconds)]
    omit: f64,
    /// UDP payloads
    #[arg(long, value_enum, default_value = "tuned")]
    packets: Packets,
    /// Cases, separated by commas, or `all`
    #[arg(long, value_delimiter = ',', default_value = "bulk-up,bulk-down")]
    cases: Vec<String>,
    /// Programs, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// More arguments for corelane, separated by spaces
    #[arg(long, allow_hyphen_values = true, default_value = "")]
    corelane_args: String,
    /// Seconds to wait for a quiet machine before each run
    #[arg(long, default_value_t = 5.0, value_parser = clock::seconds)]
    patience: f64,
    /// Directory of the programs [default: where this one is]
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Directory for the results [default: perf/results]
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::from(2)
        }
    }
}

/// True when every program gave a result in every case that it does.
fn compare(args: &Args) -> Result<bool, String> {
    let cases = cases(&args.cases)?;
    let programs = programs(args)?;
    let peers: Vec<&Peer> = programs.iter().map(|program| program.peer).collect();
    let settings = Settings {
        seconds: args.seconds,
        omit: args.omit,
        packets: args.packets,
    };
    let plan = Plan {
        rounds: args.rounds.into(),
        extra: args.extra.unwrap_or(args.rounds).into(),
    };
    let patience = Duration::from_secs_f64(args.patience);
    let mut results = Vec::new();
    for case in cases {
        let mut quiet = || {
            // Without `/proc` the run itself says so.
            let _ = noise::wait_for_quiet(patience);
        };
        let mut show = |run: &Run| progress(case, run);
        let rounds = Rounds::run(&programs, case, &settings, plan, &mut quiet, &mut show);
        println!("{}", table::case(case, &rounds, &peers));
        results.push((case, rounds));
    }
    let path = save(args, &settings, &peers, &results)?;
    eprintln!("results: {}", path.display());
    let complete = |(case, rounds): &(&Case, Rounds)| {
        peers.iter().all(|peer| {
            let ran = rounds.runs.iter().any(|run| run.peer == peer.name);
            let metric = &case.metrics()[0];
            !ran || stats::metric(rounds, peer.name, metric).is_some()
        })
    };
    Ok(results.iter().all(complete))
}

fn cases(names: &[String]) -> Result<Vec<&'static Case>, String> {
    if names.iter().any(|name| name == "all") {
        return Ok(CASES.iter().collect());
    }
    let known = || CASES.iter().map(|c| c.name).collect::<Vec<_>>().join(", ");
    let find =
        |name: &String| Case::find(name).ok_or_else(|| format!("no case `{name}`: {}", known()));
    names.iter().map(find).collect()
}

fn programs(args: &Args) -> Result<Vec<Program>, String> {
    let directory = match &args.bin_dir {
        Some(directory) => directory.clone(),
        None => std::env::current_exe()
            .ok()
            .and_then(|path| path.parent().map(Path::to_path_buf))
            .ok_or("cannot tell where this program is: give --bin-dir")?,
    };
    let known = || PEERS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
    for name in &args.peers {
        peer::find(name).ok_or_else(|| format!("no program `{name}`: {}", known()))?;
    }
    let wanted = |peer: &&Peer| args.peers.is_empty() || args.peers.iter().any(|n| n == peer.name);
    let more = |peer: &Peer| match peer.role {
        Role::Subject => args.corelane_args.as_str(),
        Role::Peer | Role::Ceiling => "",
    };
    let program = |peer: &'static Peer| {
        Ok(Program {
            peer,
            path: locate(&directory, peer.program)?,
            more: more(peer).split_whitespace().map(String::from).collect(),
        })
    };
    PEERS.iter().filter(wanted).map(program).collect()
}

fn progress(case: &Case, run: &Run) {
    let outcome = match (&run.workload, &run.error) {
        (Some(workload), _) => table::brief(&case.metrics()[0], workload),
        (None, error) => format!("failed: {}", error.as_deref().unwrap_or("no result")),
    };
    let noisy = if run.is_noisy { ", noisy" } else { "" };
    eprintln!(
        "{} round {} {}: {outcome}, others {:.2} cores{noisy}",
        case.name, run.round, run.peer, run.noise_cores
    );
}

fn save(
    args: &Args,
    settings: &Settings,
    peers: &[&Peer],
    results: &[(&'static Case, Rounds)],
) -> Result<PathBuf, String> {
    let subject = PEERS[0].name;
    let mut summaries = Vec::new();
    for (case, rounds) in results {
        for peer in peers {
            if rounds.runs.iter().any(|run| run.peer == peer.name) {
                summaries.push(stats::to_json(rounds, case, subject, peer.name));
            }
        }
    }
    let since = clock::unix_seconds();
    let commit = machine::commit();
    let document = json!({
        "schema_version": 1,
        "unix_seconds": since,
        "commit": commit,
        "machine": machine::describe(),
        "settings": {
            "rounds": args.rounds,
            "seconds": settings.seconds,
            "omit_seconds": settings.omit,
            "packets": format!("{:?}", settings.packets).to_lowercase(),
            "corelane_args": args.corelane_args,
            "noise_limit_cores": LIMIT_CORES,
        },
        "summaries": summaries,
        "runs": results.iter().flat_map(|(_, rounds)| &rounds.runs).collect::<Vec<_>>(),
    });
    let directory =
        args.out
            .clone()
            .unwrap_or_else(|| match std::env::var_os("CARGO_MANIFEST_DIR") {
                Some(package) => Path::new(&package).join("results"),
                None => "perf/results".into(),
            });
    let name = format!(
        "{since}-{}.json",
        commit.as_deref().unwrap_or("unknown").trim_end_matches('+')
    );
    let path = directory.join(name);
    let text = serde_json::to_string_pretty(&document).map_err(|e| e.to_string())? + "\n";
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&path, text))
        .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    Ok(path)
}
