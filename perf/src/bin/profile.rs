//! Where the time of corelane goes: nanoseconds for each packet, by layer and side.

use clap::Parser;
use corelane_perf::profile::cost::By;
use corelane_perf::profile::{Settings, run};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs `corelane bench` under `perf record` and prints where its time goes.
#[derive(Parser)]
#[command(name = "profile", version)]
struct Args {
    /// The program; by default the one beside this
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Samples of each second
    #[arg(short = 'F', long, default_value_t = 4_000)]
    frequency: u32,
    /// Also the N most expensive functions of each side
    #[arg(long, value_name = "N")]
    functions: Option<usize>,
    /// Also the N most expensive lines of each side
    #[arg(long, value_name = "N")]
    lines: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Keep perf's samples in this file
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// What `corelane bench` is told
    #[arg(last = true, default_values = ["throughput", "-t", "3", "-O", "1", "--mtu", "1452"])]
    bench: Vec<OsString>,
}

fn main() -> ExitCode {
    match profile(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("profile: {error}");
            ExitCode::FAILURE
        }
    }
}

fn profile(args: &Args) -> Result<(), String> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => {
            let this = std::env::current_exe().map_err(|e| e.to_string())?;
            this.with_file_name("corelane")
        }
    };
    let mut arguments = vec![OsString::from("bench")];
    arguments.extend(args.bench.iter().cloned());
    arguments.push("--json".into());
    let scratch = || std::env::temp_dir().join(format!("profile-{}.data", std::process::id()));
    let settings = Settings {
        program,
        arguments,
        frequency: args.frequency,
        data: args.data.clone().unwrap_or_else(scratch),
    };
    let profile = run(&settings);
    if args.data.is_none() {
        // Where perf never began there is nothing to remove.
        let _ = std::fs::remove_file(&settings.data);
    }
    let profile = profile?;
    if args.json {
        println!(
            "{:#}",
            profile.json(args.lines.or(args.functions).unwrap_or(25))
        );
        return Ok(());
    }
    println!("{}", profile.layers());
    for (by, n) in [(By::Function, args.functions), (By::Line, args.lines)] {
        if let Some(n) = n {
            println!("{}", profile.places(by, n));
        }
    }
    Ok(())
}
