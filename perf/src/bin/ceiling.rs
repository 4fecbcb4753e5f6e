//! One run of the ceilings: UDP over loopback with GSO and GRO, alone or with AES-128-GCM.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use corelane_perf::ceiling::{self, Settings};
use corelane_perf::clock;
use corelane_perf::report::{Report, Workload};

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Cipher {
    /// Packets as they are
    None,
    /// Packet and header protection of QUIC with AES-128-GCM
    Aes128,
}

/// Measures what the kernel and the cipher allow over loopback, without a protocol.
#[derive(Parser)]
#[command(name = "ceiling", version)]
struct Args {
    /// What is done to each packet
    #[arg(long, value_enum, default_value = "aes128")]
    cipher: Cipher,
    /// UDP payload in bytes
    #[arg(long, default_value_t = 1452, value_parser = clap::value_parser!(u16).range(64..=65_507))]
    payload: u16,
    /// Seconds to measure
    #[arg(long, default_value_t = 3.0, value_parser = clock::seconds)]
    seconds: f64,
    /// Seconds to leave out before
    #[arg(long, default_value_t = 0.5, value_parser = clock::seconds)]
    omit: f64,
    /// The receiver's core
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The sender's core
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Print the report as JSON
    #[arg(short = 'J', long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let sealed = args.cipher == Cipher::Aes128;
    let settings = Settings {
        sealed,
        payload: args.payload.into(),
        server_core: args.server_core,
        client_core: args.client_core,
        warm_up: Duration::from_secs_f64(args.omit),
        window: Duration::from_secs_f64(args.seconds),
    };
    let sample = match ceiling::run(&settings) {
        Ok(sample) => sample,
        Err(error) => {
            eprintln!("ceiling: {error}");
            return ExitCode::FAILURE;
        }
    };
    let config = serde_json::json!({
        "cipher": if sealed { "AES-128-GCM" } else { "none" },
        "payload_bytes": args.payload,
        "server_core": args.server_core,
        "client_core": args.client_core,
    });
    let tool = if sealed { "sealed" } else { "udp" };
    let workload = Workload::new("throughput", &sample, None);
    let report = Report::new(tool, env!("CARGO_PKG_VERSION"), config, workload);
    if args.json {
        print!("{}", report.to_json());
    } else {
        print!("{}", report.to_text());
    }
    ExitCode::SUCCESS
}
