//! Endpoints with several paths as a target: authentic packets with any payload, on any path that
//! there may be, from several addresses, with time between them.
//!
//! The first byte chooses the endpoint. Each packet that follows is a byte that says which path,
//! from where and what happens next, one that says how long its payload is, and the payload.

use crate::common::attack::Plan;
use crate::common::raw_peer::{payload, stream_frame};
use crate::scripted::{
    Several, abandon, bytes, full_ping, new_cid, path_ack, plan, second, status,
};
use corelane::base::limits;
use corelane::conn::AddressConfig;
use corelane::path::duplicate::DuplicationConfig;
use corelane::path::reinject::ReinjectionConfig;
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::frame::{self, AddAddress, AddressFrame, Frame, PathFrame};
use corelane::wire::{Code, Dir, Reader};
use std::net::SocketAddr;
use std::time::Duration;

/// Packets of one input.
const PACKETS: usize = 24;
/// Bytes of a payload for each step of its length.
const STEP: usize = 5;

fn plan_of(choice: u8) -> Plan {
    let mut plan = plan();
    plan.transport.max_paths = 2 + u32::from(choice >> 1 & 3) * 2;
    plan.transport.glitches = None;
    let multipath = &mut plan.transport.multipath;
    if choice & 8 != 0 {
        multipath.addresses = Some(AddressConfig::default());
        multipath.auto_paths = Some(3);
        plan.params.advertise_addresses = true;
    }
    if choice & 16 != 0 {
        multipath.duplication = Some(DuplicationConfig {
            all: true,
            ..DuplicationConfig::default()
        });
        multipath.reinjection = Some(ReinjectionConfig::default());
    }
    plan
}

fn begin(choice: u8) -> Several {
    let plan = plan_of(choice);
    if choice & 1 == 0 {
        let mut s = Several::server(plan);
        if choice & 32 != 0 {
            s.establish(1, second());
        }
        return s;
    }
    let mut s = Several::client(plan);
    if choice & 32 != 0 {
        s.issue(1, 0);
        s.issue(1, 1);
        s.open_path();
        let home = s.a.peer_addr;
        let came = s.read();
        s.answer(&came, home);
    }
    s
}

/// See the module.
pub fn run(input: &[u8]) {
    let Some((&choice, mut rest)) = input.split_first() else {
        return;
    };
    let mut s = begin(choice);
    if let Ok(id) = s.a.connection().streams_mut().open(Dir::Bi) {
        let _ = s.a.connection().streams_mut().write(id, &[3; 30_000]);
    }
    let mut retired = false;
    for _ in 0..PACKETS {
        let [how, steps, after @ ..] = rest else {
            break;
        };
        let (frames, after) = after.split_at((usize::from(*steps) * STEP).min(after.len()));
        rest = after;
        retired |= retires_first(frames);
        packet(&mut s, *how, frames);
        if s.a.closed().is_some() {
            break;
        }
        check(&mut s);
    }
    s.a.run(Duration::from_secs(1));
    if !retired && s.a.closed().is_none() && s.state(0) == Some(PathState::Open) {
        let before = s.a.connection().stats().packets_received;
        s.a.one_rtt(&[1]);
        let after = s.a.connection().stats().packets_received;
        assert_eq!(after, before + 1, "an open connection listens");
    }
    s.a.run(Duration::from_secs(40_000));
    assert!(s.a.endpoint.is_empty(), "something is left");
    assert_eq!(s.a.endpoint.routes(), 0, "routes are left");
}

/// Whether the connection ID goes that this peer sends to on the first path.
fn retires_first(frames: &[u8]) -> bool {
    let mut r = Reader::new(frames);
    let mut retires = false;
    while let Ok(frame) = Frame::parse(&mut r) {
        retires |= match frame {
            Frame::RetireConnectionId(seq) => seq == 0,
            Frame::Path(PathFrame::RetireConnectionId { path, seq }) => path.0 == 0 && seq == 0,
            _ => false,
        };
    }
    retires
}

fn packet(s: &mut Several, how: u8, frames: &[u8]) {
    let wanted = u32::from(how & 7);
    let known = wanted == 0 || s.cids.keys().any(|key| key.0 == wanted);
    let path = if known { wanted } else { 0 };
    let from = match how >> 3 & 3 {
        _ if s.a.side() == corelane::wire::Side::Client => s.a.peer_addr,
        0 => s.a.peer_addr,
        1 => second(),
        2 => SocketAddr::from(([127, 0, 0, 3], 1002)),
        _ => SocketAddr::from(([127, 66, 0, how], 6000)),
    };
    if !frames.is_empty() {
        let packet = s.packet(path, frames);
        s.a.send_from(from, &packet);
    }
    let came = s.read();
    if how & 32 != 0 && s.a.closed().is_none() {
        s.answer(&came, from);
    }
    if how & 64 != 0 && s.a.closed().is_none() {
        s.acknowledge();
    }
    let ms = if how & 128 != 0 { 300 } else { 1 };
    s.a.run(Duration::from_millis(ms));
    s.a.datagrams.clear();
}

/// What there is of paths, addresses and routes is bounded.
fn check(s: &mut Several) {
    if s.a.closed().is_some() {
        return;
    }
    let conn = s.a.connection();
    let gone = |state| matches!(state, PathState::Abandoned(_));
    let open = conn.paths().filter(|p| !gone(p.state)).count();
    assert!(open <= limits::PATHS && conn.paths().count() <= limits::PATH_RECORDS);
    assert!(conn.peer_addresses().count() <= limits::PEER_ADDRESSES);
    let routes = s.a.endpoint.routes();
    assert!(
        routes <= limits::ACTIVE_CIDS * limits::PATH_RECORDS + 4,
        "{routes} routes"
    );
}

/// One input: packets of a path each, with how they are sent.
fn input(choice: u8, packets: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![choice];
    for (how, frames) in packets {
        let steps = frames.len().div_ceil(STEP);
        out.extend([*how, steps as u8]);
        out.extend(frames);
        // PADDING.
        out.resize(out.len() + steps * STEP - frames.len(), 0);
    }
    out
}

pub fn corpus() -> Vec<Vec<u8>> {
    let id = PathId;
    let cids = || [new_cid(1, 0, 0), new_cid(1, 1, 0), new_cid(2, 0, 0)].concat();
    let max = |n| bytes(&PathFrame::MaxPathId(id(n)));
    let blocked = bytes(&PathFrame::PathsBlocked(id(7)));
    let next_seq = 2;
    let path = id(1);
    let no_cids = bytes(&PathFrame::CidsBlocked { path, next_seq });
    let retire = |seq| bytes(&PathFrame::RetireConnectionId { path, seq });
    let challenge = || payload(|w| frame::write_path_challenge(w, &[9; 8]));
    let named = payload(|w| {
        let addr = SocketAddr::from(([127, 9, 9, 9], 4433));
        AddressFrame::AddAddress(AddAddress {
            id: 1,
            seq: 2,
            addr,
        })
        .write(w);
        let (available, active) = (4, 2);
        AddressFrame::Paths { available, active }.write(w);
        let (error, reason) = (Code::NO_ERROR, &b"so"[..]);
        let path = id(1);
        AddressFrame::ClosePath {
            path,
            error,
            reason,
        }
        .write(w);
    });
    let sequence = [
        (0x60, [cids(), max(9)].concat()),
        (0x29, full_ping()),
        (0xe9, [challenge(), path_ack(1, &[0..=0]), vec![1]].concat()),
        (
            0x69,
            [
                status(1, PathStatus::Backup, 1),
                status(0, PathStatus::Available, 2),
            ]
            .concat(),
        ),
        (0x71, [new_cid(1, 2, 1), retire(0), retire(1)].concat()),
        (0xf1, [stream_frame(2, 0, b"data", false), vec![1]].concat()),
        (0x7a, full_ping()),
        (
            0x60,
            [abandon(1), no_cids.clone(), blocked.clone()].concat(),
        ),
        (0xe1, [abandon(2), vec![1]].concat()),
        (0x60, [new_cid(3, 0, 0), new_cid(4, 0, 0), max(20)].concat()),
        (0xe3, full_ping()),
    ];
    let mut out = Vec::new();
    for choice in [0x00, 0x26, 0x2f, 0x3e, 0x01, 0x27, 0x3f] {
        out.push(input(choice, &sequence));
        out.push(input(choice, &sequence[..4]));
        out.push(input(
            choice,
            &[(0x60, cids()), (0x60, named.clone()), (0xe0, abandon(0))],
        ));
    }
    out
}
