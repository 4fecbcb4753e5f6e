//! What this machine's kernel offers the backends.
//!
//! For `doctor`, which prints it. The automatic choice does not ask here: it opens io_uring and
//! falls back when that fails, so what is reported and what is used cannot differ.

use super::sockopt::{self, Applied};
use super::uring::{TaskRun, Uring};
use super::{IoConfig, IoError, SocketOptions};
use std::net::UdpSocket;

/// The findings.
#[derive(Clone, Debug)]
pub struct Report {
    /// How io_uring completes, or why it is not to be had.
    pub uring: Result<TaskRun, IoError>,
    /// What a fresh IPv4 socket was granted.
    pub ipv4: Result<Applied, IoError>,
    /// What a fresh IPv6 socket was granted; an error where the machine has no IPv6.
    pub ipv6: Result<Applied, IoError>,
}

/// Asks the kernel by doing: opens a ring and two sockets, and closes them.
pub fn probe() -> Report {
    Report {
        uring: Uring::new(&IoConfig::default()).map(|u| u.task_run()),
        ipv4: socket("127.0.0.1:0"),
        ipv6: socket("[::1]:0"),
    }
}

fn socket(addr: &str) -> Result<Applied, IoError> {
    let s = UdpSocket::bind(addr).map_err(|e| IoError::from_io("bind", &e))?;
    sockopt::apply(&s, &SocketOptions::default())
}

#[cfg(test)]
mod tests {
    use super::super::{Backend, Choice};
    use super::*;

    #[test]
    fn the_automatic_choice_is_what_the_probe_reports() {
        let report = probe();
        let auto = Backend::open(Choice::Auto, &IoConfig::default()).unwrap();
        assert_eq!(auto.name() == "uring", report.uring.is_ok(), "{report:?}");
        assert!(report.ipv4.is_ok());
    }
}
