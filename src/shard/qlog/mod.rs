//! qlog: a file for each connection, which qvis and its like draw.
//!
//! Off unless [`Qlog`] is put into a transport configuration. Shards turn events into records and
//! hand them, some kilobytes at a time, to one thread that writes; they never wait for it. When it
//! cannot keep up, they are dropped, counted, and the file says so where they are missing.
//! A connection of which no packet authenticated leaves no file.
//!
//! The format is written here: the crates for it either have left the version that viewers read, or
//! count time in 32-bit floats, which lose microseconds within seconds.

mod event;
mod frame;
mod json;
mod multipath;
mod writer;

use crate::base::{Timestamp, limits};
use crate::conn::observe::{Begun, Observed, Observer, Observers, Phase};
use crate::sys::clock::Clock;
use event::Recorder;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use writer::{LogFile, Task};

/// The environment variable that names the directory of log files.
pub const QLOGDIR: &str = "QLOGDIR";
/// Records wait for so many bytes of them, or for so long, before they are handed over.
const CHUNK: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_millis(50);

/// Writes a log of each connection to a directory. Clones write to the same.
///
/// ```no_run
/// use corelane::conn::TransportConfig;
/// use corelane::shard::qlog::Qlog;
///
/// let qlog = Qlog::to_dir("/var/tmp/qlog")?;
/// let mut transport = TransportConfig::default();
/// transport.observers = Some(qlog.observers());
/// // Once the engine has ended:
/// qlog.flush();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Qlog {
    sender: SyncSender<Task>,
    counts: Arc<Counts>,
    dir: PathBuf,
}

/// What was written and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QlogStats {
    /// Files made.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Events dropped because the disk was too slow.
    pub dropped_events: u64,
    /// Times that a file could not be made, written to, or had become too large.
    pub failed_writes: u64,
}

#[derive(Default)]
struct Counts {
    files: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Qlog {
    /// Logs to `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made, or no thread be started.
    pub fn to_dir(dir: impl AsRef<Path>) -> io::Result<Self> {
        let dir = dir.as_ref().to_owned();
        std::fs::create_dir_all(&dir)?;
        let (sender, tasks) = mpsc::sync_channel(limits::QLOG_CHUNKS);
        let counts = Arc::new(Counts::default());
        let (own_dir, own_counts) = (dir.clone(), counts.clone());
        std::thread::Builder::new()
            .name("qlog".into())
            .spawn(move || writer::run(&own_dir, &tasks, &own_counts))?;
        Ok(Self {
            sender,
            counts,
            dir,
        })
    }

    /// Logs to the directory that [`QLOGDIR`] names; `None` where it names none.
    ///
    /// # Errors
    /// As [`Qlog::to_dir`].
    pub fn from_env() -> io::Result<Option<Self>> {
        match std::env::var_os(QLOGDIR).filter(|dir| !dir.is_empty()) {
            Some(dir) => Self::to_dir(PathBuf::from(dir)).map(Some),
            None => Ok(None),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// For [`TransportConfig::observers`](crate::conn::TransportConfig).
    pub fn observers(&self) -> Observers {
        let this = self.clone();
        Observers::new(move |begun| Some(Box::new(Log::begin(begun, &this)) as Box<dyn Observer>))
    }

    /// Waits until everything that was handed over so far is in its file. Blocks: for the end of a
    /// program, after its shards have ended, and never for a shard.
    pub fn flush(&self) {
        let (done, wait) = mpsc::channel();
        if self.sender.send(Task::Flush(done)).is_ok() {
            // An error means that the thread is gone, and with it what there was to wait for.
            let _ = wait.recv();
        }
    }

    /// What was written and what was not, so far.
    pub fn stats(&self) -> QlogStats {
        QlogStats {
            files: self.counts.files.load(Relaxed),
            bytes: self.counts.bytes.load(Relaxed),
            dropped_events: self.counts.dropped.load(Relaxed),
            failed_writes: self.counts.failed.load(Relaxed),
        }
    }
}

/// One connection's log.
struct Log {
    recorder: Recorder,
    records: Vec<u8>,
    /// Events in there.
    count: u64,
    /// Events dropped that the file does not tell of yet.
    lost: u64,
    /// A packet authenticated, or one of ours went out.
    live: bool,
    /// The header was handed over.
    is_begun: bool,
    handed_over: Timestamp,
    file: Arc<LogFile>,
    sender: SyncSender<Task>,
    counts: Arc<Counts>,
}

impl Log {
    fn begin(begun: &Begun, qlog: &Qlog) -> Self {
        let mut records = Vec::new();
        let recorder = Recorder::new(begun, Clock::unix_time());
        recorder.begin(&mut records);
        Self {
            recorder,
            records,
            count: 0,
            lost: 0,
            live: false,
            is_begun: false,
            handed_over: begun.now,
            file: Arc::new(LogFile {
                stem: event::file_stem(begun),
                path: OnceLock::new(),
                size: AtomicU64::new(0),
            }),
            sender: qlog.sender.clone(),
            counts: qlog.counts.clone(),
        }
    }

    fn hand_over(&mut self, now: Timestamp) {
        self.handed_over = now;
        if !self.live || self.count == 0 {
            return;
        }
        let records = std::mem::take(&mut self.records);
        let count = std::mem::take(&mut self.count);
        match self
            .sender
            .try_send(Task::Append(self.file.clone(), records))
        {
            Ok(()) => {
                self.lost = 0;
                self.is_begun = true;
            }
            Err(_) => {
                self.counts.dropped.fetch_add(count, Relaxed);
                self.lost += count;
                if !self.is_begun {
                    self.recorder.begin(&mut self.records);
                }
                self.recorder.gap(now, self.lost, &mut self.records);
            }
        }
    }
}

impl Observer for Log {
    fn observe(&mut self, now: Timestamp, event: &Observed<'_>) {
        self.live |= matches!(event, Observed::PacketSent(_) | Observed::PacketReceived(_));
        self.recorder.record(now, event, &mut self.records);
        self.count += 1;
        let over = matches!(event, Observed::Closed(_) | Observed::Phase(Phase::Drained));
        if over || self.records.len() >= CHUNK || now - self.handed_over >= PATIENCE {
            self.hand_over(now);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.hand_over(self.handed_over);
    }
}

#[cfg(test)]
mod tests;
