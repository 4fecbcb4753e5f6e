//! A scripted QUIC peer: corelane's own parsers and keys without its state machine, so that it can
//! say anything in any packet of any type, number and key phase, and read all that comes back.

use corelane::crypto::{
    self, KeyChange, Keys, OneRttKeys, Session, TAG_LEN, UsedKeys, initial_keys, open, unprotect,
};
use corelane::wire::frame::{self, Frame};
use corelane::wire::header::{self, Header, LongType, VERSION_1};
use corelane::wire::{ConnectionId, PacketType, Reader, Side, Writer, packet_number};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Bytes of packet number that every packet of this peer has.
const PN_LEN: usize = 4;

/// A packet as it came, decrypted.
#[derive(Clone, Debug)]
pub struct Packet {
    pub ty: PacketType,
    pub pn: u64,
    pub dcid: ConnectionId,
    pub scid: ConnectionId,
    pub token: Vec<u8>,
    pub payload: Vec<u8>,
    /// The size of the UDP datagram that it came in.
    pub datagram: usize,
    /// The key phase bit of a 1-RTT packet.
    pub phase: bool,
    /// Where the endpoint sent it from and to.
    pub from: Option<SocketAddr>,
    pub to: Option<SocketAddr>,
}

impl Packet {
    pub fn frames(&self) -> Vec<Frame<'_>> {
        let mut r = Reader::new(&self.payload);
        let mut out = Vec::new();
        while !r.is_empty() {
            out.push(Frame::parse(&mut r).expect("an endpoint writes valid frames"));
        }
        out
    }

    pub fn has(&self, is: impl Fn(&Frame<'_>) -> bool) -> bool {
        self.frames().iter().any(is)
    }

    pub fn is_ack_eliciting(&self) -> bool {
        self.has(|f| f.is_ack_eliciting())
    }
}

/// Writes frames into a payload.
pub fn payload(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buf = vec![0; 65_000];
    let mut w = Writer::new(&mut buf);
    write(&mut w);
    w.written().to_vec()
}

/// A CRYPTO frame.
pub fn crypto_frame(offset: u64, data: &[u8]) -> Vec<u8> {
    payload(|w| {
        frame::write_crypto_header(w, offset, data.len());
        w.bytes(data);
    })
}

/// A STREAM frame with offset and length.
pub fn stream_frame(id: u64, offset: u64, data: &[u8], fin: bool) -> Vec<u8> {
    payload(|w| {
        frame::stream::write_header(w, id, offset, Some(data.len()), fin);
        w.bytes(data);
    })
}

/// An ACK frame of ranges, highest first.
pub fn ack_frame(ranges: &[std::ops::RangeInclusive<u64>]) -> Vec<u8> {
    payload(|w| {
        let n = frame::ack::write(w, ranges.iter().cloned(), 0, None);
        assert_eq!(n, ranges.len());
    })
}

/// One packet number space.
#[derive(Default)]
pub struct Space {
    pub keys: Option<Keys>,
    pub next_pn: u64,
    /// Packet numbers received, and whether some wait for an acknowledgement.
    pub received: BTreeSet<u64>,
    pub owes_ack: bool,
    crypto_in: BTreeMap<u64, Vec<u8>>,
    crypto_read: u64,
    pub crypto_out: Vec<u8>,
    pub crypto_sent: usize,
}

/// The peer.
pub struct RawPeer {
    pub side: Side,
    pub session: Option<Session>,
    pub scid: ConnectionId,
    pub dcid: ConnectionId,
    pub token: Vec<u8>,
    /// The version of its long headers and of its Initial keys.
    pub version: u32,
    /// Initial, Handshake, Data; the last has its keys in `one_rtt`.
    pub spaces: [Space; 3],
    pub one_rtt: Option<OneRttKeys>,
    level: usize,
    /// What TLS thought of what the endpoint sent.
    pub tls_error: Option<corelane::wire::TransportError>,
    /// Retry packets received: source connection ID and token.
    pub retries: Vec<(ConnectionId, Vec<u8>)>,
    /// Packets that nothing could open.
    pub undecryptable: Vec<Vec<u8>>,
}

pub fn index(ty: PacketType) -> usize {
    match ty {
        PacketType::Initial => 0,
        PacketType::Handshake => 1,
        PacketType::ZeroRtt | PacketType::OneRtt => 2,
    }
}

impl RawPeer {
    /// A client that will send to `dcid` first.
    pub fn client(session: Session, scid: ConnectionId, dcid: ConnectionId) -> Self {
        let mut peer = Self::new(Side::Client, scid, dcid);
        peer.set_initial_keys(dcid);
        peer.session = Some(session);
        peer.drive_tls();
        peer
    }

    /// A server that waits for a client.
    pub fn server(scid: ConnectionId) -> Self {
        Self::new(Side::Server, scid, ConnectionId::EMPTY)
    }

    fn new(side: Side, scid: ConnectionId, dcid: ConnectionId) -> Self {
        Self {
            side,
            session: None,
            scid,
            dcid,
            token: Vec::new(),
            version: VERSION_1,
            spaces: Default::default(),
            one_rtt: None,
            level: 0,
            tls_error: None,
            retries: Vec::new(),
            undecryptable: Vec::new(),
        }
    }

    /// Derives Initial keys from the client's first destination connection ID.
    pub fn set_initial_keys(&mut self, dcid: ConnectionId) {
        self.spaces[0].keys = initial_keys(self.version, dcid.as_slice(), self.side);
    }

    pub fn is_handshaking(&self) -> bool {
        self.session.as_ref().is_none_or(Session::is_handshaking)
    }

    /// Moves what TLS has into the CRYPTO streams and installs keys.
    pub fn drive_tls(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        loop {
            let mut out = Vec::new();
            let change = session.write_crypto(&mut out);
            self.spaces[self.level].crypto_out.extend_from_slice(&out);
            match change {
                Some(KeyChange::Handshake(keys)) => {
                    self.spaces[1].keys = Some(keys);
                    self.level = 1;
                }
                Some(KeyChange::OneRtt(keys, next)) => {
                    self.one_rtt = Some(OneRttKeys::new(keys, next));
                    self.level = 2;
                }
                None if out.is_empty() => break,
                None => {}
            }
        }
    }

    /// A packet with the next number of its space.
    pub fn packet(&mut self, ty: PacketType, payload: &[u8]) -> Vec<u8> {
        let space = &mut self.spaces[index(ty)];
        let pn = space.next_pn;
        space.next_pn += 1;
        self.packet_at(ty, pn, payload, |_| {})
    }

    /// A packet with a number of choice; `tweak` may change its first byte before protection.
    pub fn packet_at(
        &mut self,
        ty: PacketType,
        pn: u64,
        payload: &[u8],
        tweak: impl FnOnce(&mut u8),
    ) -> Vec<u8> {
        let mut buf = vec![0; payload.len() + 256 + self.token.len()];
        let mut w = Writer::new(&mut buf);
        let long = match ty {
            PacketType::Initial => Some(LongType::Initial),
            PacketType::Handshake => Some(LongType::Handshake),
            PacketType::ZeroRtt => Some(LongType::ZeroRtt),
            PacketType::OneRtt => None,
        };
        let (offsets, at) = match long {
            Some(ty) => {
                let token = if ty == LongType::Initial {
                    self.token.as_slice()
                } else {
                    &[]
                };
                let o = header::write_long(
                    &mut w,
                    ty,
                    self.version,
                    &self.dcid,
                    &self.scid,
                    token,
                    PN_LEN,
                );
                (Some(o), o.packet_number)
            }
            None => {
                let phase = self.one_rtt.as_ref().is_some_and(|k| k.phase_bit() != 0);
                let at = header::write_short(&mut w, &self.dcid, false, phase, PN_LEN);
                (None, at)
            }
        };
        packet_number::write(&mut w, pn, PN_LEN);
        w.bytes(payload);
        let end = w.position() + TAG_LEN;
        if let Some(o) = offsets {
            o.patch_length(&mut w, end);
        }
        buf.truncate(end);
        tweak(&mut buf[0]);
        match ty {
            PacketType::OneRtt => self
                .one_rtt
                .as_mut()
                .expect("1-RTT keys")
                .seal(0, pn, &mut buf, at, PN_LEN)
                .expect("seals"),
            _ => {
                let keys = self.spaces[index(ty)].keys.as_ref().expect("keys");
                crypto::seal(&keys.local, 0, pn, &mut buf, at, PN_LEN).expect("seals");
            }
        }
        buf
    }

    /// An Initial packet that fills its datagram to `size` bytes with PADDING.
    pub fn padded_initial(&mut self, payload: &[u8], size: usize) -> Vec<u8> {
        let header = header::long_size(
            LongType::Initial,
            self.dcid.len(),
            self.scid.len(),
            self.token.len(),
        );
        let mut payload = payload.to_vec();
        let room = size - header - PN_LEN - TAG_LEN;
        payload.resize(room.max(payload.len()), 0);
        self.packet(PacketType::Initial, &payload)
    }

    /// Everything that waits: acknowledgements and CRYPTO data, one datagram a piece of it.
    pub fn flight(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for ty in [
            PacketType::Initial,
            PacketType::Handshake,
            PacketType::OneRtt,
        ] {
            let i = index(ty);
            if i < 2 && self.spaces[i].keys.is_none() || i == 2 && self.one_rtt.is_none() {
                continue;
            }
            loop {
                let space = &mut self.spaces[i];
                let from = space.crypto_sent;
                let rest = &space.crypto_out[from..];
                let n = rest.len().min(900);
                let mut frames = Vec::new();
                if std::mem::take(&mut space.owes_ack) {
                    frames.extend(ack_frame(&space.ranges()));
                }
                if n > 0 {
                    frames.extend(crypto_frame(from as u64, &space.crypto_out[from..from + n]));
                    space.crypto_sent += n;
                }
                if frames.is_empty() {
                    break;
                }
                out.push(match ty {
                    PacketType::Initial => self.padded_initial(&frames, 1200),
                    _ => self.packet(ty, &frames),
                });
            }
        }
        out
    }

    /// Opens every packet of a datagram and gives CRYPTO data to TLS.
    pub fn receive(&mut self, datagram: &[u8]) -> Vec<Packet> {
        let size = datagram.len();
        let mut bytes = datagram.to_vec();
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (packet, len) = self.open_one(&mut bytes[at..]);
            if let Some(mut p) = packet {
                p.datagram = size;
                self.take(&p);
                out.push(p);
            }
            at += len;
        }
        out
    }

    fn take(&mut self, p: &Packet) {
        let i = index(p.ty);
        if p.ty != PacketType::OneRtt && self.spaces[i].received.is_empty() && i == 0 {
            // The peer's choice of connection ID.
            self.dcid = p.scid;
        }
        let space = &mut self.spaces[i];
        space.received.insert(p.pn);
        space.owes_ack |= p.is_ack_eliciting();
        for f in p.frames() {
            if let Frame::Crypto { offset, data } = f {
                space.crypto_in.insert(offset, data.to_vec());
            }
        }
        let read = self.spaces[i].next_crypto();
        if !read.is_empty()
            && let Some(session) = &mut self.session
        {
            if let Err(e) = session.read_crypto(&read) {
                self.tls_error = Some(e);
            }
            self.drive_tls();
        }
    }

    fn open_one(&mut self, bytes: &mut [u8]) -> (Option<Packet>, usize) {
        let all = bytes.len();
        let whole = bytes.to_vec();
        let parsed = Header::parse_greased(&whole, self.scid.len());
        let (ty, dcid, scid, token, pn_offset, len) = match parsed {
            Ok(Header::Long {
                ty,
                dcid,
                scid,
                token,
                pn_offset,
                len,
                ..
            }) => {
                let ty = match ty {
                    LongType::Initial => PacketType::Initial,
                    LongType::Handshake => PacketType::Handshake,
                    LongType::ZeroRtt => PacketType::ZeroRtt,
                };
                (ty, dcid, scid, token.to_vec(), pn_offset, len)
            }
            Ok(Header::Short { dcid, pn_offset }) => (
                PacketType::OneRtt,
                dcid,
                ConnectionId::EMPTY,
                Vec::new(),
                pn_offset,
                all,
            ),
            Ok(Header::Retry { scid, token, .. }) => {
                self.retries.push((scid, token.to_vec()));
                return (None, all);
            }
            _ => return (None, all),
        };
        if self.side == Side::Server && self.spaces[0].keys.is_none() {
            self.set_initial_keys(dcid);
        }
        let packet = &mut bytes[..len];
        let opened = match ty {
            PacketType::OneRtt => self.open_short(packet, pn_offset),
            _ => self.open_long(ty, packet, pn_offset),
        };
        let Some((pn, payload, phase)) = opened else {
            self.undecryptable.push(whole[..len].to_vec());
            return (None, len);
        };
        let packet = Packet {
            ty,
            pn,
            dcid,
            scid,
            token,
            payload,
            datagram: 0,
            phase,
            from: None,
            to: None,
        };
        (Some(packet), len)
    }

    fn open_long(
        &mut self,
        ty: PacketType,
        packet: &mut [u8],
        pn_offset: usize,
    ) -> Option<(u64, Vec<u8>, bool)> {
        let space = &self.spaces[index(ty)];
        let key = &space.keys.as_ref()?.remote;
        let head = unprotect(&*key.header, packet, pn_offset)?;
        let expected = space.received.last().map_or(0, |pn| pn + 1);
        let pn = packet_number::decode(head.pn, head.pn_len, expected);
        let header_len = pn_offset + head.pn_len;
        let len = open(&*key.packet, 0, pn, packet, header_len).ok()?;
        Some((pn, packet[header_len..header_len + len].to_vec(), false))
    }

    fn open_short(&mut self, packet: &mut [u8], pn_offset: usize) -> Option<(u64, Vec<u8>, bool)> {
        let keys = self.one_rtt.as_mut()?;
        let head = unprotect(keys.header_key(), packet, pn_offset)?;
        let largest = self.spaces[2].received.last().copied();
        let pn = packet_number::decode(head.pn, head.pn_len, largest.map_or(0, |pn| pn + 1));
        let header_len = pn_offset + head.pn_len;
        let opened = keys.open(0, pn, largest, packet, header_len).ok()?;
        let phase = head.first & header::KEY_PHASE != 0;
        Some((
            pn,
            packet[header_len..header_len + opened.len].to_vec(),
            phase,
        ))
    }

    /// Moves to the next keys whatever the rules say; a packet of the present ones must have left.
    pub fn force_key_update(&mut self, now: corelane::base::Timestamp) {
        let keys = self.one_rtt.as_mut().expect("1-RTT keys");
        keys.on_handshake_confirmed();
        keys.keep_previous_until(now);
        keys.on_timeout(now);
        for path in 0..64 {
            let _ = keys.on_ack(path, u64::MAX, UsedKeys::Current);
        }
        keys.initiate_update().expect("every condition was forced");
    }
}

impl Space {
    /// Received packet numbers as ranges, highest first.
    pub fn ranges(&self) -> Vec<std::ops::RangeInclusive<u64>> {
        let mut out: Vec<std::ops::RangeInclusive<u64>> = Vec::new();
        for &pn in self.received.iter().rev() {
            let n = out.len();
            match out.last_mut() {
                Some(r) if *r.start() == pn + 1 => *r = pn..=*r.end(),
                _ if n == 32 => break,
                _ => out.push(pn..=pn),
            }
        }
        out
    }

    /// Forgets what was received, so that it can be read again.
    pub fn forget_received(&mut self) {
        self.received.clear();
        self.crypto_in.clear();
        self.crypto_read = 0;
    }

    fn next_crypto(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        while let Some((&offset, data)) = self.crypto_in.first_key_value() {
            let skip = self.crypto_read.saturating_sub(offset) as usize;
            if offset > self.crypto_read {
                break;
            }
            read.extend_from_slice(data.get(skip..).unwrap_or_default());
            self.crypto_read = self.crypto_read.max(offset + data.len() as u64);
            self.crypto_in.pop_first();
        }
        read
    }
}
