//! How the kernel backs this process's memory.

use std::io;

/// Has the kernel back what is touched from now on with pages of the base size, in all threads.
///
/// With huge pages resident memory grows by 2 MiB at a time, for one byte as for all, so what a
/// small object takes cannot be read from it. For measuring memory; it makes the rest slower.
///
/// # Errors
/// The kernel does not offer it.
pub fn base_only() -> io::Result<()> {
    const UNUSED: libc::c_ulong = 0;
    const YES: libc::c_ulong = 1;
    // SAFETY: the call takes no pointers, and the flag changes no mapping's contents.
    let done = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, YES, UNUSED, UNUSED, UNUSED) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_keeps_the_wish() {
        base_only().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let enabled = status.lines().find(|l| l.starts_with("THP_enabled:"));
        // Kernels before 6.2 do not tell.
        assert!(enabled.is_none_or(|l| l.ends_with('0')), "{enabled:?}");
    }
}
