//! The relay as a program: prints its address, runs until a line or the end of input comes.

use clap::{CommandFactory, Parser};
use corelane_relay::{Config, Event, LinkConfig, PathConfig, Rebind, RebindKind, Relay};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

/// A UDP relay between clients and a server, over a link that misbehaves as told, or over several
/// paths with a link each.
///
/// Prints "listening on ADDR", one line for each path, relays until its input ends or a line comes,
/// then prints counts.
#[derive(Parser)]
#[command(name = "corelane-relay", version)]
struct Args {
    /// The server.
    #[arg(long, value_name = "ADDR", required_unless_present = "path")]
    to: Option<SocketAddr>,
    /// A path of its own: listen=ADDR,to=ADDR and, where wanted, client=IP (whose path it is, when
    /// several share LISTEN), from=IP (what the server sees) and KNOB=VALUE, each for both
    /// directions or with up- or down- before it: delay, reorder-by, queue-ms (ms), rate (Mb/s or
    /// off), queue (datagrams), queue-bytes, mtu (bytes), loss, corrupt, duplicate, reorder (%).
    /// What is not said is as the options of those names. May be repeated; the first is path0.
    #[arg(long, value_name = "KEY=VALUE,..", conflicts_with_all = ["to", "listen", "alias"])]
    path: Vec<String>,
    /// A change underway, "TIME pathN CHANGE": the time like 2s or 500ms, the change blackhole,
    /// blackhole-up, blackhole-down, restore, rebind or KNOB=VALUE,.. as above. May be repeated.
    #[arg(long, value_name = "EVENT")]
    at: Vec<String>,
    /// Where clients send to. Default: any port of the server's loopback.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A further address for the server, as LISTEN=TO; may be repeated.
    #[arg(long, value_name = "LISTEN=TO", value_parser = alias)]
    alias: Vec<(SocketAddr, SocketAddr)>,
    /// Propagation delay of each direction, in milliseconds.
    #[arg(long, default_value_t = 0.0, value_name = "MS")]
    delay: f64,
    /// Rate of each direction, in Mb/s.
    #[arg(long, value_name = "MBPS")]
    rate: Option<f64>,
    /// Datagrams that wait for the transmitter.
    #[arg(long, default_value_t = 25)]
    queue: usize,
    /// Bytes that wait for the transmitter.
    #[arg(long, value_name = "BYTES")]
    queue_bytes: Option<usize>,
    /// How long datagrams wait for the transmitter, in milliseconds.
    #[arg(long, value_name = "MS")]
    queue_ms: Option<f64>,
    /// Largest UDP payload that fits.
    #[arg(long, default_value_t = 65_527, value_name = "BYTES")]
    mtu: usize,
    /// Loss, in percent.
    #[arg(long, default_value_t = 0.0, value_name = "%")]
    loss: f64,
    /// Corruption, in percent.
    #[arg(long, default_value_t = 0.0, value_name = "%")]
    corrupt: f64,
    /// Most datagrams lost or corrupted in a row; 0 for no bound.
    #[arg(long, default_value_t = 0)]
    max_burst: u32,
    /// Bursts of loss: percent to enter and percent to leave, for each datagram.
    #[arg(long, value_name = "IN,OUT", value_parser = pair)]
    bursts: Option<(f64, f64)>,
    /// Duplication, in percent.
    #[arg(long, default_value_t = 0.0, value_name = "%")]
    duplicate: f64,
    /// Reordering, in percent.
    #[arg(long, default_value_t = 0.0, value_name = "%")]
    reorder: f64,
    /// How much later reordered datagrams come, in milliseconds.
    #[arg(long, default_value_t = 10.0, value_name = "MS")]
    reorder_by: f64,
    /// Changes the clients' ports this often, in seconds.
    #[arg(long, value_name = "S")]
    rebind_port: Option<f64>,
    /// Changes the clients' addresses this often, in seconds.
    #[arg(long, value_name = "S", conflicts_with = "rebind_port")]
    rebind_addr: Option<f64>,
    /// The link is on and off by turns, in seconds.
    #[arg(long, value_name = "ON,OFF", value_parser = pair)]
    blackhole: Option<(f64, f64)>,
    /// Client datagrams to drop, counted from 1.
    #[arg(long, value_name = "A-B", value_parser = range)]
    drop_client: Option<RangeInclusive<u64>>,
    /// A bulk transfer under CUBIC competes on the way to the clients.
    #[arg(long)]
    cross: bool,
    /// What chance depends on.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints each datagram at the end.
    #[arg(long)]
    log: bool,
}

fn split<T: std::str::FromStr>(text: &str, by: char) -> Result<(T, T), String> {
    let parts = text.split_once(by);
    let both = parts.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    both.ok_or_else(|| format!("expected two values with `{by}` between them"))
}

fn alias(text: &str) -> Result<(SocketAddr, SocketAddr), String> {
    split(text, '=')
}

fn pair(text: &str) -> Result<(f64, f64), String> {
    split(text, ',')
}

fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    split(text, '-').map(|(a, b)| a..=b)
}

fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s).unwrap_or_default()
}

impl Args {
    fn config(&self) -> Result<Config, String> {
        let link = LinkConfig {
            delay: seconds(self.delay / 1e3),
            rate: self.rate.map(|r| (r * 1e6) as u64),
            queue: self.queue,
            queue_bytes: self.queue_bytes,
            queue_time: self.queue_ms.map(|ms| seconds(ms / 1e3)),
            mtu: self.mtu,
            loss: self.loss / 100.0,
            corrupt: self.corrupt / 100.0,
            burst: self.max_burst,
            bursts: self.bursts.map(|(a, b)| (a / 100.0, b / 100.0)),
            duplicate: self.duplicate / 100.0,
            reorder: self.reorder / 100.0,
            reorder_by: seconds(self.reorder_by / 1e3),
        };
        let paths: Result<Vec<_>, _> = self
            .path
            .iter()
            .map(|text| PathConfig::parse(text, &link))
            .collect();
        let mut config = match self.to {
            Some(to) => Config::new(to),
            None => Config::of_paths(paths?),
        };
        if let (Some(listen), Some(front)) = (self.listen, config.fronts.first_mut()) {
            front.0 = listen;
        }
        for text in &self.at {
            config.schedule.extend(Event::parse(text)?);
        }
        config.fronts.extend(&self.alias);
        config.up = link.clone();
        config.down = link;
        config.drop_client = self.drop_client.clone();
        config.blackhole = self.blackhole.map(|(a, b)| (seconds(a), seconds(b)));
        let port = self.rebind_port.map(|s| (s, RebindKind::Port));
        let addr = self.rebind_addr.map(|s| (s, RebindKind::Addr));
        config.rebind = port.or(addr).map(|(s, kind)| Rebind {
            every: seconds(s),
            kind,
        });
        config.cross = self.cross;
        config.capture = self.log;
        config.seed = self.seed;
        Ok(config)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let args = Args::parse();
    let config = args.config().unwrap_or_else(|why| {
        Args::command()
            .error(clap::error::ErrorKind::ValueValidation, why)
            .exit()
    });
    let relay = Relay::start(config)?;
    let mut out = io::stdout().lock();
    if args.path.is_empty() {
        writeln!(out, "listening on {}", relay.addr())?;
    }
    for (n, addr) in relay.addrs().iter().enumerate().take(args.path.len()) {
        writeln!(out, "path{n} listening on {addr}")?;
    }
    out.flush()?;
    io::stdin().read_line(&mut String::new())?;
    let log = relay.stop();
    for entry in &log.entries {
        writeln!(out, "{entry}")?;
    }
    writeln!(out, "to the server {:?}", log.up)?;
    writeln!(out, "to clients    {:?}", log.down)?;
    for (n, (up, down)) in log.fronts.iter().enumerate().take(args.path.len()) {
        writeln!(out, "path{n} to the server {up:?}")?;
        writeln!(out, "path{n} to clients    {down:?}")?;
    }
    writeln!(out, "rebindings {}, stale {}", log.rebindings, log.stale)?;
    if args.cross {
        let (arrived, lost) = log.cross;
        writeln!(out, "competing flow: {arrived} segments, {lost} lost")?;
    }
    Ok(())
}
