//! A lane's frames and its bookkeeping: which messages were accepted, sent, received and consumed.
//!
//! The same frames go over a queue pair and over a stream, numbered by the lane and not by what
//! carries them. So a lane that changes from one to the other sends again exactly what has not
//! come, and what comes twice is dropped. Consuming a message lets the peer send another: the
//! receiver's memory is bounded by what it announced.

/// Bytes of a frame's header.
pub const HEADER: usize = 24;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message: `number` counts them.
    Message,
    /// Only tells what was consumed.
    Ack,
    /// Over a stream: bytes for the region at `number`.
    Write,
    /// Over a stream: asks for 8 + 4 bytes in the body, address and length.
    Read,
    /// Over a stream: compare-and-swap; 24 bytes in the body, address, compare, swap.
    CompareSwap,
    /// Over a stream: fetch-and-add; 16 bytes in the body, address, addend.
    FetchAdd,
    /// Over a stream: the answer to the oldest operation; `number` is 0 for done, 1 for refused.
    Done,
}

const KINDS: [Kind; 7] = [
    Kind::Message,
    Kind::Ack,
    Kind::Write,
    Kind::Read,
    Kind::CompareSwap,
    Kind::FetchAdd,
    Kind::Done,
];

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The application's own mark.
    pub tag: u32,
    /// See [`Kind`].
    pub number: u64,
    /// Messages of the other direction that were consumed.
    pub ack: u64,
}

impl Frame {
    /// As bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let [t0, t1, t2, t3] = self.tag.to_be_bytes();
        let [n0, n1, n2, n3, n4, n5, n6, n7] = self.number.to_be_bytes();
        let [a0, a1, a2, a3, a4, a5, a6, a7] = self.ack.to_be_bytes();
        let kind = self.kind as u8 + 1;
        [
            kind, 0, 0, 0, t0, t1, t2, t3, n0, n1, n2, n3, n4, n5, n6, n7, a0, a1, a2, a3, a4, a5,
            a6, a7,
        ]
    }

    /// A frame taken apart; `None` when it is none.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, body) = bytes.split_first_chunk::<HEADER>()?;
        let [kind, 0, 0, 0, t0, t1, t2, t3, numbers @ ..] = *header else {
            return None;
        };
        let [n0, n1, n2, n3, n4, n5, n6, n7, ack @ ..] = numbers;
        let frame = Self {
            kind: *KINDS.get(usize::from(kind).checked_sub(1)?)?,
            tag: u32::from_be_bytes([t0, t1, t2, t3]),
            number: u64::from_be_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
            ack: u64::from_be_bytes(ack),
        };
        Some((frame, body))
    }
}

/// The peer broke the lane's rules: it acknowledged what was never sent, or left messages out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer counts messages wrongly")]
pub struct Miscounted;

/// Numbers of both directions.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    window: u64,
    accepted: u64,
    sent: u64,
    acked: u64,
    received: u64,
    consumed: u64,
    told: u64,
}

impl Flow {
    /// A lane at its beginning, with so many messages under way in each direction.
    pub const fn new(window: u32) -> Self {
        Self {
            window: window as u64,
            accepted: 0,
            sent: 0,
            acked: 0,
            received: 0,
            consumed: 0,
            told: 0,
        }
    }

    /// Takes another message: its number; `None` while the peer has to consume others first.
    #[inline]
    pub fn accept(&mut self) -> Option<u64> {
        let number = self.accepted;
        (self.room() > 0).then(|| {
            self.accepted += 1;
            number
        })
    }

    /// Messages that would be accepted now.
    #[inline]
    pub const fn room(&self) -> u64 {
        self.window - (self.accepted - self.acked)
    }

    /// The next message to send.
    pub fn next(&self) -> Option<u64> {
        self.next_but(0)
    }

    /// The message to send after `n` others.
    #[inline]
    pub fn next_but(&self, n: u64) -> Option<u64> {
        let number = self.sent + n;
        (number < self.accepted).then_some(number)
    }

    /// Messages that left, those that did twice counted once.
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// It left, with what [`Flow::ack`] says.
    #[inline]
    pub fn on_sent(&mut self) {
        self.sent += 1;
        self.told = self.consumed;
    }

    /// Messages that were accepted and did not leave.
    pub const fn waiting(&self) -> u64 {
        self.accepted - self.sent
    }

    /// Messages accepted in all.
    pub const fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Messages received in all.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Messages that the peer consumed.
    pub const fn acked(&self) -> u64 {
        self.acked
    }

    /// What to tell the peer.
    pub const fn ack(&self) -> u64 {
        self.consumed
    }

    /// Whether the peer should be told by a frame of its own.
    pub const fn owes_ack(&self) -> bool {
        (self.consumed - self.told) * 2 >= self.window
    }

    /// A frame of its own told it.
    pub fn on_told(&mut self) {
        self.told = self.consumed;
    }

    /// The application is done with `n` more messages.
    #[inline]
    pub fn consume(&mut self, n: u64) {
        self.consumed = (self.consumed + n).min(self.received);
    }

    /// A frame's acknowledgement; whether there is room that was not there before.
    ///
    /// # Errors
    /// [`Miscounted`].
    #[inline]
    pub fn on_ack(&mut self, ack: u64) -> Result<bool, Miscounted> {
        if ack > self.sent {
            return Err(Miscounted);
        }
        let full = self.room() == 0;
        let more = ack > self.acked;
        self.acked = self.acked.max(ack);
        Ok(full && more)
    }

    /// A message; whether it is to be delivered, or has been.
    ///
    /// # Errors
    /// [`Miscounted`].
    #[inline]
    pub fn on_message(&mut self, number: u64) -> Result<bool, Miscounted> {
        if number > self.received || self.received - self.consumed >= self.window {
            return Err(Miscounted);
        }
        let fresh = number == self.received;
        self.received += u64::from(fresh);
        Ok(fresh)
    }

    /// The carrier changes; the peer has received so many messages.
    ///
    /// # Errors
    /// [`Miscounted`].
    pub fn rewind(&mut self, received: u64) -> Result<(), Miscounted> {
        if received < self.acked || received > self.sent {
            return Err(Miscounted);
        }
        self.sent = received;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_read_back(
            kind in 0usize..7,
            tag in any::<u32>(),
            number in any::<u64>(),
            ack in any::<u64>(),
        ) {
            let frame = Frame { kind: KINDS[kind], tag, number, ack };
            let mut bytes = frame.to_bytes().to_vec();
            for cut in 0..HEADER {
                prop_assert_eq!(Frame::parse(&bytes[..cut]), None);
            }
            bytes.push(9);
            prop_assert_eq!(Frame::parse(&bytes), Some((frame, &[9][..])));
        }

        /// Whatever is lost at changes of the carrier, each message is delivered once and in order.
        #[test]
        fn a_change_of_carrier_loses_and_repeats_nothing(
            steps in prop::collection::vec(0u8..4, 1..200),
        ) {
            let (mut a, mut b) = (Flow::new(4), Flow::new(4));
            let mut wire = std::collections::VecDeque::new();
            for step in steps {
                match step {
                    0 => drop(a.accept()),
                    1 => if let Some(n) = a.next() {
                        wire.push_back(n);
                        a.on_sent();
                    },
                    2 => if let Some(n) = wire.pop_front() {
                        prop_assert_eq!(b.on_message(n), Ok(true));
                        b.consume(1);
                        if n % 2 == 0 {
                            prop_assert!(a.on_ack(b.ack()).is_ok());
                        }
                    },
                    _ => {
                        wire.clear();
                        prop_assert_eq!(a.rewind(b.received()), Ok(()));
                    }
                }
                prop_assert!(a.accepted() - b.received() <= 4);
            }
        }
    }

    #[test]
    fn a_peer_that_miscounts_is_found_out() {
        let mut flow = Flow::new(2);
        assert_eq!(flow.on_ack(1), Err(Miscounted));
        assert_eq!(flow.on_message(1), Err(Miscounted));
        assert_eq!(flow.on_message(0), Ok(true));
        assert_eq!(flow.on_message(0), Ok(false));
        assert_eq!(flow.on_message(1), Ok(true));
        // The window is full until the application has consumed something.
        assert_eq!(flow.on_message(2), Err(Miscounted));
        flow.consume(9);
        assert_eq!((flow.ack(), flow.owes_ack()), (2, true));
        assert_eq!(flow.on_message(2), Ok(true));
        assert_eq!(flow.rewind(1), Err(Miscounted));
        assert_eq!(
            (flow.accept(), flow.accept(), flow.accept()),
            (Some(0), Some(1), None)
        );
        flow.on_sent();
        assert_eq!(flow.on_ack(1), Ok(true));
        assert_eq!(flow.rewind(0), Err(Miscounted));
    }
}
