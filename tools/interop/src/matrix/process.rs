//! Child processes that are bounded in time and do not outlive their owner.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const POLL: Duration = Duration::from_millis(10);
const LISTENING: &str = "listening on ";
const ALSO: &str = "also on ";

/// A running child; killed when dropped.
pub(super) struct Process {
    child: Child,
}

/// How a child began.
pub(super) enum Started {
    /// It listens there, and maybe at a second address.
    Listening(Process, SocketAddr, Option<SocketAddr>),
    /// It ended.
    Ended(ExitStatus),
    /// It said nothing in time.
    Silent,
}

impl Process {
    /// Starts a client.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let file = File::create(log)?;
        command.stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        command.spawn().map(|child| Self { child })
    }

    /// Starts a server and waits until it listens.
    pub fn serve(mut command: Command, log: &Path, patience: Duration) -> io::Result<Started> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(log)?);
        let mut process = Self {
            child: command.spawn()?,
        };
        let (tell, told) = mpsc::channel();
        if let Some(out) = process.child.stdout.take() {
            std::thread::spawn(move || {
                let mut also = None;
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if let Some(addr) = line.strip_prefix(ALSO) {
                        also = addr.trim().parse().ok();
                    } else if let Some(addr) = line.strip_prefix(LISTENING) {
                        let addr = addr.trim().parse::<SocketAddr>().ok();
                        let _ = tell.send(addr.map(|addr| (addr, also)));
                    }
                }
            });
        }
        match told.recv_timeout(patience) {
            Ok(Some((addr, also))) => Ok(Started::Listening(process, addr, also)),
            // Its output ended, and so does the process.
            Err(mpsc::RecvTimeoutError::Disconnected) => match process.wait(patience)? {
                Some(status) => Ok(Started::Ended(status)),
                None => Ok(Started::Silent),
            },
            _ => Ok(Started::Silent),
        }
    }

    /// Waits for its end; `None` if it takes longer.
    pub fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let until = crate::clock::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if crate::clock::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
