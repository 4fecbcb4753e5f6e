//! The one command: corelane, its peers and the machine's ceilings on the same work, interleaved.
//!
//! It builds nothing; `perf/run` builds and then runs this. Progress goes to stderr, the tables to
//! stdout and, with every run as JSON and the medians as a picture, to files that are written after
//! each case.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use corelane_perf::compare::case::{Case, RATE_FROM, Work};
use corelane_perf::compare::peer::Settings;
use corelane_perf::compare::results::{Comparison, Files};
use corelane_perf::compare::rounds::{Plan, Rounds};
use corelane_perf::compare::row::{self, Places, Row, Wanted};
use corelane_perf::compare::run::Run;
use corelane_perf::compare::{machine, metric, noise, stats, table, targets};
use corelane_perf::output::{self, tell};
use corelane_perf::program::Profile;
use corelane_perf::{clock, flags, places};

/// Measures corelane beside its peers over loopback.
#[derive(Parser)]
#[command(name = "compare", version)]
struct Args {
    /// Rounds that shall count, for each case
    #[arg(long, default_value_t = 5, value_parser = flags::rounds)]
    rounds: usize,
    /// Rounds made beyond that when noisy ones were discarded [default: as many as rounds]
    #[arg(long, value_parser = flags::extra)]
    extra: Option<usize>,
    /// Seconds measured in each run
    #[arg(long, default_value_t = 3.0, value_parser = flags::window)]
    seconds: f64,
    /// Seconds left out before
    #[arg(long, default_value_t = 0.5, value_parser = flags::seconds)]
    omit: f64,
    /// How implementations are configured; several, separated by commas, come one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tuned")]
    settings: Vec<Profile>,
    /// Cases, separated by commas, or `all`; numbers in their names may be others
    #[arg(long, value_delimiter = ',', default_value = "bulk-up,bulk-down")]
    cases: Vec<String>,
    /// Rows, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// One more row: a program with more arguments, as in `mmsg=corelane --backend mmsg`
    #[arg(long = "row", value_name = "NAME=PROGRAM ARGUMENTS")]
    rows: Vec<String>,
    /// More arguments for every row of corelane, separated by spaces
    #[arg(long, allow_hyphen_values = true, default_value = "")]
    corelane_args: String,
    /// Seconds to wait for a quiet machine before each run
    #[arg(long, default_value_t = 5.0, value_parser = flags::seconds)]
    patience: f64,
    /// Directory of the workspace's programs [default: where this one is]
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Directory of the other peers' programs [default: perf/peers/target/release]
    #[arg(long)]
    peer_dir: Option<PathBuf>,
    /// Directory for the results [default: perf/results]
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("compare: {error}"));
            ExitCode::from(2)
        }
    }
}

/// True when every program gave a result in every case that it offers.
fn compare(args: &Args) -> Result<bool, String> {
    let (rows, missing) = row::rows(&args.wanted(), &args.places()?)?;
    let subject = rows.iter().find(|row| row.is_subject());
    let commit = subject.and_then(|row| machine::commit(&row.path));
    let mut all = Vec::new();
    for profile in &args.settings {
        let cases = Case::list(&args.cases, *profile == Profile::Jumbo)?;
        all.push((args.settings(*profile), cases));
    }
    let mut is_complete = true;
    for (settings, cases) in all {
        let files = Files::begin(&args.out(), settings.profile, commit.as_deref())?;
        let mut one = One {
            args,
            settings,
            rows: &rows,
            files,
            missing: Vec::new(),
            tables: String::new(),
            results: Vec::new(),
        };
        if args.settings.len() > 1 {
            one.show(&format!("\n## settings: {}\n\n", one.files.profile()));
        }
        missing.iter().for_each(|sentence| one.leave_out(sentence));
        is_complete &= one.measure(cases)?;
    }
    Ok(is_complete)
}

/// The comparison in one of the settings.
struct One<'a> {
    args: &'a Args,
    settings: Settings,
    rows: &'a [Row],
    files: Files,
    /// What is left out, and why.
    missing: Vec<String>,
    tables: String,
    results: Vec<(Case, Rounds)>,
}

impl One<'_> {
    fn measure(&mut self, cases: Vec<Case>) -> Result<bool, String> {
        let (mut is_complete, mut left) = (true, Vec::new());
        for case in cases {
            let name = case.name.clone();
            if let Err(why) = fits(&case, clock::cores()) {
                // No fault of what is compared.
                let sentence = format!("{name} is left out: {why}");
                self.leave_out(&sentence);
                left.push(sentence);
                continue;
            }
            let rounds = match rated(case, &self.results, self.rows) {
                Ok(case) => match self.args.run(&case, self.rows, &self.settings)? {
                    rounds if rounds.is_asked() => Ok((case, rounds)),
                    rounds => Err(rounds.refusals(self.rows)),
                },
                Err(why) => Err(why),
            };
            match rounds {
                Ok((case, rounds)) => {
                    self.show(&table::case(&case, &rounds, self.rows));
                    is_complete &= self.has_all(&case, &rounds);
                    self.results.push((case, rounds));
                    // After each case, so that an end before the last leaves what there is.
                    self.save()?;
                }
                Err(why) => {
                    let sentence = format!("{name} is left out: {why}");
                    self.leave_out(&sentence);
                    left.push(sentence);
                    is_complete = false;
                }
            }
        }
        if self.results.is_empty() {
            return Err(format!("there is nothing to compare: {}", left.join("; ")));
        }
        let verdicts = targets::judge(self.settings.profile, &self.results, self.rows);
        if !verdicts.is_empty() {
            self.show(&table::verdicts(&verdicts));
        }
        self.save()?;
        for path in self.files.paths() {
            tell(&format!("results: {}", path.display()));
        }
        Ok(is_complete)
    }

    /// Whether everybody who offers the case gave a result.
    fn has_all(&self, case: &Case, rounds: &Rounds) -> bool {
        self.rows.iter().all(|row| {
            let asked = rounds
                .runs
                .iter()
                .any(|r| r.peer == row.name && r.is_offered);
            !asked || stats::metric(rounds, &row.name, &case.metrics()[0]).is_some()
        })
    }

    fn save(&self) -> Result<(), String> {
        let comparison = Comparison {
            settings: self.settings,
            rounds: self.args.rounds,
            rows: self.rows,
            missing: &self.missing,
            results: &self.results,
            verdicts: &targets::judge(self.settings.profile, &self.results, self.rows),
            tables: &self.tables,
        };
        comparison.save(&self.files)
    }

    /// Shows a part of the tables. Nobody may read on: the files are still to be written.
    fn show(&mut self, text: &str) {
        self.tables += text;
        let _ = output::print(text);
    }

    fn leave_out(&mut self, sentence: &str) {
        tell(sentence);
        self.show(&format!("{sentence}\n\n"));
        self.missing.push(sentence.into());
    }
}

/// Whether the machine has the cores that a case needs.
fn fits(case: &Case, cores: usize) -> Result<(), String> {
    match case.cores() {
        needed if needed <= cores => Ok(()),
        needed => Err(format!(
            "it needs {needed} cores, and this process may use {cores}"
        )),
    }
}

/// The case with the rate that another one's results give it, if it needs one.
fn rated(case: Case, results: &[(Case, Rounds)], rows: &[Row]) -> Result<Case, String> {
    if case.work != (Work::OpenLoop { rate: None }) {
        return Ok(case);
    }
    let rounds = results.iter().find(|(other, _)| other.name == RATE_FROM);
    let best = rounds.and_then(|(_, rounds)| stats::best(rounds, rows, &metric::RATE));
    let rate = best.map(|(_, best)| (best.median / 2.0) as u32);
    match rate.filter(|rate| *rate > 0) {
        None => Err(format!("no QUIC peer has a rate in {RATE_FROM}")),
        rate => {
            let work = Work::OpenLoop { rate };
            Ok(Case { work, ..case })
        }
    }
}

impl Args {
    fn settings(&self, profile: Profile) -> Settings {
        Settings {
            seconds: self.seconds,
            omit: self.omit,
            profile,
        }
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            names: self.peers.clone(),
            rows: self.rows.clone(),
            subject: self
                .corelane_args
                .split_whitespace()
                .map(String::from)
                .collect(),
        }
    }

    fn places(&self) -> Result<Places, String> {
        let here = match &self.bin_dir {
            Some(directory) => directory.clone(),
            None => places::beside()?,
        };
        let peers = self.peer_dir.clone().unwrap_or_else(places::peers);
        Ok(Places { here, peers })
    }

    fn out(&self) -> PathBuf {
        let out = self.out.clone();
        out.unwrap_or_else(|| places::package().join("results"))
    }

    fn run(&self, case: &Case, rows: &[Row], settings: &Settings) -> Result<Rounds, String> {
        let plan = Plan {
            rounds: self.rounds,
            extra: self.extra.unwrap_or(self.rounds),
        };
        let patience = Duration::from_secs_f64(self.patience);
        let mut quiet = || {
            // Without `/proc` the run itself says so.
            let _ = noise::wait_for_quiet(patience);
        };
        let mut after = |run: &Run| progress(case, run);
        Rounds::run(rows, case, settings, plan, &mut quiet, &mut after)
    }
}

fn progress(case: &Case, run: &Run) {
    let outcome = match (&run.workload, &run.error) {
        (Some(workload), _) => table::brief(&case.metrics()[0], workload),
        (None, error) => {
            let error = error.as_deref().unwrap_or("no result");
            let what = if run.is_offered {
                "failed"
            } else {
                "not offered"
            };
            format!("{what}: {error}")
        }
    };
    let noisy = if run.is_noisy { ", noisy" } else { "" };
    tell(&format!(
        "{} round {} {}: {outcome}, others {:.2} cores{noisy}",
        case.name, run.round, run.peer, run.noise_cores
    ));
}
