//! The unprotected part of packets (RFC 8999, RFC 9000 §17, RFC 9369 §3.2).

use super::Kind;
use super::frames::Cursor;
use super::keys::VERSION_2;

/// A packet's header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub kind: Kind,
    pub version: u32,
    /// Of a short header only once the connection is known.
    pub dcid: Vec<u8>,
    pub scid: Vec<u8>,
    pub token: Vec<u8>,
    /// Where the packet number is; of a short header only once the connection is known.
    pub number_at: usize,
}

impl Header {
    /// Reads the packet at the start of `data`, and its length.
    pub fn read(data: &[u8]) -> Option<(Self, usize)> {
        let first = *data.first()?;
        if first & 0x80 == 0 {
            let short = Self {
                kind: Kind::OneRtt,
                version: 0,
                dcid: Vec::new(),
                scid: Vec::new(),
                token: Vec::new(),
                number_at: 1,
            };
            return Some((short, data.len()));
        }
        let mut c = Cursor(data.get(1..)?);
        let version = c.uint(4)? as u32;
        let dcid = c.vector(1)?.to_vec();
        let scid = c.vector(1)?.to_vec();
        let bits = (first >> 4) & 3;
        let kind = match (version, bits) {
            (0, _) => Kind::VersionNegotiation,
            (VERSION_2, 1) | (1, 0) => Kind::Initial,
            (VERSION_2, 2) | (1, 1) => Kind::ZeroRtt,
            (VERSION_2, 3) | (1, 2) => Kind::Handshake,
            (VERSION_2, 0) | (1, 3) => Kind::Retry,
            _ => return None,
        };
        let mut header = Self {
            kind,
            version,
            dcid,
            scid,
            token: Vec::new(),
            number_at: 0,
        };
        if matches!(kind, Kind::VersionNegotiation | Kind::Retry) {
            return Some((header, data.len()));
        }
        if kind == Kind::Initial {
            let len = usize::try_from(c.varint()?).ok()?;
            header.token = c.take(len)?.to_vec();
        }
        let len = usize::try_from(c.varint()?).ok()?;
        header.number_at = data.len() - c.0.len();
        c.take(len)?;
        Some((header, data.len() - c.0.len()))
    }
}
