//! One run of one program: start it, keep time, read its report.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;

use super::case::{Case, Work};
use super::noise::{LIMIT_CORES, Snapshot};
use super::peer::Settings;
use super::row::Row;
use crate::clock::now;
use crate::report::{Report, Workload};

/// What starting, connecting and ending may take beyond the time that is measured.
const GRACE: Duration = Duration::from_secs(20);
/// And for each connection that is opened to be idle.
const GRACE_PER_CONNECTION: Duration = Duration::from_millis(10);
/// How often a running program is looked after.
const POLL: Duration = Duration::from_millis(20);
/// The exit code of a program that does not offer a work.
const NOT_OFFERED: i32 = 2;

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

/// Why there is no report.
#[derive(Debug)]
struct Failed {
    code: Option<i32>,
    why: String,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { code: None, why }
    }
}

/// Runs a program once; nothing when it is no row of this case.
pub fn once(row: &Row, case: &Case, settings: &Settings, round: usize) -> Option<Run> {
    let arguments = (row.peer.arguments)(case, settings)?;
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
    command.args(arguments).args(&row.more);
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
        Err(failed) => {
            // The subject offers everything: there it is a wrong argument.
            run.is_offered = failed.code != Some(NOT_OFFERED) || row.is_subject();
            run.error = Some(failed.why);
        }
    }
    Some(run)
}

/// Everything that the command prints; an error when it fails or does not end in time.
fn output(command: &mut Command, limit: Duration) -> Result<String, Failed> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("cannot start: {e}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(&mut child, limit);
    let text = |thread: JoinHandle<String>| thread.join().unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status? {
        status if status.success() => Ok(stdout),
        status => {
            let last = stderr.lines().rfind(|line| !line.trim().is_empty());
            let last = last.unwrap_or("no message");
            let code = status.code();
            let why = match code {
                Some(NOT_OFFERED) => last.into(),
                _ => format!("{status}: {last}"),
            };
            Err(Failed { code, why })
        }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read until then is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, limit: Duration) -> Result<std::process::ExitStatus, String> {
    let begin = now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if begin.elapsed() < limit => thread::sleep(POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("did not end within {} s", limit.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn read_report(text: &str, workload: &str) -> Result<(Report, Workload), String> {
    let report: Report =
        serde_json::from_str(text).map_err(|e| format!("its report does not read: {e}"))?;
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

    fn shell(script: &str) -> Result<String, Failed> {
        output(
            Command::new("sh").args(["-c", script]),
            Duration::from_secs(60),
        )
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_its_last_words() {
        assert_eq!(shell("echo out; echo err >&2").unwrap(), "out\n");
        let error = shell("echo first >&2; echo no such core >&2; echo >&2; exit 3").unwrap_err();
        assert_eq!(error.code, Some(3));
        assert!(error.why.ends_with("3: no such core"), "{error:?}");
        let missing = output(&mut Command::new("./no-such-program"), GRACE);
        assert!(missing.unwrap_err().why.starts_with("cannot start"));
    }

    #[test]
    fn what_is_not_offered_is_no_failure_but_a_sentence() {
        let error = shell("echo no datagrams >&2; exit 2").unwrap_err();
        assert_eq!(
            (error.code, &*error.why),
            (Some(NOT_OFFERED), "no datagrams")
        );
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let mut sleeper = Command::new("sleep");
        let error = output(sleeper.arg("600"), Duration::ZERO).unwrap_err();
        assert!(error.why.contains("did not end"), "{error:?}");
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
    }
}
