//! The server of a measurement as a process of its own: this program again, with the same flags.
//!
//! It prints its address and its certificate's fingerprint in one line, and ends when its standard
//! input does: when the process that started it lets go, however that ends.

use super::run::ORDER_TIME;
use super::server::{self, ServerApp, ServerConfig};
use super::{BenchArgs, Live, provider, server_engine};
use crate::cli::args::TrustArgs;
use crate::cli::report::meter::Usage;
use crate::cli::{Failure, output, setup, signal, tls};
use corelane::shard::engine::{Engine, EngineConfig};
use corelane::sys::affinity::Core;
use corelane::sys::clock::Clock;
use std::env;
use std::io::{BufRead, BufReader, Read, stdin};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// The longest measurement that connections outlast: their idle timeout is twice that.
pub const LONGEST: Duration = Duration::from_secs(300);

/// The server's process; it ends with this.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    fingerprint: String,
}

impl Server {
    /// Starts it with the flags of this process.
    pub fn start() -> Result<Self, Failure> {
        let failed = |e| Failure::Failed(format!("cannot start a process for the server: {e}"));
        let mut child = Command::new(env::current_exe().map_err(failed)?)
            .args(env::args_os().skip(1))
            .arg("--serve-apart")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(failed)?;
        }
        let told = line.trim().split_once(' ');
        match told.and_then(|(addr, print)| Some((addr.parse().ok()?, print.to_owned()))) {
            Some((addr, fingerprint)) => Ok(Self {
                child,
                addr,
                fingerprint,
            }),
            // It has said on standard error why.
            None => {
                drop(child.stdin.take());
                let status = child.wait().map_err(failed)?;
                Err(Failure::Failed(format!("the server's process: {status}")))
            }
        }
    }

    /// Trusts it alone.
    pub fn trust(&self) -> Result<tls::Trust, Failure> {
        tls::Trust::from_args(&TrustArgs {
            ca: None,
            pin: Some(self.fingerprint.clone()),
            insecure: false,
        })
    }

    /// What it has used so far.
    pub fn usage(&self) -> Result<Usage, Failure> {
        let failed = |e| Failure::Failed(format!("cannot read the server's /proc: {e}"));
        Usage::of(self.child.id()).map_err(failed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It has said on standard error what went wrong, if anything.
        let _ = self.child.wait();
    }
}

/// Is that process.
pub fn serve(args: &BenchArgs, shards: usize, cores: Vec<Core>) -> Result<(), Failure> {
    // The other process has to end its connections first.
    signal::leave_to_parent()?;
    let identity = tls::Identity::generate()?;
    let fingerprint = identity.fingerprint();
    let transport = setup::transport(&args.engine, LONGEST);
    let provider = provider(args.engine.provider, args.load.cipher)?;
    let config: EngineConfig = server_engine(args, identity, &provider, shards, cores, transport)?;
    let live = Live::new(shards);
    let mut engine = Engine::start(&config, |shard| {
        let config = ServerConfig {
            max_connections: usize::MAX,
            records: None,
        };
        ServerApp::new(shard, live.clone(), config)
    })?;
    let addr = engine.local_addrs().first().copied();
    let addr = addr.ok_or_else(|| Failure::Failed("the server has no address".into()))?;
    output::print(&format!("{addr} {fingerprint}\n"))?;
    // Nothing is ever written: this returns when the other process lets go.
    let _ = stdin().read(&mut [0]);
    for sender in engine.senders() {
        // A shard that is gone, or too busy for a word, is ended all the same.
        let _ = sender.send(server::Order::Close);
    }
    let begin = Clock::now();
    let open = || live.sum(|c| &c.closed) < live.sum(|c| &c.connected);
    while open() && !engine.has_ended() && Clock::now() - begin < ORDER_TIME {
        thread::sleep(Duration::from_millis(1));
    }
    engine.stop();
    engine.join()?;
    Ok(())
}
