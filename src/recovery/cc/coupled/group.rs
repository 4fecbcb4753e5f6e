//! The windows and round-trip times of a connection's paths, and what follows for one of them.
//!
//! All three algorithms raise window `w` by `gain * MTU * acked / w`; a gain of 1 is NewReno.
//! With `x = w / RTT` of a path, `S` the sum of `x` over all paths and `max` over all paths:
//! LIA: `min(1, w * max(w / RTT^2) / S^2)`, which is RFC 6356's `alpha * w / w_total`;
//! OLIA: `(x / S)^2 + a`, where `a` moves window from the largest to the best paths;
//! BALIA: `(x / S)^2 * (1 + a) / 2 * (4 + a) / 5` with `a = max(x) / x`.

use super::super::Controller;
use crate::base::limits;
use crate::recovery::Rtt;

/// The share of the window that NewReno gives up (RFC 9002 §7.3.2).
const HALF: f64 = 0.5;
/// The most that BALIA's `a` adds to the decrease.
const BALIA_LOSS_CAP: f64 = 1.5;

/// The algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::recovery::cc) enum Kind {
    Lia,
    Olia,
    Balia,
}

/// What a path's controller does otherwise because of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::recovery::cc) struct Coupling {
    /// The factor on NewReno's increase.
    pub gain: f64,
    /// The share of the window that congestion takes.
    pub decrease: f64,
}

impl Coupling {
    /// NewReno.
    pub const ALONE: Self = Self {
        gain: 1.0,
        decrease: HALF,
    };
}

/// One path in the group.
#[derive(Clone, Copy, Debug, Default)]
struct Member {
    key: u32,
    /// Bytes.
    window: f64,
    /// Seconds.
    rtt: f64,
    /// Bytes between congestion events.
    run: f64,
}

impl Member {
    /// Bytes per second.
    fn rate(&self) -> f64 {
        self.window / self.rtt
    }

    /// Proportional to the square of the rate that a flow alone would have with these losses.
    fn quality(&self) -> f64 {
        self.run / (self.rtt * self.rtt)
    }
}

/// The coupled controllers of one connection, as they are at this moment.
///
/// The connection fills it before it hands an acknowledgement to one of them:
///
/// ```
/// use corelane::recovery::{Algorithm, Controller, CoupledGroup, Rtt};
///
/// let mut paths = [(); 2].map(|()| (Controller::new(Algorithm::Lia, 1200), Rtt::default()));
/// let mut group = CoupledGroup::default();
/// for (key, (controller, rtt)) in paths.iter().enumerate() {
///     group.push(key as u32, controller, rtt);
/// }
/// paths[1].0.couple(&group, 1);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CoupledGroup {
    members: [Member; limits::PATHS],
    len: usize,
}

impl CoupledGroup {
    /// Adds a path under a key of the caller's. Those that are not coupled, or have no round-trip
    /// time yet, are left out, and so are those beyond [`limits::PATHS`]. The caller leaves out
    /// paths that carry no data: backup paths, and such as may have failed.
    #[inline]
    pub fn push(&mut self, key: u32, controller: &Controller, rtt: &Rtt) {
        let Controller::Coupled(coupled) = controller else {
            return;
        };
        let seconds = rtt.smoothed().as_secs_f64();
        if !rtt.has_sample() || seconds <= 0.0 {
            return;
        }
        if let Some(slot) = self.members.get_mut(self.len) {
            *slot = Member {
                key,
                window: coupled.window.congestion_window() as f64,
                rtt: seconds,
                run: coupled.run() as f64,
            };
            self.len += 1;
        }
    }

    fn members(&self) -> &[Member] {
        self.members.get(..self.len).unwrap_or(&[])
    }

    /// What the others mean for the path of that key.
    pub(in crate::recovery::cc) fn coupling(&self, kind: Kind, key: u32) -> Coupling {
        let own = self.members().iter().find(|m| m.key == key);
        let Some(own) = own.filter(|_| self.len > 1) else {
            return Coupling::ALONE;
        };
        let sum: f64 = self.members().iter().map(Member::rate).sum();
        let share = own.rate() / sum;
        match kind {
            Kind::Lia => self.lia(own, sum),
            Kind::Olia => Coupling {
                gain: share * share + self.olia_alpha(own),
                ..Coupling::ALONE
            },
            Kind::Balia => {
                let alpha = largest(self.members().iter().map(Member::rate)) / own.rate();
                Coupling {
                    gain: share * share * (1.0 + alpha) / 2.0 * (4.0 + alpha) / 5.0,
                    decrease: HALF * alpha.min(BALIA_LOSS_CAP),
                }
            }
        }
    }

    /// RFC 6356 §3: `min(alpha * acked * MSS / w_total, acked * MSS / w)`, over NewReno's
    /// `acked * MSS / w`.
    fn lia(&self, own: &Member, sum: f64) -> Coupling {
        let best = largest(self.members().iter().map(|m| m.rate() / m.rtt));
        Coupling {
            gain: (own.window * best / (sum * sum)).min(1.0),
            ..Coupling::ALONE
        }
    }

    /// OLIA's `alpha`: the paths that are best but not largest get what the largest give. Nothing
    /// moves when a best path is among the largest alone, and nothing for paths that are neither.
    fn olia_alpha(&self, own: &Member) -> f64 {
        let members = || self.members().iter();
        let widest = largest(members().map(|m| m.window));
        let best = largest(members().map(Member::quality));
        let is_widest = |m: &Member| m.window >= widest;
        let is_collected = |m: &Member| !is_widest(m) && m.quality() >= best;
        let collected = members().filter(|m| is_collected(m)).count();
        if collected == 0 {
            return 0.0;
        }
        let paths = self.len as f64;
        if is_collected(own) {
            1.0 / (paths * collected as f64)
        } else if is_widest(own) {
            let widest = members().filter(|m| is_widest(m)).count();
            -1.0 / (paths * widest as f64)
        } else {
            0.0
        }
    }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}
