//! One cell of the matrix: a server, the relay, a client, and the judgement.

use super::cases::Case;
use super::certs::Certs;
use super::check::Evidence;
use super::process::{Process, Started};
use super::{Options, Peer, limits};
use crate::trace::{KeyLog, Trace};
use corelane_relay::{Config, Log, Relay};
use serde::Serialize;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Time for a server to begin to listen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time for the last datagrams after the client's end.
const LINGER: Duration = Duration::from_millis(100);

/// Who meets whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The client.
    pub client: Peer,
    /// The server.
    pub server: Peer,
}

impl Pair {
    /// The one that is not corelane, and corelane for the pair of itself.
    pub fn other(self) -> Peer {
        if self.client == Peer::Corelane {
            self.server
        } else {
            self.client
        }
    }
}

/// How a cell ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", content = "text", rename_all = "lowercase")]
pub enum Outcome {
    /// Everything was as it must be; with what was measured.
    Passed(String),
    /// Something was not, and what.
    Failed(String),
    /// An endpoint ended with 127; which one.
    Unsupported(String),
    /// The peer is not built.
    Absent,
}

/// A cell that was played.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The case.
    pub case: &'static str,
    /// Who met whom.
    pub pair: Pair,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// What is known to be the reason, if it is the peer's.
    pub known: Option<&'static str>,
}

/// Plays a case between a pair.
pub(super) fn play(case: &Case, pair: Pair, options: &Options, certs: &Certs) -> Cell {
    let began = crate::clock::now();
    let outcome = Stage::set(case, pair, options, certs)
        .and_then(|stage| stage.map_or(Ok(Outcome::Absent), |s| s.repeat()))
        .unwrap_or_else(|e| Outcome::Failed(format!("the runner: {e}")));
    let known = match &outcome {
        Outcome::Passed(_) | Outcome::Absent => None,
        _ => limits::known(case.name, pair),
    };
    Cell {
        case: case.name,
        pair,
        outcome,
        took: began.elapsed(),
        known,
    }
}

struct Stage<'a> {
    case: &'a Case,
    pair: Pair,
    options: &'a Options,
    certs: &'a Certs,
    dir: PathBuf,
}

/// What one run left behind.
enum Run {
    Over(Log, Duration),
    Outcome(Outcome),
}

impl<'a> Stage<'a> {
    fn set(
        case: &'a Case,
        pair: Pair,
        options: &'a Options,
        certs: &'a Certs,
    ) -> io::Result<Option<Self>> {
        let both = [pair.client, pair.server].map(|p| options.peers.command(p));
        if both.iter().any(Option::is_none) {
            return Ok(None);
        }
        let name = format!("{}-to-{}", pair.client, pair.server);
        let dir = options.out.join(name).join(case.name);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        Ok(Some(Self {
            case,
            pair,
            options,
            certs,
            dir,
        }))
    }

    /// Plays as often as the case wants; the first run that does not pass ends it.
    fn repeat(&self) -> io::Result<Outcome> {
        let mut rates = Vec::new();
        let mut note = String::new();
        for n in 0..self.case.runs {
            let (log, took) = match self.run(n)? {
                Run::Over(log, took) => (log, took),
                Run::Outcome(outcome) => return Ok(outcome),
            };
            match self.judge(&log) {
                Ok(text) => note = text,
                Err(why) => {
                    self.keep(&log)?;
                    return Ok(Outcome::Failed(why));
                }
            }
            rates.push(self.case.bytes() as f64 * 8e-6 / took.as_secs_f64());
            self.clean()?;
        }
        if self.case.measure {
            let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
            let spread = rates.iter().map(|r| (r - mean).powi(2)).sum::<f64>();
            let spread = (spread / rates.len().max(1) as f64).sqrt();
            note = format!("{mean:.2} ± {spread:.2} Mb/s {note}");
        }
        Ok(Outcome::Passed(note.trim().into()))
    }

    fn clean(&self) -> io::Result<()> {
        for name in ["downloads", "qlog"] {
            let path = self.dir.join(name);
            if path.exists() {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }

    fn run(&self, n: usize) -> io::Result<Run> {
        let local: SocketAddr = if self.case.v6 {
            (Ipv6Addr::LOCALHOST, 0).into()
        } else {
            (Ipv4Addr::LOCALHOST, 0).into()
        };
        // The server must name its second address before the relay can know the server's first.
        let second = UdpSocket::bind(local)?.local_addr()?;
        let Some(command) = self.server(local, second) else {
            return Ok(Run::Outcome(Outcome::Absent));
        };
        let started = Process::serve(command, &self.dir.join("server.log"), PATIENCE)?;
        let (server, addr, also) = match started {
            Started::Listening(server, addr, also) => (server, addr, also),
            Started::Ended(status) if status.code() == Some(127) => {
                return Ok(Run::Outcome(unsupported("server", self.pair.server)));
            }
            Started::Ended(status) => {
                return Ok(self.failed("server", &format!("the server ended: {status}")));
            }
            Started::Silent => return Ok(self.failed("server", "the server said nothing")),
        };
        let mut config = Config::new(addr);
        self.case.shape(&mut config);
        if self.case.name == "connectionmigration" {
            // A server with a single socket gets everything there.
            config.fronts.push((second, also.unwrap_or(addr)));
        }
        config.capture = true;
        config.seed = self.options.seed + n as u64;
        let relay = Relay::start(config)?;
        let began = crate::clock::now();
        let Some(command) = self.client(relay.addr()) else {
            return Ok(Run::Outcome(Outcome::Absent));
        };
        let mut client = Process::start(command, &self.dir.join("client.log"))?;
        let ended = client.wait(self.case.limit)?;
        let took = began.elapsed();
        std::thread::sleep(LINGER);
        let log = relay.stop();
        drop((client, server));
        let why = match ended {
            Some(status) if status.success() => return Ok(Run::Over(log, took)),
            Some(status) if status.code() == Some(127) => {
                return Ok(Run::Outcome(unsupported("client", self.pair.client)));
            }
            Some(status) => format!("the client ended: {status}"),
            None => format!("not done in {} s", self.case.limit.as_secs()),
        };
        self.keep(&log)?;
        Ok(self.failed("client", &why))
    }

    /// A failure with the last line of an endpoint's log.
    fn failed(&self, who: &str, why: &str) -> Run {
        let text = fs::read_to_string(self.dir.join(format!("{who}.log"))).unwrap_or_default();
        let last = text.lines().rev().find(|l| !l.trim().is_empty());
        let last: String = last.unwrap_or_default().chars().take(300).collect();
        Run::Outcome(Outcome::Failed(format!("{why}: {last}")))
    }

    fn server(&self, listen: SocketAddr, second: SocketAddr) -> Option<Command> {
        let mut command = self.options.peers.command(self.pair.server)?;
        let cert = if self.case.chain {
            &self.certs.long
        } else {
            &self.certs.short
        };
        command.args(["server", "--listen", &listen.to_string(), "--root"]);
        command.arg(self.case.files_dir(&self.options.out));
        command.arg("--cert").arg(cert);
        command.arg("--key").arg(&self.certs.key);
        command.env("PREFERRED_ADDRESS", second.to_string());
        self.environment(&mut command, self.case.server, "server");
        Some(command)
    }

    fn client(&self, server: SocketAddr) -> Option<Command> {
        let mut command = self.options.peers.command(self.pair.client)?;
        command.arg("client");
        command.arg("--out").arg(self.dir.join("downloads"));
        command.arg("--ca").arg(&self.certs.ca);
        for (name, _) in self.case.files() {
            command.arg(format!("https://{server}/{name}"));
        }
        self.environment(&mut command, self.case.client, "client");
        Some(command)
    }

    fn environment(&self, command: &mut Command, case: &str, who: &str) {
        let qlog = self.dir.join("qlog").join(who);
        let _ = fs::create_dir_all(&qlog);
        command.env("TESTCASE", case);
        command.env("QLOGDIR", qlog);
        command.env("SSLKEYLOGFILE", self.dir.join(format!("{who}.keys")));
        command.env_remove("REQUESTS");
    }

    fn judge(&self, log: &Log) -> Result<String, String> {
        self.compare()?;
        let evidence = Evidence {
            log,
            trace: self.decrypt(log),
            requests: self
                .case
                .files()
                .map(|(name, _)| name.len() as u64 + 7)
                .sum(),
        };
        (self.case.check)(&evidence)
    }

    /// Every file came whole.
    fn compare(&self) -> Result<(), String> {
        let hash = |path: &Path| -> Result<_, String> {
            let data = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok(ring::digest::digest(&ring::digest::SHA256, &data))
        };
        let want = self.case.files_dir(&self.options.out);
        for (name, _) in self.case.files() {
            let got = hash(&self.dir.join("downloads").join(&name))
                .map_err(|_| format!("{name} did not come"))?;
            if got.as_ref() != hash(&want.join(&name))?.as_ref() {
                return Err(format!("{name} came with other bytes"));
            }
        }
        Ok(())
    }

    fn decrypt(&self, log: &Log) -> Trace {
        let mut keys = KeyLog::default();
        for who in ["client", "server"] {
            let path = self.dir.join(format!("{who}.keys"));
            keys.read(&fs::read_to_string(path).unwrap_or_default());
        }
        Trace::new(&log.entries, &keys)
    }

    /// Leaves the relay's log, and the same decrypted, beside those of the endpoints.
    fn keep(&self, log: &Log) -> io::Result<()> {
        let mut file = io::BufWriter::new(fs::File::create(self.dir.join("relay.log"))?);
        for entry in &log.entries {
            writeln!(file, "{entry}")?;
        }
        writeln!(file, "up {:?}\ndown {:?}", log.up, log.down)?;
        writeln!(file, "rebindings {} stale {}", log.rebindings, log.stale)?;
        let mut file = io::BufWriter::new(fs::File::create(self.dir.join("packets.log"))?);
        for packet in &self.decrypt(log).packets {
            writeln!(file, "{packet}")?;
        }
        Ok(())
    }
}

fn unsupported(role: &str, peer: Peer) -> Outcome {
    Outcome::Unsupported(format!("{peer} as {role}"))
}
