//! A peer that acknowledges nothing, on all paths or on one: what this side remembers of what it
//! sent is bounded for the connection, however many paths there are.

use crate::common::counting::live;
use crate::scripted::*;
use corelane::base::limits;
use corelane::path::{PathId, PathState};
use std::net::SocketAddr;
use std::time::Duration;

/// Paths beside the first.
const FURTHER: u32 = limits::PATHS as u32 - 1;

fn from(path: u32) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1 + path as u8], 1000 + path as u16))
}

/// All paths that there may be, open; no probes of larger datagrams.
fn all_paths() -> Several {
    let mut plan = plan();
    plan.transport.max_paths = limits::PATHS as u32;
    plan.transport.mtu.max = 1200;
    plan.params.initial_max_path_id = Some(PathId(FURTHER));
    let mut s = Several::server(plan);
    for path in 1..=FURTHER {
        s.establish(path, from(path));
    }
    s.acknowledge();
    s
}

/// A packet that must be acknowledged at once, for numbers before it are missing.
fn ask(s: &mut Several, path: u32) {
    s.skip(path, 1);
    let at = match path {
        0 => s.a.peer_addr,
        _ => from(path),
    };
    s.send(path, at, &[1]);
}

fn forget(s: &mut Several) {
    s.read();
    s.a.inbox = Vec::new();
    s.a.datagrams = Vec::new();
    s.a.events = Vec::new();
    s.forget_received();
}

fn sent(s: &mut Several) -> u64 {
    s.a.connection().paths().map(|p| p.packets_sent).sum()
}

/// Every path sends acknowledgements that are never acknowledged, and asks in vain that they are.
#[test]
fn acknowledgements_withheld_on_all_paths_are_bounded_together() {
    let mut s = all_paths();
    forget(&mut s);
    let (before, from) = (live(), sent(&mut s));
    let most = limits::SENT_PACKETS as u64;
    let rounds = most / u64::from(FURTHER) + 1000;
    for round in 0..rounds {
        for path in 0..=FURTHER {
            ask(&mut s, path);
        }
        if round % 64 == 0 {
            forget(&mut s);
        }
    }
    forget(&mut s);
    let so_far = sent(&mut s) - from;
    assert!(so_far <= most, "{so_far} packets, none acknowledged");
    assert!(so_far > most / 2, "{so_far} packets: too few to tell");
    let grown = live() - before;
    assert!(grown < (most as isize) * 96, "{grown} bytes");
    // Acknowledgements make room: all paths speak again.
    s.acknowledge();
    for path in 0..=FURTHER {
        ask(&mut s, path);
    }
    let more = sent(&mut s) - from - so_far;
    assert!(more > u64::from(FURTHER), "{more} packets");
    s.expect_alive();
}

/// One path answers nothing while the others do: its acknowledgements go where they are
/// acknowledged, and what is remembered of it does not grow.
#[test]
fn acknowledgements_withheld_on_one_path_cost_next_to_nothing() {
    let mut s = all_paths();
    let flood = |s: &mut Several| {
        for round in 0..20_000 {
            ask(s, 1);
            if round % 16 == 0 {
                s.acknowledge_but(1);
                s.a.run(Duration::from_millis(5));
                forget(s);
            }
        }
    };
    flood(&mut s);
    forget(&mut s);
    let before = live();
    flood(&mut s);
    forget(&mut s);
    let grown = live() - before;
    assert!(grown < 256 << 10, "{grown} bytes");
    assert_eq!(s.state(1), Some(PathState::Open));
    s.expect_alive();
}
