//! What went over the link, decrypted: packets and frames by connection, from a relay's log and the
//! endpoints' key logs.
//!
//! It shares no code with the engine, so that a mistake there is not believed here. Packets that do
//! not decrypt stay in the trace without frames.

mod decrypt;
mod frames;
mod header;
mod keys;

pub use frames::{ClientHello, Frame};
pub use keys::{KeyLog, VERSION_2};

use corelane_relay::{Direction, Entry, Fate};
use decrypt::Connection;
use header::Header;
use std::fmt;
use std::time::Duration;

/// The value of a transport parameter that is a number.
pub fn varint(bytes: &[u8]) -> Option<u64> {
    frames::Cursor(bytes).varint()
}

/// What kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Initial.
    Initial,
    /// 0-RTT.
    ZeroRtt,
    /// Handshake.
    Handshake,
    /// Retry.
    Retry,
    /// Version Negotiation.
    VersionNegotiation,
    /// 1-RTT.
    OneRtt,
}

/// One packet as it came to the relay.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Which connection of the trace.
    pub connection: usize,
    /// Since the relay began.
    pub at: Duration,
    /// Which way.
    pub direction: Direction,
    /// What the relay did to its datagram.
    pub fate: Fate,
    /// The ECN bits of its datagram.
    pub ecn: u8,
    /// How often its client had been rebound.
    pub rebound: u32,
    /// The relay's address that was used.
    pub front: usize,
    /// What kind of packet.
    pub kind: Kind,
    /// The version of a long header.
    pub version: u32,
    /// The destination connection ID.
    pub dcid: Vec<u8>,
    /// An Initial's token.
    pub token: Vec<u8>,
    /// The packet number, if it could be decrypted.
    pub number: Option<u64>,
    /// The key phase of a 1-RTT packet, as generations since the first.
    pub generation: usize,
    /// The frames, if it could be decrypted.
    pub frames: Vec<Frame>,
}

impl Packet {
    /// Bytes of stream data.
    pub fn stream_bytes(&self) -> u64 {
        let len = |f: &Frame| match f {
            Frame::Stream { len, .. } => *len,
            _ => 0,
        };
        self.frames.iter().map(len).sum()
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = match self.direction {
            Direction::Up => '>',
            Direction::Down => '<',
        };
        write!(
            f,
            "{:10.6} {arrow} {} rebound {} front {} {:?} {:?} to ",
            self.at.as_secs_f64(),
            self.connection,
            self.rebound,
            self.front,
            self.fate,
            self.kind
        )?;
        self.dcid.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        write!(
            f,
            " number {:?} generation {}",
            self.number, self.generation
        )?;
        for frame in &self.frames {
            match frame {
                Frame::Crypto { offset, data } => write!(f, " Crypto({offset}, {})", data.len())?,
                frame => write!(f, " {frame:?}")?,
            }
        }
        Ok(())
    }
}

/// What a connection's handshake said.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    /// The ClientHello; the same one after a Retry.
    pub client: Option<ClientHello>,
    /// The cipher suite of the ServerHello.
    pub suite: Option<u16>,
    /// The server's transport parameters by number.
    pub server_parameters: Vec<(u64, Vec<u8>)>,
    /// Whether the server showed a certificate.
    pub certificate: bool,
    /// Whether both sides' Finished messages were seen.
    pub complete: bool,
}

/// Everything that went over the link.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// All packets in order.
    pub packets: Vec<Packet>,
    /// The handshakes, by connection.
    pub handshakes: Vec<Handshake>,
    /// Packets that did not decrypt.
    pub undecrypted: usize,
}

impl Trace {
    /// Decrypts a relay's log.
    pub fn new(entries: &[Entry], log: &KeyLog) -> Self {
        let mut builder = Builder {
            log,
            connections: Vec::new(),
            trace: Self::default(),
        };
        for entry in entries {
            builder.datagram(entry);
        }
        let Builder {
            connections,
            mut trace,
            ..
        } = builder;
        trace.handshakes = connections.iter().map(Connection::handshake).collect();
        trace
    }

    /// Packets of one direction.
    pub fn of(&self, direction: Direction) -> impl Iterator<Item = &Packet> {
        self.packets
            .iter()
            .filter(move |p| p.direction == direction)
    }

    /// Handshakes in which the server answered.
    pub fn handshakes(&self) -> usize {
        self.handshakes.iter().filter(|h| h.suite.is_some()).count()
    }
}

struct Builder<'a> {
    log: &'a KeyLog,
    connections: Vec<Connection>,
    trace: Trace,
}

impl Builder<'_> {
    fn datagram(&mut self, entry: &Entry) {
        let mut rest = &entry.data[..];
        while !rest.is_empty() {
            let Some((header, len)) = Header::read(rest) else {
                return;
            };
            let (packet, after) = rest.split_at(len);
            rest = after;
            self.packet(entry, header, packet);
        }
    }

    fn packet(&mut self, entry: &Entry, mut header: Header, bytes: &[u8]) {
        let Some(n) = self.connection(entry, &mut header, bytes) else {
            return;
        };
        let connection = &mut self.connections[n];
        let opened = connection.open(self.log, entry.direction, &header, bytes);
        let (number, generation, frames) = match opened {
            Some((number, generation, frames)) => (Some(number), generation, frames),
            None => (None, 0, Vec::new()),
        };
        let plain = matches!(header.kind, Kind::Retry | Kind::VersionNegotiation);
        if number.is_none() && !plain {
            self.trace.undecrypted += 1;
        }
        self.trace.packets.push(Packet {
            connection: n,
            at: entry.at,
            direction: entry.direction,
            fate: entry.fate,
            ecn: entry.ecn,
            rebound: entry.rebound,
            front: entry.front,
            kind: header.kind,
            version: header.version,
            dcid: header.dcid,
            token: header.token,
            number,
            generation,
            frames,
        });
    }

    /// The connection of a packet, a new one for a client's first.
    fn connection(&mut self, entry: &Entry, header: &mut Header, bytes: &[u8]) -> Option<usize> {
        let all = self.connections.iter().enumerate().rev();
        let mut same_flow = all.filter(|(_, c)| c.flow == entry.flow);
        let known = same_flow
            .clone()
            .find(|(_, c)| c.knows(entry.direction, header, bytes))
            .map(|(n, _)| n);
        if let Some(n) = known {
            return Some(n);
        }
        if entry.direction == Direction::Up && header.kind == Kind::Initial {
            self.connections.push(Connection::new(entry.flow, header));
            return Some(self.connections.len() - 1);
        }
        // Without connection IDs the addresses tell.
        same_flow.next().map(|(n, _)| n)
    }
}
