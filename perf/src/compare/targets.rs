//! What corelane is to reach beside the best other implementation of QUIC, and whether a comparison
//! shows it.
//!
//! A target is a number of one row and a limit of its ratio to another row's, round by round; the
//! median decides. The best peer is chosen for each number by itself, so that corelane has to be
//! ahead of the best of all of them. Targets of cases that were not run are left out.

use super::case::Case;
use super::metric::{self, Metric};
use super::rounds::Rounds;
use super::row::Row;
use super::stats::{self, Summary};
use super::table;
use crate::program::Profile;

/// One target.
struct Target {
    profile: Profile,
    case: &'static str,
    subject: &'static str,
    metric: Metric,
    against: Against,
    limit: Limit,
}

/// What a number is compared with.
#[derive(Clone, Copy)]
enum Against {
    /// The same number of the best QUIC peer.
    Best,
    /// The same number of the QUIC peer that is best in another.
    BestIn(Metric),
    /// The same number of another row.
    Row(&'static str),
    /// Another number of the same row.
    Own(Metric),
    /// Nothing: the number itself has the limit.
    Nothing,
}

/// What has to be kept.
#[derive(Clone, Copy)]
enum Limit {
    /// The ratio, or the number, at least.
    AtLeast(f64),
    /// The ratio, or the number, at most.
    AtMost(f64),
    /// The difference is not above zero.
    NoMore,
}

/// What came of a target, as text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// The case, the row and the number.
    pub what: String,
    /// What it was compared with.
    pub against: String,
    /// The limit.
    pub limit: String,
    /// The ratio with its spread.
    pub reached: String,
    /// Whether the median keeps the limit; none where nothing was measured in a quiet round.
    pub holds: Option<bool>,
}

const fn tuned(
    case: &'static str,
    subject: &'static str,
    metric: Metric,
    against: Against,
    limit: Limit,
) -> Target {
    Target {
        profile: Profile::Tuned,
        case,
        subject,
        metric,
        against,
        limit,
    }
}

const fn jumbo(case: &'static str, against: Against, limit: Limit) -> Target {
    Target {
        profile: Profile::Jumbo,
        ..tuned(case, US, metric::GOODPUT, against, limit)
    }
}

const US: &str = "corelane";
const SPIN: &str = "corelane-spin";
const PARK: &str = "corelane-park";
const RESUMED: &str = "handshake-32-resumed";

use Against::{Best, BestIn, Nothing, Own};
use Limit::{AtLeast, AtMost, NoMore};

const TARGETS: &[Target] = &[
    tuned("bulk-up", US, metric::GOODPUT, Best, AtLeast(1.6)),
    tuned("bulk-down", US, metric::GOODPUT, Best, AtLeast(1.6)),
    tuned(
        "bulk-up",
        US,
        metric::GOODPUT,
        Against::Row("sealed"),
        AtLeast(0.7),
    ),
    tuned(
        "bulk-down",
        US,
        metric::GOODPUT,
        Against::Row("sealed"),
        AtLeast(0.7),
    ),
    tuned("bulk-up", US, metric::CLIENT_PER_GIB, Best, AtMost(0.6)),
    tuned("bulk-up", US, metric::SERVER_PER_GIB, Best, AtMost(0.6)),
    tuned("bulk-down", US, metric::CLIENT_PER_GIB, Best, AtMost(0.6)),
    tuned("bulk-down", US, metric::SERVER_PER_GIB, Best, AtMost(0.6)),
    jumbo("bulk-up", Best, AtLeast(1.4)),
    jumbo("bulk-down", Best, AtLeast(1.4)),
    jumbo("bulk-up", Against::Row("tcp-rustls"), AtLeast(1.0)),
    jumbo("bulk-down", Against::Row("tcp-rustls"), AtLeast(1.0)),
    tuned("rr-1", PARK, metric::P50, Best, AtMost(1.0)),
    tuned("rr-1", PARK, metric::P99, Best, AtMost(1.0)),
    tuned("rr-1", PARK, metric::P999, Best, AtMost(1.0)),
    tuned(
        "rr-1",
        SPIN,
        metric::P50,
        Against::Row("sealed-echo"),
        AtMost(1.3),
    ),
    tuned("rr-1", SPIN, metric::P999, Own(metric::P50), AtMost(3.0)),
    tuned("rr-64", US, metric::RATE, Best, AtLeast(2.0)),
    tuned("rr-open", US, metric::P99, Best, AtMost(0.5)),
    tuned("handshake-32", US, metric::RATE, Best, AtLeast(1.2)),
    tuned(
        "handshake-32",
        US,
        metric::SERVER_PER_OPERATION,
        Best,
        AtMost(0.7),
    ),
    tuned(
        RESUMED,
        US,
        metric::RATE,
        Against::Row("corelane-full"),
        AtLeast(2.0),
    ),
    tuned("datagram-100", US, metric::RATE, Best, AtLeast(2.0)),
    tuned(
        "datagram-100",
        US,
        metric::LOSS,
        BestIn(metric::RATE),
        NoMore,
    ),
    tuned("idle-10000", US, metric::SERVER_MEMORY, Best, AtMost(0.5)),
    tuned("idle-10000", US, metric::CLIENT_MEMORY, Best, AtMost(0.5)),
    tuned("idle-10000", US, metric::SERVER_BUSY, Nothing, AtMost(0.1)),
    tuned("idle-10000", US, metric::CLIENT_BUSY, Nothing, AtMost(0.1)),
];

/// What came of every target of these settings whose case was run.
pub fn judge(profile: Profile, results: &[(Case, Rounds)], rows: &[Row]) -> Vec<Verdict> {
    let of_profile = TARGETS.iter().filter(|target| target.profile == profile);
    of_profile
        .filter_map(|target| {
            let mut results = results.iter();
            let (case, rounds) = results.find(|(case, _)| case.name == target.case)?;
            Some(target.verdict(case, rounds, rows))
        })
        .collect()
}

impl Target {
    fn verdict(&self, case: &Case, rounds: &Rounds, rows: &[Row]) -> Verdict {
        let best = |by| stats::best(rounds, rows, by).map(|(row, _)| row.name.as_str());
        let own = (self.subject, &self.metric);
        let (name, other) = match &self.against {
            Best => (
                "the best QUIC peer",
                best(&self.metric).map(|n| (n, &self.metric)),
            ),
            BestIn(by) => ("the best QUIC peer", best(by).map(|n| (n, &self.metric))),
            Against::Row(row) => (*row, Some((*row, &self.metric))),
            Own(metric) => (metric.head, Some((self.subject, metric))),
            Nothing => ("-", Some(own)),
        };
        let reached = other.and_then(|other| match (&self.against, self.limit) {
            (Nothing, _) => stats::metric(rounds, self.subject, &self.metric),
            (_, NoMore) => stats::paired(rounds, own, other, |a, b| a - b),
            _ => stats::paired(rounds, own, other, |a, b| a / b),
        });
        let against = match (&self.against, other) {
            (Best | BestIn(_), Some((name, _))) => name.into(),
            (Own(_), _) => format!("its own {name}"),
            _ => name.to_owned(),
        };
        Verdict {
            what: format!("{}: {}, {}", case.name, self.subject, self.metric.head),
            against,
            limit: self.limit.text(),
            reached: self.show(reached),
            holds: reached
                .filter(|_| !rounds.clean.is_empty())
                .map(|reached| self.limit.holds(reached.median)),
        }
    }

    fn show(&self, reached: Option<Summary>) -> String {
        match (&self.against, self.limit) {
            (Nothing, _) | (_, NoMore) => {
                table::cell(reached, self.metric.unit, self.metric.digits)
            }
            _ => table::cell(reached, 1.0, 2),
        }
    }
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            AtLeast(limit) => value >= limit,
            AtMost(limit) => value <= limit,
            NoMore => value <= 0.0,
        }
    }

    fn text(self) -> String {
        match self {
            AtLeast(limit) => format!("at least {limit}"),
            AtMost(limit) => format!("at most {limit}"),
            NoMore => "no more".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::peer::{self, Peer};
    use crate::compare::rounds::tests::run;
    use crate::compare::row::Row;

    fn rows(names: &[&str]) -> Vec<Row> {
        let row = |peer: &'static Peer| Row {
            name: peer.name.into(),
            role: peer.role,
            peer,
            path: "none".into(),
            more: Vec::new(),
        };
        names.iter().map(|n| row(peer::find(n).unwrap())).collect()
    }

    fn bulk(rounds: Rounds) -> Vec<(Case, Rounds)> {
        vec![(Case::parse("bulk-up").unwrap(), rounds)]
    }

    #[test]
    fn every_target_is_of_a_known_case_and_row() {
        for target in TARGETS {
            let case = Case::parse(target.case).unwrap();
            assert!(case.metrics().iter().any(|m| m.key == target.metric.key));
            assert!(peer::find(target.subject).is_some());
            if let Against::Row(row) = target.against {
                assert!(peer::find(row).is_some(), "{row}");
            }
        }
    }

    #[test]
    fn the_best_peer_decides_and_the_median_of_ratios() {
        let rounds = Rounds {
            runs: vec![
                run("corelane", 1, Some(16.0), 0.0),
                run("quinn", 1, Some(8.0), 0.0),
                run("s2n-quic", 1, Some(11.0), 0.0),
                run("sealed", 1, Some(20.0), 0.0),
            ],
            clean: vec![1],
        };
        let rows = rows(&["corelane", "quinn", "s2n-quic", "sealed"]);
        let verdicts = judge(Profile::Tuned, &bulk(rounds), &rows);
        let seen: Vec<_> = verdicts.iter().map(|v| (&*v.against, v.holds)).collect();
        let expected = [
            ("s2n-quic", Some(false)),
            ("sealed", Some(true)),
            ("the best QUIC peer", None),
            ("the best QUIC peer", None),
        ];
        assert_eq!(seen, expected);
        assert_eq!(verdicts[0].reached, "1.45 [1.45..1.45]");
        assert!(verdicts[0].what.starts_with("bulk-up: corelane"));
    }

    #[test]
    fn noise_is_no_verdict() {
        let rounds = Rounds {
            runs: vec![
                run("corelane", 1, Some(16.0), 0.9),
                run("quinn", 1, Some(8.0), 0.0),
            ],
            clean: vec![],
        };
        let rows = rows(&["corelane", "quinn"]);
        let verdicts = judge(Profile::Jumbo, &bulk(rounds), &rows);
        assert!(verdicts.iter().all(|v| v.holds.is_none()));
        assert_eq!(verdicts[0].reached, "2.00 [2.00..2.00]");
    }

    #[test]
    fn limits_include_their_edge() {
        assert!(AtLeast(2.0).holds(2.0) && !AtLeast(2.0).holds(1.99));
        assert!(AtMost(0.5).holds(0.5) && !AtMost(0.5).holds(0.51));
        assert!(NoMore.holds(0.0) && NoMore.holds(-0.1) && !NoMore.holds(0.1));
    }
}
