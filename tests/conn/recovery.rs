//! Loss, acknowledgement, congestion, datagram sizes and flow control as a peer sees them.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use crate::common::raw_peer::{ack_frame, payload, stream_frame};
use bytes::Bytes;
use corelane::base::{Ecn, Rng};
use corelane::conn::ConnId;
use corelane::recovery::MtuConfig;
use corelane::wire::frame::{self, Frame};
use corelane::wire::{Code, Dir, PacketType};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn send(pair: &mut Pair, side: usize, id: ConnId, n: usize) {
    let streams = pair.conn(side, id).streams_mut();
    let stream = streams.open(Dir::Uni).expect("a stream");
    assert_eq!(streams.write_bytes(stream, Bytes::from(vec![5; n])), Ok(n));
    streams.finish(stream).expect("open");
}

fn received(pair: &Pair, side: usize) -> usize {
    pair.sides[side].app.received.values().map(Vec::len).sum()
}

/// A server with an open stream of so many bytes waiting, and every earlier packet acknowledged.
fn sender(transport: impl FnOnce(&mut Plan), n: usize) -> Attack {
    let mut plan = Plan::default();
    plan.transport.mtu = MtuConfig::fixed(1200);
    transport(&mut plan);
    let mut a = Attack::server_with(plan);
    a.run_acking(SECOND, 10 * MS);
    a.inbox.clear();
    a.datagrams.clear();
    let streams = a.connection().streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    assert_eq!(streams.write(id, &vec![1; n]), Ok(n));
    a.collect();
    a
}

fn data_pns(a: &Attack) -> Vec<u64> {
    a.inbox
        .iter()
        .filter(|p| p.ty == PacketType::OneRtt && p.has(|f| matches!(f, Frame::Stream(_))))
        .map(|p| p.pn)
        .collect()
}

#[test]
fn transfers_complete_under_random_faults() {
    for seed in 0..40 {
        let mut pair = Pair::new(Setup {
            seed,
            ..Setup::default()
        });
        let (client, server) = pair.connected();
        let mut rng = Rng::from_u64(seed);
        let mut held = Vec::new();
        pair.filter = Box::new(move |mut p| {
            match rng.below(40) {
                0 | 1 => return vec![],
                2 => {
                    let at = rng.below(p.bytes.len() as u64) as usize;
                    p.bytes[at] ^= 4;
                }
                3 | 4 if held.is_empty() => {
                    held.push(p);
                    return vec![];
                }
                _ => {}
            }
            std::iter::once(p).chain(held.drain(..)).collect()
        });
        send(&mut pair, CLIENT, client, 1_000_000);
        send(&mut pair, SERVER, server, 1_000_000);
        pair.run(25 * SECOND);
        for side in [CLIENT, SERVER] {
            assert_eq!(pair.closed(side), None, "seed {seed}");
            assert_eq!(received(&pair, side), 1_000_000, "seed {seed}");
        }
    }
}

/// RFC 9002 §6.2.4: a probe timeout sends two ack-eliciting packets, with data if there is some.
#[test]
fn a_probe_timeout_repeats_data_in_two_packets_and_backs_off() {
    let mut a = sender(|_| {}, 3000);
    let mut gaps = Vec::new();
    for _ in 0..4 {
        a.inbox.clear();
        let start = a.now;
        while a.inbox.is_empty() {
            let at = a.timeout().expect("a probe is to come");
            a.run(Duration::from_nanos(at.as_nanos() - a.now.as_nanos()));
        }
        gaps.push(a.now.as_nanos() - start.as_nanos());
        assert_eq!(a.inbox.len(), 2);
        assert!(
            a.inbox
                .iter()
                .all(|p| p.has(|f| matches!(f, Frame::Stream(_))))
        );
    }
    for pair in gaps.windows(2).skip(1) {
        let ratio = pair[1] as f64 / pair[0] as f64;
        assert!((1.9..2.1).contains(&ratio), "{gaps:?}");
    }
}

/// RFC 9002 §7.5: probes go out although the window is full.
#[test]
fn probes_are_sent_though_the_window_is_full() {
    let mut a = sender(|_| {}, 1_000_000);
    a.run(100 * MS);
    let stats = a.connection().path_stats();
    assert!(
        stats.bytes_in_flight + 1200 > stats.congestion_window,
        "{stats:?}"
    );
    a.inbox.clear();
    a.run(2 * SECOND);
    assert!(data_pns(&a).len() >= 2);
}

/// RFC 9002 §6.1.1: three packets above make a packet lost; it is repeated at once.
#[test]
fn a_packet_three_below_the_largest_acknowledged_is_repeated_at_once() {
    let mut a = sender(|_| {}, 8000);
    a.run(5 * MS);
    let pns = data_pns(&a);
    assert!(pns.len() >= 5, "{pns:?}");
    let lost_before = a.connection().stats().packets_lost;
    a.inbox.clear();
    a.one_rtt(&ack_frame(&[pns[3]..=pns[3]]));
    assert!(a.connection().stats().packets_lost > lost_before);
    assert!(!data_pns(&a).is_empty(), "something is repeated");
}

/// RFC 9002 §6.1.2: fewer than three above: by time.
#[test]
fn a_packet_just_below_the_largest_acknowledged_is_lost_by_time() {
    let mut a = sender(|_| {}, 2300);
    let pns = data_pns(&a);
    assert_eq!(pns.len(), 2, "{pns:?}");
    a.run(MS);
    a.inbox.clear();
    a.one_rtt(&ack_frame(&[pns[1]..=pns[1]]));
    assert!(data_pns(&a).is_empty(), "not yet");
    while data_pns(&a).is_empty() {
        a.run(MS);
    }
    assert_eq!(data_pns(&a).len(), 1);
    assert_eq!(a.connection().stats().ptos, 0, "no probe was needed");
}

/// RFC 9000 §21.4: numbers are skipped, and an acknowledgement of one shows the liar.
#[test]
fn an_acknowledgement_of_a_skipped_number_is_a_protocol_violation() {
    let mut a = sender(|_| {}, 4_000_000);
    let mut skipped = None;
    for _ in 0..400 {
        let got = a.peer.spaces[2].received.clone();
        let last = *got.last().expect("packets came");
        skipped = (last.saturating_sub(100)..last)
            .rev()
            .find(|pn| *pn > 0 && !got.contains(pn));
        if skipped.is_some() {
            break;
        }
        a.ack_all();
        a.run(2 * MS);
        a.inbox.clear();
    }
    let pn = skipped.expect("a number is skipped now and then");
    assert_eq!(a.closed(), None);
    a.one_rtt(&ack_frame(&[pn..=pn]));
    a.expect_error(Code::PROTOCOL_VIOLATION, "an ACK of a skipped number");
}

/// The whole of optimistic acknowledging: everything that could be in flight, before it came.
#[test]
fn a_peer_that_acknowledges_in_advance_is_soon_found_out() {
    let mut found = 0;
    for seed in 0..10 {
        let mut a = sender(|p| p.seed = 100 + seed, 4_000_000);
        let first = *a.peer.spaces[2].received.last().expect("packets came");
        for _ in 0..400 {
            // All up to the newest that was seen, received or not.
            let last = *a.peer.spaces[2].received.last().expect("packets came");
            a.one_rtt(&ack_frame(&[first..=last]));
            a.run(2 * MS);
            a.inbox.clear();
            if a.closed().is_some() {
                break;
            }
        }
        found += usize::from(a.blamed() == Some(Code::PROTOCOL_VIOLATION));
    }
    assert_eq!(found, 10);
}

/// RFC 9000 §13.2.1, §13.2.2: every second ack-eliciting packet at once, a single one in time.
#[test]
fn acknowledgements_come_at_once_or_within_max_ack_delay() {
    let mut a = Attack::server();
    a.run_acking(SECOND, 10 * MS);
    a.inbox.clear();
    let acked = |a: &Attack| {
        a.inbox
            .iter()
            .filter(|p| p.has(|f| matches!(f, Frame::Ack(_))))
            .count()
    };
    a.one_rtt(&[1]);
    assert_eq!(acked(&a), 0);
    a.run(24 * MS);
    assert_eq!(acked(&a), 0);
    a.run(2 * MS);
    assert_eq!(acked(&a), 1);
    a.one_rtt(&[1]);
    a.one_rtt(&[1]);
    assert_eq!(acked(&a), 2);
    // A gap, and then the packet that was missing: at once.
    let late = a.peer.packet(PacketType::OneRtt, &[1]);
    a.one_rtt(&[1]);
    assert_eq!(acked(&a), 3);
    a.send(&late);
    assert_eq!(acked(&a), 4);
    // Packets that ask for nothing get nothing, however many.
    for _ in 0..100 {
        a.one_rtt(&[0]);
        let largest = *a.peer.spaces[2].received.last().expect("some");
        a.one_rtt(&ack_frame(&[largest..=largest]));
    }
    a.run(SECOND);
    assert_eq!(acked(&a), 4);
}

/// RFC 9000 §13.4.1: what came marked is counted and reported; CE at once.
#[test]
fn ecn_marks_received_are_counted_and_reported() {
    let mut a = Attack::server();
    a.run_acking(SECOND, 10 * MS);
    a.inbox.clear();
    let counts = |a: &Attack| {
        a.inbox.iter().rev().find_map(|p| {
            p.frames().into_iter().find_map(|f| match f {
                Frame::Ack(ack) => Some(ack.ecn.map(|e| (e.ect0, e.ect1, e.ce))),
                _ => None,
            })
        })
    };
    for ecn in [Ecn::Ect0, Ecn::Ect0, Ecn::Ect1] {
        a.ecn = ecn;
        a.one_rtt(&[1]);
    }
    a.run(30 * MS);
    assert_eq!(counts(&a), Some(Some((2, 1, 0))));
    a.inbox.clear();
    a.ecn = Ecn::Ce;
    a.one_rtt(&[1]);
    assert_eq!(counts(&a), Some(Some((2, 1, 1))), "at once");
    // A duplicate with another mark does not count (RFC 9000 §21.10).
    a.ecn = Ecn::NotEct;
    let p = a.peer.packet(PacketType::OneRtt, &[1]);
    a.send(&p);
    a.ecn = Ecn::Ce;
    for _ in 0..10 {
        a.send(&p);
    }
    a.ecn = Ecn::NotEct;
    a.inbox.clear();
    a.one_rtt(&[1]);
    assert_eq!(counts(&a), Some(Some((2, 1, 1))));
}

/// RFC 9000 §13.4.2: a path that carries marks keeps them; CE shrinks the window without loss.
#[test]
fn congestion_marks_shrink_the_window_without_loss() {
    let mut pair = Pair::new(Setup::default());
    let (client, _) = pair.connected();
    send(&mut pair, CLIENT, client, 4_000_000);
    let mut n = 0;
    pair.filter = Box::new(move |mut p| {
        n += 1;
        if p.from == CLIENT && p.ecn == Ecn::Ect0 && n % 40 == 0 {
            p.ecn = Ecn::Ce;
        }
        vec![p]
    });
    pair.run(20 * SECOND);
    assert_eq!(received(&pair, SERVER), 4_000_000);
    let stats = pair.conn(CLIENT, client).stats();
    assert!(
        stats.congestion_events > 0 && stats.packets_lost == 0,
        "{stats:?}"
    );
}

/// RFC 9000 §13.4.2.1: a path that bleaches marks, or a peer that lies about them, ends marking.
#[test]
fn marks_that_vanish_end_marking() {
    let mut pair = Pair::new(Setup::default());
    let marked = std::rc::Rc::new(std::cell::Cell::new(0u32));
    let seen = marked.clone();
    pair.filter = Box::new(move |mut p| {
        if p.ecn != Ecn::NotEct {
            seen.set(seen.get() + 1);
        }
        p.ecn = Ecn::NotEct;
        vec![p]
    });
    let (client, _) = pair.connected();
    send(&mut pair, CLIENT, client, 1_000_000);
    pair.run(10 * SECOND);
    assert_eq!(received(&pair, SERVER), 1_000_000);
    assert!((1..=60).contains(&marked.get()), "{} marked", marked.get());
}

/// RFC 9002 §7.6: nothing acknowledged for long enough collapses the window.
#[test]
fn persistent_congestion_collapses_the_window() {
    let mut a = sender(|_| {}, 1_000_000);
    for _ in 0..4 {
        a.run(20 * MS);
        a.ack_all();
    }
    assert!(a.connection().path_stats().bytes_in_flight > 10_000);
    a.inbox.clear();
    a.run(10 * SECOND);
    let last = *a.peer.spaces[2].received.last().expect("probes came");
    a.one_rtt(&ack_frame(&[last..=last]));
    let window = a.connection().path_stats().congestion_window;
    assert!(window <= 2 * 1200 + 1200, "{window}");
    a.run_acking(20 * SECOND, 20 * MS);
    assert_eq!(a.closed(), None);
    assert!(
        a.connection().path_stats().congestion_window > 10_000,
        "and it recovers"
    );
}

/// RFC 9000 §14.3: the search finds what the path carries, and its probes' loss is no congestion.
#[test]
fn the_datagram_size_is_found_for_any_path() {
    for limit in [1200, 1300, 1452, 1500, 9000, 65_507] {
        let mut pair = Pair::new(Setup::default());
        pair.filter = Box::new(move |p| {
            if p.bytes.len() > limit {
                vec![]
            } else {
                vec![p]
            }
        });
        let (client, _) = pair.connected();
        for _ in 0..10 {
            send(&mut pair, CLIENT, client, 2_000_000);
            pair.run(5 * SECOND);
        }
        assert_eq!(received(&pair, SERVER), 20_000_000, "{limit}");
        let mtu = pair.conn(CLIENT, client).path_stats().mtu;
        assert!(
            mtu <= limit && mtu + 120 >= limit,
            "{mtu} where {limit} fits"
        );
        let stats = pair.conn(CLIENT, client).stats();
        assert_eq!(stats.congestion_events, 0, "{limit}: {stats:?}");
    }
}

/// RFC 9000 §14.4, RFC 8899 §4.3: a path that stops carrying large datagrams is noticed.
#[test]
fn a_black_hole_is_left_by_falling_back_to_1200() {
    let mut pair = Pair::new(Setup::default());
    let (client, _) = pair.connected();
    send(&mut pair, CLIENT, client, 4_000_000);
    pair.run(10 * SECOND);
    assert!(pair.conn(CLIENT, client).path_stats().mtu > 1452);
    pair.filter = Box::new(|p| {
        if p.bytes.len() > 1300 {
            vec![]
        } else {
            vec![p]
        }
    });
    send(&mut pair, CLIENT, client, 100_000);
    pair.run(25 * SECOND);
    assert_eq!(received(&pair, SERVER), 4_100_000);
    assert_eq!(pair.closed(CLIENT), None);
    assert!(pair.conn(CLIENT, client).path_stats().mtu <= 1300);
}

/// RFC 9000 §18.2: max_udp_payload_size of the peer bounds every datagram.
#[test]
fn the_peers_largest_datagram_is_respected() {
    let mut setup = Setup::default();
    setup.server.max_udp_payload_size = 1350;
    let mut pair = Pair::new(setup);
    pair.filter = Box::new(|p| {
        assert!(p.from == SERVER || p.bytes.len() <= 1350);
        vec![p]
    });
    let (client, _) = pair.connected();
    send(&mut pair, CLIENT, client, 1_000_000);
    pair.run(10 * SECOND);
    assert_eq!(received(&pair, SERVER), 1_000_000);
    assert_eq!(pair.conn(CLIENT, client).path_stats().mtu, 1350);
}

fn max_data(a: &Attack) -> Vec<u64> {
    a.inbox
        .iter()
        .flat_map(|p| p.frames())
        .filter_map(|f| match f {
            Frame::MaxData(n) => Some(n),
            _ => None,
        })
        .collect()
}

/// RFC 9000 §4.2: windows open as the application reads, and grow for a sender that fills them.
#[test]
fn windows_open_and_grow_for_a_fast_sender() {
    let mut plan = Plan::default();
    plan.transport.streams.stream_window = 100_000;
    plan.transport.streams.connection_window = 100_000;
    let mut a = Attack::server_with(plan);
    let mut at = 0;
    let data = [7; 1000];
    let mut limits = vec![100_000];
    for _ in 0..4000 {
        let limit = *limits.last().expect("one");
        if at + 1000 > limit {
            a.run(MS);
        } else {
            a.one_rtt(&stream_frame(0, at, &data, false));
            at += 1000;
        }
        limits.extend(max_data(&a));
        a.ack_all();
        a.inbox.clear();
    }
    assert_eq!(a.closed(), None);
    assert!(
        limits.windows(2).all(|w| w[0] < w[1]),
        "limits only rise: {limits:?}"
    );
    let widest = limits.last().expect("one") - at;
    assert!(widest > 200_000, "the window grew: {widest}");
}

/// RFC 9000 §4.1: what is not read opens no window.
#[test]
fn a_window_stays_shut_until_the_application_reads() {
    let mut plan = Plan::default();
    plan.transport.streams.stream_window = 100_000;
    plan.transport.streams.connection_window = 100_000;
    let mut a = Attack::server_with(plan);
    a.app.refuse_data = true;
    for at in 0..100 {
        a.one_rtt(&stream_frame(0, at * 1000, &[7; 1000], false));
    }
    a.run(SECOND);
    assert!(max_data(&a).is_empty());
    let mut buf = vec![0; 60_000];
    let id = corelane::wire::StreamId(0);
    let _ = a.connection().streams_mut().read(id, &mut buf);
    a.run(SECOND);
    assert!(
        max_data(&a).iter().any(|n| *n >= 150_000),
        "{:?}",
        max_data(&a)
    );
    assert_eq!(a.closed(), None);
}

/// A lost MAX_DATA, MAX_STREAM_DATA or MAX_STREAMS is repeated, or transfers would stop.
#[test]
fn limits_that_are_lost_are_repeated() {
    for seed in 0..10 {
        let mut setup = Setup::default();
        setup.server.streams.stream_window = 20_000;
        setup.server.streams.connection_window = 20_000;
        setup.server.streams.connection_window_max = 20_000;
        setup.server.streams.stream_window_max = 20_000;
        setup.server.streams.max_streams_uni = 2;
        let mut pair = Pair::new(setup);
        let (client, _) = pair.connected();
        let mut rng = Rng::from_u64(seed);
        pair.filter = Box::new(move |p| {
            if p.from == SERVER && rng.below(3) == 0 {
                vec![]
            } else {
                vec![p]
            }
        });
        let mut opened = 0;
        for _ in 0..400 {
            let streams = pair.conn(CLIENT, client).streams_mut();
            if opened < 20
                && let Ok(id) = streams.open(Dir::Uni)
            {
                opened += 1;
                assert_eq!(streams.write(id, &[1; 30_000]), Ok(30_000));
                streams.finish(id).expect("open");
            }
            pair.run(SECOND / 4);
            if received(&pair, SERVER) == 600_000 {
                break;
            }
        }
        assert_eq!(
            (opened, received(&pair, SERVER)),
            (20, 600_000),
            "seed {seed}"
        );
    }
}

/// RFC 9221 §5: datagrams are not repeated; they count for congestion control.
#[test]
fn lost_datagrams_are_not_repeated() {
    let mut pair = Pair::new(Setup::default());
    let (client, server) = pair.connected();
    let mut n = 0;
    pair.filter = Box::new(move |p| {
        n += u64::from(p.from == CLIENT);
        if p.from == CLIENT && n % 2 == 0 {
            vec![]
        } else {
            vec![p]
        }
    });
    for i in 0..100u8 {
        pair.conn(CLIENT, client)
            .send_datagram(Bytes::from(vec![i; 1000]))
            .expect("room");
        pair.run(20 * MS);
    }
    pair.run(5 * SECOND);
    let mut got = Vec::new();
    while let Some(d) = pair.conn(SERVER, server).recv_datagram() {
        got.push(d[0]);
    }
    assert!((20..90).contains(&got.len()), "{}", got.len());
    assert!(got.windows(2).all(|w| w[0] < w[1]), "in order, none twice");
}

/// RFC 9221 §3: the peer's limit holds for what is sent.
#[test]
fn datagrams_fit_the_peers_limit() {
    for max in [0, 1, 100, 1000] {
        let mut plan = Plan::default();
        plan.params.max_datagram_frame_size = max;
        let mut a = Attack::server_with(plan);
        a.inbox.clear();
        let conn = a.connection();
        match conn.max_datagram_size() {
            None => assert!(conn.send_datagram(Bytes::from_static(b"x")).is_err()),
            Some(n) => {
                assert!(conn.send_datagram(Bytes::from(vec![1; n + 1])).is_err());
                conn.send_datagram(Bytes::from(vec![1; n]))
                    .expect("it fits");
            }
        }
        a.collect();
        for p in &a.inbox {
            for f in p.frames() {
                if let Frame::Datagram(d) = f {
                    assert!(frame::datagram_size(d.len(), true) as u64 <= max);
                }
            }
        }
        assert_eq!(a.closed(), None);
    }
}

/// RFC 9002 §5.3: an absurd ACK Delay is capped and cannot make the round trip vanish.
#[test]
fn an_absurd_ack_delay_is_capped() {
    let mut a = sender(|_| {}, 2000);
    a.run(20 * MS);
    let last = *a.peer.spaces[2].received.last().expect("data came");
    let ack = payload(|w| {
        let n = frame::ack::write(w, std::iter::once(last..=last), (1 << 62) - 1, None);
        assert_eq!(n, 1);
    });
    a.one_rtt(&ack);
    let stats = a.connection().path_stats();
    assert!(stats.smoothed_rtt >= stats.min_rtt, "{stats:?}");
    a.expect_alive();
}

/// RFC 9000 §10.1, §13.2.1: a connection with nothing to say is quiet.
#[test]
fn an_idle_connection_sends_nothing() {
    let mut setup = Setup::default();
    setup.client.mtu = MtuConfig::fixed(1200);
    setup.server.mtu = MtuConfig::fixed(1200);
    let mut pair = Pair::new(setup);
    pair.connected();
    pair.run(SECOND);
    let sent = pair.sent;
    pair.run(25 * SECOND);
    assert_eq!(pair.sent, sent);
}

/// An empty UDP datagram, as some stacks deliver them (s2n GHSA-hxq4).
#[test]
fn empty_and_tiny_datagrams_are_dropped() {
    let mut a = Attack::server();
    for n in 0..30 {
        let d = vec![0x40; n];
        a.send(&d);
        let mut d = vec![0x41];
        d.extend_from_slice(a.peer.dcid.as_slice());
        d.resize(9 + n, 1);
        a.send(&d);
    }
    a.expect_alive();
}
