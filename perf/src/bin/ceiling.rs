//! One run of the ceilings: UDP over loopback, alone or with AES-128-GCM, as trains of packets one
//! way with GSO and GRO, or as one message there and back.

use std::io;
use std::mem::swap;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use corelane_perf::ceiling::{self, Settings, echo};
use corelane_perf::report::{Report, Workload};
use corelane_perf::{flags, output};

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Work {
    /// Trains of packets from the client
    Up,
    /// Trains of packets from the server
    Down,
    /// One message there and back
    Echo,
}

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
    /// What is sent
    #[arg(long, value_enum, default_value = "up")]
    work: Work,
    /// What is done to each packet
    #[arg(long, value_enum, default_value = "aes128")]
    cipher: Cipher,
    /// Bytes of a UDP payload, or of a message there and back
    #[arg(long, default_value_t = 1452, value_parser = clap::value_parser!(u16).range(16..=65_507))]
    size: u16,
    /// Seconds to measure
    #[arg(long, default_value_t = 3.0, value_parser = flags::window)]
    seconds: f64,
    /// Seconds to leave out before
    #[arg(long, default_value_t = 0.5, value_parser = flags::seconds)]
    omit: f64,
    /// The server's core
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The client's core
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Print the report as JSON
    #[arg(short = 'J', long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let workload = match measure(&args) {
        Ok(workload) => workload,
        Err(error) => {
            output::tell(&format!("ceiling: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let sealed = args.cipher == Cipher::Aes128;
    let config = serde_json::json!({
        "cipher": if sealed { "AES-128-GCM" } else { "none" },
        "size_bytes": args.size,
        "server_core": args.server_core,
        "client_core": args.client_core,
    });
    let tool = if sealed { "sealed" } else { "udp" };
    let report = Report::new(tool, env!("CARGO_PKG_VERSION"), config, workload);
    let text = match args.json {
        true => report.to_json(),
        false => report.to_text(),
    };
    output::finish(&text, ExitCode::SUCCESS)
}

fn measure(args: &Args) -> io::Result<Workload> {
    let mut settings = Settings {
        sealed: args.cipher == Cipher::Aes128,
        payload: args.size.into(),
        server_core: args.server_core,
        client_core: args.client_core,
        warm_up: Duration::from_secs_f64(args.omit),
        window: Duration::from_secs_f64(args.seconds),
    };
    if args.work == Work::Echo {
        let (sample, latency) = echo::run(&settings)?;
        return Ok(Workload::new("rr", &sample, Some(&latency)));
    }
    let is_down = args.work == Work::Down;
    if is_down {
        // The sender is the server then.
        swap(&mut settings.server_core, &mut settings.client_core);
    }
    let mut sample = ceiling::run(&settings)?;
    if is_down {
        swap(&mut sample.server_cpu, &mut sample.client_cpu);
    }
    Ok(Workload::new("throughput", &sample, None))
}
