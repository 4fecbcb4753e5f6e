//! From flags to workloads: what each run does, with every default filled in, and how the work is
//! divided among client shards.

use super::protocol::MAX_MESSAGE;
use crate::cli::Failure;
use crate::cli::args::{LoadArgs, Which};
use crate::cli::paths::{LinkArgs, PathArgs};
use serde::Serialize;
use std::time::Duration;

/// Streams of one connection at most: the server permits 1024, and one asks about the others.
const MAX_STREAMS: usize = 1000;
/// The largest datagram that may be asked for; whether the path carries it shows.
const MAX_DATAGRAM: u64 = 65_000;
/// The smallest datagram: it begins with a time.
const MIN_DATAGRAM: u64 = 8;

/// Bulk data on each stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bulk {
    /// The client sends.
    pub send: bool,
    /// The server sends.
    pub receive: bool,
    /// Bytes of each stream and direction; without end when `None`.
    pub bytes: Option<u64>,
    /// Bytes of a write.
    #[serde(rename = "write_bytes")]
    pub chunk: u32,
    /// Bytes a second of each stream and direction; 0 is without limit.
    #[serde(rename = "rate_bytes_per_second")]
    pub rate: u64,
}

/// Requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rr {
    /// Requests under way on each connection.
    pub depth: usize,
    /// Bytes of a request and of a response.
    #[serde(rename = "message_bytes")]
    pub length: u32,
    /// A stream for each request.
    pub new_stream: bool,
    /// Requests a second of all connections, answered or not.
    #[serde(rename = "rate_per_second")]
    pub rate: Option<u64>,
    /// One request on each connection, and no more.
    pub once: bool,
}

/// Datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Datagram {
    /// Bytes of each.
    #[serde(rename = "message_bytes")]
    pub length: usize,
    /// Datagrams a second of all connections.
    #[serde(rename = "rate_per_second")]
    pub rate: Option<u64>,
}

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Bulk data.
    Bulk(Bulk),
    /// Requests and responses.
    Rr(Rr),
    /// Handshakes, full or resumed.
    Handshake {
        /// Handshakes at a time.
        parallel: usize,
        /// Each resumes a session; those that cannot, such as the first, do not count.
        resume: bool,
    },
    /// Datagrams.
    Datagram(Datagram),
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What it is called in reports.
    pub name: String,
    /// What the clients do.
    pub work: Work,
    /// Connections opened before the load begins.
    pub connections: usize,
    /// Streams at a time, of all connections; 0 where the workload has none of its own.
    pub streams: usize,
    /// How long to measure.
    pub time: Duration,
    /// How long to run before that.
    pub omit: Duration,
    /// Connections stay idle while it is measured, and then each is used once.
    pub idle: bool,
    /// Paths of each connection.
    pub paths: usize,
    /// They are found by themselves, so many at most.
    pub auto_paths: bool,
    /// The path that is killed in mid-transfer.
    pub kill: Option<u32>,
}

/// One client shard's part of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The shard's number.
    pub shard: usize,
    /// What it does.
    pub work: Work,
    /// Connections that it opens.
    pub connections: usize,
    /// Bulk streams of each of them.
    pub streams: Vec<usize>,
}

/// The `index`-th of `parts` nearly equal parts of `total`.
fn part(total: usize, parts: usize, index: usize) -> usize {
    total / parts + usize::from(index < total % parts)
}

impl Spec {
    /// The part of client shard `shard` of `shards`: connections are dealt out in turn.
    pub fn share(&self, shard: usize, shards: usize) -> Share {
        let connections = part(self.connections, shards, shard);
        let rate = |total: u64| part(total as usize, shards, shard).max(1) as u64;
        let work = match self.work {
            Work::Bulk(bulk) => Work::Bulk(bulk),
            Work::Rr(rr) => Work::Rr(Rr {
                rate: rr.rate.map(rate),
                ..rr
            }),
            Work::Handshake { parallel, resume } => Work::Handshake {
                parallel: part(parallel, shards, shard),
                resume,
            },
            Work::Datagram(d) => Work::Datagram(Datagram {
                rate: d.rate.map(rate),
                ..d
            }),
        };
        let all = self.connections;
        let streams = (0..connections).map(|k| part(self.streams, all, k * shards + shard));
        Share {
            shard,
            work,
            connections,
            streams: streams.collect(),
        }
    }

    /// Whether the run ends by an amount of data.
    pub fn bytes(&self) -> Option<u64> {
        match self.work {
            Work::Bulk(bulk) => bulk.bytes,
            _ => None,
        }
    }

    /// The settings, for the report.
    pub fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name,
            "work": self.work,
            "connections": self.connections,
            "streams": self.streams,
            "time_seconds": self.time.as_secs_f64(),
            "omit_seconds": self.omit.as_secs_f64(),
            "idle": self.idle,
            "paths": self.paths,
            "kill": self.kill,
        })
    }
}

/// The runs that the flags ask for, over `shards` client shards.
pub fn specs(which: Which, load: &LoadArgs, shards: usize) -> Result<Vec<Spec>, Failure> {
    applicable(which, load)?;
    let all = which == Which::All;
    let wants = |w: Which| all || which == w;
    // All of them together should end within a cup of coffee; one alone lasts as iperf3 does.
    let base = Base {
        load,
        shards,
        time: load
            .time
            .unwrap_or(Duration::from_secs(if all { 5 } else { 10 })),
        omit: load.omit.unwrap_or(Duration::from_secs(1)),
    };
    let mut specs = Vec::new();
    if wants(Which::Throughput) {
        specs.push(base.throughput()?);
    }
    if wants(Which::Rr) {
        specs.push(base.rr()?);
    }
    if wants(Which::Handshake) {
        specs.push(base.handshake());
    }
    if wants(Which::Datagram) {
        let lengths = load
            .length
            .filter(|_| !all)
            .map_or(vec![100, 1100], |n| vec![n]);
        for length in lengths {
            specs.push(base.datagram(length, all)?);
        }
    }
    if wants(Which::Connections) {
        specs.push(base.connections());
    }
    if which == Which::Failover {
        let mut spec = base.throughput()?;
        spec.name = "failover".into();
        spec.kill = Some(0);
        specs.push(spec);
    }
    if specs.len() > 1 && load.hgrm.is_some() {
        return Err(Failure::Usage(
            "--hgrm holds one distribution: name one workload, and for datagram a size (-l)".into(),
        ));
    }
    Ok(specs)
}

/// Adds the paths that the flags ask for to what has a use for them.
pub fn with_paths(
    specs: &mut [Spec],
    which: Which,
    args: &PathArgs,
    links: &LinkArgs,
) -> Result<(), Failure> {
    let refuse = |why: &str| Err(Failure::Usage(why.into()));
    // One that is killed needs one that is left.
    let least = if which == Which::Failover { 2 } else { 1 };
    if args.paths.is_some_and(|n| n < least) {
        return refuse("failover needs two paths: --paths 2 or more");
    }
    let paths = args.count().max(least);
    let fits = args.policy.check(paths, args.auto_paths);
    fits.map_err(Failure::Usage)?;
    if links.link.len() > paths {
        return refuse("--link: more links than paths: give each path one, or raise --paths");
    }
    let several = |s: &Spec| !s.idle && !matches!(s.work, Work::Handshake { .. });
    if paths > 1 && !specs.iter().any(several) {
        return refuse("--paths is for throughput, rr, datagram and failover only");
    }
    if args.auto_paths && paths < 2 {
        return refuse("--auto-paths needs --paths, the most that there may be");
    }
    if links.kill.is_some() && which != Which::Failover {
        return refuse("--kill is for failover only");
    }
    for spec in specs.iter_mut().filter(|s| several(s)) {
        spec.paths = paths;
        spec.auto_paths = args.auto_paths;
        if spec.kill.is_some() {
            let kill = links.kill.unwrap_or(0);
            spec.kill = Some(kill);
            if kill as usize >= spec.paths {
                return refuse("--kill: paths are numbered from 0, below --paths");
            }
        }
    }
    Ok(())
}

/// Refuses flags that the chosen workload has no use for.
fn applicable(which: Which, load: &LoadArgs) -> Result<(), Failure> {
    use Which::{Connections, Datagram, Failover, Handshake, Rr, Throughput};
    let rules: [(&str, bool, &[Which]); 12] = [
        ("-n", load.bytes.is_some(), &[Throughput]),
        ("-R", load.reverse, &[Throughput, Failover]),
        ("--bidir", load.bidir, &[Throughput, Failover]),
        (
            "-b",
            load.bitrate.is_some(),
            &[Throughput, Datagram, Failover],
        ),
        (
            "-l",
            load.length.is_some(),
            &[Throughput, Rr, Datagram, Failover],
        ),
        (
            "-P",
            load.parallel.is_some(),
            &[Throughput, Rr, Handshake, Datagram, Failover],
        ),
        ("--resume", load.resume, &[Handshake]),
        ("--depth", load.depth.is_some(), &[Rr]),
        ("--rate", load.rate.is_some(), &[Rr, Datagram]),
        ("--new-stream", load.new_stream, &[Rr]),
        (
            "--connections",
            load.connections.is_some(),
            &[Throughput, Connections, Failover],
        ),
        (
            "-O",
            load.omit.is_some(),
            &[Throughput, Rr, Handshake, Datagram, Failover],
        ),
    ];
    for (flag, given, workloads) in rules {
        if given && which != Which::All && !workloads.contains(&which) {
            let names: Vec<String> = workloads
                .iter()
                .map(|w| format!("{w:?}").to_lowercase())
                .collect();
            return Err(Failure::Usage(format!(
                "{flag} is for {} only",
                names.join(" and ")
            )));
        }
    }
    Ok(())
}

/// What the workloads have in common.
struct Base<'a> {
    load: &'a LoadArgs,
    shards: usize,
    time: Duration,
    omit: Duration,
}

impl Base<'_> {
    fn spec(&self, name: &str, work: Work, connections: usize, streams: usize) -> Spec {
        let (time, omit) = (self.time, self.omit);
        Spec {
            name: name.into(),
            work,
            connections,
            streams,
            time,
            omit,
            idle: false,
            paths: 1,
            auto_paths: false,
            kill: None,
        }
    }

    fn length(&self, default: u64, least: u64, most: u64) -> Result<u64, Failure> {
        let length = self.load.length.unwrap_or(default);
        if (least..=most).contains(&length) {
            return Ok(length);
        }
        Err(Failure::Usage(format!(
            "-l {length}: the size must be {least} to {most} bytes here"
        )))
    }

    fn throughput(&self) -> Result<Spec, Failure> {
        let load = self.load;
        let connections = load
            .connections
            .unwrap_or(self.shards.min(load.parallel.unwrap_or(256)));
        let streams = load.parallel.unwrap_or(connections).max(connections);
        if streams.div_ceil(connections) > MAX_STREAMS {
            return Err(Failure::Usage(format!(
                "-P {streams}: a connection has at most {MAX_STREAMS} streams; add --connections"
            )));
        }
        // A paced stream writes what 10 ms allow, so that it does not send in bursts.
        let pace = load
            .bitrate
            .map(|bits| (bits / 8 / 100).clamp(1000, MAX_MESSAGE));
        let work = Work::Bulk(Bulk {
            send: !load.reverse,
            receive: load.reverse || load.bidir,
            bytes: load.bytes.map(|n| n.div_ceil(streams as u64)),
            chunk: self.length(pace.unwrap_or(MAX_MESSAGE), 1, MAX_MESSAGE)? as u32,
            rate: load.bitrate.unwrap_or(0).div_ceil(8),
        });
        let mut spec = self.spec("throughput", work, connections, streams);
        if load.bytes.is_some() {
            spec.omit = Duration::ZERO;
        }
        Ok(spec)
    }

    fn rr(&self) -> Result<Spec, Failure> {
        let load = self.load;
        // An open loop needs places for requests that are late.
        let depth = load
            .depth
            .unwrap_or(if load.rate.is_some() { 64 } else { 1 });
        if depth > MAX_STREAMS {
            return Err(Failure::Usage(format!(
                "--depth {depth}: a connection has at most {MAX_STREAMS} streams"
            )));
        }
        let connections = load.parallel.unwrap_or(self.shards);
        let work = Work::Rr(Rr {
            depth,
            length: self.length(64, 1, MAX_MESSAGE)? as u32,
            new_stream: load.new_stream,
            rate: load.rate,
            once: false,
        });
        Ok(self.spec("rr", work, connections, connections * depth))
    }

    fn handshake(&self) -> Spec {
        let parallel = self.load.parallel.unwrap_or(32);
        let resume = self.load.resume;
        self.spec("handshake", Work::Handshake { parallel, resume }, 0, 0)
    }

    fn datagram(&self, length: u64, all: bool) -> Result<Spec, Failure> {
        if !(MIN_DATAGRAM..=MAX_DATAGRAM).contains(&length) {
            return Err(Failure::Usage(format!(
                "-l {length}: a datagram has {MIN_DATAGRAM} to {MAX_DATAGRAM} bytes"
            )));
        }
        let load = self.load;
        let connections = load.parallel.unwrap_or(self.shards);
        let by_bits = load
            .bitrate
            .map(|b| (b / 8 / length).max(1) * connections as u64);
        let rate = load.rate.or(by_bits);
        let work = Work::Datagram(Datagram {
            length: length as usize,
            rate,
        });
        let mut spec = self.spec(&format!("datagram-{length}"), work, connections, 0);
        if all && load.time.is_none() {
            spec.time = Duration::from_secs(3);
        }
        Ok(spec)
    }

    fn connections(&self) -> Spec {
        let connections = self.load.connections.unwrap_or(1000);
        let rr = Rr {
            depth: 1,
            length: 64,
            new_stream: true,
            rate: None,
            once: true,
        };
        let mut spec = self.spec("connections", Work::Rr(rr), connections, 0);
        spec.omit = Duration::ZERO;
        spec.idle = true;
        if self.load.time.is_none() {
            spec.time = Duration::from_secs(3);
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<Vec<Spec>, Failure> {
        let words = ["corelane", "bench"]
            .into_iter()
            .chain(line.split_whitespace());
        match Cli::try_parse_from(words)
            .expect("flags that clap accepts")
            .command
        {
            Command::Bench(args) => specs(args.workload, &args.load, 2),
            _ => unreachable!("the command is bench"),
        }
    }

    #[test]
    fn all_runs_every_workload_and_ends_soon() {
        let specs = parse("").unwrap();
        let names: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
        let expected = [
            "throughput",
            "rr",
            "handshake",
            "datagram-100",
            "datagram-1100",
            "connections",
        ];
        assert_eq!(names, expected);
        let total: Duration = specs.iter().map(|s| s.time + s.omit).sum();
        assert!(total <= Duration::from_secs(35), "{total:?}");
    }

    #[test]
    fn shares_add_up() {
        let spec = &parse("throughput -P 7 --connections 3").unwrap()[0];
        let shares: Vec<Share> = (0..2).map(|n| spec.share(n, 2)).collect();
        assert_eq!(
            shares.iter().map(|s| s.connections).collect::<Vec<_>>(),
            [2, 1]
        );
        assert_eq!(
            (shares[0].streams.clone(), shares[1].streams.clone()),
            (vec![3, 2], vec![2])
        );
        let spec = &parse("rr --rate 1001 -P 5").unwrap()[0];
        let rates = (0..2).map(|n| match spec.share(n, 2).work {
            Work::Rr(rr) => rr.rate.unwrap(),
            other => panic!("{other:?}"),
        });
        assert_eq!(rates.collect::<Vec<_>>(), [501, 500]);
    }

    #[test]
    fn amounts_are_divided_among_streams() {
        let spec = &parse("throughput -n 1M -P 4 -R").unwrap()[0];
        let Work::Bulk(bulk) = spec.work else {
            panic!("bulk")
        };
        assert_eq!(
            (bulk.bytes, bulk.send, bulk.receive),
            (Some(1 << 18), false, true)
        );
        assert_eq!((spec.bytes(), spec.omit), (Some(1 << 18), Duration::ZERO));
    }

    #[test]
    fn a_bit_rate_of_datagrams_is_a_rate_of_messages() {
        let spec = &parse("datagram -b 8M -l 1000 -P 2").unwrap()[0];
        let expected = Work::Datagram(Datagram {
            length: 1000,
            rate: Some(2000),
        });
        assert_eq!(spec.work, expected);
    }

    #[test]
    fn flags_without_meaning_are_refused_by_name() {
        for (line, flag) in [
            ("rr -R", "-R"),
            ("throughput --depth 4", "--depth"),
            ("handshake -l 5", "-l"),
            ("rr --resume", "--resume"),
            ("connections -P 3", "-P"),
            ("datagram -l 7", "-l 7"),
            ("throughput -P 1001 --connections 1", "-P 1001"),
            ("rr --depth 1001", "--depth 1001"),
            ("throughput -l 2M", "-l 2097152"),
            ("datagram --hgrm x", "--hgrm"),
            ("--hgrm x", "--hgrm"),
        ] {
            let Err(Failure::Usage(message)) = parse(line) else {
                panic!("{line}")
            };
            assert!(message.starts_with(flag), "{line}: {message}");
        }
    }
}
