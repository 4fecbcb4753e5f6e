//! Memory and CPU time of any process of this user, from `/proc`.

use std::fs;
use std::io;
use std::time::Duration;

/// Resident memory, bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10)
        .ok_or_else(|| io::Error::other("/proc has an unknown form"))
}

/// Time on a processor of the threads that live.
///
/// # Errors
/// When there is no such process.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let first = text.split_whitespace().next();
        nanos += first.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_both_and_no_process_has_none() {
        let own = std::process::id();
        assert!(resident(own).unwrap() > 0);
        assert!(cpu(own).unwrap() > Duration::ZERO);
        assert!(resident(u32::MAX).is_err() && cpu(u32::MAX).is_err());
    }
}
