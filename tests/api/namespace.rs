//! Automatic paths in network namespaces of the test's own: two cables between a client and a
//! server, and addresses that come and go while a transfer runs.
//!
//! The test starts itself again for each end. Where the system permits no namespaces, it says so
//! and passes.

use super::certs::{Identity, SERVER_NAME};
use super::paths::{addr, wait_for, world};
use super::util::{ALPN, World, run};
use corelane::api::{Connection, Endpoint, PathEvent, PathId, PathInfo, PathState};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Set in the processes inside: `client` or `server`.
const INSIDE: &str = "CORELANE_TEST_END";
const NAME: &str = "namespace::addresses_come_and_go_while_a_transfer_runs";

#[test]
fn addresses_come_and_go_while_a_transfer_runs() {
    match std::env::var(INSIDE).as_deref() {
        Ok("client") => return client(),
        Ok("server") => return server(),
        _ => {}
    }
    let veth = "ip link add d0 type veth peer name d1 && unshare -n true";
    let can = Command::new("unshare")
        .args(["-Urn", "sh", "-c", veth])
        .output();
    if !can.is_ok_and(|out| out.status.success()) {
        println!("skipped: no network namespaces or pairs of interfaces here");
        return;
    }
    let out = ends("-Urn", "client").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

/// This test as one of the ends, in namespaces of its own.
fn ends(namespaces: &str, end: &str) -> Command {
    let mut command = Command::new("unshare");
    let exe = std::env::current_exe().unwrap();
    command.arg(namespaces).arg(exe);
    command.args(["--exact", NAME, "--nocapture"]);
    command.env(INSIDE, end);
    command
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}");
}

/// Trusts and is trusted in both processes.
fn shared_world() -> World {
    let mut world = world();
    world.identity = Identity::fixed();
    world
}

/// Sends back what comes until its standard input ends.
fn server() {
    let mut lines = std::io::stdin().lines();
    println!("\nhere");
    // The cables are plugged in now.
    lines.next();
    for (device, net) in [("b0", 1), ("b1", 2)] {
        ip(&format!("addr add 10.0.{net}.2/24 dev {device}"));
        ip(&format!("link set {device} up"));
    }
    let world = shared_world();
    let tls = Arc::new(world.identity.server_config(&[ALPN]));
    let endpoint = world.builder().server(tls, addr("0.0.0.0:4433"));
    let endpoint = endpoint.build().unwrap();
    println!("\nready");
    let listener = endpoint.clone();
    let serving = std::thread::spawn(move || {
        futures_executor::block_on(async {
            while let Some(incoming) = listener.accept().await {
                let connection = incoming.accept().await.unwrap();
                while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                    let got = recv.read_to_end(1 << 20).await.unwrap();
                    send.write_all(&got).await.unwrap();
                    send.finish().unwrap();
                }
            }
        });
    });
    lines.next();
    endpoint.close(0, b"");
    serving.join().unwrap();
}

/// The server's process, and its cables.
struct Peer(Child, BufReader<std::process::ChildStdout>);

impl Peer {
    fn start() -> Self {
        let mut command = ends("-n", "server");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Self(child, out);
        peer.wait_for("here");
        for n in 0..2 {
            ip(&format!("link add a{n} type veth peer name b{n}"));
            ip(&format!("link set b{n} netns {}", peer.0.id()));
            ip(&format!("link set a{n} up"));
        }
        writeln!(peer.0.stdin.as_ref().unwrap()).unwrap();
        peer.wait_for("ready");
        peer
    }

    fn wait_for(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim() != wanted {
            line.clear();
            let read = self.1.read_line(&mut line).unwrap();
            assert!(read > 0, "the server has ended");
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A transfer that goes on until it is told to stop.
struct Transfer {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

impl Transfer {
    fn start(connection: Connection) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let (over, count) = (stop.clone(), rounds.clone());
        let go = async move {
            let mut data = vec![0; 50_000];
            while !over.load(Ordering::SeqCst) {
                let round = count.load(Ordering::SeqCst);
                data.fill(round as u8);
                let (mut send, mut recv) = connection.open_bi().await.unwrap();
                send.write_all(&data).await.unwrap();
                send.finish().unwrap();
                assert_eq!(recv.read_to_end(1 << 20).await.unwrap(), data);
                count.store(round + 1, Ordering::SeqCst);
            }
        };
        let thread = std::thread::spawn(move || futures_executor::block_on(go));
        Self {
            stop,
            rounds,
            thread,
        }
    }

    /// Waits until so much more has come back.
    fn goes_on(&self) {
        let before = self.rounds.load(Ordering::SeqCst);
        while self.rounds.load(Ordering::SeqCst) < before + 20 {
            assert!(!self.thread.is_finished(), "the transfer has failed");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

async fn path(connection: &Connection, id: PathId) -> PathInfo {
    let paths = connection.paths().await.unwrap();
    paths.into_iter().find(|p| p.id == id).expect("it is there")
}

/// Bytes that left by an interface.
fn sent_by(device: &str) -> u64 {
    let all = std::fs::read_to_string("/proc/net/dev").unwrap();
    let of = |line: &str| {
        Some(
            line.trim()
                .strip_prefix(device)?
                .strip_prefix(':')?
                .to_owned(),
        )
    };
    let counters = all.lines().find_map(of).expect("the interface");
    counters.split_whitespace().nth(8).unwrap().parse().unwrap()
}

/// A second address brings a path that carries data by its own interface, and goes with it; the
/// first address may go as well.
fn client() {
    run(|| async {
        ip("link set lo up");
        let _peer = Peer::start();
        ip("addr add 10.0.1.1/24 dev a0");
        let mut world = shared_world();
        world.transport.multipath.auto_paths = Some(4);
        let tls = Arc::new(world.identity.client_config(&[ALPN]));
        let endpoint: Endpoint = world.builder().client(tls).build().unwrap();
        let remote = addr("10.0.1.2:4433");
        let connection = endpoint.connect(remote, SERVER_NAME).await.unwrap();
        let transfer = Transfer::start(connection.clone());
        transfer.goes_on();
        assert_eq!(connection.paths().await.unwrap().len(), 1);

        ip("addr add 10.0.2.1/24 dev a1");
        // The one more specific leads to the other interface.
        ip("route replace default via 10.0.2.2 dev a1");
        let opened = |e| match e {
            PathEvent::Validated(id) => Some(id),
            _ => None,
        };
        let up = wait_for(&connection, |e| opened(e).is_some()).await;
        let second = opened(up).unwrap();
        let at = path(&connection, second).await;
        assert_eq!(at.tuple.local.ip().to_string(), "10.0.2.1");
        while path(&connection, second).await.counters.bytes_acked < 100_000 {
            transfer.goes_on();
        }
        assert!(sent_by("a1") > 100_000, "by the other cable");

        ip("addr del 10.0.2.1/24 dev a1");
        let gone = |e| matches!(e, PathEvent::Abandoned { id, .. } if id == second);
        wait_for(&connection, gone).await;
        transfer.goes_on();

        ip("addr add 10.0.2.1/24 dev a1");
        ip("route replace default via 10.0.2.2 dev a1");
        let up = wait_for(&connection, |e| opened(e).is_some()).await;
        let third = opened(up).unwrap();
        assert_ne!(third, second);
        transfer.goes_on();

        // What the connection began with: another path is there.
        ip("link set a0 down");
        transfer.goes_on();
        ip("addr del 10.0.1.1/24 dev a0");
        transfer.goes_on();
        assert_eq!(path(&connection, third).await.state, PathState::Open);
        ip("link set a0 up");
        ip("addr add 10.0.1.1/24 dev a0");
        transfer.goes_on();
        transfer.end();
        connection.close(0, b"");
        endpoint.wait_idle().await;
    });
}
