//! One run of quinn against itself over loopback, in the same settings and with the same report as
//! `corelane bench`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use corelane_perf::clock;
use corelane_perf::quinn::{self, Settings};
use corelane_perf::report::{Report, Workload};

/// corelane's own program has this one, so its peers get it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone, Copy, ValueEnum)]
enum Work {
    Bulk,
    Rr,
    Handshake,
    Datagram,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// Measures quinn over loopback: one client thread, one server thread, one connection.
#[derive(Parser)]
#[command(name = "quinn-bulk", version)]
struct Args {
    /// What is measured
    #[arg(long, value_enum, default_value = "bulk")]
    work: Work,
    /// Where bulk data goes
    #[arg(long, value_enum, default_value = "up")]
    direction: Direction,
    /// Seconds to measure
    #[arg(long, default_value_t = 3.0, value_parser = clock::seconds)]
    seconds: f64,
    /// Seconds to leave out before
    #[arg(long, default_value_t = 0.5, value_parser = clock::seconds)]
    omit: f64,
    /// Streams, requests or handshakes at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    streams: u16,
    /// Bytes of a request and its answer, or of a datagram
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_000))]
    size: u32,
    /// UDP payload in bytes; above 6500 quinn's batches exceed what UDP carries
    #[arg(long, default_value_t = 1452, value_parser = clap::value_parser!(u16).range(1200..=6500))]
    mtu: u16,
    /// A stream's window in bytes
    #[arg(long, default_value_t = 4 << 20)]
    stream_window: u32,
    /// A connection's window in bytes
    #[arg(long, default_value_t = 8 << 20)]
    connection_window: u32,
    /// Socket buffers in bytes; the kernel has a maximum
    #[arg(long, default_value_t = 4 << 20)]
    socket_buffer: usize,
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
    let (name, work) = match args.work {
        Work::Bulk if args.direction == Direction::Up => ("throughput", quinn::Work::Up),
        Work::Bulk => ("throughput", quinn::Work::Down),
        Work::Rr => ("rr", quinn::Work::RequestResponse),
        Work::Handshake => ("handshake", quinn::Work::Handshake),
        Work::Datagram => ("datagram", quinn::Work::Datagram),
    };
    let settings = Settings {
        work,
        parallel: usize::from(args.streams),
        size: args.size as usize,
        mtu: args.mtu,
        stream_window: args.stream_window,
        connection_window: args.connection_window,
        socket_buffer: args.socket_buffer,
        server_core: args.server_core,
        client_core: args.client_core,
        warm_up: Duration::from_secs_f64(args.omit),
        window: Duration::from_secs_f64(args.seconds),
    };
    let (sample, latency) = match quinn::run(&settings) {
        Ok(done) => done,
        Err(fault) => {
            eprintln!("quinn-bulk: {fault}");
            return ExitCode::FAILURE;
        }
    };
    let config = serde_json::json!({
        "reverse": args.direction == Direction::Down,
        "parallel": args.streams,
        "size_bytes": args.size,
        "mtu_bytes": args.mtu,
        "stream_window_bytes": args.stream_window,
        "connection_window_bytes": args.connection_window,
        "socket_buffer_bytes": args.socket_buffer,
        "cipher_suite": "TLS13_AES_128_GCM_SHA256",
        "crypto": "ring",
        "server_core": args.server_core,
        "client_core": args.client_core,
    });
    let workload = Workload::new(name, &sample, latency.as_ref());
    let report = Report::new("quinn", quinn::VERSION, config, workload);
    if args.json {
        print!("{}", report.to_json());
    } else {
        print!("{}", report.to_text());
    }
    ExitCode::SUCCESS
}
