//! A peer with valid keys that uses paths as nobody would: it stalls them, inflates their round
//! trips, reads their keys twice, counts marks backwards, abandons with any code at any time. What
//! each costs is bounded, and what is not the peer's goes on.

use crate::common::counting::live;
use crate::common::raw_peer::payload;
use crate::scripted::*;
use corelane::base::{Ecn, limits};
use corelane::conn::{Event, PathEvent};
use corelane::path::duplicate::DuplicationConfig;
use corelane::path::reinject::ReinjectionConfig;
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::frame::{self, EcnCounts, Frame, PathFrame, ack};
use corelane::wire::{Code, Dir, varint};
use std::net::SocketAddr;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const FURTHER: u32 = limits::PATHS as u32 - 1;

fn from(path: u32) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1 + path as u8], 1000 + path as u16))
}

/// All paths that there may be, open.
fn all_paths(mut plan: crate::common::attack::Plan) -> Several {
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

/// Seven of eight paths take what comes and never say so: a stream goes by the eighth all the same,
/// and neither copies nor what is sent again exceeds its budget.
#[test]
fn paths_that_stall_hold_nothing_up() {
    for kind in 0..3 {
        let mut plan = plan();
        let multipath = &mut plan.transport.multipath;
        multipath.duplication = (kind == 1).then(|| DuplicationConfig {
            all: true,
            permille: 100,
            ..DuplicationConfig::default()
        });
        multipath.reinjection = (kind == 2).then(|| ReinjectionConfig {
            delay: Some(MS),
            ..ReinjectionConfig::default()
        });
        let mut s = all_paths(plan);
        const BYTES: usize = 400_000;
        let streams = s.a.connection().streams_mut();
        let id = streams.open(Dir::Uni).expect("a stream");
        assert_eq!(streams.write(id, &vec![5; BYTES]), Ok(BYTES));
        streams.finish(id).expect("finished");
        let before = s.a.connection().stats().udp_bytes_sent;
        let mut rounds = 0;
        while s.a.connection().streams_mut().is_sending(id) {
            s.a.run(10 * MS);
            s.read();
            s.a.ack_all();
            s.a.datagrams.clear();
            rounds += 1;
            assert!(rounds < 1000, "kind {kind}: {:?}", s.a.closed());
        }
        let conn = s.a.connection();
        let sent = conn.stats().udp_bytes_sent - before;
        let copies = conn.copy_stats();
        assert!(
            copies.duplicated_bytes <= sent / 10 + (16 << 10),
            "{copies:?}"
        );
        // Each of the seven has its first window once, and what was there is sent again here.
        assert!(sent < 4 * BYTES as u64, "kind {kind}: {sent} {copies:?}");
        s.expect_alive();
    }
}

/// Multipath §3.4: whatever the code, and on whatever path it is said, once or twice.
#[test]
fn any_code_abandons_a_path_once() {
    for (n, error) in [0, 0x3e, 0x3e75, 0x3e76, 0x3e77, 1 << 32, varint::MAX]
        .into_iter()
        .enumerate()
    {
        for via in [0, 1] {
            let mut s = Several::two_paths(plan());
            let path = PathId(1);
            let error = Code(error);
            let frame = bytes(&PathFrame::Abandon { path, error });
            let at = [s.a.peer_addr, second()][via as usize];
            for _ in 0..1 + n % 3 {
                s.send(via, at, &frame);
            }
            assert!(matches!(s.state(1), Some(PathState::Abandoned(Some(_)))));
            assert_eq!(s.a.connection().stats().paths_abandoned, 1);
            let answers = s.read();
            let answers = answers.iter().flat_map(|(_, p)| p.frames());
            let answers = answers.filter(|f| matches!(f, Frame::Path(PathFrame::Abandon { .. })));
            assert_eq!(answers.count(), 1);
            s.expect_alive();
            s.a.run(Duration::from_secs(10));
            assert_eq!(s.state(1), None);
            s.expect_alive();
        }
    }
}

fn marked(path: u32, largest: u64, ect0: u64, ce: u64) -> Vec<u8> {
    let ecn = EcnCounts { ect0, ect1: 0, ce };
    payload(|w| {
        ack::write_path(w, PathId(path), std::iter::once(0..=largest), 0, Some(ecn));
    })
}

/// RFC 9000 §13.4.2.1 for each path: counts that go down, or are none's, end marking on that path,
/// and on no other.
#[test]
fn counts_of_marks_that_go_down_end_marking_there_alone() {
    let mut plan = plan();
    plan.transport.ecn = true;
    plan.transport.mtu.max = 1200;
    let mut s = Several::two_paths(plan);
    s.a.ecn = Ecn::Ect0;
    for (n, ect0) in [(0, 1 << 40), (1, 0), (2, varint::MAX)] {
        for _ in 0..4 {
            s.send(1, second(), &[1]);
            s.a.run(30 * MS);
            s.read();
        }
        let largest = s.largest(1).expect("it is used");
        let frame = marked(1, largest, ect0, n);
        s.send(1, second(), &frame);
        s.a.run(30 * MS);
    }
    s.expect_alive();
    assert_eq!(s.state(1), Some(PathState::Open));
}

/// RFC 9001 §6.2, §6.5: two updates before the endpoint could answer the first, one on each path.
#[test]
fn two_updates_at_once_on_two_paths_are_one_too_many() {
    for second_via in [0, 1] {
        let mut s = Several::two_paths(plan());
        let now = s.a.now;
        let before = s.a.connection().stats().key_updates;
        s.a.peer.force_key_update(now);
        let home = s.a.peer_addr;
        let first = s.packet(0, &[1]);
        s.a.deliver(home, &first);
        s.a.peer.force_key_update(now);
        let twice = s.packet(second_via, &[1]);
        s.a.deliver([home, second()][second_via as usize], &twice);
        s.a.collect();
        let after = match s.a.blamed() {
            Some(code) => {
                assert_eq!(code, Code::KEY_UPDATE_ERROR);
                continue;
            }
            None => s.a.connection().stats().key_updates,
        };
        assert_eq!(after, before + 1, "the second opened nothing");
    }
}

/// Opens path after path and abandons each, while the keys that the endpoint updated to are never
/// acknowledged: what it remembers of phases stays small, and no path's packets are lost for it.
#[test]
fn paths_without_end_in_one_key_phase() {
    let mut s = Several::two_paths(plan());
    s.a.one_rtt(&bytes(&PathFrame::MaxPathId(PathId(100))));
    assert!(s.a.connection().update_keys());
    s.read();
    let before = live();
    let mut opened = 0;
    for path in 2..60 {
        for seq in 0..2 {
            s.issue(path, seq);
        }
        s.read();
        if !s.cids.contains_key(&(path, 0)) {
            s.a.run(Duration::from_secs(4));
            s.read();
        }
        if !s.cids.contains_key(&(path, 0)) {
            break;
        }
        s.send(path, from(path % 8), &full_ping());
        let came = s.read();
        s.answer(&came, from(path % 8));
        opened += u32::from(s.state(path) == Some(PathState::Open));
        s.a.one_rtt(&abandon(path));
        s.a.run(Duration::from_secs(5));
        s.acknowledge();
        s.a.datagrams.clear();
        s.a.events.clear();
        assert_eq!(s.a.closed(), None, "{path}");
    }
    assert!(opened > 50, "{opened}");
    assert!(live() - before < 1 << 20);
    s.expect_alive();
}

/// Centuries pass at once; nothing is due that was not, and what is idle ends.
#[test]
fn time_that_leaps_ends_what_is_idle() {
    for idle in [0, 30] {
        let mut plan = plan();
        plan.transport.max_idle_timeout = Duration::from_secs(idle);
        plan.params.max_idle_timeout = Duration::ZERO;
        let mut s = Several::two_paths(plan);
        for _ in 0..10 {
            s.a.run(100 * MS);
            s.acknowledge();
        }
        s.a.run(Duration::from_secs(100 * 365 * 86_400));
        if idle > 0 {
            assert!(s.a.endpoint.is_empty());
            continue;
        }
        s.expect_alive();
        s.settle(1, second());
    }
}

/// RFC 9000 §10.1, §10.2: a peer that acknowledges on one path an hour late, and keeps the
/// connection alive by another meanwhile, has what it leaves behind kept for minutes, not hours.
#[test]
fn who_acknowledges_hours_late_is_not_waited_for() {
    for closes in [false, true] {
        let mut plan = plan();
        plan.transport.max_idle_timeout = Duration::from_secs(30);
        let mut s = Several::two_paths(plan);
        for _ in 0..3 {
            s.send(
                1,
                second(),
                &status(0, PathStatus::Backup, s.a.now.as_nanos()),
            );
            let streams = s.a.connection().streams_mut();
            let id = streams.open(Dir::Uni).expect("a stream");
            assert_eq!(streams.write(id, &[5; 100]), Ok(100));
            s.a.run(MS);
            s.read();
            let first = s.largest(1).expect("it goes there");
            for _ in 0..360 {
                s.a.run(Duration::from_secs(10));
                s.a.one_rtt(&[1]);
                s.acknowledge_but(1);
                s.a.datagrams.clear();
            }
            s.send(1, second(), &path_ack(1, &[first..=first]));
            s.acknowledge();
        }
        let info = s.a.connection().path_info(PathId(1)).expect("there");
        assert!(
            info.stats.smoothed_rtt > Duration::from_secs(60),
            "{info:?}"
        );
        if closes {
            let now = s.a.now;
            s.a.connection().close(now, 0, b"");
        }
        s.a.run(Duration::from_secs(600));
        assert!(s.a.endpoint.is_empty(), "closes {closes}");
    }
}

/// What a peer says of paths over and over takes no place from what is told once: that a path
/// works, that another is gone.
#[test]
fn what_is_told_once_is_told_however_much_else_there_is() {
    let mut plan = plan();
    plan.transport.glitches = None;
    let mut s = Several::client(plan);
    for path in 1..3 {
        s.issue(path, 0);
        s.issue(path, 1);
    }
    for path in 1..3 {
        assert_eq!(s.open_path(), Some(PathId(path)));
    }
    s.a.collect();
    let came = s.read();
    let home = s.a.peer_addr;
    // The application has no turn before all of it came.
    for n in 0..2 * limits::EVENTS as u64 / 200 {
        let kinds = [PathStatus::Backup, PathStatus::Available];
        let say = |k: u64| status((k % 2) as u32, kinds[(k / 2 % 2) as usize], n * 200 + k);
        let frames: Vec<u8> = (1..200).flat_map(say).collect();
        let packet = s.packet(0, &frames);
        s.a.deliver(home, &packet);
    }
    let asked = came.iter().filter(|(path, _)| *path == 1);
    let answers = asked.flat_map(|(_, p)| p.frames()).filter_map(|f| match f {
        Frame::PathChallenge(data) => Some(data),
        _ => None,
    });
    let answers: Vec<u8> = answers
        .flat_map(|data| payload(|w| frame::write_path_response(w, &data)))
        .collect();
    let packet = s.packet(1, &answers);
    s.a.deliver(home, &packet);
    let packet = s.packet(0, &abandon(2));
    s.a.deliver(home, &packet);
    s.a.collect();
    let told = |e: PathEvent| s.a.events.contains(&Event::Path(e));
    assert!(told(PathEvent::Validated(PathId(1))));
    let (id, error, by_peer) = (PathId(2), Code::NO_ERROR, true);
    assert!(told(PathEvent::Abandoned { id, error, by_peer }));
    assert!(s.a.events.len() < limits::EVENTS / 2);
    s.expect_alive();
}
