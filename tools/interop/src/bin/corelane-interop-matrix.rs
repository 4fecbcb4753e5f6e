//! `corelane-interop-matrix`: plays the interop cases and prints the matrix.

use clap::{Parser, ValueEnum};
use corelane_interop::matrix::{self, Options, Outcome, Peer, Peers};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Plays the cases of quic-interop-runner between corelane and other implementations, through a
/// relay, and prints who passed what.
///
/// Ends with 1 if a cell did not pass for a reason that is not known to be the peer's.
#[derive(Parser)]
#[command(name = "corelane-interop-matrix", version)]
struct Args {
    /// Whom corelane meets; itself and all peers without it.
    #[arg(long, value_delimiter = ',')]
    peer: Vec<Peer>,
    /// Which cases; all without it.
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// The peers' role.
    #[arg(long, value_enum, default_value_t = Role::Both)]
    role: Role,
    /// Cells that run at a time.
    #[arg(long, default_value_t = 6)]
    jobs: usize,
    /// Where logs and downloads go.
    #[arg(long, default_value = "target/interop", value_name = "DIR")]
    out: PathBuf,
    /// Where to write the cells as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What the relay's chance depends on.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The directory of the peers' workspace.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers"), value_name = "DIR")]
    peers_dir: PathBuf,
    /// Names the cases and ends.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Role {
    Client,
    Server,
    Both,
}

fn main() -> ExitCode {
    match play(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("corelane-interop-matrix: {why}");
            2.into()
        }
    }
}

fn play(args: &Args) -> Result<bool, String> {
    let mut cases = matrix::cases();
    if args.list {
        for case in &cases {
            println!("{}", case.name);
        }
        return Ok(true);
    }
    if let Some(unknown) = args
        .case
        .iter()
        .find(|n| cases.iter().all(|c| c.name != **n))
    {
        return Err(format!("there is no case `{unknown}`; --list names them"));
    }
    cases.retain(|c| args.case.is_empty() || args.case.iter().any(|n| n == c.name));
    let peers = if args.peer.is_empty() {
        Peer::ALL.to_vec()
    } else {
        args.peer.clone()
    };
    let mut pairs = matrix::pairs(&peers);
    pairs.retain(|p| match args.role {
        Role::Both => true,
        Role::Client => p.server == Peer::Corelane,
        Role::Server => p.client == Peer::Corelane,
    });
    let here = std::env::current_exe().map_err(|e| e.to_string())?;
    let cwd = std::env::current_dir().map_err(|e| e.to_string())?;
    let options = Options {
        peers: Peers {
            corelane: here.with_file_name("corelane-interop"),
            dir: args.peers_dir.clone(),
        },
        pairs,
        cases,
        jobs: args.jobs,
        out: cwd.join(&args.out),
        seed: args.seed,
    };
    let report = matrix::run(&options, |cell| {
        let (word, text) = match &cell.outcome {
            Outcome::Passed(note) => ("passed", note.as_str()),
            Outcome::Failed(why) => ("FAILED", why.as_str()),
            Outcome::Unsupported(who) => ("unsupported", who.as_str()),
            Outcome::Absent => ("absent", "the peer is not built: see peers/setup"),
        };
        let (client, server) = (cell.pair.client, cell.pair.server);
        let took = cell.took.as_secs_f64();
        eprintln!(
            "{client} to {server}: {}: {word} in {took:.1} s: {text}",
            cell.case
        );
    })
    .map_err(|e| e.to_string())?;
    if let Some(path) = &args.json {
        let json = report.json().map_err(|e| e.to_string())?;
        std::fs::write(path, json).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let _ = writeln!(std::io::stdout(), "{report}");
    Ok(report.unexplained().next().is_none())
}
