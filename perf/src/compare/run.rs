//! One run of one program: start it, keep time, read its report.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;

use super::case::Case;
use super::noise::{LIMIT_CORES, Snapshot};
use super::peer::{Peer, Settings};
use crate::clock::now;
use crate::report::{Report, Workload};

/// What starting, connecting and ending may take beyond the time that is measured.
const GRACE: Duration = Duration::from_secs(20);
/// How often a running program is looked after.
const POLL: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The case's name.
    pub case: &'static str,
    /// The program's name.
    pub peer: &'static str,
    /// The round, from 1.
    pub round: usize,
    /// CPU that others used meanwhile, in cores.
    pub noise_cores: f64,
    /// Whether that is too much.
    pub is_noisy: bool,
    /// What it measured.
    pub workload: Option<Workload>,
    /// The version it says it is.
    pub version: Option<String>,
    /// The settings it says it ran with.
    pub config: Option<serde_json::Value>,
    /// Why there is no measurement.
    pub error: Option<String>,
}

/// Where a program is, and what else it is told.
pub struct Program {
    /// The program.
    pub peer: &'static Peer,
    /// Its file.
    pub path: PathBuf,
    /// Arguments behind those of the case.
    pub more: Vec<String>,
}

/// The file `name` in `directory`, or a sentence that says how to make it.
///
/// # Errors
/// When it is not there.
pub fn locate(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let path = directory.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing: run `cargo build --release --workspace` first",
        path.display()
    ))
}

impl Program {
    /// Runs it once; nothing when it does not do this case.
    pub fn run(&self, case: &'static Case, settings: &Settings, round: usize) -> Option<Run> {
        let arguments = (self.peer.arguments)(case, settings)?;
        let mut run = Run {
            case: case.name,
            peer: self.peer.name,
            round,
            noise_cores: 0.0,
            is_noisy: false,
            workload: None,
            version: None,
            config: None,
            error: None,
        };
        let limit = Duration::from_secs_f64(settings.seconds + settings.omit) + GRACE;
        let mut command = Command::new(&self.path);
        command.args(arguments).args(&self.more);
        let outcome = Snapshot::read()
            .map_err(|e| e.to_string())
            .and_then(|before| {
                let text = output(&mut command, limit);
                run.noise_cores = before.others_since().map_err(|e| e.to_string())?;
                run.is_noisy = run.noise_cores > LIMIT_CORES;
                read_report(&text?, case.workload())
            });
        match outcome {
            Ok((report, workload)) => {
                run.workload = Some(workload);
                run.version = Some(report.tool_version);
                run.config = Some(report.config);
            }
            Err(error) => run.error = Some(error),
        }
        Some(run)
    }
}

/// Everything that the command prints; an error when it fails or does not end in time.
fn output(command: &mut Command, limit: Duration) -> Result<String, String> {
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
            Err(format!("{status}: {}", last.unwrap_or("no message")))
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

    fn shell(script: &str) -> Result<String, String> {
        output(
            Command::new("sh").args(["-c", script]),
            Duration::from_secs(60),
        )
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_its_last_words() {
        assert_eq!(shell("echo out; echo err >&2").unwrap(), "out\n");
        let error = shell("echo first >&2; echo no such core >&2; echo >&2; exit 3").unwrap_err();
        assert!(
            error.contains('3') && error.ends_with("no such core"),
            "{error}"
        );
        let missing = output(&mut Command::new("./no-such-program"), GRACE);
        assert!(missing.unwrap_err().starts_with("cannot start"));
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let mut sleeper = Command::new("sleep");
        let error = output(sleeper.arg("600"), Duration::ZERO).unwrap_err();
        assert!(error.contains("did not end"), "{error}");
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

    #[test]
    fn a_missing_program_is_named_with_its_remedy() {
        let error = locate(Path::new("nowhere"), "corelane").unwrap_err();
        assert!(error.contains("nowhere/corelane") && error.contains("cargo build"));
    }
}
