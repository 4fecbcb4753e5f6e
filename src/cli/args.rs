//! The command line. Short flags mean what iperf3's mean, numbers are written as iperf3 takes them.
//!
//! What clap can check alone is checked here; what depends on several flags or on the machine, in
//! `setup`.

use super::paths::{LinkArgs, PathArgs};
use super::policy::PolicyArgs;
use super::report::units;
use clap::{Args, Parser, Subcommand, ValueEnum};
use corelane::shard::quic_lb::QuicLbConfig;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// The version; of a release build in a checkout with the commit (`build.rs`), and a `+` where the
/// sources differed from it.
const VERSION: &str = match option_env!("CORELANE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// A thread-per-core QUIC transport engine: what it reaches, on this machine or between two.
#[derive(Debug, Parser)]
#[command(name = "corelane", version = VERSION, max_term_width = 100)]
pub struct Cli {
    /// Log lines on standard error: error, warn, info, debug, trace, or a filter by module
    #[arg(long, global = true, value_name = "FILTER", default_value = "warn")]
    pub log: String,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure over loopback: server and client shards in this process
    Bench(BenchArgs),
    /// Serve the workloads to clients on other hosts
    Server(ServerArgs),
    /// Measure against a server on another host
    Client(ClientArgs),
    /// Messages and one-sided operations over RDMA, or over QUIC where there is none
    Rdma(super::rdma::RdmaArgs),
    /// Tell what this machine offers and what falls back to what
    Doctor,
}

/// A workload, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Bulk data on streams
    Throughput,
    /// Request and response of fixed size
    Rr,
    /// Full handshakes
    Handshake,
    /// Unreliable datagrams
    Datagram,
    /// Many idle connections
    Connections,
    /// Bulk data over several paths, one of which is killed in mid-transfer (bench only)
    Failover,
    /// Each of them in turn, but for failover
    All,
}

/// `corelane bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum, default_value_t = Which::All)]
    pub workload: Which,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub see: SeeArgs,
    #[command(flatten)]
    pub paths: PathArgs,
    #[command(flatten)]
    pub links: LinkArgs,
    /// Shards on each side
    #[arg(long, value_name = "N", value_parser = shards)]
    pub shards: Option<usize>,
    /// Shards of the server
    #[arg(long, value_name = "N", value_parser = shards)]
    pub server_shards: Option<usize>,
    /// Shards of the client
    #[arg(long, value_name = "N", value_parser = shards)]
    pub client_shards: Option<usize>,
    /// The server in a process of its own, to tell the memory of both sides apart (connections)
    #[arg(long)]
    pub apart: bool,
    /// Be that process
    #[arg(long, hide = true)]
    pub serve_apart: bool,
}

/// `corelane client`.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// The server's address or name, and its port if that is not 4433
    #[arg(value_parser = server)]
    pub server: SocketAddr,
    /// What to measure
    #[arg(value_enum, default_value_t = Which::All)]
    pub workload: Which,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub see: SeeArgs,
    #[command(flatten)]
    pub trust: TrustArgs,
    #[command(flatten)]
    pub paths: PathArgs,
    /// Shards to run
    #[arg(long, value_name = "N", value_parser = shards, default_value_t = 1)]
    pub shards: usize,
}

/// `corelane server`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Address and port to serve; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:4433")]
    pub listen: SocketAddr,
    /// The server's certificate chain, PEM; without it one is made and its fingerprint printed
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Shards to run; one for each core by default
    #[arg(long, value_name = "N", value_parser = shards)]
    pub shards: Option<usize>,
    /// Connections of one shard at a time; more are refused
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 65_536)]
    pub max_connections: usize,
    /// Server ID of a QUIC-LB load balancer's target, as AWS's: `0x` and 16 hexadecimal digits
    #[arg(long, value_name = "ID", env = "AWS_LBC_QUIC_SERVER_ID", value_parser = balanced)]
    pub server_id: Option<QuicLbConfig>,
    /// Give clients sessions to resume, for `handshake --resume`; it makes full handshakes dearer
    #[arg(long)]
    pub resume: bool,
    /// Paths that a connection may have at once, where clients have several
    #[arg(long, value_name = "N", value_parser = super::paths::paths, default_value_t = 8)]
    pub paths: usize,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub see: SeeArgs,
}

/// How a client knows that it talks to the right server.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TrustArgs {
    /// Certificate authorities to trust, PEM; the certificate must name the server's IP address
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// SHA-256 fingerprint of the server's certificate, as `corelane server` prints it
    #[arg(long, value_name = "HEX")]
    pub pin: Option<String>,
    /// Trust any server: for closed networks
    #[arg(long)]
    pub insecure: bool,
}

/// What to send, for how long, and where the results go.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Time to measure each workload
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    pub time: Option<Duration>,
    /// Bytes to send, all streams together, instead of a time (throughput)
    #[arg(short = 'n', long, value_name = "SIZE", value_parser = units::parse_size)]
    #[arg(conflicts_with_all = ["time", "omit"])]
    pub bytes: Option<u64>,
    /// Streams (throughput), connections (rr, datagram) or handshakes (handshake) at a time
    #[arg(short = 'P', long, value_name = "N", value_parser = positive)]
    pub parallel: Option<usize>,
    /// The server sends and the client receives (throughput)
    #[arg(short = 'R', long)]
    pub reverse: bool,
    /// Both send at once (throughput)
    #[arg(long, conflicts_with = "reverse")]
    pub bidir: bool,
    /// Time between reports of progress
    #[arg(short, long, value_name = "TIME", default_value = "1", value_parser = interval)]
    pub interval: Duration,
    /// Results as JSON, alone on standard output
    #[arg(short = 'J', long)]
    pub json: bool,
    /// Bits per second to send on each stream or connection (throughput, datagram)
    #[arg(short, long, value_name = "RATE", value_parser = units::parse_rate)]
    pub bitrate: Option<u64>,
    /// Bytes of a write (throughput), a message (rr) or a datagram (datagram)
    #[arg(short, long, value_name = "SIZE", value_parser = units::parse_size)]
    pub length: Option<u64>,
    /// Time at the start that the results leave out
    #[arg(short = 'O', long, value_name = "TIME", value_parser = units::parse_duration)]
    pub omit: Option<Duration>,
    /// Requests under way on each connection (rr)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub depth: Option<usize>,
    /// Requests or datagrams per second, whether or not answers come: an open loop (rr, datagram)
    #[arg(long, value_name = "COUNT", value_parser = rate)]
    pub rate: Option<u64>,
    /// A stream of its own for each request (rr)
    #[arg(long)]
    pub new_stream: bool,
    /// Connections (throughput, connections)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub connections: Option<usize>,
    /// Writes the latencies as a percentile distribution in microseconds
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Writes the latencies of every interval as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Writes a picture of the results
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Resume a session with each handshake instead of verifying certificates (handshake)
    #[arg(long)]
    pub resume: bool,
    /// The cipher to prefer
    #[arg(long, value_enum, default_value_t = Cipher::Aes128)]
    pub cipher: Cipher,
}

/// How the engine runs.
#[derive(Debug, Args, Serialize)]
pub struct EngineArgs {
    /// Cores to pin shards to, in order, as in `0,2,3`; by default those of this process
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// What a shard does when there is nothing to do
    #[arg(long, value_enum, default_value_t = IdleArg::Adaptive)]
    pub idle: IdleArg,
    /// How datagrams reach the kernel
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    pub backend: BackendArg,
    /// UDP payload: a size in bytes, `jumbo` for links of 9000 bytes, `auto` to discover it
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = mtu)]
    #[serde(rename = "udp_payload_bytes")]
    pub mtu: Mtu,
    /// Congestion control
    #[arg(long, value_enum, default_value_t = Cc::Cubic)]
    pub cc: Cc,
    /// Send as fast as the congestion window allows
    #[arg(long)]
    pub no_pacing: bool,
    /// QUIC version: a client begins with it, a server moves clients that offer it there; both
    /// still take the other one
    #[arg(long, value_enum, value_name = "VERSION")]
    pub quic_version: Option<QuicVersion>,
    /// Receive window that a connection may reach; a stream may reach half of it
    #[arg(long, value_name = "SIZE", value_parser = window)]
    #[serde(rename = "window_bytes")]
    pub window: Option<u64>,
    /// Send and receive buffer that is asked for each socket; 8M by default
    #[arg(long, value_name = "SIZE", value_parser = window)]
    #[serde(rename = "socket_buffer_bytes")]
    pub socket_buffer: Option<u64>,
    /// Whose cryptography runs
    #[arg(long, value_enum, default_value_t = ProviderArg::default())]
    pub provider: ProviderArg,
}

/// What to make visible.
#[derive(Debug, Args)]
pub struct SeeArgs {
    /// Writes a qlog of each connection to this directory; by default to $QLOGDIR, if that is set
    #[arg(long, value_name = "DIR")]
    pub qlog: Option<PathBuf>,
    /// Appends TLS secrets, which open the traffic to any reader, to this file; by default to
    /// $SSLKEYLOGFILE, if that is set
    #[arg(long, value_name = "FILE")]
    pub keylog: Option<PathBuf>,
    /// Serves counters for Prometheus at http://ADDR/metrics
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
}

/// `--idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleArg {
    /// Never sleep
    Spin,
    /// Sleep a moment after the last work
    Adaptive,
    /// Sleep at once
    Park,
}

/// `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendArg {
    /// io_uring, or mmsg where the kernel has none
    Auto,
    /// io_uring
    Uring,
    /// epoll, recvmmsg and sendmmsg
    Mmsg,
}

/// `--cc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cc {
    /// CUBIC (RFC 9438)
    Cubic,
    /// NewReno (RFC 9002)
    Newreno,
    /// BBR version 3 (draft-ietf-ccwg-bbr)
    Bbr,
    /// LIA (RFC 6356), coupled over the paths of a connection
    Lia,
    /// OLIA (draft-khalili-mptcp-congestion-control), coupled
    Olia,
    /// BALIA (draft-walid-mptcp-congestion-control), coupled
    Balia,
}

/// `--quic-version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum QuicVersion {
    /// RFC 9000
    #[value(name = "1")]
    #[serde(rename = "1")]
    V1,
    /// RFC 9369
    #[value(name = "2")]
    #[serde(rename = "2")]
    V2,
}

/// `--provider`: aws-lc-rs, the faster one, in a build that has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderArg {
    /// ring
    #[cfg_attr(not(feature = "aws-lc-rs"), default)]
    Ring,
    /// aws-lc-rs, in a build with the feature of that name
    #[cfg_attr(feature = "aws-lc-rs", default)]
    AwsLcRs,
}

/// `--cipher`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cipher {
    /// AES-128-GCM
    Aes128,
    /// AES-256-GCM
    Aes256,
    /// ChaCha20-Poly1305
    Chacha20,
}

/// `--mtu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mtu {
    /// Discovered, up to what the interfaces carry.
    Auto,
    /// Always this many bytes of UDP payload.
    Fixed(usize),
}

/// Where servers listen, unless told otherwise.
const DEFAULT_PORT: u16 = 4433;
/// UDP payload of a 9000-byte link over IPv6, which IPv4 carries, too.
const JUMBO: usize = 9000 - 40 - 8;

fn mtu(input: &str) -> Result<Mtu, String> {
    match input {
        "auto" => Ok(Mtu::Auto),
        "jumbo" => Ok(Mtu::Fixed(JUMBO)),
        _ => match input.parse() {
            Ok(n @ 1200..=65_527) => Ok(Mtu::Fixed(n)),
            _ => Err("write `auto`, `jumbo` or a number of bytes from 1200 to 65527".into()),
        },
    }
}

pub(super) fn positive(input: &str) -> Result<usize, String> {
    match units::parse_count(input).map(usize::try_from) {
        Ok(Ok(n @ 1..=1_000_000)) => Ok(n),
        _ => Err("write a number from 1 to 1000000".into()),
    }
}

pub(super) fn shards(input: &str) -> Result<usize, String> {
    match input.parse() {
        Ok(n @ 1..=255) => Ok(n),
        _ => Err("write a number from 1 to 255".into()),
    }
}

fn balanced(input: &str) -> Result<QuicLbConfig, String> {
    QuicLbConfig::nlb(input).map_err(|e| e.to_string())
}

fn rate(input: &str) -> Result<u64, String> {
    match units::parse_count(input) {
        Ok(n @ 1..=1_000_000_000) => Ok(n),
        Ok(_) => Err("write a rate from 1 to 1G".into()),
        Err(e) => Err(e.to_string()),
    }
}

fn time(input: &str) -> Result<Duration, String> {
    match units::parse_duration(input) {
        Ok(Duration::ZERO) => Err("nothing can be measured in no time; write 10s or 100ms".into()),
        Ok(d) => Ok(d),
        Err(e) => Err(e.to_string()),
    }
}

fn window(input: &str) -> Result<u64, String> {
    match units::parse_size(input) {
        Ok(n @ 4096..=0x4000_0000) => Ok(n),
        Ok(_) => Err("write a size from 4K to 1G".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// An address or a name, with a port or the one that servers listen on by default. IPv4 comes
/// first, as there.
pub(super) fn server(input: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = input.parse() {
        return Ok(addr);
    }
    if let Ok(ip) = input.parse::<IpAddr>() {
        return Ok((ip, DEFAULT_PORT).into());
    }
    let (host, port) = match input.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (input, Some(DEFAULT_PORT)),
    };
    // Without a port that makes sense there is nothing to ask the resolver about.
    let found = port.map(|port| (host, port).to_socket_addrs());
    let found: Vec<SocketAddr> = found.into_iter().flatten().flatten().collect();
    let v4 = found.iter().find(|addr| addr.is_ipv4());
    v4.or(found.first()).copied().ok_or_else(|| {
        "no such address or host; write 192.0.2.1:4433, [2001:db8::1]:4433 or host:4433".into()
    })
}

fn interval(input: &str) -> Result<Duration, String> {
    match units::parse_duration(input) {
        Ok(d) if d >= Duration::from_millis(10) => Ok(d),
        Ok(_) => Err("the shortest interval is 10ms".into()),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn short_flags_are_those_of_iperf3() {
        let line = "corelane bench throughput -t 5 -P 4 -R -i 0.5 -J -b 10M -l 128K -O 2";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Bench(args) = cli.command else {
            panic!("bench")
        };
        let load = args.load;
        assert_eq!(load.time, Some(Duration::from_secs(5)));
        assert_eq!(
            (load.parallel, load.reverse, load.json),
            (Some(4), true, true)
        );
        assert_eq!(load.interval, Duration::from_millis(500));
        assert_eq!(
            (load.bitrate, load.length),
            (Some(10_000_000), Some(128 << 10))
        );
        assert_eq!(load.omit, Some(Duration::from_secs(2)));
    }

    #[test]
    fn sizes_of_datagrams_are_a_number_or_a_word() {
        assert_eq!(mtu("auto"), Ok(Mtu::Auto));
        assert_eq!(mtu("jumbo"), Ok(Mtu::Fixed(8952)));
        assert_eq!(mtu("1452"), Ok(Mtu::Fixed(1452)));
        assert!(mtu("1199").is_err() && mtu("65528").is_err() && mtu("big").is_err());
    }

    #[test]
    fn impossible_numbers_are_refused() {
        assert!(positive("0").is_err() && positive("-1").is_err());
        assert_eq!(positive("10k"), Ok(10_000));
        assert!(shards("256").is_err() && rate("0").is_err() && interval("0").is_err());
        assert!(time("0").is_err() && time("1ms").is_ok());
        assert!(window("0").is_err() && window("64K") == Ok(65_536));
    }

    #[test]
    fn a_server_is_an_address_or_a_name() {
        let of = |input| server(input).map(|addr| addr.to_string());
        assert_eq!(of("192.0.2.1:1").unwrap(), "192.0.2.1:1");
        assert_eq!(of("192.0.2.1").unwrap(), "192.0.2.1:4433");
        assert_eq!(of("[::1]:1").unwrap(), "[::1]:1");
        assert_eq!(of("::1").unwrap(), "[::1]:4433");
        assert!(server("localhost:1").unwrap().ip().is_loopback());
        assert!(of("").is_err() && of("192.0.2.1:x").is_err());
    }

    #[test]
    fn a_client_must_say_whom_it_trusts() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("corelane client 127.0.0.1:4433 rr").is_err());
        assert!(parse("corelane client 127.0.0.1:4433 rr --insecure").is_ok());
        assert!(parse("corelane client 127.0.0.1:4433 --insecure --ca x").is_err());
        assert!(parse("corelane server --cert x").is_err());
    }
}
