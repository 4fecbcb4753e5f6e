//! Against an independent endpoint, a Python program that rxe accepts (`rcpeer.py`), as requester
//! and as responder, over UDP sockets of the loopback interface.

use crate::rig::{Side, Terms};
use corelane::base::{Ecn, FourTuple, RecvMeta, SocketId};
use corelane::rdma::roce::Identification;
use corelane::rdma::*;
use corelane::sys::clock::Clock;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Long enough for any machine; only a failure waits so long.
const DEADLINE: Duration = Duration::from_secs(60);

struct Crossing {
    side: Side,
    socket: UdpSocket,
    peer: SocketAddr,
}

impl Crossing {
    /// Sends and receives until `done` is.
    fn run(&mut self, what: &str, mut done: impl FnMut(&mut Side) -> bool) {
        let begin = Clock::now();
        while !done(&mut self.side) {
            assert!(
                Clock::now() - begin < DEADLINE,
                "{what}: {:?}",
                self.side.dev.stats()
            );
            while let Some((t, train)) = self.side.transmit(Clock::now()) {
                for segment in train.chunks(t.segment_size) {
                    self.socket.send_to(segment, t.path.remote).expect("sent");
                }
            }
            let mut buf = [0; 9000];
            if let Ok((len, from)) = self.socket.recv_from(&mut buf) {
                assert_eq!(from, self.peer);
                let meta = RecvMeta {
                    socket: SocketId(3),
                    path: FourTuple::new(self.side.addr, from),
                    ecn: Ecn::NotEct,
                    segment_size: len,
                };
                self.side
                    .dev
                    .handle_train(Clock::now(), &meta, &mut buf[..len]);
            }
            self.side.dev.handle_timeout(Clock::now());
        }
    }

    /// Runs until there are `n` completions.
    fn completions(&mut self, what: &str, n: usize) -> Vec<Completion> {
        let mut all = Vec::new();
        self.run(what, |side| {
            all.extend(side.completions());
            all.len() >= n
        });
        all
    }
}

fn spawn(local: SocketAddr, remote: SocketAddr, tcp: u16) -> std::io::Result<Child> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rdma/rcpeer.py");
    let args = [
        local.ip().to_string(),
        local.port().to_string(),
        remote.ip().to_string(),
        remote.port().to_string(),
        tcp.to_string(),
    ];
    let mut command = Command::new("python3");
    command.arg(script).args(args);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn cross(ip: &str) {
    let bind = || UdpSocket::bind(format!("{ip}:0")).expect("a socket");
    let (socket, other) = (bind(), bind());
    let (addr, peer) = (socket.local_addr().unwrap(), other.local_addr().unwrap());
    drop(other);
    let wait = Duration::from_millis(5);
    socket.set_read_timeout(Some(wait)).expect("a timeout");
    let listener = TcpListener::bind(format!("{ip}:0")).expect("a listener");
    let child = match spawn(peer, addr, listener.local_addr().unwrap().port()) {
        Ok(child) => child,
        Err(e) => {
            eprintln!("SKIPPED: the independent peer needs python3: {e}");
            return;
        }
    };
    let (mut stream, _) = listener.accept().expect("the peer connects");
    let mut lines = BufReader::new(stream.try_clone().expect("a handle"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("the peer's numbers");
    let number = |n| u32::from_str_radix(line.split_whitespace().nth(n).unwrap(), 16).unwrap();
    let config = |c: &mut roce::Config| c.identification = Identification::Zero;
    let mut side = Side::new(&addr.to_string(), 5, false, config);
    let terms = Terms {
        timeout: 18, // a second: nothing is lost here
        ..Terms::new()
    };
    side.connect((peer, number(0), number(1)), &terms);
    for n in 0..3 {
        side.post_recv(n, &[side.mr.sge(0, 4096)]);
    }
    let mr = side.mr;
    let (qpn, psn) = (side.qp.qpn, side.qp.psn);
    writeln!(stream, "{qpn:x} {psn:x} {:x} {:x}", mr.addr + 4096, mr.rkey).expect("told");
    let mut crossing = Crossing { side, socket, peer };

    let got = crossing.completions("a send and a write", 2);
    assert_eq!(
        (got[0].opcode, got[0].byte_len),
        (CompletionOpcode::Recv, 100)
    );
    let imm = (got[1].opcode, got[1].byte_len, got[1].imm);
    assert_eq!(
        imm,
        (CompletionOpcode::RecvRdmaWithImm, 4096, Some(0xfeed_f00d))
    );
    let bytes = crossing.side.dev.bytes_mut(mr.id).unwrap();
    assert!(bytes[..99].iter().all(|&b| b == b'a') && bytes[99] == b'z');
    let written = |(i, b): (usize, &u8)| *b == (i * 3) as u8;
    assert!(bytes[4096..8192].iter().enumerate().all(written));
    for (i, byte) in bytes[8192..8192 + 2500].iter_mut().enumerate() {
        *byte = i as u8;
    }
    let remote = Remote {
        addr: 0x1000,
        rkey: 0x42,
    };
    for (n, op, len) in [
        (7, SendOp::Send, 2500),
        (8, SendOp::RdmaWrite(remote), 1500),
    ] {
        let sges = [mr.sge(8192, len)];
        crossing
            .side
            .post(SendRequest::new(n, op, Data::Sges(&sges)));
    }
    let done = crossing.completions("our send and write", 2);
    let done: Vec<_> = done.iter().map(|c| (c.wr_id, c.status)).collect();
    assert_eq!(done, [(7, Status::Success), (8, Status::Success)]);
    // It ends with a key that is none; the refusal leaves before the state is looked at again.
    crossing.run("the wrong key", |side| side.state() == QpState::Err);
    let mut told = false;
    crossing.run("the refusal", |_| std::mem::replace(&mut told, true));
    assert_eq!(crossing.side.outcomes(), [(2, Status::WrFlushErr)]);
    let stats = *crossing.side.dev.stats();
    assert_eq!((stats.bad_icrc, stats.identified), (1, 0), "{stats:?}");
    let output = child.wait_with_output().expect("the peer ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn an_independent_peer_agrees_over_ipv4() {
    cross("127.0.0.1");
}

#[test]
fn an_independent_peer_agrees_over_ipv6() {
    cross("[::1]");
}
