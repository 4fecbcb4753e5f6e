//! Connections that do nothing: what each costs on either side.
//!
//! The server is this program again in a process of its own, so that memory can be told apart. It
//! prints its address and its authority, and ends when its standard input does, however the client
//! ended.

use std::env;
use std::io::{BufRead, BufReader, Read, stdin};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use quinn::{Connection, Endpoint, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{Fault, client_config, client_endpoint, runtime, server, server_config};
use crate::clock::{now, pin};
use crate::meter::{Meter, Sample};
use crate::program::Args;
use crate::report::{Memory, Workload};
use crate::tls::{Certificates, SERVER_NAME};
use crate::{output, process};

/// Connections opened and closed before memory is read for the first time.
const WARM_UPS: usize = 16;
/// Connections being opened at a time.
const AT_A_TIME: usize = 64;
/// How long closed connections get to go away.
const SETTLE: Duration = Duration::from_millis(500);
/// The time between the last connection and the window.
const QUIET: Duration = Duration::from_secs(2);

/// Is the server.
pub(super) fn serve(args: &Args) -> Result<(), Fault> {
    pin(args.server_core)?;
    let certificates = Certificates::make()?;
    let authority = hex(&certificates.authority);
    let config = server_config(args, certificates)?;
    let (tell_addr, addr) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    thread::spawn(move || {
        if let Ok(addr) = addr.recv() {
            // Who does not read it is gone, which the next line finds out.
            let _ = output::print(&format!("{addr} {authority}\n"));
        }
        // Nothing is ever written: this returns when the other process lets go.
        let _ = stdin().read(&mut [0]);
        drop(stop);
    });
    let meter = Arc::new(Meter::default());
    runtime()?.block_on(server::run(args, config, meter, tell_addr, stopped))
}

/// The server's process, which ends with this.
struct ServerProcess {
    child: Child,
    addr: SocketAddr,
    authority: CertificateDer<'static>,
}

impl ServerProcess {
    fn start() -> Result<Self, Fault> {
        let mut child = Command::new(env::current_exe()?)
            .args(env::args_os().skip(1))
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let words = line.trim().split_once(' ');
        let told =
            words.and_then(|(addr, authority)| Some((addr.parse().ok()?, unhex(authority)?)));
        match told {
            Some((addr, authority)) => Ok(Self {
                child,
                addr,
                authority: authority.into(),
            }),
            None => {
                drop(child.stdin.take());
                Err(format!("the server's process ended: {}", child.wait()?).into())
            }
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // What went wrong there it has told on its own standard error.
        let _ = self.child.wait();
    }
}

/// Opens the connections, holds them and sums up.
pub(super) fn run(args: &Args) -> Result<Workload, Fault> {
    let server = ServerProcess::start()?;
    pin(args.client_core)?;
    let config = client_config(args, server.authority.clone(), None)?;
    let pids = (std::process::id(), server.child.id());
    runtime()?.block_on(async {
        let endpoint = client_endpoint(args, config)?;
        for connection in open(&endpoint, server.addr, WARM_UPS).await? {
            connection.close(VarInt::from_u32(0), b"");
        }
        tokio::time::sleep(SETTLE).await;
        let empty = both(pids, process::resident)?;
        let wanted = args.connections as usize;
        let connections = open(&endpoint, server.addr, wanted).await?;
        tokio::time::sleep(QUIET).await;
        let (begin, cpu) = (now(), both(pids, process::cpu)?);
        tokio::time::sleep(args.window()).await;
        let (elapsed, cpu_then) = (begin.elapsed(), both(pids, process::cpu)?);
        let full = both(pids, process::resident)?;
        let open = connections.iter().filter(|c| c.close_reason().is_none());
        let open = open.count() as u64;
        let sample = Sample {
            elapsed,
            operations: open,
            failures: (wanted as u64).saturating_sub(open),
            client_cpu: cpu_then.0.saturating_sub(cpu.0),
            server_cpu: cpu_then.1.saturating_sub(cpu.1),
            ..Sample::default()
        };
        let each = |full: u64, empty| Some(full.saturating_sub(empty) as f64 / wanted as f64);
        Ok(Workload {
            memory_bytes_per_connection: Some(Memory {
                client: each(full.0, empty.0),
                server: each(full.1, empty.1),
            }),
            ..Workload::new("idle", &sample, None)
        })
    })
}

fn both<T>(
    (client, server): (u32, u32),
    of: impl Fn(u32) -> std::io::Result<T>,
) -> std::io::Result<(T, T)> {
    Ok((of(client)?, of(server)?))
}

async fn open(
    endpoint: &Endpoint,
    to: SocketAddr,
    wanted: usize,
) -> Result<Vec<Connection>, Fault> {
    let mut connections = Vec::with_capacity(wanted);
    let mut opening = JoinSet::new();
    for _ in 0..wanted {
        if opening.len() == AT_A_TIME
            && let Some(opened) = opening.join_next().await
        {
            connections.push(opened??);
        }
        opening.spawn(endpoint.connect(to, SERVER_NAME)?);
    }
    while let Some(opened) = opening.join_next().await {
        connections.push(opened??);
    }
    Ok(connections)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_as_digits() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        assert_eq!(unhex("0g"), None);
    }

    #[test]
    fn connections_are_opened_and_held() {
        let args = crate::quinn::tests::args("--work idle");
        runtime()
            .unwrap()
            .block_on(async {
                let certificates = Certificates::make()?;
                let client = client_config(&args, certificates.authority.clone(), None)?;
                let config = server_config(&args, certificates)?;
                let (tell_addr, addr) = mpsc::channel();
                let (_stop, stopped) = oneshot::channel();
                let serving = args.clone();
                tokio::spawn(async move {
                    let meter = Arc::new(Meter::default());
                    server::run(&serving, config, meter, tell_addr, stopped).await
                });
                tokio::task::yield_now().await;
                let endpoint = client_endpoint(&args, client)?;
                let held = open(&endpoint, addr.recv()?, AT_A_TIME + 6).await?;
                assert_eq!(held.len(), AT_A_TIME + 6);
                assert!(held.iter().all(|c| c.close_reason().is_none()));
                Ok::<_, Fault>(())
            })
            .unwrap();
    }
}
