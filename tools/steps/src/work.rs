//! The work that is counted: two endpoints in memory, or two shards on loopback for lanes, time and
//! randomness given, so that the same program executes the same instructions each time.

#[path = "../../../tests/common/bulk.rs"]
#[expect(dead_code, reason = "its steps by the real clock")]
mod bulk;
#[path = "../../../tests/common/certs.rs"]
mod certs;
#[path = "lanes.rs"]
mod lanes;

use bulk::Bulk;
use certs::Identity;
use clap::ValueEnum;
use corelane::base::Timestamp;
use corelane_steps::trace::END;
use std::time::Duration;

/// One way and back.
const RTT: Duration = Duration::from_micros(200);
/// What every part counts from.
const PARTS: [&str; 3] = ["send", "receive", "be acked"];
const RR_PARTS: [&str; 3] = ["ask", "answer", "be answered"];
/// A client that takes an answer asks again in the same turn.
const LANE_PARTS: [&str; 3] = ["ask", "answer", "look"];

/// What the endpoints do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// A stream without end in packets of 1,452 bytes; counted per packet.
    Bulk,
    /// The same over four paths.
    Paths,
    /// Datagrams of 100 bytes, fourteen in a packet; counted per datagram.
    Datagram,
    /// A request of 64 bytes and its answer on a stream of their own, one at a time.
    Rr,
    /// A message of 64 bytes there and back on a lane over RDMA in user space; counted per round
    /// trip, with the turn that finds nothing beside.
    Rdma,
}

impl Case {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Paths => "paths",
            Self::Datagram => "datagram",
            Self::Rr => "rr",
            Self::Rdma => "rdma",
        }
    }

    /// What it is divided by.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Bulk | Self::Paths => "packet",
            Self::Datagram => "datagram of 100 B",
            Self::Rr => "request of 64 B",
            Self::Rdma => "message of 64 B",
        }
    }

    /// Its parts, in the order of their marks.
    pub const fn parts(self) -> [&'static str; 3] {
        match self {
            Self::Bulk | Self::Paths | Self::Datagram => PARTS,
            Self::Rr => RR_PARTS,
            Self::Rdma => LANE_PARTS,
        }
    }

    /// Rounds before the window, until windows are open and memory has been grown, and in it.
    const fn rounds(self) -> (u32, u32) {
        match self {
            Self::Bulk | Self::Paths => (300, 1),
            Self::Datagram => (300, 1),
            Self::Rr | Self::Rdma => (2_000, 40),
        }
    }
}

/// Does the work, and calls `mark` with the number of the part before each and with [`END`] behind
/// the last; `begin` comes before the window. Returns how many units the window had.
pub fn run(case: Case, begin: impl FnOnce(), mark: impl Fn(usize)) -> u64 {
    let mut now = Timestamp::from_nanos(1_000_000_000);
    if case == Case::Rdma {
        return lane(now, begin, mark);
    }
    let paths = if case == Case::Paths { 4 } else { 1 };
    let mut bulk = Bulk::connect_over(paths, &Identity::fixed(), now);
    now += Duration::from_secs(1);
    let mut units = 0;
    let mut round = |mark: &dyn Fn(usize)| {
        match case {
            Case::Bulk | Case::Paths | Case::Rdma => {}
            Case::Datagram => bulk.send_datagrams(14 * 11, 100),
            Case::Rr => bulk.request(64),
        }
        mark(0);
        bulk.send(now);
        now += RTT / 2;
        mark(1);
        units += match case {
            Case::Rr => u64::from(bulk.receive(now) > 0),
            _ => bulk.receive(now),
        };
        now += RTT / 2;
        mark(2);
        bulk.be_acked(now);
        (units, bulk.app.datagrams)
    };
    let (warm_up, window) = case.rounds();
    let mut before = (0, 0);
    for _ in 0..warm_up {
        before = round(&|_| {});
    }
    begin();
    let mut after = before;
    for _ in 0..window {
        after = round(&mark);
    }
    // Taking the endpoints down is no part of the work.
    mark(END);
    match case {
        Case::Datagram => after.1 - before.1,
        _ => after.0 - before.0,
    }
}

/// The same for a lane.
fn lane(now: Timestamp, begin: impl FnOnce(), mark: impl Fn(usize)) -> u64 {
    let mut pair = lanes::Pair::connect(now);
    let (warm_up, window) = Case::Rdma.rounds();
    let mut before = 0;
    for _ in 0..warm_up {
        before = pair.round(&|_| {});
    }
    begin();
    let mut after = before;
    for _ in 0..window {
        after = pair.round(&mark);
    }
    mark(END);
    after - before
}
