//! ACK frames: ranges at the edges of what they may say, and writing into every size of room.

use super::*;
use crate::wire::error::Code;
use crate::wire::frame::Frame;
use crate::wire::frame::tests::{fails, one, written};
use crate::wire::varint::MAX;

/// An ACK frame of these raw fields.
fn raw_ack(largest: u64, first: u64, count: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
    written(|w| {
        w.u8(0x02);
        for v in [largest, 0, count, first] {
            w.varint(v);
        }
        for &(gap, len) in ranges {
            w.varint(gap);
            w.varint(len);
        }
    })
}

fn ranges(bytes: &[u8]) -> Vec<RangeInclusive<u64>> {
    match one(bytes) {
        Frame::Ack(ack) => {
            let ranges: Vec<_> = ack.ranges.collect();
            assert_eq!(ranges.len(), ack.ranges.len());
            ranges
        }
        frame => panic!("{frame:?}"),
    }
}

#[test]
fn ack_ranges_descend_to_zero_and_not_below() {
    let ok = raw_ack(100, 10, 2, &[(0, 8), (5, 73)]);
    assert_eq!(ranges(&ok), [90..=100, 80..=88, 0..=73]);
    assert_eq!(ranges(&raw_ack(0, 0, 0, &[])), [0..=0]);
    assert_eq!(ranges(&raw_ack(MAX, MAX, 0, &[])), [0..=MAX]);
    for bad in [
        raw_ack(0, 1, 0, &[]),
        raw_ack(100, 101, 0, &[]),
        raw_ack(100, 100, 1, &[(0, 0)]),
        raw_ack(100, 99, 1, &[(0, 0)]),
        raw_ack(100, 98, 1, &[(0, 1)]),
        raw_ack(100, 10, 2, &[(0, 8), (5, 74)]),
        raw_ack(MAX, 0, 1, &[(MAX, 0)]),
        raw_ack(MAX, 0, 1, &[(0, MAX)]),
        // More ranges than the packet holds, up to a count that no packet could.
        raw_ack(100, 10, 3, &[(0, 8), (5, 73)]),
        raw_ack(100, 10, MAX, &[(0, 8), (5, 73)]),
    ] {
        fails(&bad, Code::FRAME_ENCODING_ERROR, 2);
    }
    assert_eq!(ranges(&raw_ack(100, 98, 1, &[(0, 0)])), [2..=100, 0..=0]);
}

#[test]
fn an_ack_yields_no_more_ranges_than_its_limit() {
    let all = vec![(0, 0); 2 * ACK_FRAME_RANGES];
    let mut buf = vec![0; 8 * ACK_FRAME_RANGES];
    let mut w = Writer::new(&mut buf);
    w.u8(0x02);
    for v in [1 << 20, 0, all.len() as u64, 0] {
        w.varint(v);
    }
    for _ in &all {
        w.u16(0);
    }
    let ranges = ranges(w.written());
    assert_eq!(ranges.len(), ACK_FRAME_RANGES);
    assert_eq!(ranges.first(), Some(&((1 << 20)..=(1 << 20))));
}

#[test]
fn an_ack_holds_as_many_ranges_as_fit() {
    let every_other = || (0..200u64).rev().map(|n| 1000 + 2 * n..=1000 + 2 * n);
    let ecn = Some(EcnCounts {
        ect0: 1,
        ect1: 2,
        ce: 3,
    });
    // Type, largest, delay, count, first range; then two bytes a range.
    let fixed = 1 + 2 + 1 + 1 + 1;
    for room in 0..200 {
        for ecn in [None, ecn] {
            let fixed = fixed + if ecn.is_some() { 3 } else { 0 };
            let mut buf = vec![0; room];
            let mut w = Writer::new(&mut buf);
            let n = write(&mut w, every_other(), 5, ecn);
            let expected = match room.checked_sub(fixed) {
                None => 0,
                Some(left) => (1 + left / 2).min(MAX_WRITTEN_RANGES),
            };
            assert_eq!(n, expected, "in {room} bytes");
            if n == 0 {
                assert_eq!(w.position(), 0);
                continue;
            }
            let Frame::Ack(ack) = one(w.written()) else {
                panic!("no ACK");
            };
            assert_eq!((ack.largest, ack.delay, ack.ecn), (1398, 5, ecn));
            assert!(ack.ranges.eq(every_other().take(n)));
        }
    }
    assert_eq!(written(|w| assert_eq!(write(w, [], 0, None), 0)), [0u8; 0]);
}
