//! Memory and CPU time of a process, from /proc.

use std::fs;
use std::io;
use std::time::Duration;

/// Resident memory, bytes.
///
/// # Errors
/// When the process has ended.
pub fn memory(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = text.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    let pages: u64 = pages.ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// CPU time of all threads that live.
///
/// # Errors
/// When the process has ended.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the list and the look.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let first = text.split_whitespace().next();
        nanos += first.and_then(|n| n.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_run() {
        let pid = std::process::id();
        let before = memory(pid).unwrap();
        let block = vec![1u8; 64 << 20];
        assert!(memory(pid).unwrap() > before + (32 << 20));
        assert_eq!(block.iter().map(|&b| u64::from(b)).sum::<u64>(), 64 << 20);
        let spent = cpu_time(pid).unwrap();
        assert!(spent > Duration::ZERO);
        assert!(memory(u32::MAX).is_err() && cpu_time(u32::MAX).is_err());
    }
}
