//! Variable-length integers (RFC 9000 §16) and the two cursors that everything else parses and
//! writes with.
//!
//! [`Reader`] never panics and never reads past its end; every successful read advances it.
//! [`Writer`] is used after the caller has checked that what it writes fits ([`Writer::remaining`]
//! against the sizes that each frame states); it panics past its end like a slice does.

use bytes::Bytes;

/// The largest value a varint carries: 2^62 − 1.
pub const MAX: u64 = (1 << 62) - 1;

/// Bytes that `value` takes: 1, 2, 4 or 8.
///
/// `value` is at most [`MAX`].
#[inline]
pub const fn size(value: u64) -> usize {
    debug_assert!(value <= MAX);
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// The most bytes that fit in `room` together with their own length as a varint before them.
#[inline]
pub const fn fit_prefixed(room: usize) -> usize {
    match room {
        0 => 0,
        1..=0x40 => room - 1,
        // At the edge between two sizes of the length, one byte stays unused.
        0x41 => 0x3f,
        0x42..=0x4001 => room - 2,
        0x4002..=0x4003 => 0x3fff,
        0x4004..=0x4000_0003 => room - 4,
        _ => 0x3fff_ffff,
    }
}

/// The input ended before the value did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// A cursor over received bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `buf`.
    pub const fn new(buf: &'a [u8]) -> Self {
        Self { buf, pos: 0 }
    }

    /// Bytes consumed so far.
    #[inline]
    pub const fn position(&self) -> usize {
        self.pos
    }

    /// Bytes left.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// Whether everything was consumed.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.pos == self.buf.len()
    }

    /// What is left, without consuming it.
    #[inline]
    pub fn peek_rest(&self) -> &'a [u8] {
        self.buf.get(self.pos..).unwrap_or_default()
    }

    /// Consumes `n` bytes.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Truncated> {
        let rest = self.peek_rest();
        let Some(out) = rest.get(..n) else {
            return Err(Truncated);
        };
        self.pos += n;
        Ok(out)
    }

    /// Consumes `n` bytes, where `n` came off the wire.
    #[inline]
    pub fn bytes_u64(&mut self, n: u64) -> Result<&'a [u8], Truncated> {
        self.bytes(usize::try_from(n).map_err(|_| Truncated)?)
    }

    /// Consumes everything that is left.
    #[inline]
    pub fn rest(&mut self) -> &'a [u8] {
        let out = self.peek_rest();
        self.pos = self.buf.len();
        out
    }

    /// Consumes an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        match self.peek_rest().first_chunk::<N>() {
            Some(a) => {
                self.pos += N;
                Ok(*a)
            }
            None => Err(Truncated),
        }
    }

    /// Consumes one byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        let Some(&b) = self.buf.get(self.pos) else {
            return Err(Truncated);
        };
        self.pos += 1;
        Ok(b)
    }

    /// Consumes a big-endian 16-bit number.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Consumes a big-endian 32-bit number.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Consumes a varint.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Truncated> {
        let Some(&first) = self.buf.get(self.pos) else {
            return Err(Truncated);
        };
        match first >> 6 {
            0 => {
                self.pos += 1;
                Ok(u64::from(first))
            }
            1 => Ok(u64::from(u16::from_be_bytes(self.array()?) & 0x3fff)),
            2 => Ok(u64::from(u32::from_be_bytes(self.array()?) & 0x3fff_ffff)),
            _ => Ok(u64::from_be_bytes(self.array()?) & MAX),
        }
    }
}

/// A cursor over a packet being built.
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    pos: usize,
    tail: Option<&'a mut Bytes>,
}

/// A tail shorter than this is copied: to keep it apart costs as much.
const MIN_TAIL: usize = 512;
/// What is in front of a tail ends where its length is a multiple of this: whole blocks of AES.
const TAIL_UNIT: usize = 16;

impl<'a> Writer<'a> {
    /// A cursor at the start of `buf`.
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self {
            buf,
            pos: 0,
            tail: None,
        }
    }

    /// A cursor at the start of `buf` that may leave out the last bytes that fill it, if they are
    /// [shared](Self::shared): these are in `tail` then and nowhere else.
    pub fn with_tail(buf: &'a mut [u8], tail: &'a mut Bytes) -> Self {
        Self {
            buf,
            pos: 0,
            tail: Some(tail),
        }
    }

    /// Bytes written so far.
    #[inline]
    pub const fn position(&self) -> usize {
        self.pos
    }

    /// Bytes that still fit.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// What was written so far.
    #[inline]
    pub fn written(&self) -> &[u8] {
        &self.buf[..self.pos]
    }

    /// Appends one byte.
    #[inline]
    pub fn u8(&mut self, v: u8) {
        self.buf[self.pos] = v;
        self.pos += 1;
    }

    /// Appends a big-endian 16-bit number.
    #[inline]
    pub fn u16(&mut self, v: u16) {
        self.bytes(&v.to_be_bytes());
    }

    /// Appends a big-endian 32-bit number.
    #[inline]
    pub fn u32(&mut self, v: u32) {
        self.bytes(&v.to_be_bytes());
    }

    /// Appends bytes.
    #[inline]
    pub fn bytes(&mut self, v: &[u8]) {
        self.buf[self.pos..self.pos + v.len()].copy_from_slice(v);
        self.pos += v.len();
    }

    /// Appends bytes `at..at + n` of `data`, which has them.
    #[inline]
    pub fn shared(&mut self, data: &Bytes, at: usize, n: usize) {
        if let Some(tail) = &mut self.tail
            && n == self.buf.len() - self.pos
            && n >= MIN_TAIL
        {
            let copied = n % TAIL_UNIT;
            **tail = data.slice(at + copied..at + n);
            self.bytes(&data[at..at + copied]);
            self.pos = self.buf.len();
            return;
        }
        self.bytes(&data[at..at + n]);
    }

    /// Appends `n` zero bytes.
    #[inline]
    pub fn zeros(&mut self, n: usize) {
        self.buf[self.pos..self.pos + n].fill(0);
        self.pos += n;
    }

    /// Appends a varint in its shortest form. `value` is at most [`MAX`].
    #[inline]
    pub fn varint(&mut self, value: u64) {
        debug_assert!(value <= MAX, "a varint carries at most 2^62 - 1");
        match size(value) {
            1 => self.u8(value as u8),
            2 => self.u16(value as u16 | 0x4000),
            4 => self.u32(value as u32 | 0x8000_0000),
            _ => self.bytes(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
        }
    }

    /// Replaces the byte at `at`.
    #[inline]
    pub fn patch_u8(&mut self, at: usize, v: u8) {
        self.buf[at] = v;
    }

    /// Appends a varint in two bytes whatever its size, for a length that is filled in later by
    /// [`Writer::patch_varint2`]. Returns its position.
    #[inline]
    pub fn reserve_varint2(&mut self) -> usize {
        let at = self.pos;
        self.u16(0x4000);
        at
    }

    /// Fills in a two-byte varint at `at`. `value` is below 2^14.
    #[inline]
    pub fn patch_varint2(&mut self, at: usize, value: usize) {
        debug_assert!(value < 0x4000, "a two-byte varint carries at most 16,383");
        self.buf[at..at + 2].copy_from_slice(&(value as u16 | 0x4000).to_be_bytes());
    }

    /// Gives up to `max` bytes of unwritten space to `fill`, which returns how many it wrote.
    #[inline]
    pub fn fill_with(&mut self, max: usize, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let end = self.pos + max.min(self.remaining());
        let n = fill(&mut self.buf[self.pos..end]).min(end - self.pos);
        self.pos += n;
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rfc_examples_decode() {
        // RFC 9000 §A.1
        let cases: [(&[u8], u64); 5] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in cases {
            let mut r = Reader::new(bytes);
            assert_eq!(r.varint(), Ok(value));
            assert!(r.is_empty());
        }
    }

    #[test]
    fn a_prefixed_length_fits_exactly_as_much_as_it_can() {
        let fits = |n: usize, room: usize| size(n as u64) + n <= room;
        for room in (1..0x100).chain(0x3ff0..0x4020) {
            let n = fit_prefixed(room);
            assert!(fits(n, room) && !fits(n + 1, room), "{room}: {n}");
        }
        assert_eq!(fit_prefixed(0), 0);
        assert_eq!(fit_prefixed(usize::MAX), 0x3fff_ffff);
    }

    #[test]
    fn what_fills_the_packet_stays_where_it_is_and_nothing_else_does() {
        let data = Bytes::from((0..2000).map(|i| i as u8).collect::<Vec<_>>());
        let (mut buf, mut tail) = (vec![0; 1000], Bytes::new());
        let mut w = Writer::with_tail(&mut buf, &mut tail);
        w.shared(&data, 100, 300);
        w.u8(7);
        w.shared(&data, 1000, 699);
        assert_eq!(w.remaining(), 0);
        // 699 is 43 blocks and 11 bytes: those are in the packet.
        assert_eq!(buf[..300], data[100..400]);
        assert_eq!((buf[300], &buf[301..312]), (7, &data[1000..1011]));
        assert_eq!(buf[312..], [0; 688]);
        assert_eq!(tail, data[1011..1699]);
        assert_eq!(tail.as_ptr(), data[1011..].as_ptr());

        let mut none = Bytes::new();
        let mut w = Writer::with_tail(&mut buf[..511], &mut none);
        w.shared(&data, 0, 511);
        assert!(none.is_empty() && buf[..511] == data[..511]);
        let mut w = Writer::new(&mut buf);
        w.shared(&data, 500, 1000);
        assert_eq!(buf, data[500..1500]);
    }

    proptest! {
        #[test]
        fn varints_round_trip(v in 0..=MAX) {
            let mut buf = [0; 8];
            let mut w = Writer::new(&mut buf);
            w.varint(v);
            let n = w.position();
            prop_assert_eq!(n, size(v));
            let mut r = Reader::new(&buf[..n]);
            prop_assert_eq!(r.varint(), Ok(v));
            for cut in 0..n {
                prop_assert_eq!(Reader::new(&buf[..cut]).varint(), Err(Truncated));
            }
        }
    }
}
