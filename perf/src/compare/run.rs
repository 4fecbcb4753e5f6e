//! One run of one program: start it, keep time, read its report.

use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use super::case::{Case, Work};
use super::noise::{LIMIT_CORES, Snapshot};
use super::peer::{Built, Settings};
use super::row::Row;
use crate::child::{Failed, output};
use crate::places::BUILD_PEERS;
use crate::program::{NOT_OFFERED, USAGE};
use crate::report::{Report, SCHEMA_VERSION, Workload};

/// What starting, connecting and ending may take beyond the time that is measured.
const GRACE: Duration = Duration::from_secs(20);
/// And for each connection that is opened to be idle.
const GRACE_PER_CONNECTION: Duration = Duration::from_millis(10);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The case's name.
    pub case: String,
    /// The row's name.
    pub peer: String,
    /// The round, from 1.
    pub round: usize,
    /// CPU that others used meanwhile, in cores.
    pub noise_cores: f64,
    /// Whether that is too much.
    pub is_noisy: bool,
    /// Whether the program has this work at all.
    pub is_offered: bool,
    /// What it measured.
    pub workload: Option<Workload>,
    /// The version it says it is.
    pub version: Option<String>,
    /// The settings it says it ran with.
    pub config: Option<serde_json::Value>,
    /// Why there is no measurement.
    pub error: Option<String>,
}

/// Runs a program once; nothing when it is no row of this case.
///
/// # Errors
/// When it does not understand its arguments: no round would be any better.
pub fn once(
    row: &Row,
    case: &Case,
    settings: &Settings,
    round: usize,
) -> Result<Option<Run>, String> {
    let Some(arguments) = (row.peer.arguments)(case, settings) else {
        return Ok(None);
    };
    let mut run = Run {
        case: case.name.clone(),
        peer: row.name.clone(),
        round,
        noise_cores: 0.0,
        is_noisy: false,
        is_offered: true,
        workload: None,
        version: None,
        config: None,
        error: None,
    };
    let opening = match case.work {
        Work::Idle { connections } => GRACE_PER_CONNECTION * connections,
        _ => Duration::ZERO,
    };
    let limit = Duration::from_secs_f64(settings.seconds + settings.omit) + GRACE + opening;
    let mut command = Command::new(&row.path);
    command.args(&arguments).args(&row.more);
    let outcome = Snapshot::read()
        .map_err(|e| Failed::from(e.to_string()))
        .and_then(|before| {
            let text = output(&mut command, limit);
            let noise = before.others_since();
            run.noise_cores = noise.map_err(|e| e.to_string())?;
            run.is_noisy = run.noise_cores > LIMIT_CORES;
            Ok(read_report(&text?, case.workload())?)
        });
    match outcome {
        Ok((report, workload)) => {
            run.workload = Some(workload);
            run.version = Some(report.tool_version);
            run.config = Some(report.config);
        }
        Err(failed) if failed.code == Some(USAGE.into()) => {
            return Err(misunderstood(row, &arguments, &failed.why));
        }
        Err(failed) => {
            run.is_offered = failed.code != Some(NOT_OFFERED.into());
            let said = failed.said.filter(|_| !run.is_offered);
            run.error = Some(said.unwrap_or(failed.why));
        }
    }
    Ok(Some(run))
}

fn misunderstood(row: &Row, arguments: &[String], why: &str) -> String {
    let words: Vec<&str> = arguments.iter().chain(&row.more).map(|w| &**w).collect();
    let remedy = match row.peer.built {
        Built::Here => String::new(),
        Built::ByPeers => format!("; if it is of an earlier build, run `{BUILD_PEERS}`"),
    };
    let program = row.path.display();
    format!(
        "{} refuses its arguments: {why}: `{program} {}`{remedy}",
        row.name,
        words.join(" ")
    )
}

fn read_report(text: &str, workload: &str) -> Result<(Report, Workload), String> {
    let report: Report =
        serde_json::from_str(text).map_err(|e| format!("its report does not read: {e}"))?;
    if report.schema_version != SCHEMA_VERSION {
        let found = report.schema_version;
        return Err(format!(
            "its report is of schema {found}, not {SCHEMA_VERSION}"
        ));
    }
    if let Some(error) = &report.end.error {
        return Err(error.clone());
    }
    // A name may say the size too: `datagram-100`.
    let is_it = |name: &str| name.split('-').next() == Some(workload);
    let found = report.end.workloads.iter().find(|w| is_it(&w.name));
    let found = found.ok_or_else(|| format!("its report has no workload `{workload}`"))?;
    if found.duration_seconds <= 0.0 || (found.bytes == 0 && found.operations == 0) {
        return Err("it measured nothing".into());
    }
    Ok((report.clone(), found.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::peer::{self, Role};
    use crate::program::Profile;
    use std::fs;
    use std::path::PathBuf;

    /// A row whose program is the shell with a script.
    fn row(script: &str) -> Row {
        Row {
            name: "x".into(),
            role: Role::Quic,
            peer: peer::find("noq").unwrap(),
            path: script_file(script),
            more: vec!["--more".into()],
        }
    }

    /// Written by another process: one that this process starts meanwhile would hold it open for
    /// writing, and nobody can run it then.
    fn script_file(script: &str) -> PathBuf {
        let name = format!("corelane-run-{}-{}", std::process::id(), script.len());
        let path = std::env::temp_dir().join(name);
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 700 "$2""#;
        let mut command = Command::new("sh");
        command.args(["-c", write, "sh", script]).arg(&path);
        assert!(command.status().unwrap().success());
        path
    }

    fn run(script: &str) -> Result<Option<Run>, String> {
        let row = row(script);
        let settings = Settings {
            seconds: 1.0,
            omit: 0.0,
            profile: Profile::Tuned,
        };
        let run = once(&row, &Case::parse("bulk-up").unwrap(), &settings, 1);
        fs::remove_file(&row.path).unwrap();
        run
    }

    #[test]
    fn what_is_not_offered_is_no_failure_but_a_sentence() {
        let run = run("echo no datagrams >&2; exit 69").unwrap().unwrap();
        assert!(!run.is_offered && run.workload.is_none());
        assert_eq!(run.error.as_deref(), Some("no datagrams"));
    }

    #[test]
    fn a_wrong_argument_is_not_taken_for_a_work_that_is_not_offered() {
        let error = run("echo error: unexpected argument >&2; exit 2").unwrap_err();
        assert!(error.starts_with("x refuses its arguments: "), "{error}");
        for part in ["unexpected", "--work bulk", " --more`", "perf/peers/setup"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn any_other_end_is_a_failure() {
        for script in ["exit 1", "exit 101", "kill -9 $$", "exit 0"] {
            let run = run(script).unwrap().unwrap();
            assert!(run.is_offered && run.error.is_some(), "{script}");
        }
    }

    #[test]
    fn only_reports_with_a_measurement_are_taken() {
        let report = |end: &str| {
            let text = format!(r#"{{"schema_version": 1, "tool": "x", "end": {end}}}"#);
            read_report(&text, "rr").map(|(_, workload)| workload.operations)
        };
        let good = r#"{"workloads": [{"name": "rr", "duration_seconds": 1, "operations": 9}]}"#;
        assert_eq!(report(good), Ok(9));
        for bad in [
            r#"{"workloads": []}"#,
            r#"{"workloads": [], "error": "no route"}"#,
            r#"{"workloads": [{"name": "throughput", "duration_seconds": 1, "bytes": 9}]}"#,
            r#"{"workloads": [{"name": "rr", "duration_seconds": 1}]}"#,
            "{",
        ] {
            assert!(report(bad).is_err(), "{bad}");
        }
        let text = format!(r#"{{"schema_version": 2, "tool": "x", "end": {good}}}"#);
        assert!(read_report(&text, "rr").unwrap_err().contains("schema 2"));
    }
}
