//! One connection as a bystander follows it: its connection IDs, its keys, its handshake messages.

use super::frames::{self, ClientHello, Frame};
use super::header::Header;
use super::keys::{KeyLog, Keys, Suite};
use super::{Handshake, Kind};
use corelane_relay::Direction;
use std::collections::{BTreeMap, HashSet};

/// Packet number, key generation, frames.
pub(super) type Opened = (u64, usize, Vec<Frame>);

/// The number of the transport parameter (RFC 9000 §18.2).
pub(super) const PREFERRED_ADDRESS: u64 = 0x0d;
/// Generations of 1-RTT keys that are tried beyond the newest seen.
const AHEAD: usize = 1;

pub(super) struct Connection {
    pub flow: usize,
    /// Destination connection IDs of first Initials, of which the newest Initial keys derive.
    origins: Vec<Vec<u8>>,
    /// By what each direction's receiver is addressed.
    ids: [HashSet<Vec<u8>>; 2],
    /// Initial and Handshake CRYPTO data, by direction.
    crypto: [[BTreeMap<u64, Vec<u8>>; 2]; 2],
    hello: Option<ClientHello>,
    suite: Option<u16>,
    /// The server's transport parameters were read.
    extensions_seen: bool,
    version: u32,
    initial: Vec<(u32, [Option<Keys>; 2])>,
    early: Vec<Keys>,
    handshake: [Option<Keys>; 2],
    one_rtt: [Vec<Keys>; 2],
    /// By packet number space and direction.
    largest: [[u64; 2]; 3],
}

impl Connection {
    pub fn new(flow: usize, first: &Header) -> Self {
        let mut ids: [HashSet<Vec<u8>>; 2] = Default::default();
        ids[Direction::Up as usize].insert(first.dcid.clone());
        ids[Direction::Down as usize].insert(first.scid.clone());
        let mut new = Self {
            flow,
            origins: vec![first.dcid.clone()],
            ids,
            crypto: Default::default(),
            hello: None,
            suite: None,
            extensions_seen: false,
            version: first.version,
            initial: Vec::new(),
            early: Vec::new(),
            handshake: [None, None],
            one_rtt: [Vec::new(), Vec::new()],
            largest: [[0; 2]; 3],
        };
        new.derive_initial();
        new
    }

    fn derive_initial(&mut self) {
        let versions = [1, super::VERSION_2];
        let all = self.origins.iter();
        let all = all.flat_map(|o| versions.map(|v| (v, Keys::initial(v, o))));
        self.initial = all.collect();
    }

    /// Whether a packet is addressed to this connection; completes a short header.
    pub fn knows(&self, direction: Direction, header: &mut Header, bytes: &[u8]) -> bool {
        let ids = &self.ids[direction as usize];
        if header.kind != Kind::OneRtt {
            return ids.contains(&header.dcid);
        }
        let fits = |id: &&Vec<u8>| bytes.get(1..).is_some_and(|b| b.starts_with(id));
        let Some(id) = ids.iter().filter(fits).max_by_key(|id| id.len()) else {
            return false;
        };
        header.dcid.clone_from(id);
        header.number_at = 1 + id.len();
        true
    }

    pub fn open(
        &mut self,
        log: &KeyLog,
        direction: Direction,
        header: &Header,
        bytes: &[u8],
    ) -> Option<Opened> {
        let back = match direction {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        };
        match header.kind {
            Kind::VersionNegotiation => return None,
            Kind::Retry => {
                self.ids[back as usize].insert(header.scid.clone());
                self.origins.push(header.scid.clone());
                self.derive_initial();
                return None;
            }
            Kind::Initial | Kind::Handshake => {
                self.ids[back as usize].insert(header.scid.clone());
                self.version = header.version;
            }
            Kind::ZeroRtt | Kind::OneRtt => {}
        }
        self.learn(log);
        let opened = self.try_keys(direction, header, bytes)?;
        for frame in &opened.2 {
            match frame {
                Frame::NewConnectionId(id) => {
                    self.ids[back as usize].insert(id.clone());
                }
                Frame::Crypto { offset, data } if header.kind != Kind::OneRtt => {
                    let level = usize::from(header.kind == Kind::Handshake);
                    let place = &mut self.crypto[level][direction as usize];
                    let kept = place.entry(*offset).or_default();
                    if kept.len() < data.len() {
                        kept.clone_from(data);
                    }
                }
                _ => {}
            }
        }
        self.listen();
        Some(opened)
    }

    fn try_keys(&mut self, direction: Direction, header: &Header, bytes: &[u8]) -> Option<Opened> {
        let space = match header.kind {
            Kind::Initial => 0,
            Kind::Handshake => 1,
            _ => 2,
        };
        let side = direction as usize;
        let largest = self.largest[space][side];
        let at = header.number_at;
        let opened = match header.kind {
            Kind::Initial => {
                let same = self
                    .initial
                    .iter()
                    .rev()
                    .filter(|(v, _)| *v == header.version);
                let mut keys = same.filter_map(|(_, keys)| keys[side].as_ref());
                keys.find_map(|k| open(k, k, bytes, at, largest))
                    .map(|(pn, frames)| (pn, 0, frames))
            }
            Kind::ZeroRtt => {
                let opened = self
                    .early
                    .iter()
                    .find_map(|k| open(k, k, bytes, at, largest));
                opened.map(|(pn, frames)| (pn, 0, frames))
            }
            Kind::Handshake => {
                let keys = self.handshake[side].as_ref()?;
                open(keys, keys, bytes, at, largest).map(|(pn, frames)| (pn, 0, frames))
            }
            _ => self.open_one_rtt(side, bytes, at, largest),
        }?;
        let kept = &mut self.largest[space][side];
        *kept = opened.0.max(*kept);
        Some(opened)
    }

    fn open_one_rtt(
        &mut self,
        side: usize,
        bytes: &[u8],
        at: usize,
        largest: u64,
    ) -> Option<Opened> {
        let all = &mut self.one_rtt[side];
        // The newest first: older ones are for what was reordered across an update.
        let newest = all.len().checked_sub(AHEAD + 1)?;
        for generation in (0..all.len()).rev() {
            if generation + 2 < newest {
                break;
            }
            let Some((pn, frames)) = open(&all[0], &all[generation], bytes, at, largest) else {
                continue;
            };
            if generation > newest {
                let next = all[generation].next()?;
                all.push(next);
            }
            return Some((pn, generation, frames));
        }
        None
    }

    /// Derives what keys there are secrets for.
    fn learn(&mut self, log: &KeyLog) {
        let Some(hello) = &self.hello else { return };
        let secret = |label: &str| log.get(label, &hello.random);
        if self.early.is_empty()
            && let Some(secret) = secret("CLIENT_EARLY_TRAFFIC_SECRET")
        {
            // The suite is that of the resumed session, which only the length narrows.
            let suites = [0x1301, 0x1303, 0x1302]
                .into_iter()
                .filter_map(Suite::named);
            let all = suites.filter_map(|s| Keys::new(self.version, s, secret));
            self.early = all.collect();
        }
        let Some(suite) = self.suite.and_then(Suite::named) else {
            return;
        };
        for (side, name) in ["CLIENT", "SERVER"].into_iter().enumerate() {
            let keys = |label: String| Keys::new(self.version, suite, secret(&label)?);
            if self.handshake[side].is_none() {
                self.handshake[side] = keys(format!("{name}_HANDSHAKE_TRAFFIC_SECRET"));
            }
            if self.one_rtt[side].is_empty()
                && let Some(first) = keys(format!("{name}_TRAFFIC_SECRET_0"))
                && let Some(next) = first.next()
            {
                self.one_rtt[side] = vec![first, next];
            }
        }
    }

    /// Reads hellos as soon as they are whole.
    fn listen(&mut self) {
        if self.hello.is_none() {
            let data = self.stream(0, Direction::Up);
            let first = frames::messages(&data).into_iter().find(|m| m.0 == 1);
            self.hello = first.and_then(|(_, body)| frames::client_hello(body));
        }
        if self.suite.is_none() {
            let data = self.stream(0, Direction::Down);
            let first = frames::messages(&data).into_iter().find(|m| m.0 == 2);
            self.suite = first.and_then(|(_, body)| frames::server_suite(body));
        }
        if !self.extensions_seen && self.suite.is_some() {
            let all = self.server_parameters();
            self.extensions_seen = !all.is_empty();
            let preferred = all.iter().find(|(n, _)| *n == PREFERRED_ADDRESS);
            if let Some(id) = preferred.and_then(|(_, value)| frames::preferred_id(value)) {
                self.ids[Direction::Up as usize].insert(id);
            }
        }
    }

    fn server_parameters(&self) -> Vec<(u64, Vec<u8>)> {
        let data = self.stream(1, Direction::Down);
        let extensions = frames::messages(&data).into_iter().find(|m| m.0 == 8);
        let parameters = extensions.and_then(|(_, body)| frames::parameters(body));
        parameters.unwrap_or_default()
    }

    /// The contiguous start of a CRYPTO stream.
    fn stream(&self, level: usize, direction: Direction) -> Vec<u8> {
        let mut whole = Vec::new();
        for (offset, data) in &self.crypto[level][direction as usize] {
            let Some(skip) = whole.len().checked_sub(*offset as usize) else {
                break;
            };
            whole.extend_from_slice(data.get(skip..).unwrap_or_default());
        }
        whole
    }

    pub fn handshake(&self) -> Handshake {
        let server = self.stream(1, Direction::Down);
        let server = frames::messages(&server);
        let client = self.stream(1, Direction::Up);
        let has = |all: &[(u8, &[u8])], ty| all.iter().any(|m| m.0 == ty);
        Handshake {
            client: self.hello.clone(),
            suite: self.suite,
            server_parameters: self.server_parameters(),
            certificate: has(&server, 11) || has(&server, 25),
            complete: has(&server, 20) && has(&frames::messages(&client), 20),
        }
    }
}

/// Takes header protection off, decodes the packet number, decrypts.
fn open(
    header_keys: &Keys,
    keys: &Keys,
    bytes: &[u8],
    at: usize,
    largest: u64,
) -> Option<(u64, Vec<Frame>)> {
    let mask = header_keys.mask(bytes, at)?;
    let first = bytes[0];
    let bits = if first & 0x80 != 0 { 0x0f } else { 0x1f };
    let first = first ^ (mask[0] & bits);
    let len = usize::from(first & 3) + 1;
    let mut header = bytes.get(..at + len)?.to_vec();
    header[0] = first;
    for (b, m) in header[at..].iter_mut().zip(&mask[1..]) {
        *b ^= m;
    }
    let short = header[at..].iter().fold(0, |n, b| n << 8 | u64::from(*b));
    let number = decode(short, len, largest);
    let payload = keys.open(number, &header, &bytes[at + len..])?;
    Some((number, frames::frames(&payload)))
}

/// RFC 9000 appendix A.3.
fn decode(short: u64, len: usize, largest: u64) -> u64 {
    let window = 1u64 << (8 * len);
    let expected = largest + 1;
    let candidate = (expected & !(window - 1)) | short;
    if candidate + window / 2 <= expected {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn packet_numbers_decode_near_what_is_expected() {
        assert_eq!(decode(0x9b32, 2, 0xa82f_30ea), 0xa82f_9b32);
        assert_eq!(decode(0x01, 1, 0xfe), 0x101);
        assert_eq!(decode(0xff, 1, 0x100), 0xff);
        assert_eq!(decode(0, 4, 0), 0);
    }
}
