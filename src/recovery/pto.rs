//! The loss detection timer and the backoff of probe timeouts (RFC 9002 §6.2 and §A.8), as pure
//! functions over what each packet number space reports.
//!
//! The caller keeps the one piece of state there is: `pto_count`, which an acknowledgement that
//! newly acknowledges anything resets (§6.2.1) and each probe timeout raises.

use super::rtt::Rtt;
use crate::base::Timestamp;
use crate::base::time::nanos;
use std::time::Duration;

/// Doublings after which the backoff stays: a PTO of a millisecond has grown to over half a minute.
pub const MAX_BACKOFF: u32 = 15;

/// Why the loss detection timer fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A packet reaches its time threshold: run loss detection.
    LossTime,
    /// Nothing was acknowledged for a probe timeout: send one or two ack-eliciting packets.
    Probe,
}

/// When the loss detection timer fires, for which space and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The deadline.
    pub at: Timestamp,
    /// The space's index: 0 Initial, 1 Handshake, 2 Data.
    pub space: usize,
    /// The cause.
    pub cause: Cause,
}

/// What one packet number space contributes to the timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceTimes {
    /// `SentSpace::loss_time`.
    pub loss_time: Option<Timestamp>,
    /// `SentSpace::last_ack_eliciting_sent`, if ack-eliciting packets are in flight.
    pub last_ack_eliciting_sent: Option<Timestamp>,
}

/// What the handshake contributes to the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeStatus {
    /// The handshake is confirmed (RFC 9001 §4.1.2).
    pub confirmed: bool,
    /// Handshake keys are there.
    pub has_handshake_keys: bool,
    /// The peer is known to have validated our address: always for servers, for clients once a
    /// Handshake packet was acknowledged or the handshake confirmed.
    pub peer_completed_address_validation: bool,
    /// The anti-amplification limit stops us from sending.
    pub at_anti_amplification_limit: bool,
}

/// A probe timeout after `pto_count` of them went by unanswered (RFC 9002 §6.2.1).
/// `max_ack_delay` is zero for the Initial and Handshake spaces.
pub fn duration(rtt: &Rtt, max_ack_delay: Duration, pto_count: u32) -> Duration {
    rtt.pto(max_ack_delay)
        .saturating_mul(1 << pto_count.min(MAX_BACKOFF))
}

/// [`timer`] once the handshake is confirmed and its spaces are gone: of the data alone. `limited`
/// tells whether the anti-amplification limit stops us from sending.
#[inline]
pub fn data_timer(
    rtt: &Rtt,
    data: &SpaceTimes,
    limited: impl FnOnce() -> bool,
    max_ack_delay: Duration,
    pto_count: u32,
) -> Option<Timer> {
    let (at, cause) = match (data.loss_time, data.last_ack_eliciting_sent) {
        (Some(at), _) => (at, Cause::LossTime),
        (None, Some(_)) if limited() => return None,
        (None, Some(sent)) => {
            let pto = rtt.pto_nanos(nanos(max_ack_delay));
            let backoff = pto.saturating_mul(1 << pto_count.min(MAX_BACKOFF));
            let at = sent.as_nanos().saturating_add(backoff);
            (Timestamp::from_nanos(at), Cause::Probe)
        }
        (None, None) => return None,
    };
    Some(Timer {
        at,
        space: 2,
        cause,
    })
}

/// `SetLossDetectionTimer` of RFC 9002 §A.8. `now` is the time of the event that makes the timer
/// be set anew; it counts only for a client that has nothing in flight before the server has
/// validated its address.
pub fn timer(
    now: Timestamp,
    rtt: &Rtt,
    spaces: &[SpaceTimes; 3],
    status: HandshakeStatus,
    max_ack_delay: Duration,
    pto_count: u32,
) -> Option<Timer> {
    let earliest_loss = spaces
        .iter()
        .enumerate()
        .filter_map(|(space, s)| s.loss_time.map(|at| (at, space)))
        .min();
    if let Some((at, space)) = earliest_loss {
        let cause = Cause::LossTime;
        return Some(Timer { at, space, cause });
    }
    if status.at_anti_amplification_limit {
        return None;
    }
    let probe = |at, space| Timer {
        at,
        space,
        cause: Cause::Probe,
    };
    let [initial, handshake, data] = spaces.map(|s| s.last_ack_eliciting_sent);
    // RFC 9002 §6.2.1: no PTO for application data before the handshake is confirmed. So a client's
    // 0-RTT packets count as nothing in flight: they would keep it from probing.
    let data = data.filter(|_| status.confirmed);
    if initial.or(handshake).or(data).is_none() {
        if status.peer_completed_address_validation {
            return None;
        }
        // RFC 9002 §6.2.2.1: a client probes although nothing is in flight, so that the server's
        // anti-amplification limit cannot block both ends.
        let at = now + duration(rtt, Duration::ZERO, pto_count);
        return Some(probe(at, usize::from(status.has_handshake_keys)));
    }
    let short = duration(rtt, Duration::ZERO, pto_count);
    let early = [(initial, 0), (handshake, 1)]
        .into_iter()
        .filter_map(|(sent, space)| sent.map(|sent| (sent + short, space)));
    let late = data.map(|sent| (sent + duration(rtt, max_ack_delay, pto_count), 2));
    early.chain(late).min().map(|(at, space)| probe(at, space))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(25);
    const CONFIRMED: HandshakeStatus = HandshakeStatus {
        confirmed: true,
        has_handshake_keys: true,
        peer_completed_address_validation: true,
        at_anti_amplification_limit: false,
    };
    const CLIENT_START: HandshakeStatus = HandshakeStatus {
        confirmed: false,
        has_handshake_keys: false,
        peer_completed_address_validation: false,
        at_anti_amplification_limit: false,
    };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    fn rtt() -> Rtt {
        // smoothed 100, var 50: PTO 300 ms.
        let mut rtt = Rtt::default();
        rtt.on_sample(at(0), Duration::from_millis(100), Duration::ZERO);
        rtt
    }

    fn sent(ms: u64) -> SpaceTimes {
        SpaceTimes {
            loss_time: None,
            last_ack_eliciting_sent: Some(at(ms)),
        }
    }

    fn probe(ms: u64, space: usize) -> Option<Timer> {
        Some(Timer {
            at: at(ms),
            space,
            cause: Cause::Probe,
        })
    }

    #[test]
    fn timeouts_double_and_stop_doubling() {
        let ms = |n| duration(&rtt(), DELAY, n).as_millis();
        assert_eq!([ms(0), ms(1), ms(2), ms(3)], [325, 650, 1300, 2600]);
        assert_eq!(ms(MAX_BACKOFF), 325 << 15);
        assert_eq!(ms(u32::MAX), 325 << 15);
    }

    /// The short way for confirmed connections is the long one with nothing else.
    #[test]
    fn data_alone_has_the_timer_that_it_has_among_spaces() {
        let lost = |ms| SpaceTimes {
            loss_time: Some(at(ms)),
            ..SpaceTimes::default()
        };
        let both = SpaceTimes {
            loss_time: Some(at(7)),
            ..sent(3)
        };
        for data in [SpaceTimes::default(), sent(5), lost(9), both] {
            for (limited, count) in [(false, 0), (true, 0), (false, 3), (true, 40), (false, 40)] {
                let status = HandshakeStatus {
                    at_anti_amplification_limit: limited,
                    ..CONFIRMED
                };
                let spaces = [SpaceTimes::default(), SpaceTimes::default(), data];
                let long = timer(at(1), &rtt(), &spaces, status, DELAY, count);
                let short = data_timer(&rtt(), &data, || limited, DELAY, count);
                assert_eq!(short, long, "{data:?} {limited} {count}");
            }
        }
    }

    #[test]
    fn loss_time_comes_before_any_probe() {
        let mut spaces = [sent(0), SpaceTimes::default(), sent(0)];
        spaces[2].loss_time = Some(at(900));
        let timer = timer(at(0), &rtt(), &spaces, CONFIRMED, DELAY, 0);
        assert_eq!(
            timer,
            Some(Timer {
                at: at(900),
                space: 2,
                cause: Cause::LossTime
            })
        );
    }

    #[test]
    fn the_data_space_waits_for_confirmation_and_adds_the_delay() {
        let none = SpaceTimes::default();
        let mut status = CONFIRMED;
        let data = [none, none, sent(10)];
        assert_eq!(
            timer(at(50), &rtt(), &data, status, DELAY, 1),
            probe(10 + 650, 2)
        );
        status.confirmed = false;
        assert_eq!(timer(at(50), &rtt(), &data, status, DELAY, 1), None);
        let both = [none, sent(20), sent(10)];
        assert_eq!(
            timer(at(50), &rtt(), &both, status, DELAY, 0),
            probe(320, 1)
        );
    }

    #[test]
    fn a_client_probes_with_nothing_in_flight() {
        let none = [SpaceTimes::default(); 3];
        let mut status = CLIENT_START;
        assert_eq!(
            timer(at(50), &rtt(), &none, status, DELAY, 0),
            probe(350, 0)
        );
        // Early data does not stand in its way.
        let early = [none[0], none[1], sent(10)];
        assert_eq!(
            timer(at(50), &rtt(), &early, status, DELAY, 0),
            probe(350, 0)
        );
        status.has_handshake_keys = true;
        assert_eq!(
            timer(at(50), &rtt(), &none, status, DELAY, 0),
            probe(350, 1)
        );
        status.peer_completed_address_validation = true;
        assert_eq!(timer(at(50), &rtt(), &none, status, DELAY, 0), None);
    }

    #[test]
    fn no_probe_while_the_amplification_limit_holds() {
        let status = HandshakeStatus {
            at_anti_amplification_limit: true,
            ..CLIENT_START
        };
        let spaces = [sent(0), sent(0), SpaceTimes::default()];
        assert_eq!(timer(at(50), &rtt(), &spaces, status, DELAY, 0), None);
    }
}
