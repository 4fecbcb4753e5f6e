//! What a backend did, counted where it happened.
//!
//! A datagram counts as sent when the kernel took it, not when it was queued; every one that was
//! not sent is in `tx_dropped` and its errno in [`IoStats::errors`].

use super::errno::{self, Errno};
use std::fmt;

/// Counters of one backend since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoStats {
    /// Receives that carried at least one datagram.
    pub rx_trains: u64,
    /// Datagrams received.
    pub rx_datagrams: u64,
    /// UDP payload bytes received.
    pub rx_bytes: u64,
    /// Receives dropped because they were longer than a buffer.
    pub rx_truncated: u64,
    /// Datagrams without payload, which no protocol above wants; dropped.
    pub rx_empty: u64,
    /// Times that the kernel found no receive buffer; the datagrams wait in the socket.
    pub rx_no_buffer: u64,
    /// Sends that the kernel took.
    pub tx_trains: u64,
    /// Datagrams that the kernel took.
    pub tx_datagrams: u64,
    /// UDP payload bytes that the kernel took.
    pub tx_bytes: u64,
    /// Datagrams given to `send` that did not leave.
    pub tx_dropped: u64,
    /// Datagrams among `tx_dropped` whose socket already held its share of the send buffers.
    pub tx_over_share: u64,
    /// Times that a socket's send buffer was full.
    pub tx_full: u64,
    /// Sockets on which the kernel refused UDP_SEGMENT.
    pub gso_refused: u64,
    /// System calls that submit, send, receive or poll.
    pub syscalls: u64,
    /// Times that the backend slept in `wait`.
    pub sleeps: u64,
    /// Errnos that sends and receives gave.
    pub errors: ErrnoCounts,
}

impl IoStats {
    /// A train of `len` bytes was shown to the shard.
    #[inline]
    pub(super) fn on_train(&mut self, len: usize, segment_size: usize) {
        self.rx_trains += 1;
        self.rx_datagrams += if len <= segment_size {
            1
        } else {
            len.div_ceil(segment_size.max(1)) as u64
        };
        self.rx_bytes += len as u64;
    }
}

/// How often each errno came.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrnoCounts([u64; errno::COUNT + 1]);

impl Default for ErrnoCounts {
    fn default() -> Self {
        Self([0; errno::COUNT + 1])
    }
}

impl ErrnoCounts {
    /// Counts that there are: the named ones and one for all others.
    pub(crate) const LEN: usize = errno::COUNT + 1;

    pub(crate) fn count(&mut self, errno: Errno) {
        if let Some(n) = self.0.get_mut(errno.index()) {
            *n += 1;
        }
    }

    /// How often `errno` came; errnos that have no name here share one count.
    pub fn of(&self, errno: Errno) -> u64 {
        self.0.get(errno.index()).copied().unwrap_or(0)
    }

    /// Names of all of them, in the order of [`ErrnoCounts::raw`].
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        (0..=errno::COUNT).map(|i| Errno::at(i).map_or("unlisted", Errno::name))
    }

    /// All counts.
    pub(crate) fn raw(&self) -> &[u64] {
        &self.0
    }

    /// All counts, to be set.
    pub(crate) fn raw_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }

    /// Names and counts of those that came.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = |(i, n): (usize, &u64)| (Errno::at(i).map_or("unlisted", Errno::name), *n);
        self.0
            .iter()
            .enumerate()
            .map(named)
            .filter(|(_, n)| *n != 0)
    }
}

impl fmt::Debug for ErrnoCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_count_under_their_names() {
        let mut c = ErrnoCounts::default();
        c.count(Errno(libc::EMSGSIZE));
        c.count(Errno(libc::EMSGSIZE));
        c.count(Errno(12_345));
        assert_eq!(c.of(Errno(libc::EMSGSIZE)), 2);
        assert_eq!(format!("{c:?}"), r#"{"EMSGSIZE": 2, "unlisted": 1}"#);
    }
}
