//! Whole endpoints as targets: a live handshake whose datagrams are edited, and a live connection
//! that gets any payload in an authentic packet.
//!
//! Every input begins with a fresh endpoint, so it repeats alone; TLS draws its own randomness, and
//! nothing that is checked depends on it.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::{ack_frame, crypto_frame, payload, stream_frame};
use corelane::shard::qlog::Qlog;
use corelane::wire::frame::{self, NewConnectionId};
use corelane::wire::header::{self, VERSION_1};
use corelane::wire::{ConnectionId, Dir, PacketType};
use std::sync::OnceLock;
use std::time::Duration;

/// One change to one of the handshake's datagrams: which, where, and the bits to flip.
const EDIT: usize = 4;

/// Every second input is logged as it is played: what a peer sends must not break the log either.
/// The records are made and go nowhere, for their directory is gone.
fn plan(input: &[u8]) -> Plan {
    static QLOG: OnceLock<Qlog> = OnceLock::new();
    let mut plan = Plan::default();
    if input.len() % 2 == 1 {
        let qlog = QLOG.get_or_init(|| {
            let name = format!("corelane-fuzz-{}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            let qlog = Qlog::to_dir(&dir).expect("a directory for temporary files");
            std::fs::remove_dir(&dir).expect("it is ours and empty");
            qlog
        });
        plan.transport.observers = Some(qlog.observers());
    }
    plan
}

/// An endpoint about to shake hands; the server's half of the choice is the input's first bit.
fn begin(choice: u8, plan: Plan) -> Attack {
    if choice & 1 == 0 {
        return Attack::on_server(plan);
    }
    let mut a = Attack::on_client(plan);
    a.start_server(|_| {});
    a
}

/// First byte: which side, and after how many datagrams to inject. Second: how many edits of four
/// bytes follow. The rest is a datagram of its own.
pub fn run_datagram(input: &[u8]) {
    let [choice, edits, rest @ ..] = input else {
        return;
    };
    let (edits, junk) = rest.split_at((usize::from(edits % 8) * EDIT).min(rest.len()));
    let inject_at = usize::from(choice >> 1) % 6;
    let mut a = begin(*choice, plan(input));
    let mut n = 0;
    for _ in 0..4 {
        for mut datagram in a.peer.flight() {
            for edit in edits.chunks_exact(EDIT) {
                let at = usize::from(edit[1]) << 8 | usize::from(edit[2]);
                if usize::from(edit[0]) % 6 == n
                    && let Some(b) = datagram.get_mut(at)
                {
                    *b ^= edit[3];
                }
            }
            if n == inject_at {
                a.send(junk);
            }
            a.send(&datagram);
            n += 1;
        }
        a.run(Duration::from_millis(1));
    }
    a.run(Duration::from_secs(40));
    assert!(a.endpoint.len() <= 1, "one attempt, one connection");
}

/// First byte: which side. The rest is the payload of one 1-RTT packet.
pub fn run_payload(input: &[u8]) {
    let Some((choice, frames)) = input.split_first() else {
        return;
    };
    let mut a = match choice & 1 {
        0 => Attack::server_with(plan(input)),
        _ => Attack::client_with(plan(input)),
    };
    // One stream of each kind is open on either side, with something sent.
    for dir in [Dir::Bi, Dir::Uni] {
        let streams = a.connection().streams_mut();
        let id = streams.open(dir).expect("the peer permits some");
        streams.write(id, &[3; 3000]).expect("open");
    }
    let bi = u64::from(a.peer.side.is_server());
    a.one_rtt(&stream_frame(bi, 0, b"first", false));
    a.one_rtt(frames);
    a.run(Duration::from_secs(1));
    if a.closed().is_none() {
        let before = a.connection().stats().packets_received;
        a.one_rtt(&[1]);
        let after = a.connection().stats().packets_received;
        assert_eq!(after, before + 1, "an open connection listens");
    }
    a.run(Duration::from_secs(60));
}

pub fn payloads() -> Vec<Vec<u8>> {
    let cid = ConnectionId::new(&[7; 8]).expect("eight bytes");
    let all = payload(|w| {
        frame::write_ping(w);
        frame::write_reset_stream(w, 0, 3, 10);
        frame::write_stop_sending(w, 1, 3);
        frame::write_max_data(w, 1 << 40);
        frame::write_max_stream_data(w, 1, 1 << 40);
        frame::write_max_streams(w, Dir::Uni, 1000);
        frame::write_data_blocked(w, 5);
        frame::write_stream_data_blocked(w, 0, 5);
        frame::write_streams_blocked(w, Dir::Bi, 5);
        frame::write_new_connection_id(
            w,
            &NewConnectionId {
                seq: 1,
                retire_prior_to: 1,
                cid,
                reset_token: [9; 16],
            },
        );
        frame::write_retire_connection_id(w, 1);
        frame::write_path_challenge(w, &[1; 8]);
        frame::write_path_response(w, &[1; 8]);
    });
    let streams = [
        stream_frame(0, 5, b"second", false),
        stream_frame(4, 100, b"gap", true),
        stream_frame(2, 0, &[5; 300], true),
    ]
    .concat();
    let others = [
        ack_frame(&[3..=4, 0..=1]),
        crypto_frame(0, &[4, 0, 0, 10]),
        vec![0x31, 3, 1, 2, 3],
        vec![0; 20],
        vec![0x1d, 7, 2, b'n', b'o'],
    ]
    .concat();
    let mut out = Vec::new();
    for side in [0, 1] {
        for frames in [&all, &streams, &others] {
            out.push([vec![side], frames.clone()].concat());
        }
    }
    out
}

pub fn handshakes() -> Vec<Vec<u8>> {
    let mut a = Attack::on_server(Plan::default());
    let initial = a.peer.flight().remove(0);
    a.send(&initial);
    let handshake = a.peer.packet(PacketType::Handshake, &[1]);
    let answers = a.datagrams.iter().map(|d| d.1.clone());
    let cid = ConnectionId::new(&[7; 8]).expect("eight bytes");
    let versions = payload(|w| {
        header::write_version_negotiation(w, 3, &[1; 8], &[2; 8], &[VERSION_1, 5]);
    });
    let mut retry = payload(|w| header::write_retry(w, VERSION_1, &cid, &cid, b"token"));
    retry.extend([0; 16]);
    let short = vec![0x44; 60];
    let datagrams = [initial, handshake, versions, retry, short]
        .into_iter()
        .chain(answers);
    let heads: [&[u8]; 3] = [
        &[0, 0],
        &[3, 2, 0, 0, 30, 1, 1, 0, 2, 0x80],
        &[4, 1, 2, 0, 0, 0x40],
    ];
    let mut out = Vec::new();
    for (n, datagram) in datagrams.enumerate() {
        out.push([heads[n % heads.len()], &datagram].concat());
    }
    out
}
