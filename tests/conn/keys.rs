//! Key updates (RFC 9001 §6): by either side, under faults, and where they break the rules.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use corelane::base::Rng;
use corelane::wire::{Code, Dir, PacketType};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn write_some(pair: &mut Pair, side: usize, id: corelane::conn::ConnId, bytes: &[u8]) {
    let streams = pair.conn(side, id).streams_mut();
    let stream = streams.open(Dir::Uni).expect("a stream");
    assert_eq!(streams.write(stream, bytes), Ok(bytes.len()));
    streams.finish(stream).expect("open");
}

#[test]
fn both_sides_update_keys_many_times() {
    let mut pair = Pair::new(Setup::default());
    let (client, server) = pair.connected();
    let mut updates = 0;
    for round in 0..20u8 {
        for (side, id) in [(CLIENT, client), (SERVER, server)] {
            write_some(&mut pair, side, id, &[round; 5000]);
            updates += u64::from(pair.conn(side, id).update_keys());
            pair.run(SECOND);
        }
    }
    assert!(updates >= 20, "{updates}");
    for (side, id) in [(CLIENT, client), (SERVER, server)] {
        assert_eq!(pair.closed(side), None);
        let stats = pair.conn(side, id).stats();
        assert_eq!(
            (stats.key_updates, stats.packets_undecryptable),
            (updates, 0)
        );
        let got: Vec<usize> = pair.sides[side]
            .app
            .received
            .values()
            .map(Vec::len)
            .collect();
        assert_eq!(got, vec![5000; 20]);
    }
}

/// RFC 9001 §6.5: packets of the old phase that come late still open.
#[test]
fn key_updates_under_loss_and_reordering_lose_nothing() {
    for seed in 0..30 {
        let mut setup = Setup {
            seed,
            ..Setup::default()
        };
        // A packet that is held while nothing else is sent makes round trips of seconds.
        setup.client.max_idle_timeout = 3600 * SECOND;
        setup.server.max_idle_timeout = 3600 * SECOND;
        let mut pair = Pair::new(setup);
        let (client, server) = pair.connected();
        let mut rng = Rng::from_u64(seed);
        let mut held = Vec::new();
        pair.filter = Box::new(move |p| match rng.below(10) {
            0 => vec![],
            1..4 if held.is_empty() => {
                held.push(p);
                vec![]
            }
            _ => std::iter::once(p).chain(held.drain(..)).collect(),
        });
        for round in 0..10u8 {
            for (side, id) in [(CLIENT, client), (SERVER, server)] {
                write_some(&mut pair, side, id, &[round; 20_000]);
                pair.conn(side, id).update_keys();
            }
            pair.run(SECOND / 5);
        }
        pair.run(300 * SECOND);
        for side in [CLIENT, SERVER] {
            assert_eq!(pair.closed(side), None, "seed {seed}");
            let got: Vec<usize> = pair.sides[side]
                .app
                .received
                .values()
                .map(Vec::len)
                .collect();
            assert_eq!(got, vec![20_000; 10], "seed {seed}");
        }
        assert!(
            pair.conn(CLIENT, client).stats().key_updates >= 2,
            "seed {seed}"
        );
    }
}

/// Both sides at the same moment: one phase change, not two (RFC 9001 §6.1).
#[test]
fn updates_that_cross_are_one_update() {
    let mut pair = Pair::new(Setup::default());
    let (client, server) = pair.connected();
    write_some(&mut pair, CLIENT, client, b"a");
    write_some(&mut pair, SERVER, server, b"b");
    pair.run(SECOND);
    assert!(pair.conn(CLIENT, client).update_keys());
    assert!(pair.conn(SERVER, server).update_keys());
    write_some(&mut pair, CLIENT, client, b"c");
    write_some(&mut pair, SERVER, server, b"d");
    pair.run(SECOND);
    for (side, id) in [(CLIENT, client), (SERVER, server)] {
        assert_eq!(pair.closed(side), None);
        assert_eq!(pair.conn(side, id).stats().key_updates, 1);
        assert_eq!(pair.sides[side].app.received.len(), 2);
    }
}

/// `key_update_packets` changes keys without being asked (RFC 9001 §6.6).
#[test]
fn keys_are_updated_after_a_configured_number_of_packets() {
    let mut setup = Setup::default();
    setup.client.key_update_packets = Some(50);
    setup.client.mtu = corelane::recovery::MtuConfig::fixed(1200);
    let mut pair = Pair::new(setup);
    let (client, _) = pair.connected();
    for _ in 0..5 {
        write_some(&mut pair, CLIENT, client, &[3; 200_000]);
        pair.run(SECOND);
    }
    assert_eq!(pair.sides[SERVER].app.finished.len(), 5);
    let n = pair.conn(CLIENT, client).stats().key_updates;
    assert!((5..10).contains(&n), "{n} updates");
    assert_eq!((pair.closed(CLIENT), pair.closed(SERVER)), (None, None));
}

/// RFC 9001 §6: an endpoint follows its peer's update and answers in the new phase.
#[test]
fn an_update_by_the_peer_is_followed() {
    for server in [true, false] {
        let mut a = if server {
            Attack::server()
        } else {
            Attack::client()
        };
        for round in 1..6u64 {
            a.one_rtt(&[1]);
            a.run(SECOND);
            a.ack_all();
            a.peer.force_key_update(a.now);
            a.inbox.clear();
            a.one_rtt(&[1]);
            a.one_rtt(&[1]);
            let phase = a.inbox.last().expect("an answer").phase;
            assert_eq!(phase, round % 2 == 1);
            assert_eq!(a.connection().stats().key_updates, round);
            a.run(SECOND);
        }
        a.expect_alive();
    }
}

/// RFC 9001 §6.2, §6.4: twice without an acknowledgement in between.
#[test]
fn two_updates_before_an_answer_are_a_key_update_error() {
    let mut a = Attack::server();
    a.run(SECOND);
    a.ack_all();
    let addr = a.peer_addr;
    for _ in 0..2 {
        a.peer.force_key_update(a.now);
        let p = a.peer.packet(PacketType::OneRtt, &[1]);
        // The endpoint is not let speak in between.
        a.deliver(addr, &p);
    }
    a.collect();
    assert_eq!(a.blamed(), Some(Code::KEY_UPDATE_ERROR));
}

/// RFC 9001 §6.4: new keys on a lower packet number than the old ones were used on.
#[test]
fn new_keys_on_an_older_packet_number_are_a_key_update_error() {
    let mut a = Attack::server();
    let p = a.peer.packet_at(PacketType::OneRtt, 100, &[1], |_| {});
    a.send(&p);
    a.peer.force_key_update(a.now);
    let p = a.peer.packet_at(PacketType::OneRtt, 60, &[1], |_| {});
    a.send(&p);
    assert_eq!(a.blamed(), Some(Code::KEY_UPDATE_ERROR));
}

/// RFC 9001 §6.3: a wrong key phase bit alone is an undecryptable packet, and no update.
#[test]
fn a_flipped_key_phase_bit_is_an_undecryptable_packet() {
    let mut a = Attack::server();
    let before = a.connection().stats();
    for pn in 100..200 {
        let p = a
            .peer
            .packet_at(PacketType::OneRtt, pn, &[1], |b| *b ^= 0x04);
        a.send(&p);
    }
    let after = a.connection().stats();
    assert_eq!(
        after.packets_undecryptable - before.packets_undecryptable,
        100
    );
    assert_eq!(after.key_updates, 0);
    a.expect_alive();
}

/// RFC 9001 §6.1: not before the handshake is confirmed, nor before an acknowledgement.
#[test]
fn no_update_before_it_is_allowed() {
    let mut a = Attack::on_client(Plan::default());
    assert!(!a.connection().update_keys());
    a.start_server(|_| {});
    a.handshake();
    assert!(!a.connection().update_keys(), "not confirmed");
    a.one_rtt(&[0x1e]);
    a.run(SECOND);
    a.ack_all();
    assert!(a.connection().update_keys());
    assert!(!a.connection().update_keys(), "not answered");
}
