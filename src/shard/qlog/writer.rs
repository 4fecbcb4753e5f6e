//! The thread that writes log files, so that no shard waits for a disk.
//!
//! It takes whole records from a bounded queue. A file is open only while something is appended to
//! it, so that connections may be many; its name is settled when its first record comes.

use super::Counts;
use crate::base::limits;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, mpsc};

/// What the thread is told.
pub(super) enum Task {
    /// Append these records.
    Append(Arc<LogFile>, Vec<u8>),
    /// Everything before is to be on disk; say so.
    Flush(mpsc::Sender<()>),
}

/// One connection's file.
pub(super) struct LogFile {
    /// Its name without a number and ending.
    pub(super) stem: String,
    /// Where it is, once the thread has made it.
    pub(super) path: OnceLock<PathBuf>,
    /// Bytes in it; only the thread changes this.
    pub(super) size: AtomicU64,
}

/// Files of one name that are told apart by a number. A client may choose the name that a server's
/// logs have, again and again.
const SAME_NAME: u32 = 16;

/// Runs until the last sender is gone.
pub(super) fn run(dir: &Path, tasks: &mpsc::Receiver<Task>, counts: &Counts) {
    let mut warned = false;
    for task in tasks {
        match task {
            Task::Append(file, records) => match append(dir, &file, &records, counts) {
                Ok(()) => {
                    counts.bytes.fetch_add(records.len() as u64, Relaxed);
                }
                Err(error) => {
                    counts.failed.fetch_add(1, Relaxed);
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(%error, file = %file.stem, "a qlog file cannot be written");
                    }
                }
            },
            // Whoever asked may have gone.
            Task::Flush(done) => drop(done.send(())),
        }
    }
}

fn append(dir: &Path, file: &LogFile, records: &[u8], counts: &Counts) -> io::Result<()> {
    let size = file.size.load(Relaxed) + records.len() as u64;
    if size > limits::QLOG_FILE_BYTES {
        return Err(io::Error::other("the file has reached its largest size"));
    }
    let mut opened = match file.path.get() {
        Some(path) => OpenOptions::new().append(true).open(path)?,
        None => {
            let (path, opened) = create(dir, &file.stem)?;
            counts.files.fetch_add(1, Relaxed);
            // Empty until here: this thread alone sets it.
            let _ = file.path.set(path);
            opened
        }
    };
    opened.write_all(records)?;
    file.size.store(size, Relaxed);
    Ok(())
}

/// Makes a file that was not there before.
fn create(dir: &Path, stem: &str) -> io::Result<(PathBuf, File)> {
    let mut last = io::Error::other("no name is left");
    for n in 0..SAME_NAME {
        let name = match n {
            0 => format!("{stem}.sqlog"),
            n => format!("{stem}-{n}.sqlog"),
        };
        let path = dir.join(name);
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = e,
            Err(e) => return Err(e),
        }
    }
    Err(last)
}
