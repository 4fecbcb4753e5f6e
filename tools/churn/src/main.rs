//! `corelane-churn --duration 10m`: churns connections for so long and tells whether memory ended
//! where it began. Exit code 0 when it did, 1 when something is left, 2 for a wrong command line.

use clap::Parser;
use corelane::io::Choice;
use corelane_churn::memory::Counting;
use corelane_churn::{Bounds, Plan, Sample, Until, run};
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Churns connections over loopback and checks that memory ends where it began.
#[derive(Parser)]
struct Args {
    /// How long to churn between the two counts: 600, 600s or 10m.
    #[arg(long, default_value = "10m", value_parser = duration)]
    duration: Duration,
    /// How long to churn before the first count.
    #[arg(long, default_value = "20s", value_parser = duration)]
    warm_up: Duration,
    /// Time between two lines of the table.
    #[arg(long, default_value = "20s", value_parser = duration)]
    interval: Duration,
    /// Connections at a time of each client shard.
    #[arg(long, default_value_t = 40)]
    connections: usize,
    /// Shards of each side.
    #[arg(long, default_value_t = 2)]
    shards: usize,
    /// auto, uring or mmsg.
    #[arg(long, default_value = "auto", value_parser = backend)]
    backend: Choice,
    /// Milliseconds between two rebindings of a relay.
    #[arg(long, default_value_t = 500)]
    rebind_ms: u64,
    /// Seed of what is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// MiB that may be allocated more at the end.
    #[arg(long, default_value_t = 2)]
    heap_mib: isize,
    /// MiB that may be resident more at the end.
    #[arg(long, default_value_t = 16)]
    rss_mib: u64,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix('m') {
        Some(digits) => (digits, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let n = digits.parse::<u32>().map_err(|e| e.to_string())?;
    Ok(Duration::from_secs(u64::from(n) * unit))
}

fn backend(text: &str) -> Result<Choice, String> {
    match text {
        "auto" => Ok(Choice::Auto),
        "uring" => Ok(Choice::Uring),
        "mmsg" => Ok(Choice::Mmsg),
        _ => Err("auto, uring or mmsg".to_owned()),
    }
}

fn line(s: &Sample) {
    let (c, v) = (&s.client, &s.server);
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    println!(
        "{:>7.1} {:>8} {:>8} {:>6} {:>5} {:>5} {:>6} {:>9} {:>8} {:>8} {:>7} {:>7} {:>9.2} {:>8.1}",
        s.elapsed.as_secs_f64(),
        c.begun,
        c.ended,
        c.failed,
        c.connections,
        v.connections,
        c.routes + v.routes,
        c.streams,
        c.resets,
        c.datagrams,
        c.key_updates,
        v.migrations,
        mib(s.heap as f64),
        mib(s.resident as f64),
    );
}

fn main() -> ExitCode {
    let args = Args::parse();
    let plan = Plan {
        warm_up: Until::Time(args.warm_up),
        run: Until::Time(args.duration),
        parallel: args.connections,
        shards: args.shards,
        backend: args.backend,
        seed: args.seed,
        rebind: Duration::from_millis(args.rebind_ms.max(1)),
        interval: args.interval.max(Duration::from_millis(100)),
    };
    println!(
        "      s    begun    ended failed client server routes   streams   resets datagram \
         key upd migrate  heap MiB  RSS MiB"
    );
    let outcome = match run(&plan, &mut line) {
        Ok(outcome) => outcome,
        Err(e) => {
            eprintln!("corelane-churn: {e}");
            return ExitCode::FAILURE;
        }
    };
    let faults = outcome.faults(Bounds {
        heap: args.heap_mib << 20,
        resident: args.rss_mib << 20,
    });
    for fault in &faults {
        println!("{fault}");
    }
    if faults.is_empty() {
        println!("nothing is left");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
