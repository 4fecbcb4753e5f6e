//! Medians, ranges and ratios of the rounds that count.

use serde::Serialize;

use super::case::Case;
use super::metric::Metric;
use super::peer::Role;
use super::rounds::Rounds;
use super::row::Row;

/// A median with its spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The middle value, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub n: usize,
}

impl Summary {
    /// Of any number of finite values; none of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self {
            median,
            min,
            max,
            n: values.len(),
        })
    }
}

/// The summary of one number of one program over the rounds that count.
pub fn metric(rounds: &Rounds, peer: &str, metric: &Metric) -> Option<Summary> {
    let counted = rounds.counted();
    let values = counted.iter().filter_map(|&round| {
        let workload = rounds.get(peer, round)?;
        (metric.get)(workload)
    });
    Summary::of(values)
}

/// The subject's number over a program's, round by round: of what both did in the same round only.
pub fn ratio(rounds: &Rounds, subject: &str, peer: &str, metric: &Metric) -> Option<Summary> {
    paired(rounds, (subject, metric), (peer, metric), |ours, theirs| {
        ours / theirs
    })
}

/// What `of` makes of two numbers of the same round, over the rounds that count.
pub fn paired(
    rounds: &Rounds,
    (one, one_metric): (&str, &Metric),
    (other, other_metric): (&str, &Metric),
    of: impl Fn(f64, f64) -> f64,
) -> Option<Summary> {
    let counted = rounds.counted();
    let values = counted.iter().filter_map(|&round| {
        let one = (one_metric.get)(rounds.get(one, round)?)?;
        let other = (other_metric.get)(rounds.get(other, round)?)?;
        Some(of(one, other))
    });
    Summary::of(values)
}

/// The other implementation of QUIC with the best median, and that.
pub fn best<'a>(rounds: &Rounds, rows: &'a [Row], by: &Metric) -> Option<(&'a Row, Summary)> {
    let peers = rows.iter().filter(|row| row.role == Role::Quic);
    let medians = peers.filter_map(|row| Some((row, metric(rounds, &row.name, by)?)));
    medians.min_by(|(_, one), (_, other)| {
        let order = one.median.total_cmp(&other.median);
        if by.more_is_better {
            order.reverse()
        } else {
            order
        }
    })
}

/// All numbers of one program in one case, as JSON.
pub fn to_json(rounds: &Rounds, case: &Case, subject: &str, peer: &str) -> serde_json::Value {
    let mut values = serde_json::Map::new();
    let mut ratios = serde_json::Map::new();
    for m in case.metrics() {
        values.insert(m.key.into(), serde_json::json!(metric(rounds, peer, m)));
        if peer != subject {
            let ratio = ratio(rounds, subject, peer, m);
            ratios.insert(m.key.into(), serde_json::json!(ratio));
        }
    }
    serde_json::json!({
        "case": case.name,
        "peer": peer,
        "rounds_counted": rounds.counted().len(),
        "only_noisy_rounds": rounds.clean.is_empty(),
        "values": values,
        "subject_over_peer": ratios,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::metric::{GOODPUT, P50};
    use crate::compare::peer::PEERS;
    use crate::compare::rounds::tests::run;

    fn row(name: &str, role: Role) -> Row {
        Row {
            name: name.into(),
            role,
            peer: &PEERS[0],
            path: "none".into(),
            more: Vec::new(),
        }
    }

    #[test]
    fn medians_of_odd_even_and_nothing() {
        let summary = |values: &[f64]| Summary::of(values.iter().copied());
        let three = summary(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (three.median, three.min, three.max, three.n),
            (2.0, 1.0, 3.0, 3)
        );
        assert_eq!(summary(&[4.0, 1.0]).map(|s| s.median), Some(2.5));
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[f64::NAN, f64::INFINITY]), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // The medians' ratio would be 1; each round says 2 or a half.
        let rounds = Rounds {
            runs: vec![
                run("corelane", 1, Some(2.0), 0.0),
                run("quinn", 1, Some(1.0), 0.0),
                run("corelane", 2, Some(8.0), 0.0),
                run("quinn", 2, Some(4.0), 0.0),
                run("corelane", 3, None, 0.0),
                run("quinn", 3, Some(100.0), 0.0),
            ],
            clean: vec![1, 2, 3],
        };
        let goodput = &GOODPUT;
        let ratio = ratio(&rounds, "corelane", "quinn", goodput).unwrap();
        assert_eq!(
            (ratio.median, ratio.min, ratio.max, ratio.n),
            (2.0, 2.0, 2.0, 2)
        );
        assert_eq!(
            metric(&rounds, "quinn", goodput).map(|s| s.median),
            Some(4e9)
        );
        assert_eq!(metric(&rounds, "absent", goodput), None);
    }

    #[test]
    fn the_best_is_a_quic_peer_and_best_in_that_number() {
        let rounds = Rounds {
            runs: vec![
                run("corelane", 1, Some(9.0), 0.0),
                run("quinn", 1, Some(1.0), 0.0),
                run("quiche", 1, Some(2.0), 0.0),
                run("tcp-rustls", 1, Some(5.0), 0.0),
            ],
            clean: vec![1],
        };
        let rows = [
            row("corelane", Role::Subject),
            row("quinn", Role::Quic),
            row("quiche", Role::Quic),
            row("tcp-rustls", Role::Other),
        ];
        let name = |metric| best(&rounds, &rows, metric).map(|(row, _)| row.name.as_str());
        assert_eq!(name(&GOODPUT), Some("quiche"));
        let slow = Metric {
            more_is_better: false,
            ..GOODPUT
        };
        assert_eq!((name(&slow), name(&P50)), (Some("quinn"), None));
    }
}
