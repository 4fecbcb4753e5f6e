//! Connections that do nothing: what each costs in memory and CPU time.
//!
//! The server is a process of its own, so that the memory of both sides can be told apart. It is
//! this program again, prints its address, and ends when its input does: when this process ends,
//! however it does.

use std::env;
use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use corelane_perf::meter::{Meter, Sample};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::frame::{self, Measured, Memory};
use crate::{Certificates, Fault, Peer, Run, Stop, now, process};

/// How many connections are opened and closed before memory is read for the first time.
pub const WARM_UPS: usize = 16;
/// How many are being opened at a time.
pub const AT_A_TIME: usize = 64;
/// How long closed connections get to go away.
pub const SETTLE: Duration = Duration::from_millis(500);
/// The time between the last connection and the window.
const QUIET: Duration = Duration::from_secs(2);

/// Permits as many open files as the system does: a connection of TCP is one.
fn permit_files() -> Result<(), Fault> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Is the server, with the certificates in `directory`.
pub(crate) fn serve<P: Peer>(run: &Run, directory: &Path) -> Result<(), Fault> {
    permit_files()?;
    let certificates = Arc::new(Certificates::load(directory)?);
    let (tell, events) = channel();
    let stop = Stop::new()?;
    frame::start_server::<P>(run, certificates, Arc::default(), stop.clone(), &tell)?;
    let addr = frame::listening(&events)?;
    writeln!(stdout(), "{addr}")?;
    thread::spawn(move || {
        // Nothing is ever written: this returns when the other process lets go.
        let _ = stdin().read(&mut [0]);
        stop.set();
    });
    drop(tell);
    match events.recv()? {
        frame::Event::ServerEnded(result) => result,
        _ => Err("a server that drives".into()),
    }
}

/// The server's process; it ends with this value.
struct ServerProcess {
    child: Child,
    addr: SocketAddr,
}

impl ServerProcess {
    fn start(directory: &Path) -> Result<Self, Fault> {
        let mut child = Command::new(env::current_exe()?)
            .args(env::args_os().skip(1))
            .arg("--serve")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(addr) => Ok(Self { child, addr }),
            Err(_) => {
                drop(child.stdin.take());
                Err(format!("the server's process ended: {}", child.wait()?).into())
            }
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It has told on its own error output what went wrong, if anything.
        let _ = self.child.wait();
    }
}

/// Opens the connections and holds them.
pub(crate) fn run<P: Peer>(run: &Run) -> Result<Measured, Fault> {
    permit_files()?;
    let certificates = Arc::new(Certificates::make()?);
    let server = ServerProcess::start(certificates.directory())?;
    let pid = server.child.id();
    let meter = Arc::new(Meter::default());
    let (tell, events) = channel();
    let at = (server.addr, pid);
    let client = frame::start_client::<P>(run, certificates, meter.clone(), at, &tell)?;
    frame::ready(run.work, &events)?;

    thread::sleep(QUIET);
    let begin = now();
    let cpu = |pid| process::cpu_time(pid);
    let own = std::process::id();
    let before = (cpu(own)?, cpu(pid)?);
    thread::sleep(run.window);
    let after = (cpu(own)?, cpu(pid)?);
    let elapsed = begin.elapsed();
    let memory = Memory::of(pid)?;
    meter.stop();
    client.stop.set();
    let outcome = frame::client_ended(&events)?;

    let empty = *client
        .memory_before
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let empty = empty.ok_or("the client has not warmed up")?;
    let sample = Sample {
        elapsed,
        operations: outcome.open,
        failures: (run.connections as u64).saturating_sub(outcome.open),
        client_cpu: after.0.saturating_sub(before.0),
        server_cpu: after.1.saturating_sub(before.1),
        ..Sample::default()
    };
    Ok(Measured {
        sample,
        latency: None,
        memory: Some(per_connection(memory, empty, run.connections)),
    })
}

fn per_connection(full: Memory, empty: Memory, connections: usize) -> Memory {
    let each = |full: u64, empty: u64| full.saturating_sub(empty) / connections.max(1) as u64;
    Memory {
        client: each(full.client, empty.client),
        server: each(full.server, empty.server),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_out_over_the_connections() {
        let memory = |client, server| Memory { client, server };
        let each = per_connection(memory(5000, 30_000), memory(1000, 40_000), 4);
        assert_eq!(each, memory(1000, 0));
    }
}
