//! Datagrams between two endpoints: shown where they arrive or queued, many at a time, and what the
//! application is told.

use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use bytes::Bytes;
use corelane::conn::Event;
use corelane::stream::DatagramError;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn waiting(pair: &mut Pair, id: corelane::conn::ConnId) -> Vec<u8> {
    let mut got = Vec::new();
    pair.conn(SERVER, id).recv_datagrams(|d| got.push(d[0]));
    got
}

/// What is taken where it arrives is not queued; what is queued keeps its place before the rest.
#[test]
fn what_is_not_taken_at_once_waits_in_order() {
    let mut pair = Pair::new(Setup::default());
    let (client, server) = pair.connected();
    let send = |pair: &mut Pair, range: std::ops::Range<u8>| {
        let mut batch = pair.conn(CLIENT, client).datagram_batch().expect("taken");
        for i in range {
            batch.push(&[i; 40]).expect("room");
        }
        pair.run(20 * MS);
    };
    pair.sides[SERVER].app.take_datagrams = usize::MAX;
    send(&mut pair, 0..50);
    assert_eq!(pair.sides[SERVER].app.datagrams.len(), 50);
    assert!(!pair.saw(SERVER, &Event::DatagramReceived));
    // Some of a packet, and none any more while others wait.
    pair.sides[SERVER].app.take_datagrams = 3;
    send(&mut pair, 50..60);
    assert!(pair.saw(SERVER, &Event::DatagramReceived));
    pair.sides[SERVER].app.take_datagrams = usize::MAX;
    send(&mut pair, 60..70);
    let shown: Vec<u8> = pair.sides[SERVER]
        .app
        .datagrams
        .iter()
        .map(|d| d[0])
        .collect();
    assert_eq!(shown, (0..53).collect::<Vec<u8>>());
    assert_eq!(waiting(&mut pair, server), (53..70).collect::<Vec<u8>>());
    send(&mut pair, 70..80);
    assert_eq!(waiting(&mut pair, server), []);
    let app = &pair.sides[SERVER].app;
    assert_eq!(app.datagrams.len(), 63);
    assert!(app.datagrams.iter().all(|d| d.len() == 40 && d[0] == d[39]));
    let stats = pair.conn(SERVER, server).stats().datagrams;
    assert_eq!((stats.rx, stats.rx_dropped), (80, 0));
}

/// A full queue says so, nothing of what it took is lost, and room is told when there is some.
#[test]
fn a_full_queue_refuses_and_tells_of_room() {
    let mut setup = Setup::default();
    setup.client.datagram_send_buffer = 20_000;
    let mut pair = Pair::new(setup);
    let (client, _) = pair.connected();
    pair.sides[SERVER].app.take_datagrams = usize::MAX;
    let (mut sent, mut unblocked) = (0u32, 0);
    for _ in 0..50 {
        let mut batch = pair.conn(CLIENT, client).datagram_batch().expect("taken");
        let full = loop {
            let filled = batch.push_with(100, |to| {
                to.fill(0);
                to[..4].copy_from_slice(&sent.to_be_bytes());
            });
            match filled {
                Ok(()) => sent += 1,
                Err(e) => break e,
            }
        };
        assert_eq!(full, DatagramError::Full);
        pair.sides[CLIENT].events.clear();
        pair.run(100 * MS);
        unblocked += u32::from(pair.saw(CLIENT, &Event::DatagramsUnblocked));
    }
    assert_eq!(unblocked, 50);
    let got = &pair.sides[SERVER].app.datagrams;
    let got: Vec<u32> = got
        .iter()
        .map(|d| u32::from_be_bytes(d[..4].try_into().expect("four bytes")))
        .collect();
    assert_eq!(got, (0..sent).collect::<Vec<u32>>());
    assert!(sent > 5000, "{sent}");
}

/// What the queue never holds is too large; refusing it for want of room would ask to try again for
/// ever.
#[test]
fn a_datagram_beyond_the_queue_is_too_large() {
    let mut setup = Setup::default();
    setup.client.datagram_send_buffer = 500;
    let mut pair = Pair::new(setup);
    let (client, _) = pair.connected();
    let conn = pair.conn(CLIENT, client);
    let max = conn.max_datagram_size().expect("taken");
    assert!(max < 500);
    let sent = conn.send_datagram(Bytes::from(vec![0; max + 1]));
    assert_eq!(sent, Err(DatagramError::TooLarge(max)));
    assert_eq!(conn.send_datagram(Bytes::from(vec![0; max])), Ok(()));
    pair.run(100 * MS);
    assert!(!pair.saw(CLIENT, &Event::DatagramsUnblocked));
}
