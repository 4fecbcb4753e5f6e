//! Where the time of corelane goes: nanoseconds for each packet, by layer and side.

use clap::Parser;
use corelane_perf::output::{self, tell};
use corelane_perf::places;
use corelane_perf::profile::cost::{By, Profile};
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
    /// Samples of each second; more than the system permits (`sysctl
    /// kernel.perf_event_max_sample_rate`) are an error
    #[arg(short = 'F', long, default_value_t = 4_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
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
    let args = Args::parse();
    match profile(&args) {
        Ok(profile) => output::finish(&text(&profile, &args), ExitCode::SUCCESS),
        Err(error) => {
            tell(&format!("profile: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn profile(args: &Args) -> Result<Profile, String> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => places::beside()?.join("corelane"),
    };
    let program = places::program(program, places::BUILD)?;
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
    profile
}

fn text(profile: &Profile, args: &Args) -> String {
    if args.json {
        let json = profile.json(args.lines.or(args.functions).unwrap_or(25));
        return format!("{json:#}\n");
    }
    let mut text = profile.layers() + "\n";
    for (by, n) in [(By::Function, args.functions), (By::Line, args.lines)] {
        if let Some(n) = n {
            text += &profile.places(by, n);
            text.push('\n');
        }
    }
    text
}
