//! The comparison as Markdown, a table for each case.

use std::fmt::Write as _;

use super::case::{Case, Metric};
use super::peer::{Peer, Role};
use super::rounds::Rounds;
use super::stats::{self, Summary};

/// The table of one case. The last column is the subject over the row, round by round.
pub fn case(case: &Case, rounds: &Rounds, peers: &[&Peer]) -> String {
    let subject = peers.iter().find(|peer| peer.role == Role::Subject);
    let mut text = format!("### {}\n\n| |", case.title);
    for metric in case.metrics() {
        let _ = write!(text, " {} |", metric.head);
    }
    if let Some(subject) = subject {
        let _ = write!(text, " {} / it, {} |", subject.name, case.metrics()[0].head);
    }
    let columns = 1 + case.metrics().len() + usize::from(subject.is_some());
    let _ = writeln!(text, "\n|{}", "---|".repeat(columns));
    for peer in peers {
        if !rounds.runs.iter().any(|run| run.peer == peer.name) {
            continue; // it does not do this
        }
        let name = match peer.role {
            Role::Ceiling => format!("*{}*", peer.name),
            Role::Subject | Role::Peer => peer.name.into(),
        };
        let _ = write!(text, "| {name} |");
        for metric in case.metrics() {
            let summary = stats::metric(rounds, peer.name, metric);
            let _ = write!(text, " {} |", cell(summary, metric.unit, metric.digits));
        }
        if let Some(subject) = subject {
            let own = peer.name == subject.name;
            let ratio = stats::ratio(rounds, subject.name, peer.name, &case.metrics()[0]);
            let ratio = ratio.filter(|_| !own);
            let _ = write!(text, " {} |", cell(ratio, 1.0, 2));
        }
        text.push('\n');
    }
    text + "\n" + &footnote(rounds)
}

fn cell(summary: Option<Summary>, unit: f64, digits: usize) -> String {
    let Some(s) = summary else {
        return "-".into();
    };
    let show = |value: f64| format!("{:.digits$}", value / unit);
    format!("{} [{}..{}]", show(s.median), show(s.min), show(s.max))
}

fn footnote(rounds: &Rounds) -> String {
    let counted = rounds.counted().len();
    let all = rounds.runs.iter().map(|run| run.round).max().unwrap_or(0);
    let mut text = format!("Medians [min..max] of {counted} rounds");
    if rounds.clean.is_empty() {
        text += "; **every round was noisy: no result**";
    } else if all > counted {
        let _ = write!(text, "; {} noisy rounds discarded", all - counted);
    }
    text += ".\n";
    let mut told = Vec::new();
    for run in &rounds.runs {
        if let (Some(error), false) = (&run.error, told.contains(&run.peer)) {
            told.push(run.peer);
            let failed = rounds
                .runs
                .iter()
                .filter(|r| r.peer == run.peer && r.error.is_some());
            let _ = writeln!(
                text,
                "{} failed {} times: {error}",
                run.peer,
                failed.count()
            );
        }
    }
    text
}

/// What a metric of a run was, in a few words for the progress line.
pub fn brief(metric: &Metric, workload: &crate::report::Workload) -> String {
    match (metric.get)(workload) {
        Some(value) => format!("{:.*} {}", metric.digits, value / metric.unit, metric.head),
        None => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::peer::PEERS;
    use crate::compare::rounds::tests::run;

    #[test]
    fn a_table_has_a_row_for_each_program_that_ran() {
        let rounds = Rounds {
            runs: vec![
                run("corelane", 1, Some(12.0), 0.0),
                run("quinn", 1, Some(8.0), 0.0),
                run("corelane", 2, Some(99.0), 0.9),
                run("quinn", 2, None, 0.0),
            ],
            clean: vec![1],
        };
        let peers: Vec<_> = PEERS.iter().collect();
        let text = case(Case::find("bulk-up").unwrap(), &rounds, &peers);
        let expected = "\
### bulk, one stream, client to server

| | Gbit/s | client CPU s/GiB | server CPU s/GiB | corelane / it, Gbit/s |
|---|---|---|---|---|
| corelane | 12.00 [12.00..12.00] | - | - | - |
| quinn | 8.00 [8.00..8.00] | - | - | 1.50 [1.50..1.50] |

Medians [min..max] of 1 rounds; 1 noisy rounds discarded.
quinn failed 1 times: failed
";
        assert_eq!(text, expected);
    }

    #[test]
    fn noise_alone_is_said_to_be_no_result() {
        let rounds = Rounds {
            runs: vec![run("quinn", 1, Some(8.0), 0.9)],
            clean: vec![],
        };
        let quinn = [&PEERS[1]];
        let text = case(Case::find("bulk-up").unwrap(), &rounds, &quinn);
        assert!(
            text.contains("no result") && !text.contains(" / it"),
            "{text}"
        );
    }
}
