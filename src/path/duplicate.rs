//! Which frames are sent on several paths at once, and how much of that there may be.
//!
//! A policy, not a mechanism: a copy is the same frames in a packet of the other path, with that
//! path's packet number and keys, sealed there. A packet is never sent twice. Copies are paid from
//! a budget, a share of what is sent anyway and a burst, so that duplication cannot take the paths
//! over, whatever an application marks.

use super::PathId;
use super::schedule::{PathIds, SchedulerContext};
use crate::base::limits;

/// The budget's unit: a thousandth of a byte.
const MILLI: u64 = 1000;

/// What a packet holds that might be copied, the most important of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicable {
    /// CRYPTO frames.
    Crypto,
    /// RESET_STREAM or STOP_SENDING frames.
    Reset,
    /// Data of a stream.
    Stream {
        /// The application asked for copies of this stream.
        chosen: bool,
    },
    /// DATAGRAM frames.
    Datagram {
        /// The application asked for copies of this one.
        chosen: bool,
    },
    /// Anything else that elicits an acknowledgement.
    Other,
}

/// What is copied, how often, and the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicationConfig {
    /// CRYPTO frames, once the handshake is over.
    pub crypto: bool,
    /// RESET_STREAM and STOP_SENDING frames.
    pub resets: bool,
    /// Streams and datagrams that the application chose.
    pub chosen: bool,
    /// All datagrams.
    pub datagrams: bool,
    /// Everything.
    pub all: bool,
    /// Paths that get the packet, the first included; less than 2 is no duplication.
    pub paths: u8,
    /// Bytes of copies for a thousand bytes of originals.
    pub permille: u32,
    /// Bytes of copies that may be saved up.
    pub burst: u64,
}

impl Default for DuplicationConfig {
    /// What is small and matters, on two paths: a tenth of the bytes at most, 16 KiB at once.
    fn default() -> Self {
        Self {
            crypto: true,
            resets: true,
            chosen: true,
            datagrams: false,
            all: false,
            paths: 2,
            permille: 100,
            burst: 16 * 1024,
        }
    }
}

/// Decides about copies for one connection.
#[derive(Clone, Debug)]
pub struct Duplicator {
    config: DuplicationConfig,
    /// Thousandths of bytes that copies may still take.
    credit: u64,
    /// The same, promised to copies that have not left.
    promised: u64,
    copied: u64,
    refused: u64,
}

impl Duplicator {
    /// With a full budget.
    pub const fn new(config: DuplicationConfig) -> Self {
        Self {
            config,
            credit: config.burst.saturating_mul(MILLI),
            promised: 0,
            copied: 0,
            refused: 0,
        }
    }

    /// Whether such frames are copied at all.
    #[inline]
    pub const fn wants(&self, what: Duplicable) -> bool {
        let c = &self.config;
        c.paths >= 2
            && (c.all
                || match what {
                    Duplicable::Crypto => c.crypto,
                    Duplicable::Reset => c.resets,
                    Duplicable::Stream { chosen } => chosen && c.chosen,
                    Duplicable::Datagram { chosen } => c.datagrams || (chosen && c.chosen),
                    Duplicable::Other => false,
                })
    }

    /// `bytes` bytes of originals left: the budget grows.
    #[inline]
    pub fn on_original(&mut self, bytes: u64) {
        let more = bytes.saturating_mul(u64::from(self.config.permille));
        let most = self.config.burst.saturating_mul(MILLI);
        self.credit = self.credit.saturating_add(more).min(most);
    }

    /// Where copies of a packet of `bytes` bytes go that leaves on `original`: the usable paths of
    /// the lowest latency that can send now, as many as policy and budget admit. The budget is
    /// promised with this call; [`Duplicator::on_copy`] pays.
    pub fn copies(
        &mut self,
        ctx: &SchedulerContext<'_>,
        what: Duplicable,
        original: PathId,
        bytes: u64,
    ) -> PathIds {
        let mut targets = PathIds::default();
        if !self.wants(what) {
            return targets;
        }
        let most = usize::from(self.config.paths - 1).min(limits::PATHS);
        let candidates = ctx.candidates();
        while targets.as_slice().len() < most {
            let others = candidates.sendable(ctx.paths).filter(|p| p.id != original);
            let others = others.filter(|p| !targets.as_slice().contains(&p.id));
            let Some((_, next)) = others.map(|p| (p.latency(), p.id)).min() else {
                break;
            };
            let cost = bytes.saturating_mul(MILLI);
            if self.credit < self.promised.saturating_add(cost) {
                self.refused += 1;
                break;
            }
            self.promised = self.promised.saturating_add(cost);
            targets.push(next);
        }
        targets
    }

    /// Bytes that the next packet of copies may have.
    pub const fn affordable(&self) -> u64 {
        self.credit / MILLI
    }

    /// A packet of `bytes` bytes of copies left, which were [`Duplicator::affordable`].
    pub const fn on_copy(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_sub(bytes.saturating_mul(MILLI));
        self.copied = self.copied.saturating_add(bytes);
    }

    /// A copy for which `bytes` bytes were promised has left or is not needed any more.
    pub const fn release(&mut self, bytes: u64) {
        self.promised = self.promised.saturating_sub(bytes.saturating_mul(MILLI));
    }

    /// Bytes of copies so far.
    pub const fn copied_bytes(&self) -> u64 {
        self.copied
    }

    /// Packets that the budget denied a copy.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Timestamp;
    use crate::path::schedule::PathView;
    use proptest::prelude::*;
    use std::time::Duration;

    fn paths(rtts: &[u64]) -> Vec<PathView> {
        let view = |(id, rtt): (usize, &u64)| {
            PathView::new(PathId(id as u32), Duration::from_millis(*rtt), 1200, 12_000)
        };
        rtts.iter().enumerate().map(view).collect()
    }

    fn targets(d: &mut Duplicator, paths: &[PathView], what: Duplicable) -> Vec<u32> {
        let ctx = SchedulerContext::new(Timestamp::ZERO, paths);
        let ids = d.copies(&ctx, what, PathId(0), 1200);
        for _ in ids.as_slice() {
            d.release(1200);
            assert!(d.affordable() >= 1200);
            d.on_copy(1200);
        }
        ids.as_slice().iter().map(|id| id.0).collect()
    }

    #[test]
    fn the_policy_says_what_is_copied() {
        use Duplicable::{Crypto, Datagram, Other, Reset, Stream};
        let what = [
            Crypto,
            Reset,
            Stream { chosen: true },
            Stream { chosen: false },
            Datagram { chosen: true },
            Datagram { chosen: false },
            Other,
        ];
        let wanted = |config| what.map(|w| u8::from(Duplicator::new(config).wants(w)));
        let default = DuplicationConfig::default();
        assert_eq!(wanted(default), [1, 1, 1, 0, 1, 0, 0]);
        let datagrams = DuplicationConfig {
            crypto: false,
            resets: false,
            chosen: false,
            datagrams: true,
            ..default
        };
        assert_eq!(wanted(datagrams), [0, 0, 0, 0, 1, 1, 0]);
        let all = DuplicationConfig {
            all: true,
            ..default
        };
        assert_eq!(wanted(all), [1; 7]);
        let single = DuplicationConfig { paths: 1, ..all };
        assert_eq!(wanted(single), [0; 7]);
        let none = DuplicationConfig { paths: 0, ..all };
        assert_eq!(wanted(none), [0; 7]);
    }

    #[test]
    fn copies_go_to_the_fastest_others_that_can_send() {
        let config = DuplicationConfig {
            paths: 3,
            ..DuplicationConfig::default()
        };
        let mut d = Duplicator::new(config);
        let mut four = paths(&[10, 40, 30, 20]);
        assert_eq!(targets(&mut d, &four, Duplicable::Crypto), [3, 2]);
        four[3].bytes_in_flight = 12_000;
        assert_eq!(targets(&mut d, &four, Duplicable::Crypto), [2, 1]);
        four[2].validated = false;
        four[1].potentially_failed = true;
        assert!(targets(&mut d, &four, Duplicable::Crypto).is_empty());
        assert!(targets(&mut d, &four[..1], Duplicable::Crypto).is_empty());
        assert_eq!((d.copied_bytes(), d.refused()), (4800, 0));
    }

    #[test]
    fn the_budget_bounds_copies() {
        let config = DuplicationConfig {
            burst: 2400,
            ..DuplicationConfig::default()
        };
        let mut d = Duplicator::new(config);
        let two = paths(&[10, 20]);
        for expected in [1, 1, 0, 0] {
            assert_eq!(targets(&mut d, &two, Duplicable::Reset).len(), expected);
        }
        assert_eq!((d.copied_bytes(), d.refused()), (2400, 2));
        // A tenth of 12,000 bytes is one packet more, of 11,990 one byte too few.
        d.on_original(11_990);
        assert_eq!(targets(&mut d, &two, Duplicable::Reset).len(), 0);
        d.on_original(10);
        assert_eq!(targets(&mut d, &two, Duplicable::Reset).len(), 1);
        // And no more is saved up than the burst.
        d.on_original(u64::MAX);
        for expected in [1, 1, 0] {
            assert_eq!(targets(&mut d, &two, Duplicable::Reset).len(), expected);
        }
    }

    proptest! {
        #[test]
        fn copies_stay_within_their_share(
            sizes in proptest::collection::vec(1u64..1500, 1..300),
            permille in 0u32..3000,
            burst in 0u64..20_000,
            paths_at_most in 0u8..9,
        ) {
            let config = DuplicationConfig {
                all: true, permille, burst, paths: paths_at_most, ..DuplicationConfig::default()
            };
            let mut d = Duplicator::new(config);
            let views = paths(&[10; 8]);
            let (mut sent, mut copied) = (0, 0);
            for bytes in sizes {
                d.on_original(bytes);
                sent += bytes;
                let ctx = SchedulerContext::new(Timestamp::ZERO, &views);
                let ids = d.copies(&ctx, Duplicable::Other, PathId(3), bytes);
                prop_assert!(!ids.as_slice().contains(&PathId(3)));
                prop_assert!(ids.as_slice().len() < usize::from(paths_at_most.max(1)));
                for _ in ids.as_slice() {
                    prop_assert!(d.affordable() >= bytes);
                    d.release(bytes);
                    d.on_copy(bytes);
                    copied += bytes;
                }
            }
            prop_assert_eq!(d.copied_bytes(), copied);
            prop_assert!(copied <= burst + sent * u64::from(permille) / 1000);
        }
    }
}
