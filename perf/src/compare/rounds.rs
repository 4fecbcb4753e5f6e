//! The order of runs, and which of them count.
//!
//! A round runs every program once, one after the other: A B A B. It counts when no run of it was
//! noisy; else all of it is discarded and made again, as long as there are extra rounds. So what
//! counts is paired, and a slow minute of the machine hits everybody. A run that fails leaves its
//! program out of that round and discards nothing; what it does not offer it is not asked again.

use super::case::Case;
use super::peer::Settings;
use super::row::Row;
use super::run::{Run, once};

/// How many rounds.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds that shall count.
    pub rounds: usize,
    /// Rounds beyond that, made when others were discarded.
    pub extra: usize,
}

/// All rounds of one case.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Every run, those of discarded rounds included.
    pub runs: Vec<Run>,
    /// The rounds that count.
    pub clean: Vec<usize>,
}

impl Rounds {
    /// Runs the case. `before` is called before each run and `after` behind it.
    ///
    /// # Errors
    /// When a program does not understand its arguments.
    pub fn run(
        rows: &[Row],
        case: &Case,
        settings: &Settings,
        plan: Plan,
        before: &mut dyn FnMut(),
        after: &mut dyn FnMut(&Run),
    ) -> Result<Self, String> {
        let mut asked: Vec<&Row> = rows.iter().collect();
        asked.retain(|row| (row.peer.arguments)(case, settings).is_some());
        Self::with(plan, |round| {
            let mut runs = Vec::new();
            for row in &asked {
                before();
                let run = once(row, case, settings, round)?;
                run.iter().for_each(&mut *after);
                runs.extend(run);
            }
            let offered = |name: &str| runs.iter().any(|r| r.peer == name && r.is_offered);
            asked.retain(|row| offered(&row.name));
            Ok(runs)
        })
    }

    fn with(
        plan: Plan,
        mut round: impl FnMut(usize) -> Result<Vec<Run>, String>,
    ) -> Result<Self, String> {
        let mut all = Self::default();
        for n in 1..=plan.rounds + plan.extra {
            if all.clean.len() == plan.rounds {
                break;
            }
            let runs = round(n)?;
            if runs.is_empty() {
                break; // nobody offers it
            }
            if !runs.iter().any(|run| run.is_noisy) {
                all.clean.push(n);
            }
            // What fails twice from the start will not succeed.
            let hopeless = n >= 2 && !all.runs.iter().chain(&runs).any(|r| r.workload.is_some());
            all.runs.extend(runs);
            if hopeless {
                break;
            }
        }
        Ok(all)
    }

    /// Whether any program has this work.
    pub fn is_asked(&self) -> bool {
        self.runs.iter().any(|run| run.is_offered)
    }

    /// Why none of these has it.
    pub fn refusals(&self, rows: &[Row]) -> String {
        let why = |row: &Row| {
            let run = self.runs.iter().find(|run| run.peer == row.name);
            match run.and_then(|run| run.error.as_ref()) {
                Some(error) => format!("{}: {error}", row.name),
                None => format!("{} is no row of it", row.name),
            }
        };
        rows.iter().map(why).collect::<Vec<_>>().join("; ")
    }

    /// The rounds to sum up: the clean ones, or all where no round was clean.
    pub fn counted(&self) -> Vec<usize> {
        if !self.clean.is_empty() {
            return self.clean.clone();
        }
        let mut rounds: Vec<_> = self.runs.iter().map(|run| run.round).collect();
        rounds.dedup();
        rounds
    }

    /// The measurement of a program in a round.
    pub fn get(&self, peer: &str, round: usize) -> Option<&crate::report::Workload> {
        let mut runs = self.runs.iter();
        let run = runs.find(|run| run.peer == peer && run.round == round)?;
        run.workload.as_ref()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::Workload;

    /// A run of bulk data at `gbit` per second; none is a run that failed.
    pub(crate) fn run(peer: &str, round: usize, gbit: Option<f64>, noise: f64) -> Run {
        Run {
            case: "bulk-up".into(),
            peer: peer.into(),
            round,
            noise_cores: noise,
            is_noisy: noise > 0.15,
            is_offered: true,
            workload: gbit.map(|gbit| Workload {
                name: "throughput".into(),
                duration_seconds: 1.0,
                goodput_bits_per_second: gbit * 1e9,
                ..Workload::default()
            }),
            version: None,
            config: None,
            error: gbit.is_none().then(|| "failed".into()),
        }
    }

    const PLAN: Plan = Plan {
        rounds: 3,
        extra: 2,
    };

    #[test]
    fn a_noisy_round_is_made_again() {
        let all = Rounds::with(PLAN, |n| {
            let noise = if n == 2 { 0.5 } else { 0.0 };
            Ok(vec![
                run("corelane", n, Some(1.0), noise),
                run("quinn", n, Some(1.0), 0.0),
            ])
        })
        .unwrap();
        assert_eq!(all.clean, [1, 3, 4]);
        assert_eq!((all.runs.len(), all.counted()), (8, vec![1, 3, 4]));
    }

    #[test]
    fn extra_rounds_end_and_noisy_ones_count_only_where_no_other_is() {
        let all = Rounds::with(PLAN, |n| Ok(vec![run("quinn", n, Some(1.0), 1.0)])).unwrap();
        assert!(all.clean.is_empty());
        assert_eq!(all.counted(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_failure_discards_nobody_else_and_nothing_but_failures_end_early() {
        let all = Rounds::with(PLAN, |n| {
            Ok(vec![
                run("corelane", n, None, 0.0),
                run("quinn", n, Some(1.0), 0.0),
            ])
        })
        .unwrap();
        assert_eq!(all.clean, [1, 2, 3]);
        assert!(all.get("corelane", 1).is_none() && all.get("quinn", 1).is_some());
        let all = Rounds::with(PLAN, |n| Ok(vec![run("quinn", n, None, 0.0)])).unwrap();
        assert_eq!((all.runs.len(), all.is_asked()), (2, true));
        let mut rounds = 0;
        let error = Rounds::with(PLAN, |_| {
            rounds += 1;
            Err("no such flag".into())
        });
        assert_eq!((error.unwrap_err(), rounds), ("no such flag".into(), 1));
    }

    #[test]
    fn a_case_that_nobody_has_says_why_of_each() {
        let row = |name| Row {
            name: String::from(name),
            role: crate::compare::peer::PEERS[0].role,
            peer: &crate::compare::peer::PEERS[0],
            path: "none".into(),
            more: Vec::new(),
        };
        let rounds = Rounds::with(PLAN, |n| {
            let mut tquic = run("tquic", n, None, 0.0);
            tquic.is_offered = false;
            Ok(if n == 1 { vec![tquic] } else { vec![] })
        })
        .unwrap();
        assert!(!rounds.is_asked());
        let why = rounds.refusals(&[row("tquic"), row("sealed")]);
        assert_eq!(why, "tquic: failed; sealed is no row of it");
    }
}
