//! A peer that sends on several paths what no honest one would: each is bounded, and ends. Single frames that break a rule are in `rules`, caps in `bounds`.

use crate::addresses::{add, client, elsewhere, plan};
use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::payload;
use corelane::base::{LocalAddress, SocketId, limits};
use corelane::conn::{Event, LocalSocket};
use corelane::path::PathId;
use corelane::wire::frame::{Frame, PathFrame};
use corelane::wire::{Code, ConnectionId, Writer, frame, header, packet_number};
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of packet number in what [`on_path`] sends.
const PN_LEN: usize = 4;

fn abandon(path: u32) -> Vec<u8> {
    let error = Code::NO_ERROR;
    let path = PathId(path);
    payload(|w| {
        PathFrame::Abandon { path, error }.write(w);
    })
}

/// A server whose scripted client issued no connection ID beyond path 0, and the server's first
/// connection ID of each path.
fn server() -> (Attack, Vec<ConnectionId>) {
    let mut plan = Plan::default();
    plan.transport.max_paths = 4;
    plan.params.initial_max_path_id = Some(PathId(3));
    let mut a = Attack::on_server(plan);
    a.exchange();
    let issued = |wanted: u32| {
        let mut frames = a.inbox.iter().flat_map(|p| p.frames());
        frames.find_map(|f| match f {
            Frame::Path(PathFrame::NewConnectionId { path, new }) if path.0 == wanted => {
                Some(new.cid)
            }
            _ => None,
        })
    };
    let cids = (1..4).map(|path| issued(path).expect("issued ahead"));
    let cids = cids.collect();
    a.run(Duration::from_millis(200));
    a.ack_all();
    (a, cids)
}

/// A packet of that path.
fn on_path(a: &mut Attack, path: u32, dcid: &ConnectionId, pn: u64, frames: &[u8]) -> Vec<u8> {
    let mut buf = vec![0; frames.len() + 64];
    let mut w = Writer::new(&mut buf);
    let at = header::write_short(&mut w, dcid, false, false, PN_LEN);
    packet_number::write(&mut w, pn, PN_LEN);
    w.bytes(frames);
    let end = w.position() + corelane::crypto::TAG_LEN;
    buf.truncate(end);
    let keys = a.peer.one_rtt.as_mut().expect("1-RTT keys");
    keys.seal(path, pn, &mut buf, at, PN_LEN).expect("seals");
    buf
}

/// RFC 9000 §21.5: a server that names a victim, abandons every other path and goes on talking gets
/// its client's acknowledgements sent there: no more than three datagrams of them and all else.
#[test]
fn a_named_address_gets_no_acknowledgements() {
    let mut plan = plan();
    plan.transport.multipath.auto_paths = Some(4);
    let mut a = client(plan);
    let (now, addr) = (a.now, a.addr);
    let socket = LocalSocket {
        socket: SocketId(0),
        port: addr.port(),
        address: LocalAddress {
            ip: addr.ip(),
            interface: 1,
            state: Default::default(),
        },
    };
    assert!(a.connection().set_local_addresses(now, &[socket]));
    let victim = SocketAddr::from(([198, 18, 0, 1], 4433));
    a.one_rtt(&add(0, 0, victim));
    a.run(Duration::from_millis(5));
    assert!(elsewhere(&a).count() > 0, "the victim was tried");
    a.one_rtt(&abandon(0));
    for _ in 0..1000 {
        a.one_rtt(&[0x01]);
        a.run(Duration::from_millis(1));
    }
    let bytes: usize = elsewhere(&a).map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes <= 3 * limits::MIN_UDP_PAYLOAD, "{bytes} bytes");
    a.run(Duration::from_secs(60));
    assert!(a.closed().is_some(), "no path is left");
}

/// A client that goes on over a path for which it issued no connection ID leaves its server without
/// a word to say: the path is given up, and the connection with it.
#[test]
fn a_path_that_cannot_be_answered_ends() {
    for gone in [false, true] {
        let (mut a, cids) = server();
        let first = on_path(&mut a, 1, &cids[0], 7, &[0x01]);
        a.send(&first);
        assert!(a.connection().path_info(PathId(1)).is_some(), "it began");
        if gone {
            let last = on_path(&mut a, 1, &cids[0], 8, &abandon(0));
            a.send(&last);
        }
        for pn in 9..200 {
            let packet = on_path(&mut a, 1, &cids[0], pn, &[0x01]);
            a.send(&packet);
            a.run(Duration::from_millis(1));
        }
        a.run(Duration::from_secs(20));
        match gone {
            true => assert!(a.closed().is_some(), "no path is left"),
            false => assert_eq!(a.closed(), None, "the first one works"),
        }
        a.run(Duration::from_secs(8000));
        assert!(a.endpoint.is_empty(), "nothing is left");
    }
}

/// What arrives on an abandoned path is acknowledged and moves nothing: neither from new addresses,
/// nor with challenges.
#[test]
fn an_abandoned_path_follows_nobody() {
    let (mut a, cids) = server();
    let new = on_path(&mut a, 1, &cids[0], 7, &[0x01]);
    a.send(&new);
    let over = on_path(&mut a, 1, &cids[0], 8, &abandon(1));
    a.send(&over);
    a.datagrams.clear();
    a.events.clear();
    for n in 0..3000u16 {
        let from = SocketAddr::from(([127, 0, 0, 9], 20_000 + n));
        let frames = payload(|w| {
            frame::write_path_challenge(w, &u64::from(n).to_be_bytes());
            w.bytes(&[0x01]);
        });
        let packet = on_path(&mut a, 1, &cids[0], 9 + u64::from(n), &frames);
        a.send_from(from, &packet);
    }
    assert!(a.datagrams.iter().all(|(to, _)| *to == a.peer_addr));
    assert!(!a.events.contains(&Event::PeerAddressChanged));
    a.run(Duration::from_secs(5));
    assert_eq!(a.closed(), None);
    assert!(a.connection().path_info(PathId(1)).is_none(), "forgotten");
    a.run(Duration::from_secs(8000));
    assert!(a.endpoint.is_empty(), "nothing is left");
}

/// A packet of a path is sealed for that path alone: with another one's nonce it opens none
/// (multipath §2.4), and the identifier is not used up by it.
#[test]
fn a_packet_with_the_nonce_of_another_path_begins_none() {
    let (mut a, cids) = server();
    for pn in 0..100 {
        let packet = on_path(&mut a, 2, &cids[0], pn, &[0x01]);
        a.send(&packet);
        assert!(a.connection().path_info(PathId(1)).is_none());
    }
    let packet = on_path(&mut a, 1, &cids[0], 0, &[0x01]);
    a.send(&packet);
    assert!(a.connection().path_info(PathId(1)).is_some());
    assert_eq!(a.closed(), None);
}
