//! The comparison as Markdown, a table for each case.

use std::fmt::Write as _;

use super::case::Case;
use super::metric::Metric;
use super::peer::Role;
use super::rounds::Rounds;
use super::row::Row;
use super::run::Run;
use super::stats::{self, Summary};
use super::targets::Verdict;

/// The table of one case. The last column is the subject over the row, round by round.
pub fn case(case: &Case, rounds: &Rounds, rows: &[Row]) -> String {
    let subject = rows.iter().find(|row| row.role == Role::Subject);
    let mut text = format!("### {}\n\n| |", case.title());
    for metric in case.metrics() {
        let _ = write!(text, " {} |", metric.head);
    }
    if let Some(subject) = subject {
        let _ = write!(text, " {} / it, {} |", subject.name, case.metrics()[0].head);
    }
    let columns = 1 + case.metrics().len() + usize::from(subject.is_some());
    let _ = writeln!(text, "\n|{}", "---|".repeat(columns));
    for row in rows {
        if !rounds.runs.iter().any(|run| run.peer == row.name) {
            continue; // it is no row of this
        }
        let name = match row.role {
            Role::Ceiling => format!("*{}*", row.name),
            _ => row.name.clone(),
        };
        let _ = write!(text, "| {name} |");
        for metric in case.metrics() {
            let summary = stats::metric(rounds, &row.name, metric);
            let _ = write!(text, " {} |", cell(summary, metric.unit, metric.digits));
        }
        if let Some(subject) = subject {
            let own = row.name == subject.name;
            let ratio = stats::ratio(rounds, &subject.name, &row.name, &case.metrics()[0]);
            let ratio = ratio.filter(|_| !own);
            let _ = write!(text, " {} |", cell(ratio, 1.0, 2));
        }
        text.push('\n');
    }
    text + "\n" + &footnote(rounds)
}

/// What was to be reached, and what was.
pub fn verdicts(verdicts: &[Verdict]) -> String {
    let mut text = String::from("### to reach\n\n| | against | to reach | reached | holds |\n");
    text += "|---|---|---|---|---|\n";
    for v in verdicts {
        let holds = match v.holds {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "not measured",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {holds} |",
            v.what, v.against, v.limit, v.reached
        );
    }
    text
}

/// A summary in a cell.
pub(super) fn cell(summary: Option<Summary>, unit: f64, digits: usize) -> String {
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
        let Some(error) = run.error.as_ref().filter(|_| !told.contains(&&run.peer)) else {
            continue;
        };
        told.push(&run.peer);
        let of_it = |r: &&Run| r.peer == run.peer && r.error.is_some();
        let _ = match run.is_offered {
            true => {
                let failed = rounds.runs.iter().filter(of_it).count();
                writeln!(text, "\n{} failed {failed} times: {error}", run.peer)
            }
            false => writeln!(text, "\n{}: not offered: {error}", run.peer),
        };
    }
    text
}

/// What a metric of a run was, in a few words for the progress line.
pub fn brief(metric: &Metric, workload: &crate::report::Workload) -> String {
    match (metric.get)(workload) {
        Some(value) => format!("{} {}", metric.show(value), metric.head),
        None => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::peer::{PEERS, Peer};
    use crate::compare::rounds::tests::run;

    fn rows() -> Vec<Row> {
        let row = |peer: &'static Peer| Row {
            name: peer.name.into(),
            role: peer.role,
            peer,
            path: "none".into(),
            more: Vec::new(),
        };
        PEERS.iter().map(row).collect()
    }

    #[test]
    fn a_table_has_a_row_for_each_program_that_ran() {
        let mut tquic = run("tquic", 1, None, 0.0);
        tquic.is_offered = false;
        let rounds = Rounds {
            runs: vec![
                run("corelane", 1, Some(12.0), 0.0),
                run("quinn", 1, Some(8.0), 0.0),
                tquic,
                run("corelane", 2, Some(99.0), 0.9),
                run("quinn", 2, None, 0.0),
            ],
            clean: vec![1],
        };
        let text = case(&Case::parse("bulk-up").unwrap(), &rounds, &rows());
        let expected = "\
### bulk, one stream, client to server

| | Gbit/s | client CPU s/GiB | server CPU s/GiB | corelane / it, Gbit/s |
|---|---|---|---|---|
| corelane | 12.00 [12.00..12.00] | - | - | - |
| quinn | 8.00 [8.00..8.00] | - | - | 1.50 [1.50..1.50] |
| tquic | - | - | - | - |

Medians [min..max] of 1 rounds; 1 noisy rounds discarded.

tquic: not offered: failed

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
        let quinn: Vec<Row> = rows().into_iter().filter(|r| r.name == "quinn").collect();
        let text = case(&Case::parse("bulk-up").unwrap(), &rounds, &quinn);
        assert!(
            text.contains("no result") && !text.contains(" / it"),
            "{text}"
        );
    }

    #[test]
    fn verdicts_say_yes_no_and_not_measured() {
        let verdict = |holds| Verdict {
            what: "bulk".into(),
            against: "quinn".into(),
            limit: "at least 2".into(),
            reached: "1.50 [1.40..1.60]".into(),
            holds,
        };
        let text = verdicts(&[Some(true), Some(false), None].map(verdict));
        let lines: Vec<_> = text.lines().skip(4).collect();
        assert_eq!(
            lines[0],
            "| bulk | quinn | at least 2 | 1.50 [1.40..1.60] | yes |"
        );
        assert!(lines[1].ends_with("| **no** |") && lines[2].ends_with("| not measured |"));
    }
}
