//! The queues alone: what shares a packet, what is refused, what is dropped, what comes out.

use super::*;
use crate::wire::{Frame, Reader};

fn queue(send: usize, recv: usize) -> Datagrams {
    let mut d = Datagrams::new(send, recv);
    d.set_peer_max(65_535);
    d
}

fn frames(packet: &[u8]) -> Vec<Vec<u8>> {
    let (mut r, mut out) = (Reader::new(packet), Vec::new());
    while !r.is_empty() {
        match Frame::parse(&mut r).unwrap() {
            Frame::Datagram(d) => out.push(d.to_vec()),
            Frame::Padding => {}
            other => panic!("{other:?}"),
        }
    }
    out
}

#[test]
fn datagrams_share_packets_and_fill_them_exactly() {
    // Copied ones, and some that are kept by reference among them.
    let rooms = (1..40).chain([60, 70]).map(|room| (room, [10, 0, 20, 0]));
    let longer = (250..400).map(|room| (room, [300, 20, 290, 257]));
    for (room, lens) in rooms.chain(longer) {
        let mut d = queue(1 << 20, 1 << 20);
        for len in lens {
            d.send(Bytes::from(vec![len as u8; len])).unwrap();
        }
        let mut got = Vec::new();
        while d.wants_to_send() {
            let mut buf = vec![0xff; room];
            let mut w = Writer::new(&mut buf);
            if d.write(&mut w) == 0 {
                let before = d.stats().tx_too_large;
                d.drop_too_large(room);
                assert!(d.stats().tx_too_large > before);
                continue;
            }
            got.extend(frames(w.written()));
        }
        let sent: Vec<Vec<u8>> = lens
            .into_iter()
            .filter(|&len| len < room)
            .map(|len| vec![len as u8; len])
            .collect();
        assert_eq!(got, sent, "{room} bytes of room");
        assert_eq!(d.outgoing_bytes, 0);
    }
}

#[test]
fn the_peer_and_the_queue_bound_what_is_sent() {
    let mut d = Datagrams::new(200, 200);
    assert_eq!(d.send(Bytes::new()), Err(DatagramError::Unsupported));
    d.set_peer_max(50);
    assert_eq!(d.max_len(1200), Some(48));
    assert_eq!(d.max_len(20), Some(19));
    let data = |n| Bytes::from(vec![1; n]);
    assert_eq!(d.send(data(49)), Err(DatagramError::TooLarge(48)));
    assert_eq!(d.send(data(48)), Ok(()));
    assert_eq!(d.send(data(48)), Ok(()));
    assert_eq!(d.send(data(48)), Err(DatagramError::Full));
    // Empty datagrams are not free.
    let mut d = queue(10 * OVERHEAD, 0);
    assert_eq!(
        (0..100).filter(|_| d.send(Bytes::new()).is_ok()).count(),
        10
    );
}

/// Bytes of the queue of received datagrams, and what they count.
fn waiting(d: &Datagrams) -> (usize, usize) {
    let of = |r: &Received| (r.incoming.bytes().len(), r.incoming_bytes);
    d.received.as_deref().map_or((0, 0), of)
}

#[test]
fn a_full_receive_queue_drops_the_oldest() {
    let mut d = queue(0, 10 * OVERHEAD);
    for _ in 0..1000 {
        d.on_datagram(&[]);
    }
    assert_eq!(waiting(&d).0, 10 * LENGTH);
    assert_eq!((d.stats().rx, d.stats().rx_dropped), (1000, 990));
    d.on_datagram(&[7; 40]);
    // Three made room for it.
    assert_eq!(waiting(&d), (8 * LENGTH + 40, 8 * OVERHEAD + 40));
    while let Some(b) = d.recv() {
        assert!(b.is_empty() || b == vec![7; 40]);
    }
    assert_eq!(waiting(&d), (0, 0));
    // One that could never fit takes the others' place in vain, and is dropped itself.
    d.on_datagram(&[0; 4000]);
    assert_eq!(d.recv(), None);
}

#[test]
fn received_datagrams_share_blocks() {
    let mut d = queue(0, 1 << 20);
    for i in 0..2000u32 {
        d.on_datagram(&i.to_be_bytes());
    }
    for i in 0..2000u32 {
        assert_eq!(d.recv().unwrap(), i.to_be_bytes().as_slice());
    }
    assert!(d.received.unwrap().block_size > BLOCKS.0);
}

/// Random lengths, sizes of packets and moments; what arrives is what was sent, once and whole.
#[test]
fn what_comes_out_is_what_went_in() {
    let mut rng = crate::base::Rng::from_u64(21);
    for _ in 0..50 {
        let (mut tx, mut rx) = (queue(20_000, 1 << 20), queue(0, 1 << 20));
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            for _ in 0..rng.below(30) {
                let len = [0, 3, 64, 100, 256, 257, 900][rng.below(7) as usize];
                let data = vec![sent.len() as u8; len];
                let max = tx.max_len(1000).unwrap();
                let done = if rng.chance(0.5) {
                    tx.send(data.clone().into())
                } else {
                    tx.push(max, len, |to| to.copy_from_slice(&data))
                };
                match done {
                    Ok(()) => sent.push(data),
                    Err(e) => assert_eq!(e, DatagramError::Full),
                }
            }
            let mut packet = vec![0; 901 + rng.below(500) as usize];
            let mut w = Writer::new(&mut packet);
            let before = tx.stats().tx;
            let n = tx.write(&mut w);
            assert_eq!(tx.stats().tx - before, n as u64);
            let frames = frames(w.written());
            assert_eq!(frames.len(), n);
            frames.iter().for_each(|d| rx.on_datagram(d));
            for _ in 0..rng.below(20) {
                if rng.chance(0.5) {
                    rx.recv_with(|d| got.push(d.to_vec()));
                } else {
                    got.extend(rx.recv().map(|d| d.to_vec()));
                }
            }
        }
        while tx.wants_to_send() {
            let mut packet = [0; 1200];
            let mut w = Writer::new(&mut packet);
            tx.write(&mut w);
            frames(w.written()).iter().for_each(|d| rx.on_datagram(d));
        }
        while rx.recv_with(|d| got.push(d.to_vec())) {}
        assert!(!rx.has_received());
        assert_eq!(waiting(&rx), (0, 0));
        assert_eq!((tx.outgoing_bytes, tx.held.len()), (0, 0));
        assert!(got == sent, "{} of {}", got.len(), sent.len());
    }
}

#[test]
fn what_was_refused_fits_when_the_queue_says_so() {
    let mut d = queue(10_000, 0);
    let data = |n| Bytes::from(vec![1; n]);
    while d.send(data(100)).is_ok() {}
    assert!(!d.is_unblocked());
    // A longer one than half the queue waits until there is room for it.
    assert_eq!(d.send(data(9000)), Err(DatagramError::Full));
    let mut halves = 0;
    while !d.is_unblocked() {
        halves += usize::from(d.outgoing_bytes <= 5000);
        let mut packet = [0; 500];
        assert!(d.write(&mut Writer::new(&mut packet)) > 0);
    }
    assert!(halves > 0 && d.take_unblocked() && !d.take_unblocked());
    assert_eq!(d.send(data(9000)), Ok(()));
    // One that the queue never holds is not to be waited for.
    assert_eq!(d.max_len(usize::MAX), Some(10_000 - OVERHEAD));
    let max = 10_000 - OVERHEAD;
    assert_eq!(d.send(data(10_000)), Err(DatagramError::TooLarge(max)));
}
