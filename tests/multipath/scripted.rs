//! A scripted peer on several paths: it seals packets of any path from any address, with any number
//! and destination, and opens what the endpoint sends on each. What it says is the test's choice.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::{Packet, payload};
use corelane::base::{FourTuple, SocketId};
use corelane::crypto::{TAG_LEN, unprotect};
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::frame::{self, Frame, NewConnectionId, PathFrame, ack};
use corelane::wire::{Code, ConnectionId, PacketType, Writer, header, packet_number};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Bytes of packet number in what this peer sends.
const PN_LEN: usize = 4;

/// A second address of the peer.
pub fn second() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 2], 1001))
}

/// Four paths on either side.
pub fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.transport.max_paths = 4;
    plan.params.initial_max_path_id = Some(PathId(3));
    plan
}

pub fn bytes(f: &PathFrame) -> Vec<u8> {
    payload(|w| f.write(w))
}

pub fn abandon(path: u32) -> Vec<u8> {
    let error = Code::NO_ERROR;
    let path = PathId(path);
    bytes(&PathFrame::Abandon { path, error })
}

pub fn status(path: u32, status: PathStatus, seq: u64) -> Vec<u8> {
    let path = PathId(path);
    bytes(&PathFrame::Status { path, status, seq })
}

/// A PATH_ACK frame of ranges, highest first.
pub fn path_ack(path: u32, ranges: &[RangeInclusive<u64>]) -> Vec<u8> {
    payload(|w| {
        let n = ack::write_path(w, PathId(path), ranges.iter().cloned(), 0, None);
        assert_eq!(n, ranges.len());
    })
}

/// A PING in a datagram large enough for an answer of full size.
pub fn full_ping() -> Vec<u8> {
    let mut frames = vec![0; 1150];
    frames[0] = 1;
    frames
}

/// The connection ID that this peer issues as number `seq` of a path.
pub fn cid_of(path: u32, seq: u64) -> ConnectionId {
    let n = 0xee << 56 | u64::from(path) << 24 | seq;
    ConnectionId::new(&n.to_be_bytes()).expect("8 bytes")
}

/// The reset token that goes with it.
pub fn token_of(path: u32, seq: u64) -> [u8; 16] {
    let mut token = [0x77; 16];
    token[..8].copy_from_slice(cid_of(path, seq).as_slice());
    token
}

pub fn new_cid(path: u32, seq: u64, retire_prior_to: u64) -> Vec<u8> {
    let new = NewConnectionId {
        seq,
        retire_prior_to,
        cid: cid_of(path, seq),
        reset_token: token_of(path, seq),
    };
    let path = PathId(path);
    bytes(&PathFrame::NewConnectionId { path, new })
}

/// See the module.
pub struct Several {
    pub a: Attack,
    /// The endpoint's connection IDs, by path and number.
    pub cids: BTreeMap<(u32, u64), ConnectionId>,
    next_pn: BTreeMap<u32, u64>,
    received: BTreeMap<u32, BTreeSet<u64>>,
}

impl Several {
    /// The endpoint is a server; the handshake is done.
    pub fn server(plan: Plan) -> Self {
        let mut a = Attack::on_server(plan);
        a.exchange();
        Self::around(a)
    }

    /// The endpoint is a client, and the handshake is confirmed.
    pub fn client(plan: Plan) -> Self {
        let mut a = Attack::on_client(plan);
        a.start_server(|_| {});
        a.exchange();
        a.one_rtt(&[0x1e]);
        Self::around(a)
    }

    pub fn around(a: Attack) -> Self {
        let mut s = Self {
            a,
            cids: BTreeMap::new(),
            next_pn: BTreeMap::new(),
            received: BTreeMap::new(),
        };
        s.a.run(Duration::from_millis(200));
        s.read();
        s.a.ack_all();
        s.a.datagrams.clear();
        s
    }

    /// A server, and a path over the peer's second address that is open.
    pub fn two_paths(plan: Plan) -> Self {
        let mut s = Self::server(plan);
        s.establish(1, second());
        s
    }

    /// Issues a connection ID.
    pub fn issue(&mut self, path: u32, seq: u64) {
        self.a.one_rtt(&new_cid(path, seq, 0));
    }

    /// A packet of a path with its next number, to the endpoint's first connection ID for it.
    pub fn packet(&mut self, path: u32, frames: &[u8]) -> Vec<u8> {
        if path == 0 {
            return self.a.peer.packet(PacketType::OneRtt, frames);
        }
        let first = self.cids.range((path, 0)..=(path, u64::MAX)).next();
        let dcid = *first.expect("the endpoint issued one").1;
        let next = self.next_pn.entry(path).or_default();
        let pn = *next;
        *next += 1;
        self.packet_at(path, &dcid, pn, frames)
    }

    pub fn packet_at(&mut self, path: u32, dcid: &ConnectionId, pn: u64, frames: &[u8]) -> Vec<u8> {
        let mut buf = vec![0; frames.len() + 64];
        let keys = self.a.peer.one_rtt.as_mut().expect("1-RTT keys");
        let phase = keys.phase_bit() != 0;
        let mut w = Writer::new(&mut buf);
        let at = header::write_short(&mut w, dcid, false, phase, PN_LEN);
        packet_number::write(&mut w, pn, PN_LEN);
        w.bytes(frames);
        let end = w.position() + TAG_LEN;
        buf.truncate(end);
        keys.seal(path, pn, &mut buf, at, PN_LEN).expect("seals");
        buf
    }

    /// Leaves packet numbers of a path unused.
    pub fn skip(&mut self, path: u32, numbers: u64) {
        match path {
            0 => self.a.peer.spaces[2].next_pn += numbers,
            _ => *self.next_pn.entry(path).or_default() += numbers,
        }
    }

    /// Sends frames on a path from an address of choice.
    pub fn send(&mut self, path: u32, from: SocketAddr, frames: &[u8]) {
        let packet = self.packet(path, frames);
        self.a.send_from(from, &packet);
    }

    /// What came since the last call, with its path, in the order of the paths.
    pub fn read(&mut self) -> Vec<(u32, Packet)> {
        let mut out: Vec<_> = self.a.inbox.drain(..).map(|p| (0, p)).collect();
        for raw in std::mem::take(&mut self.a.peer.undecryptable) {
            out.extend(self.open(raw));
        }
        for (_, packet) in &out {
            for f in packet.frames() {
                match f {
                    Frame::Path(PathFrame::NewConnectionId { path, new }) => {
                        self.cids.insert((path.0, new.seq), new.cid);
                    }
                    Frame::NewConnectionId(new) => {
                        self.cids.insert((0, new.seq), new.cid);
                    }
                    _ => {}
                }
            }
        }
        out
    }

    fn open(&mut self, mut raw: Vec<u8>) -> Option<(u32, Packet)> {
        let dcid = ConnectionId::new(raw.get(1..9)?)?;
        let n = u64::from_be_bytes(dcid.as_slice().try_into().ok()?);
        if n >> 56 != 0xee || raw[0] & header::FORM_LONG != 0 {
            return None;
        }
        let path = (n >> 24) as u32;
        let keys = self.a.peer.one_rtt.as_mut()?;
        let datagram = raw.len();
        let head = unprotect(keys.header_key(), &mut raw, 9)?;
        let received = self.received.entry(path).or_default();
        let largest = received.last().copied();
        let pn = packet_number::decode(head.pn, head.pn_len, largest.map_or(0, |pn| pn + 1));
        let header_len = 9 + head.pn_len;
        let opened = keys.open(path, pn, largest, &mut raw, header_len).ok()?;
        received.insert(pn);
        let packet = Packet {
            ty: PacketType::OneRtt,
            pn,
            dcid,
            scid: ConnectionId::EMPTY,
            token: Vec::new(),
            payload: raw[header_len..header_len + opened.len].to_vec(),
            datagram,
            phase: head.first & header::KEY_PHASE != 0,
            from: None,
            to: None,
        };
        Some((path, packet))
    }

    /// Forgets what came, but for the last of each path.
    pub fn forget_received(&mut self) {
        let first = &mut self.a.peer.spaces[2].received;
        for received in self.received.values_mut().chain([first]) {
            *received = received.last().copied().into_iter().collect();
        }
    }

    /// Acknowledges what came on all paths, in frames to be sent on any.
    pub fn acks(&self) -> Vec<u8> {
        let first = self.a.peer.spaces[2].ranges();
        let mut out = path_ack(0, &first);
        for path in self.received.keys() {
            out.extend(path_ack(*path, &self.ranges(*path)));
        }
        out
    }

    /// The largest packet number that came on a path beside the first.
    pub fn largest(&self, path: u32) -> Option<u64> {
        self.received.get(&path)?.last().copied()
    }

    /// What came on a path beside the first, as ranges, highest first.
    pub fn ranges(&self, path: u32) -> Vec<RangeInclusive<u64>> {
        let mut out: Vec<RangeInclusive<u64>> = Vec::new();
        for pn in self.received.get(&path).into_iter().flatten().rev() {
            let n = out.len();
            match out.last_mut() {
                Some(r) if *r.start() == pn + 1 => *r = *pn..=*r.end(),
                _ if n == 32 => break,
                _ => out.push(*pn..=*pn),
            }
        }
        out
    }

    /// Answers the challenges in what came, each on its path, from that path's address.
    pub fn answer(&mut self, came: &[(u32, Packet)], from: SocketAddr) {
        for (path, packet) in came {
            for f in packet.frames() {
                if let Frame::PathChallenge(data) = f {
                    let answer = payload(|w| frame::write_path_response(w, &data));
                    self.send(*path, from, &answer);
                }
            }
        }
    }

    /// Begins a path from an address, if it has not begun, and answers until it is open.
    #[track_caller]
    pub fn establish(&mut self, path: u32, from: SocketAddr) {
        for seq in 0..3 {
            self.issue(path, seq);
        }
        self.settle(path, from);
        self.acknowledge();
    }

    /// Sends on a path from an address, and answers, until the path is open there.
    #[track_caller]
    pub fn settle(&mut self, path: u32, from: SocketAddr) {
        for _ in 0..40 {
            self.send(path, from, &full_ping());
            let came = self.read();
            self.answer(&came, from);
            self.a.run(Duration::from_millis(10));
            let info = self.a.connection().path_info(PathId(path));
            if info.is_some_and(|i| i.state == PathState::Open && i.tuple.remote == from) {
                return;
            }
        }
        let info = self.a.connection().path_info(PathId(path));
        panic!(
            "path {path} does not open from {from}: {info:?} {:?}",
            self.a.closed()
        );
    }

    /// Acknowledges all that came on every path.
    pub fn acknowledge(&mut self) {
        self.acknowledge_but(u32::MAX);
    }

    /// The same, but for one path.
    pub fn acknowledge_but(&mut self, but: u32) {
        self.read();
        self.a.ack_all();
        let paths: Vec<u32> = self.received.keys().copied().collect();
        for path in paths.into_iter().filter(|path| *path != but) {
            let ranges = self.ranges(path);
            if !ranges.is_empty() {
                self.a.one_rtt(&path_ack(path, &ranges));
            }
        }
    }

    /// Has a client endpoint open a path from its address.
    pub fn open_path(&mut self) -> Option<PathId> {
        let (now, tuple) = (self.a.now, FourTuple::new(self.a.addr, self.a.peer_addr));
        let conn = self.a.connection();
        conn.open_path(now, SocketId(0), tuple, PathStatus::Available)
            .ok()
    }

    pub fn state(&mut self, path: u32) -> Option<PathState> {
        self.a.connection().path_info(PathId(path)).map(|i| i.state)
    }

    /// Asserts that the endpoint blamed the peer with `code` and said so, on whatever path.
    #[track_caller]
    pub fn expect_error(&mut self, code: Code, what: &str) {
        assert_eq!(self.a.blamed(), Some(code), "{what}: {:?}", self.a.closed());
        let says = |f: &Frame<'_>| matches!(f, Frame::ConnectionClose(c) if c.error == code);
        let came = self.read();
        assert!(
            came.iter().any(|(_, p)| p.has(says)),
            "{what}: the peer is told"
        );
    }

    /// Asserts that the connection lives and answers on its first path.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        assert_eq!(self.a.closed(), None);
        self.read();
        self.a.one_rtt(&[0x01]);
        self.a.one_rtt(&[0x01]);
        self.a.run(Duration::from_millis(100));
        let last = self.a.peer.spaces[2].next_pn - 1;
        let acks = |f: &Frame<'_>| match f {
            Frame::PathAck { path, ack } => *path == PathId(0) && ack.largest == last,
            _ => false,
        };
        let came = self.read();
        assert!(
            came.iter().any(|(_, p)| p.has(acks)),
            "a PING is acknowledged"
        );
    }

    /// Bytes that the endpoint sent to each address since its datagrams were cleared.
    pub fn bytes_to(&self, to: SocketAddr) -> usize {
        let there = self.a.datagrams.iter().filter(|d| d.0 == to);
        there.map(|d| d.1.len()).sum()
    }
}
