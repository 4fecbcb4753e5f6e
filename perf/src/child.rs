//! Programs that this one starts. They end in time, and when this one does, however that ends.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal,
};

use crate::clock::now;

/// How often a running program is looked after.
const POLL: Duration = Duration::from_millis(20);

/// Why a program has no output to take.
#[derive(Debug)]
pub struct Failed {
    /// Its exit code, where it had one.
    pub code: Option<i32>,
    /// A sentence: how it ended, and its last words.
    pub why: String,
    /// Its last words alone, where it had any.
    pub said: Option<String>,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self {
            code: None,
            why,
            said: None,
        }
    }
}

/// Has the program killed when the thread that starts it is gone, and so with this process.
pub fn tie(command: &mut Command, signal: Signal) -> &mut Command {
    let parent = getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(signal))?;
        // A parent that was gone before is not told of any more.
        match getppid() == Some(parent) {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls, and neither allocates nor
    // takes a lock; the error is made of a number.
    unsafe { command.pre_exec(ask) }
}

/// Everything that the command prints.
///
/// # Errors
/// When it cannot be started, fails, or does not end within `limit`: then it is killed, with what
/// it started itself.
pub fn output(command: &mut Command, limit: Duration) -> Result<String, Failed> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = tie(command, Signal::KILL)
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", command.get_program().display()))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(&mut child, limit);
    let text = |thread: JoinHandle<String>| thread.join().unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status? {
        status if status.success() => Ok(stdout),
        status => {
            let said = last(&stderr).map(String::from);
            Err(Failed {
                code: status.code(),
                why: format!("{status}: {}", said.as_deref().unwrap_or("no message")),
                said,
            })
        }
    }
}

fn last(text: &str) -> Option<&str> {
    text.lines().rfind(|line| !line.trim().is_empty())
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

fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus, String> {
    let begin = now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if begin.elapsed() < limit => thread::sleep(POLL),
            Ok(None) => {
                // The group is its own, and it has not been waited for: the number is still its.
                let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
                let _ = child.wait();
                return Err(format!("did not end within {} s", limit.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<String, Failed> {
        output(Command::new("sh").args(["-c", script]), limit)
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_its_last_words() {
        let long = Duration::from_secs(60);
        assert_eq!(shell("echo out; echo err >&2", long).unwrap(), "out\n");
        let script = "echo first >&2; echo no such core >&2; echo >&2; exit 3";
        let error = shell(script, long).unwrap_err();
        assert_eq!(error.code, Some(3));
        assert!(error.why.ends_with("3: no such core"), "{error:?}");
        let missing = output(&mut Command::new("./no-such-program"), long);
        let why = missing.unwrap_err().why;
        assert!(why.starts_with("cannot start ./no-such-program"), "{why}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_what_it_started() {
        // Whoever still held the output would hold up the reader for as long.
        let begin = now();
        let error = shell("sleep 600 & sleep 600", Duration::from_millis(50)).unwrap_err();
        assert!(error.why.contains("did not end"), "{error:?}");
        assert!(begin.elapsed() < Duration::from_secs(300));
    }

    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        let child = thread::spawn(|| {
            let mut command = Command::new("sleep");
            tie(command.arg("600"), Signal::KILL).spawn().unwrap()
        });
        let status = child.join().unwrap().wait().unwrap();
        assert!(!status.success());
    }
}
