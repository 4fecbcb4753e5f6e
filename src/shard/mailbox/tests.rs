//! Mailboxes: order, bounds, and buffers that come home.

use super::*;
use crate::base::{Ecn, FourTuple, Rng};
use crate::io::SocketId;
use std::sync::atomic::AtomicUsize;

fn meta(segment_size: usize) -> RecvMeta {
    let addr = |port| std::net::SocketAddr::new([127, 0, 0, 1].into(), port);
    RecvMeta {
        socket: SocketId(3),
        path: FourTuple::new(addr(1), addr(2)),
        ecn: Ecn::Ect0,
        segment_size,
    }
}

fn drain(mailbox: &mut Mailbox<u32>) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    mailbox.recv(usize::MAX, &mut |_, bytes| got.push(bytes.to_vec()));
    got
}

fn fresh(mailbox: &mut Mailbox<u32>) -> Vec<usize> {
    let mut shards = Vec::new();
    mailbox.for_each_fresh(|shard| shards.push(shard));
    shards
}

#[test]
fn parcels_reach_their_shard_in_order_with_what_is_known_of_them() {
    let mut boxes = Mailbox::<u32>::build(3);
    let train: Vec<u8> = (0..5000).map(|i| i as u8).collect();
    assert!(boxes[0].send(2, &meta(1200), &train));
    assert!(boxes[0].send(2, &meta(100), &[1; 100]));
    assert!(boxes[1].send(2, &meta(100), &[2; 100]));
    assert_eq!(fresh(&mut boxes[0]), [2]);
    assert_eq!(fresh(&mut boxes[0]), [0usize; 0]);
    assert!(boxes[2].has_mail() && !boxes[1].has_mail());
    let mut got = Vec::new();
    let runs = boxes[2].recv(10, &mut |m, b| got.push((*m, b.to_vec())));
    assert_eq!((runs, got.len()), (3, 3));
    assert_eq!(got[0], (meta(1200), train));
    assert_eq!(got[1], (meta(100), vec![1; 100]));
    assert_eq!(got[2], (meta(100), vec![2; 100]));
    assert_eq!(boxes[0].stats().sent, 6);
    assert_eq!(boxes[2].stats().received, 7);
    assert!(drain(&mut boxes[1]).is_empty() && !boxes[2].has_mail());
}

#[test]
fn shards_take_turns() {
    let mut boxes = Mailbox::<u32>::build(3);
    for _ in 0..3 * TURN {
        assert!(boxes[0].send(2, &meta(9), &[0; 9]));
    }
    assert!(boxes[1].send(2, &meta(9), &[1; 9]));
    let mut from = Vec::new();
    let runs = boxes[2].recv(TURN + 2, &mut |_, b| from.push(b[0]));
    assert_eq!((runs, from.len()), (TURN + 2, TURN + 2));
    assert_eq!(from.iter().position(|&b| b == 1), Some(TURN));
    assert_eq!(drain(&mut boxes[2]).len(), 2 * TURN - 1);
}

#[test]
fn a_shard_has_no_ring_to_itself_or_to_nobody() {
    let mut boxes = Mailbox::<u32>::build(2);
    assert!(!boxes[0].send(0, &meta(1), &[1]));
    assert!(!boxes[0].send(7, &meta(1), &[1, 2]));
    assert_eq!(boxes[0].stats().dropped, 3);
    let mut one = Mailbox::<u32>::build(1);
    assert!(drain(&mut one[0]).is_empty() && fresh(&mut one[0]).is_empty());
}

#[test]
fn a_full_ring_drops_and_counts() {
    let mut boxes = Mailbox::<u32>::build(2);
    for _ in 0..limits::MAILBOX_DATAGRAMS {
        assert!(boxes[0].send(1, &meta(1200), &[0; 1200]));
    }
    assert!(!boxes[0].send(1, &meta(1200), &[0; 1200]));
    assert_eq!(boxes[0].stats().dropped, 1);
    // The other direction is a ring of its own.
    assert!(boxes[1].send(0, &meta(1200), &[0; 1200]));
    assert_eq!(drain(&mut boxes[1]).len(), limits::MAILBOX_DATAGRAMS);
    assert!(boxes[0].send(1, &meta(1200), &[0; 1200]));
}

#[test]
fn trains_have_a_bound_of_their_own_and_leave_room_for_datagrams() {
    let mut boxes = Mailbox::<u32>::build(2);
    for _ in 0..limits::MAILBOX_TRAINS {
        assert!(boxes[0].send(1, &meta(1200), &[0; 60_000]));
    }
    assert!(!boxes[0].send(1, &meta(1200), &[0; 60_000]));
    assert_eq!(boxes[0].stats().dropped, 50);
    assert!(boxes[0].send(1, &meta(1200), &[0; 1200]));
    assert!(
        !boxes[0].send(1, &meta(1200), &[0; LARGE + 1]),
        "larger than any train"
    );
}

#[test]
fn a_warm_pair_makes_no_more_buffers() {
    let mut boxes = Mailbox::<u32>::build(2);
    for _ in 0..5000 {
        for _ in 0..3 {
            assert!(boxes[0].send(1, &meta(1200), &[0; 1200]));
            assert!(boxes[0].send(1, &meta(1200), &[0; 30_000]));
        }
        assert_eq!(drain(&mut boxes[1]).len(), 6);
    }
    let outlet = boxes[0].outlets[1].as_ref().unwrap();
    assert_eq!((outlet.small.made, outlet.large.made), (3, 3));
}

#[test]
fn threads_exchange_parcels_without_loss_or_damage() {
    const COUNT: u64 = 20_000;
    let shard = |mut mailbox: Mailbox<u32>, me: usize| {
        let mut rng = Rng::from_u64(me as u64);
        let other = 1 - me;
        let (mut sent, mut expected) = (0u64, 0u64);
        while sent < COUNT || expected < COUNT {
            if sent < COUNT {
                let len = 8 + rng.below(4000) as usize;
                let mut bytes = vec![sent as u8; len];
                bytes[..8].copy_from_slice(&sent.to_be_bytes());
                sent += u64::from(mailbox.send(other, &meta(len), &bytes));
            }
            let got = mailbox.recv(4, &mut |meta, bytes| {
                let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
                assert_eq!((number, meta.segment_size), (expected, bytes.len()));
                assert!(bytes[8..].iter().all(|&b| b == number as u8));
                expected += 1;
            });
            if got == 0 {
                std::thread::yield_now();
            }
        }
        // Kept until the other has everything.
        mailbox
    };
    let mut boxes = Mailbox::<u32>::build(2).into_iter();
    let (a, b) = (boxes.next().unwrap(), boxes.next().unwrap());
    let there = std::thread::spawn(move || shard(b, 1));
    let a = shard(a, 0);
    let b = there.join().unwrap();
    assert_eq!((a.stats().sent, a.stats().received), (COUNT, COUNT));
    assert_eq!(b.stats().received, COUNT);
}

#[test]
fn commands_wake_and_are_bounded() {
    let mut mailbox = Mailbox::<u32>::build(1).remove(0);
    let wakes = Arc::new(AtomicUsize::new(0));
    let count = wakes.clone();
    let sender = mailbox.command_sender(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    for n in 0..limits::MAILBOX_COMMANDS as u32 {
        assert_eq!(sender.clone().send(n), Ok(()));
    }
    assert_eq!(sender.send(7), Err(SendError::Full(7)));
    assert_eq!(wakes.load(Ordering::Relaxed), limits::MAILBOX_COMMANDS);
    assert!(mailbox.has_mail());
    assert_eq!(mailbox.next_command(), Some(0));
    assert_eq!(sender.send(7), Ok(()));
}

#[test]
fn a_shard_that_ends_drops_its_commands_and_takes_no_more() {
    let mailbox = Mailbox::<Arc<()>>::build(1).remove(0);
    let sender = mailbox.command_sender(|| {});
    let command = Arc::new(());
    sender.send(command.clone()).unwrap();
    drop(mailbox);
    assert_eq!(Arc::strong_count(&command), 1);
    assert!(sender.is_closed());
    assert!(matches!(sender.send(command), Err(SendError::Closed(_))));
}

#[test]
fn no_command_outlives_a_shard_that_ends_while_it_is_sent() {
    for _ in 0..200 {
        let mailbox = Mailbox::<Arc<()>>::build(1).remove(0);
        let sender = mailbox.command_sender(|| {});
        let command = Arc::new(());
        let copy = command.clone();
        let thread = std::thread::spawn(move || {
            for _ in 0..20 {
                let _ = sender.send(copy.clone());
            }
            sender
        });
        drop(mailbox);
        let _sender = thread.join().unwrap();
        assert_eq!(Arc::strong_count(&command), 1, "only ours is left");
    }
}
