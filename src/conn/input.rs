//! From a received train to packets: header protection off, decryption, duplicates, key phases.
//!
//! A packet that cannot be authenticated is dropped and counted, whatever else is wrong with it;
//! only authenticated packets can close the connection (RFC 9000 §5.2, RFC 9001 §5.5). What the
//! frames inside mean is `frames`' business.

use super::handshake::HandshakeIds;
use super::multipath::TakenUp;
use super::space::HandshakeSpace;
use super::{Connection, EarlyPacket};
use crate::base::{RecvMeta, Timestamp, limits};
use crate::crypto::{OpenError, TAG_LEN, UsedKeys, open, unprotect};
use crate::stream::StreamSink;
use crate::wire::header::{self, Header, HeaderError, LongType};
use crate::wire::{ConnectionId, PacketType, Side, TransportError, Version, packet_number};

/// An authenticated packet on its way through the frame handlers.
pub(super) struct Packet<'a> {
    pub(super) ty: PacketType,
    pub(super) pn: u64,
    pub(super) dcid: &'a [u8],
    pub(super) payload: &'a [u8],
    /// Bytes of the whole packet.
    pub(super) size: usize,
    pub(super) meta: &'a RecvMeta,
    /// Which 1-RTT keys opened it.
    pub(super) used: UsedKeys,
}

/// The parts of a long header that outlive the parse.
#[derive(Clone, Copy)]
pub(super) struct Long {
    ty: LongType,
    version: Version,
    pub(super) dcid: ConnectionId,
    pub(super) scid: ConnectionId,
    pub(super) pn_offset: usize,
}

impl Connection {
    /// Takes a train of UDP datagrams that are all for this connection. In-order stream data is
    /// shown to `sink` straight from `data`, which is decrypted in place.
    pub fn handle_train(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        data: &mut [u8],
        sink: &mut dyn StreamSink,
    ) {
        self.watch_changes(false);
        self.watch.at(now);
        self.streams.at(now, self.longest_rtt());
        let mut run = None;
        for datagram in data.chunks_mut(meta.segment_size.max(1)) {
            let taken_up = match self.multipath.is_none() {
                true => TakenUp::Known,
                false => self.take_up_in_run(now, meta, datagram, &mut run),
            };
            if taken_up == TakenUp::None {
                continue;
            }
            self.handle_udp_datagram(now, meta, datagram, sink);
            if let TakenUp::New(id) = taken_up {
                self.settle_new_path(id);
            }
        }
        match self.paths.is_single() {
            true => self.paths.current_mut().acks.end_of_train(),
            false => self.paths.iter_mut().for_each(|p| p.acks.end_of_train()),
        }
        for space in [&mut self.initial, &mut self.handshake]
            .into_iter()
            .flatten()
        {
            space.acks.end_of_train();
        }
        self.watch_changes(true);
    }

    #[inline]
    fn handle_udp_datagram(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        datagram: &mut [u8],
        sink: &mut dyn StreamSink,
    ) {
        self.stats.udp_datagrams_received += 1;
        self.stats.udp_bytes_received += datagram.len() as u64;
        let path = self.paths.current_mut();
        let from_peer = meta.path.remote == path.tuple.remote;
        if self.state.is_closed() {
            // RFC 9000 §10.2.1: an address that is not proven gets no answer.
            if from_peer {
                self.on_datagram_while_closed(now, datagram);
            }
            return;
        }
        path.counters.bytes_received += datagram.len() as u64;
        // RFC 9000 §8.1: a datagram counts once, though its address may be looked at twice.
        if !path.probes.is_empty()
            && let Some(probe) = path.probes.find(meta)
        {
            probe.validation.on_received(datagram.len());
        } else if from_peer {
            path.validation.on_received(datagram.len());
        } else if self.side == Side::Client && !self.is_former(meta) {
            // RFC 9000 §9: servers do not move, so this is somebody else.
            self.stats.packets_dropped += 1;
            return;
        }
        let size = datagram.len();
        let mut rest = datagram;
        while let Some(&first) = rest.first() {
            let taken = if first & header::FORM_LONG == 0 {
                // RFC 9000 §12.2: what is coalesced goes where the first packet goes. The first
                // one's destination is how the datagram came here.
                if rest.len() == size || self.is_for_us(rest) {
                    self.handle_short(now, meta, rest, sink);
                } else {
                    self.stats.packets_dropped += 1;
                }
                rest.len()
            } else {
                self.handle_long(now, meta, size, rest, sink)
            };
            rest = rest.get_mut(taken..).unwrap_or_default();
        }
    }

    #[cold]
    fn is_for_us(&self, packet: &[u8]) -> bool {
        header::dcid(packet, self.ids.local_scid.len())
            .and_then(ConnectionId::new)
            .is_some_and(|dcid| self.paths.current().local_cids.contains(&dcid))
    }

    /// Handles one long-header packet of a datagram of `size` bytes; returns the bytes it took.
    /// Keeps RFC 9000 §5.2.1.
    fn handle_long(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        size: usize,
        packet: &mut [u8],
        sink: &mut dyn StreamSink,
    ) -> usize {
        let all = packet.len();
        if all == size && self.is_reset(now, meta, packet) {
            return all;
        }
        let (long, len) = match self.parse_header(packet) {
            Ok(Header::Long { ty, token, len, .. })
                if self.is_misplaced_initial(ty, token, size) =>
            {
                self.stats.packets_dropped += 1;
                return len;
            }
            Ok(Header::Long {
                ty,
                version,
                dcid,
                scid,
                pn_offset,
                len,
                ..
            }) => (
                Long {
                    ty,
                    version: Version::from_number(version).unwrap_or(Version::V1),
                    dcid,
                    scid,
                    pn_offset,
                },
                len,
            ),
            other => {
                self.on_unnumbered(now, packet, other);
                return all;
            }
        };
        // RFC 9000 §12.2: coalesced packets all carry the first one's destination.
        let admitted = self.ids.version.admits(self.side, long.ty, long.version);
        if !self.accepts_dcid(&long.dcid) || !admitted {
            self.stats.packets_dropped += 1;
            return len;
        }
        let Some(packet) = packet.get_mut(..len) else {
            return all;
        };
        if let Err(e) = self.open_long(now, meta, long, packet, sink) {
            self.fail(now, e);
            return all;
        }
        len
    }

    /// A packet without a packet number, or none at all.
    fn on_unnumbered(
        &mut self,
        now: Timestamp,
        packet: &[u8],
        header: Result<Header<'_>, HeaderError>,
    ) {
        match header {
            Ok(Header::Retry {
                version,
                scid,
                token,
                ..
            }) => self.on_retry(packet, version, scid, token.to_vec()),
            Ok(Header::VersionNegotiation {
                dcid,
                scid,
                versions,
            }) => self.on_version_negotiation(now, dcid, scid, versions),
            _ => self.stats.packets_dropped += 1,
        }
    }

    fn parse_header<'a>(&self, packet: &'a [u8]) -> Result<Header<'a>, HeaderError> {
        let cid_len = self.ids.local_scid.len();
        if self.config.grease_quic_bit {
            Header::parse_greased(packet, cid_len)
        } else {
            Header::parse(packet, cid_len)
        }
    }

    /// Whether an Initial packet is one to drop, not to close for (RFC 9000 §14): at a server, of a
    /// datagram too small (§14.1); at a client, with a token (§17.2.2).
    fn is_misplaced_initial(&self, ty: LongType, token: &[u8], size: usize) -> bool {
        ty == LongType::Initial
            && match self.side {
                Side::Server => size < limits::MIN_UDP_PAYLOAD,
                Side::Client => !token.is_empty(),
            }
    }

    fn accepts_dcid(&self, dcid: &ConnectionId) -> bool {
        self.paths.current().local_cids.contains(dcid)
            || (self.side == Side::Server && *dcid == self.ids.client_dcid())
    }

    /// Keeps RFC 9001 §4.6.2, §5.6, §8.3.
    fn open_long(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        long: Long,
        packet: &mut [u8],
        sink: &mut dyn StreamSink,
    ) -> Result<(), TransportError> {
        let (space, ty) = match long.ty {
            LongType::Initial => (self.initial.as_deref_mut(), PacketType::Initial),
            LongType::Handshake => (self.handshake.as_deref_mut(), PacketType::Handshake),
            LongType::ZeroRtt => return self.open_zero_rtt(now, meta, long, packet, sink),
        };
        let Some(space) = space else {
            if long.ty == LongType::Handshake && self.one_rtt.is_none() {
                self.keep_early(now, meta, packet);
            } else {
                self.stats.packets_dropped += 1;
            }
            return Ok(());
        };
        let opened = open_handshake(self.side, &mut self.ids, space, &long, packet);
        let Some((first, pn, header_len, len)) = opened else {
            self.stats.packets_undecryptable += 1;
            if let Some(keys) = self.one_rtt.as_deref_mut() {
                keys.add_failures(1)?;
            }
            return Ok(());
        };
        if space.acks.is_duplicate(pn) {
            self.stats.packets_duplicate += 1;
            return Ok(());
        }
        if long.version != self.ids.version.chosen {
            self.follow_server(long.version);
        }
        if !self.is_the_peers(long.scid) {
            self.stats.packets_dropped += 1;
            return Ok(());
        }
        if first & header::RESERVED_LONG != 0 {
            return Err(TransportError::protocol_violation("reserved bits are set"));
        }
        let Some((_, payload)) = packet
            .get(..header_len + len)
            .map(|p| p.split_at(header_len))
        else {
            return Ok(());
        };
        if ty == PacketType::Handshake {
            self.on_handshake_packet_opened(meta);
        }
        let dcid = long.dcid.as_slice();
        let size = header_len + len;
        let packet = Packet {
            ty,
            pn,
            dcid,
            payload,
            size,
            meta,
            used: UsedKeys::Current,
        };
        self.handle_packet(now, &packet, sink)
    }

    /// RFC 9000 §7.2: the peer's first packet names the connection ID that it goes by, and all the
    /// others have it too.
    fn is_the_peers(&mut self, scid: ConnectionId) -> bool {
        let known = *self.ids.remote_scid.get_or_insert_with(|| {
            self.paths.current_mut().remote_cids.set_first(scid);
            scid
        });
        known == scid
    }

    /// Keeps RFC 9000 §8.2.1.
    fn handle_short(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        packet: &mut [u8],
        sink: &mut dyn StreamSink,
    ) {
        // RFC 9001 §5.7: no 1-RTT packet is processed before the handshake is complete.
        if self.state.is_handshaking() {
            self.keep_early(now, meta, packet);
            return;
        }
        if let Err(e) = self.open_short(now, meta, packet, sink) {
            self.fail(now, e);
        }
    }

    /// Keeps RFC 9000 §17.3.1.
    #[inline]
    fn open_short(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        packet: &mut [u8],
        sink: &mut dyn StreamSink,
    ) -> Result<(), TransportError> {
        let Some(keys) = self.one_rtt.as_deref_mut() else {
            return Ok(());
        };
        let path = self.paths.current_mut();
        let pn_offset = 1 + self.ids.local_scid.len();
        let fixed = self.config.grease_quic_bit
            || packet.first().is_some_and(|b| b & header::FIXED_BIT != 0);
        let Some(head) = unprotect(keys.header_key(), packet, pn_offset).filter(|_| fixed) else {
            self.stats.packets_dropped += 1;
            self.on_undecryptable(now, meta, packet);
            return Ok(());
        };
        let largest = path.acks.largest();
        let pn = packet_number::decode(head.pn, head.pn_len, next_expected(largest));
        let header_len = pn_offset + head.pn_len;
        let opened = match keys.open(path.id.0, pn, largest, packet, header_len) {
            Ok(opened) => opened,
            Err(OpenError::Undecryptable(_)) => {
                self.stats.packets_undecryptable += 1;
                self.on_undecryptable(now, meta, packet);
                return Ok(());
            }
            Err(OpenError::Fatal(e)) => return Err(e),
        };
        if opened.keys == UsedKeys::New {
            self.on_new_keys(now);
        }
        let path = self.paths.current_mut();
        if path.acks.is_duplicate(pn) {
            self.stats.packets_duplicate += 1;
            return Ok(());
        }
        if largest.is_none_or(|l| pn > l) {
            path.spin
                .on_newest(self.side, head.first & header::SPIN != 0);
        }
        if head.first & header::RESERVED_SHORT != 0 {
            return Err(TransportError::protocol_violation("reserved bits are set"));
        }
        let end = header_len + opened.len;
        let Some((header, payload)) = packet.get(..end).map(|p| p.split_at(header_len)) else {
            return Ok(());
        };
        let dcid = header.get(1..pn_offset).unwrap_or_default();
        let used = opened.keys;
        let size = end + TAG_LEN;
        let packet = Packet {
            ty: PacketType::OneRtt,
            pn,
            dcid,
            payload,
            size,
            meta,
            used,
        };
        self.handle_packet(now, &packet, sink)
    }

    /// A packet opened with keys that none was opened with before: the old ones stay for three PTO
    /// of the slowest path (RFC 9001 §6.5).
    #[cold]
    fn on_new_keys(&mut self, now: Timestamp) {
        let until = now + self.largest_pto() * 3;
        if let Some(keys) = self.one_rtt.as_deref_mut() {
            keys.keep_previous_until(until);
            self.stats.key_updates = keys.updates();
        }
    }

    /// Keeps a packet whose keys may still come, up to a cap.
    pub(super) fn keep_early(&mut self, now: Timestamp, meta: &RecvMeta, packet: &[u8]) {
        let kept: usize = self.early.iter().map(|p| p.bytes.len()).sum();
        let full = self.early.len() >= limits::UNDECRYPTABLE_PACKETS
            || kept + packet.len() > limits::UNDECRYPTABLE_BYTES;
        if full {
            self.stats.packets_dropped += 1;
            return;
        }
        let meta = RecvMeta {
            segment_size: packet.len(),
            ..*meta
        };
        self.early.push(EarlyPacket {
            at: self.waited_since.min(now),
            meta,
            bytes: packet.to_vec(),
        });
    }

    /// Handles the packets that waited for keys.
    pub(super) fn replay_early(&mut self, now: Timestamp, sink: &mut dyn StreamSink) {
        for early in std::mem::take(&mut self.early) {
            let EarlyPacket {
                at,
                meta,
                mut bytes,
            } = early;
            self.waited_since = at;
            let long = bytes.first().is_some_and(|b| b & header::FORM_LONG != 0);
            if self.state.is_closed() {
                break;
            } else if long {
                let size = limits::MIN_UDP_PAYLOAD;
                self.handle_long(now, &meta, size, &mut bytes, sink);
            } else {
                self.handle_short(now, &meta, &mut bytes, sink);
            }
        }
        self.waited_since = Timestamp::NEVER;
    }

    /// Frames, acknowledgement state, address changes: everything after authentication. A packet is
    /// acknowledged once all of its frames were handled (RFC 9000 §13.1).
    #[inline]
    pub(super) fn handle_packet(
        &mut self,
        now: Timestamp,
        packet: &Packet<'_>,
        sink: &mut dyn StreamSink,
    ) -> Result<(), TransportError> {
        self.stats.packets_received += 1;
        self.watch.received(self.paths.current().id, packet);
        let seen = self.handle_frames(now, packet, sink)?;
        let path = self.paths.current_mut();
        path.last_received = now;
        let ecn = packet.meta.ecn;
        // RFC 9000 §13.2.5: the time that a packet waited for its keys is part of our delay.
        let arrived = self.waited_since.min(now);
        let newest = path.acks.largest().is_none_or(|l| packet.pn > l);
        match packet.ty {
            PacketType::OneRtt | PacketType::ZeroRtt => {
                path.acks
                    .on_packet(arrived, packet.pn, seen.ack_eliciting, ecn)
            }
            PacketType::Initial => match self.initial.as_deref_mut() {
                Some(s) => s
                    .acks
                    .on_packet(arrived, packet.pn, seen.ack_eliciting, ecn),
                None => false,
            },
            PacketType::Handshake => match self.handshake.as_deref_mut() {
                Some(s) => s
                    .acks
                    .on_packet(arrived, packet.pn, seen.ack_eliciting, ecn),
                None => false,
            },
        };
        self.timers.on_packet_received(now);
        if packet.ty == PacketType::OneRtt && newest {
            self.check_address(now, packet, seen.probing);
        }
        if !self.early.is_empty() && (self.handshake.is_some() || !self.state.is_handshaking()) {
            self.replay_early(now, sink);
        }
        Ok(())
    }
}

/// Removes header protection and decrypts, with the keys of the packet's version; gives the first
/// byte, packet number, header length and plaintext length.
fn open_handshake(
    side: Side,
    ids: &mut HandshakeIds,
    space: &HandshakeSpace,
    long: &Long,
    packet: &mut [u8],
) -> Option<(u8, u64, usize, usize)> {
    let keys = if long.version == ids.version.chosen {
        &space.keys
    } else {
        let dcid = ids.client_dcid();
        let may = long.ty == LongType::Initial;
        may.then(|| ids.version.other_keys(side, long.version, &dcid))??
    };
    let (key, pn_offset) = (&keys.remote, long.pn_offset);
    let head = unprotect(&*key.header, packet, pn_offset)?;
    let pn = packet_number::decode(head.pn, head.pn_len, next_expected(space.acks.largest()));
    let header_len = pn_offset + head.pn_len;
    let len = open(&*key.packet, 0, pn, packet, header_len).ok()?;
    Some((head.first, pn, header_len, len))
}

/// The packet number after the largest received.
#[inline]
pub(super) fn next_expected(largest: Option<u64>) -> u64 {
    largest.map_or(0, |pn| pn + 1)
}
