//! Address validation (RFC 9000 §8): the anti-amplification limit, challenges and responses.
//!
//! Until the peer's address is validated, at most three times the bytes that came from it go to
//! it. A challenge is repeated on a timer until patience ends; the caller then falls back to the
//! address that was valid before.

use crate::base::limits;
use crate::base::{BoundedQueue, FourTuple, SocketId, Timestamp};
use std::time::Duration;

/// Bytes sent per byte received before validation (RFC 9000 §8.1).
const AMPLIFICATION: u64 = 3;

#[derive(Debug, Clone, Copy)]
struct Challenge {
    data: [u8; 8],
    /// Set while a PATH_CHALLENGE waits to be sent.
    due: bool,
    sent: bool,
    next: Timestamp,
    interval: Duration,
    /// When the address is given up, whether or not the limit let all challenges out.
    give_up: Timestamp,
}

/// What became of a path validation when its timer ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValidationTimeout {
    /// Nothing was due.
    None,
    /// Another challenge is to be sent.
    Again,
    /// The address did not answer; the one that was valid before is given back, if there was one.
    Failed(Option<(SocketId, FourTuple)>),
}

/// One path's address validation.
#[derive(Debug)]
pub struct Validation {
    validated: bool,
    received: u64,
    sent: u64,
    challenge: Option<Challenge>,
    responses: BoundedQueue<[u8; 8]>,
    previous: Option<(SocketId, FourTuple)>,
}

impl Default for Validation {
    fn default() -> Self {
        Self {
            validated: false,
            received: 0,
            sent: 0,
            challenge: None,
            responses: BoundedQueue::new(limits::PATH_RESPONSES),
            previous: None,
        }
    }
}

impl Validation {
    /// Whether the peer's address is proven.
    pub fn is_validated(&self) -> bool {
        self.validated
    }

    /// The peer proved its address: by a Handshake packet, a token or a response.
    pub fn set_validated(&mut self) {
        self.validated = true;
        self.challenge = None;
        self.previous = None;
    }

    /// Counts bytes that came from the address.
    /// Keeps RFC 9000 §8.1.
    #[inline]
    pub fn on_received(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// Counts bytes that went to the address.
    #[inline]
    pub fn on_sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Bytes that may go to the address now.
    /// Keeps RFC 9000 §8.1.
    #[inline]
    pub fn allowance(&self) -> u64 {
        if self.validated {
            return u64::MAX;
        }
        self.received
            .saturating_mul(AMPLIFICATION)
            .saturating_sub(self.sent)
    }

    /// The peer's address changed: validates the new one, keeping `previous` to return to.
    pub fn start(
        &mut self,
        now: Timestamp,
        previous: (SocketId, FourTuple),
        received: usize,
        data: [u8; 8],
        interval: Duration,
        patience: Duration,
    ) {
        // An address that was never validated is nothing to return to; keep the older one.
        if self.validated {
            self.previous = Some(previous);
        }
        self.validated = false;
        self.received = received as u64;
        self.sent = 0;
        self.challenge = Some(Challenge {
            data,
            due: true,
            sent: false,
            next: now,
            interval,
            give_up: now + patience,
        });
    }

    /// The peer came back to an address that was valid before.
    pub fn resume(&mut self) {
        self.set_validated();
    }

    /// The address that was valid before the one being validated.
    pub fn previous(&self) -> Option<(SocketId, FourTuple)> {
        self.previous
    }

    /// A PATH_CHALLENGE arrived: queues the answer, or drops it when too many wait.
    pub fn on_challenge(&mut self, data: [u8; 8]) -> bool {
        self.responses.push(data).is_ok()
    }

    /// A PATH_RESPONSE arrived. True when it answers the challenge that is out.
    pub fn on_response(&mut self, data: [u8; 8]) -> bool {
        match self.challenge {
            Some(c) if c.data == data && c.sent => {
                self.set_validated();
                true
            }
            _ => false,
        }
    }

    /// Whether a challenge or a response waits to be sent.
    #[inline]
    pub fn wants_to_send(&self) -> bool {
        !self.responses.is_empty() || self.challenge.is_some_and(|c| c.due)
    }

    /// Whether a challenge waits to be sent.
    #[inline]
    pub fn challenge_due(&self) -> bool {
        self.challenge.is_some_and(|c| c.due)
    }

    /// The next response to send.
    pub fn poll_response(&mut self) -> Option<[u8; 8]> {
        self.responses.pop()
    }

    /// The challenge to send now, if one is due; starts its timer.
    pub fn poll_challenge(&mut self, now: Timestamp) -> Option<[u8; 8]> {
        let c = self.challenge.as_mut().filter(|c| c.due)?;
        c.due = false;
        c.sent = true;
        c.next = now + c.interval;
        c.interval = c.interval.saturating_mul(2);
        Some(c.data)
    }

    /// When to look at the challenge again.
    pub fn deadline(&self) -> Option<Timestamp> {
        let c = self.challenge?;
        Some(if c.due {
            c.give_up
        } else {
            c.next.min(c.give_up)
        })
    }

    /// The timer ran.
    /// Keeps RFC 9000 §9.3.2.
    pub fn on_timeout(&mut self, now: Timestamp) -> ValidationTimeout {
        let Some(c) = &mut self.challenge else {
            return ValidationTimeout::None;
        };
        if now < c.give_up {
            if c.due || now < c.next {
                return ValidationTimeout::None;
            }
            c.due = true;
            return ValidationTimeout::Again;
        }
        self.challenge = None;
        let back = self.previous.take();
        if back.is_some() {
            self.validated = true;
        }
        ValidationTimeout::Failed(back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::net::UNSPECIFIED;

    const TUPLE: FourTuple = FourTuple::new(UNSPECIFIED, UNSPECIFIED);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn three_times_what_came_and_no_more() {
        let mut v = Validation::default();
        assert_eq!(v.allowance(), 0);
        v.on_received(1200);
        assert_eq!(v.allowance(), 3600);
        v.on_sent(3600);
        assert_eq!(v.allowance(), 0);
        v.set_validated();
        assert_eq!(v.allowance(), u64::MAX);
    }

    #[test]
    fn responses_are_capped() {
        let mut v = Validation::default();
        let taken = (0..1_000_000u64)
            .filter(|i| v.on_challenge(i.to_be_bytes()))
            .count();
        assert_eq!(taken, limits::PATH_RESPONSES);
    }

    #[test]
    fn an_unanswered_challenge_returns_to_the_address_before() {
        let mut v = Validation::default();
        v.set_validated();
        v.start(
            at(0),
            (SocketId(3), TUPLE),
            1200,
            [7; 8],
            Duration::from_millis(100),
            Duration::from_millis(300),
        );
        let mut now = at(0);
        loop {
            assert_eq!(v.poll_challenge(now), Some([7; 8]));
            assert_eq!(v.poll_challenge(now), None);
            now = v.deadline().expect("a challenge is out");
            if v.on_timeout(now) != ValidationTimeout::Again {
                break;
            }
        }
        assert!(v.is_validated() && v.deadline().is_none());
    }

    #[test]
    fn only_the_right_response_validates() {
        let mut v = Validation::default();
        v.start(
            at(0),
            (SocketId(0), TUPLE),
            0,
            [7; 8],
            Duration::from_millis(100),
            Duration::from_millis(300),
        );
        assert!(!v.on_response([7; 8]), "nothing was sent yet");
        assert!(v.poll_challenge(at(0)).is_some());
        assert!(!v.on_response([8; 8]));
        assert!(v.on_response([7; 8]) && v.is_validated());
    }
}
