//! What a relay saw: counts always, each datagram when asked.

use crate::link::Fate;
use std::fmt;
use std::time::Duration;

/// The direction of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client to the server.
    Up,
    /// From the server to a client.
    Down,
}

/// One datagram as it came to the relay.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Since the relay began.
    pub at: Duration,
    /// Which way it went.
    pub direction: Direction,
    /// Which client's, from 0 in the order of appearance.
    pub flow: usize,
    /// How often the client had been rebound when the datagram came to the relay.
    pub rebound: u32,
    /// Which of the relay's addresses the client used, 0 being the first; of a relay of paths,
    /// which path.
    pub front: usize,
    /// The two ECN bits.
    pub ecn: u8,
    /// What became of it.
    pub fate: Fate,
    /// Its bytes before any corruption.
    pub data: Vec<u8>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = match self.direction {
            Direction::Up => '>',
            Direction::Down => '<',
        };
        let first = self.data.first().copied().unwrap_or(0);
        write!(
            f,
            "{:10.6} {arrow} flow {} front {} rebound {} ecn {} {:5} bytes {:02x} {}",
            self.at.as_secs_f64(),
            self.flow,
            self.front,
            self.rebound,
            self.ecn,
            self.data.len(),
            first,
            kind(&self.data)
        )?;
        match self.fate {
            Fate::Delivered => Ok(()),
            fate => write!(f, " {fate:?}"),
        }
    }
}

/// What the first packet of a datagram says it is (RFC 8999, RFC 9000 §17, RFC 9369 §3.2).
fn kind(data: &[u8]) -> String {
    const NAMES: [&str; 4] = ["Initial", "0-RTT", "Handshake", "Retry"];
    match data {
        [first, a, b, c, d, ..] if first & 0x80 != 0 => {
            let version = u32::from_be_bytes([*a, *b, *c, *d]);
            let bits = usize::from((first >> 4) & 3);
            match version {
                0 => "VersionNegotiation".into(),
                0x6b33_43cf => format!("{} v2", NAMES[(bits + 3) % 4]),
                1 => NAMES[bits].into(),
                other => format!("long header of version {other:#x}"),
            }
        }
        _ => "1-RTT".into(),
    }
}

/// Datagrams of one direction by fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that came.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Passed on unchanged.
    pub delivered: u64,
    /// Passed on with changed bytes.
    pub corrupted: u64,
    /// Not passed on, whatever the reason.
    pub dropped: u64,
}

impl Counts {
    fn count(&mut self, size: usize, fate: Fate) {
        self.datagrams += 1;
        self.bytes += size as u64;
        match fate {
            Fate::Delivered => self.delivered += 1,
            Fate::Corrupted => self.corrupted += 1,
            _ => self.dropped += 1,
        }
    }
}

/// Everything a relay saw.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Client to server.
    pub up: Counts,
    /// Server to client.
    pub down: Counts,
    /// The same for each of [`crate::Relay::addrs`].
    pub fronts: Vec<(Counts, Counts)>,
    /// Datagrams of clients that no path is for.
    pub strangers: u64,
    /// Datagrams for an address that a client no longer had.
    pub stale: u64,
    /// Segments of the competing flow that arrived and that were dropped.
    pub cross: (u64, u64),
    /// How often clients were rebound.
    pub rebindings: u32,
    /// Each datagram, when the relay was asked to keep them.
    pub entries: Vec<Entry>,
}

impl Log {
    pub(crate) fn count(&mut self, front: usize, direction: Direction, size: usize, fate: Fate) {
        let pick = |up, down| match direction {
            Direction::Up => up,
            Direction::Down => down,
        };
        pick(&mut self.up, &mut self.down).count(size, fate);
        if let Some((up, down)) = self.fronts.get_mut(front) {
            pick(up, down).count(size, fate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn packets_are_named_by_their_version() {
        assert_eq!(kind(&[0xc0, 0, 0, 0, 1, 8]), "Initial");
        assert_eq!(kind(&[0xf0, 0, 0, 0, 1, 8]), "Retry");
        assert_eq!(kind(&[0xd0, 0x6b, 0x33, 0x43, 0xcf, 8]), "Initial v2");
        assert_eq!(kind(&[0xc0, 0x6b, 0x33, 0x43, 0xcf, 8]), "Retry v2");
        assert_eq!(kind(&[0x80, 0, 0, 0, 0, 8]), "VersionNegotiation");
        assert_eq!(kind(&[0x40]), "1-RTT");
    }
}
