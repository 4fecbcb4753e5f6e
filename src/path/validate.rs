//! Address validation (RFC 9000 §8): the anti-amplification limit, challenges and responses.
//!
//! Until the peer's address is validated, at most three times the bytes that came from it go to
//! it. A challenge is repeated on a timer until patience ends; what an address that failed is left
//! for, is the caller's business. An answer to a challenge in a small datagram proves the address
//! and not that it can be reached with QUIC's smallest size: a full one follows.

use crate::base::limits;
use crate::base::{BoundedQueue, Timestamp};
use std::time::Duration;

/// Bytes sent per byte received before validation (RFC 9000 §8.1).
const AMPLIFICATION: u64 = 3;

/// What a path validation is begun with.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Unpredictable contents, one for challenges in small datagrams and one for full ones: the
    /// response tells which size arrived.
    pub data: [[u8; 8]; 2],
    /// Time between the first two challenges; doubles each time.
    pub interval: Duration,
    /// When the address is given up.
    pub patience: Duration,
    /// Bytes that came from the address already; `None` when no limit holds for it.
    pub received: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Challenge {
    /// Contents for small datagrams and for full ones.
    data: [[u8; 8]; 2],
    /// Which of them were sent.
    sent: [bool; 2],
    /// Set while a PATH_CHALLENGE waits to be sent.
    due: bool,
    next: Timestamp,
    interval: Duration,
    patience: Duration,
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
    /// The address did not answer.
    Failed,
}

/// What a PATH_RESPONSE came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// It answers nothing that is asked here.
    Stray,
    /// The address is proven; whether it takes full datagrams is being asked.
    Address,
    /// The path is validated.
    Path,
}

/// One path's address validation.
#[derive(Debug, Default)]
pub struct Validation {
    validated: bool,
    received: u64,
    sent: u64,
    /// Apart, for few paths have one.
    challenge: Option<Box<Challenge>>,
    /// Those that wait; `None` where none do.
    responses: Option<Box<BoundedQueue<[u8; 8]>>>,
}

impl Validation {
    /// Whether the peer's address is proven.
    pub fn is_validated(&self) -> bool {
        self.validated
    }

    /// Whether a challenge is out or waits to be sent.
    pub fn is_challenging(&self) -> bool {
        self.challenge.is_some()
    }

    /// The peer proved its address: by a Handshake packet, a token or a response.
    pub fn set_validated(&mut self) {
        self.validated = true;
        self.challenge = None;
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

    /// Begins to validate an address. Responses that wait for another one are dropped.
    pub fn start(&mut self, now: Timestamp, start: Start) {
        self.responses = None;
        self.validated = start.received.is_none();
        self.received = start.received.unwrap_or(0) as u64;
        self.sent = 0;
        self.again(now, &start);
    }

    /// Asks an address again that did not answer; the limit on what it gets goes on.
    pub fn again(&mut self, now: Timestamp, start: &Start) {
        self.challenge = Some(Box::new(Challenge {
            data: start.data,
            sent: [false; 2],
            due: true,
            next: now,
            interval: start.interval,
            patience: start.patience,
            give_up: now + start.patience,
        }));
    }

    /// Asks and answers nothing more.
    pub fn stop(&mut self) {
        self.challenge = None;
        self.responses = None;
    }

    /// A PATH_CHALLENGE arrived: queues the answer, or drops it when too many wait.
    pub fn on_challenge(&mut self, data: [u8; 8]) -> bool {
        let queue = || Box::new(BoundedQueue::new(limits::PATH_RESPONSES));
        let responses = self.responses.get_or_insert_with(queue);
        responses.push(data).is_ok()
    }

    /// A PATH_RESPONSE arrived.
    pub fn on_response(&mut self, now: Timestamp, data: [u8; 8]) -> Response {
        let Some(c) = &mut self.challenge else {
            return Response::Stray;
        };
        let [small, full] = [0, 1].map(|n| c.sent[n] && c.data[n] == data);
        if full {
            self.set_validated();
            return Response::Path;
        }
        if !small {
            return Response::Stray;
        }
        // RFC 9000 §8.2.3: the address is proven, the datagram size is not.
        self.validated = true;
        c.due = true;
        c.give_up = now + c.patience;
        Response::Address
    }

    /// Whether a challenge or a response waits to be sent.
    #[inline]
    pub fn wants_to_send(&self) -> bool {
        self.responses.is_some() || self.challenge.as_ref().is_some_and(|c| c.due)
    }

    /// Whether a challenge waits to be sent.
    #[inline]
    pub fn challenge_due(&self) -> bool {
        self.challenge.as_ref().is_some_and(|c| c.due)
    }

    /// The next response to send.
    pub fn poll_response(&mut self) -> Option<[u8; 8]> {
        let responses = self.responses.as_deref_mut()?;
        let data = responses.pop();
        if responses.is_empty() {
            self.responses = None;
        }
        data
    }

    /// The challenge to send now, if one is due; starts its timer. `full` tells whether its
    /// datagram has QUIC's smallest size (RFC 9000 §8.2.1).
    pub fn poll_challenge(&mut self, now: Timestamp, full: bool) -> Option<[u8; 8]> {
        let c = self.challenge.as_mut().filter(|c| c.due)?;
        let which = usize::from(full);
        c.due = false;
        c.next = now + c.interval;
        c.interval = c.interval.saturating_mul(2);
        *c.sent.get_mut(which)? = true;
        c.data.get(which).copied()
    }

    /// When to look at the challenge again.
    pub fn deadline(&self) -> Option<Timestamp> {
        let c = self.challenge.as_deref()?;
        Some(if c.due {
            c.give_up
        } else {
            c.next.min(c.give_up)
        })
    }

    /// The timer ran. After a failure nothing more is asked.
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
        ValidationTimeout::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    fn started(received: Option<usize>) -> Validation {
        let mut v = Validation::default();
        v.start(
            at(0),
            Start {
                data: [[6; 8], [7; 8]],
                interval: Duration::from_millis(100),
                patience: Duration::from_millis(300),
                received,
            },
        );
        v
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
    fn a_challenge_is_repeated_until_patience_ends() {
        let mut v = started(Some(1200));
        let mut now = at(0);
        let mut asked = 0;
        loop {
            assert_eq!(v.poll_challenge(now, true), Some([7; 8]));
            assert_eq!(v.poll_challenge(now, true), None);
            asked += 1;
            now = v.deadline().expect("a challenge is out");
            match v.on_timeout(now) {
                ValidationTimeout::Again => {}
                other => {
                    assert_eq!(other, ValidationTimeout::Failed);
                    break;
                }
            }
        }
        assert_eq!((asked, now), (2, at(300)));
        assert!(!v.is_validated() && v.deadline().is_none());
    }

    #[test]
    fn only_the_right_response_validates() {
        let mut v = started(Some(0));
        assert_eq!(v.on_response(at(1), [7; 8]), Response::Stray, "not sent");
        assert!(v.poll_challenge(at(0), true).is_some());
        assert_eq!(v.on_response(at(1), [8; 8]), Response::Stray);
        assert_eq!(v.on_response(at(1), [6; 8]), Response::Stray, "not sent");
        assert_eq!(v.on_response(at(1), [7; 8]), Response::Path);
        assert!(v.is_validated());
    }

    /// RFC 9000 §8.2.1, §8.2.3.
    #[test]
    fn a_small_challenge_is_followed_by_a_full_one() {
        let mut v = started(Some(50));
        assert_eq!(v.poll_challenge(at(0), false), Some([6; 8]));
        assert_eq!(v.on_response(at(20), [6; 8]), Response::Address);
        assert!(v.is_validated() && v.challenge_due());
        assert_eq!(v.poll_challenge(at(20), true), Some([7; 8]));
        assert_eq!(v.on_timeout(at(319)), ValidationTimeout::Again);
        assert_eq!(v.on_timeout(at(320)), ValidationTimeout::Failed);
    }

    #[test]
    fn an_address_without_a_limit_is_asked_all_the_same() {
        let v = started(None);
        assert_eq!(v.allowance(), u64::MAX);
        assert!(v.challenge_due());
    }
}
