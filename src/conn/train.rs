//! What leaves: trains of equal datagrams, and the packet that fills each.
//!
//! A train's datagrams all have the size of its first; only the last may be shorter, for that is
//! what UDP_SEGMENT can send. A train goes to one address with one ECN mark. The handshake's
//! coalesced datagrams are `build`'s business and go alone.

use super::blocks;
use super::probing::is_probing;
use super::space::SentFrame;
use super::state::State;
use super::{Connection, Load};
use crate::base::{Timestamp, Transmit, limits};
use crate::crypto::{OneRttKeys, TAG_LEN};
use crate::path::{Path, PathState};
use crate::recovery::SentPacket;
use crate::wire::frame;
use crate::wire::{ConnectionId, PacketType, Writer, header, packet_number};
use bytes::Bytes;

/// What a datagram may hold, given congestion window, pacing and probes owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Anything.
    Full,
    /// Acknowledgements and what else is not in flight.
    AckOnly,
    /// Anything, whatever the window says: a probe after a timeout (RFC 9002 §7.5), or a challenge
    /// or the answer to one, on which everything else of its address waits.
    Probe,
    /// Nothing: the anti-amplification limit is reached.
    None,
}

/// A train as far as it is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Train {
    /// Bytes.
    pub(super) len: usize,
    /// Datagrams.
    pub(super) count: usize,
    /// What the next datagram may have at most: once there is a first, its size.
    pub(super) size: usize,
    /// A datagram was shorter, or there was none: nothing may follow.
    pub(super) ended: bool,
}

impl Train {
    pub(super) const fn new(size: usize) -> Self {
        Self {
            len: 0,
            count: 0,
            size,
            ended: false,
        }
    }

    /// Adds a datagram of `n` bytes; of none, the train ends. The first, which may be a little
    /// short (of DATAGRAM frames of one length, say), sets the size of all.
    #[inline]
    pub(super) fn add(&mut self, n: usize) {
        if n == 0 {
            self.ended = true;
            return;
        }
        self.len += n;
        self.count += 1;
        if self.count == 1 {
            self.size = n;
        }
        self.ended = n < self.size;
    }
}

/// Where a short header's packet number is, and which it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShortHeader {
    pn: u64,
    pn_len: usize,
    pn_offset: usize,
}

impl ShortHeader {
    /// The packet's number.
    pub(super) const fn packet_number(&self) -> u64 {
        self.pn
    }

    /// The least length of a packet without its tag: the sample for header protection starts four
    /// bytes after the packet number's first (RFC 9001 §5.4.2).
    #[inline]
    pub(super) const fn least(&self) -> usize {
        self.pn_offset + 4
    }
}

/// Frames in a packet from which on it leaves without waiting for others.
const MESSAGES_ALONE: usize = 8;

/// Bytes that a 1-RTT packet needs for its header, tag and the smallest useful frame.
pub(super) const MIN_PACKET: usize = 1 + limits::MAX_CID_LEN + 4 + TAG_LEN + 8;

impl Connection {
    /// Builds the next train into `buf`, which should hold [`limits::MAX_TRAIN_BYTES`]. `None` when
    /// nothing is to be sent for now.
    ///
    /// Call it until `None`; what it returned has been counted as sent at `now`.
    pub fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        self.watch.at(now);
        if let State::Closing { .. } = self.state {
            self.take_best_path();
            return self.poll_close(now, buf);
        }
        if self.state.is_closed() {
            return None;
        }
        if self.chooses_path {
            return self.poll_paths(now, buf);
        }
        if self.has_probe_to_send()
            && let Some(transmit) = self.poll_probe(now, buf)
        {
            return Some(transmit);
        }
        let path = self.paths.current_mut();
        path.mark = path.ecn.mark();
        let (len, segment_size) = if self.initial.is_some() || self.handshake.is_some() {
            let n = self.handshake_datagram(now, buf);
            (n, n)
        } else {
            match self.mtu_probe(now, buf) {
                0 => self.one_rtt_train(now, buf),
                n => (n, n),
            }
        };
        if len == 0 {
            if !self.streams.wants_to_send() && !self.datagrams.wants_to_send() {
                let path = self.paths.current_mut();
                path.cc.on_out_of_data(now);
                path.window_limited = false;
            }
            return None;
        }
        Some(self.transmit(len, segment_size))
    }

    /// Counts a train as sent and addresses it.
    pub(super) fn transmit(&mut self, len: usize, segment_size: usize) -> Transmit {
        self.stats.udp_datagrams_sent += len.div_ceil(segment_size) as u64;
        self.stats.udp_bytes_sent += len as u64;
        let path = self.paths.current_mut();
        path.validation.on_sent(len);
        path.counters.bytes_sent += len as u64;
        Transmit {
            socket: path.socket,
            path: path.tuple,
            ecn: path.mark,
            segment_size,
            len,
        }
    }

    fn one_rtt_train(&mut self, now: Timestamp, buf: &mut [u8]) -> (usize, usize) {
        if !self.has_one_rtt_to_send() {
            return (0, 0);
        }
        let mtu = self.train_size(buf.len());
        let mut train = Train::new(mtu);
        while train.count < limits::MAX_TRAIN_SEGMENTS
            && (train.count == 0 || self.has_one_rtt_to_send())
        {
            let (len, size) = (train.len, train.size);
            // The kernel takes less in a train than in a single datagram.
            if train.count > 0 && len + size > limits::MAX_TRAIN_BYTES {
                break;
            }
            let Some(room) = buf.get_mut(len..len + size) else {
                break;
            };
            let admission = self.admit(now, len, size);
            let n = self.one_rtt_packet(now, room, 0, admission);
            train.add(n);
            // A very short first datagram is an acknowledgement, and goes alone.
            if train.ended || train.size < mtu / 2 {
                break;
            }
            // So does one of many small messages: the peer has work as soon as it has them, and one
            // train for all would have both sides work in turns.
            if self.scratch.len() >= MESSAGES_ALONE {
                break;
            }
            if train.count == 1 {
                self.extend_with_streams(now, buf, &mut train);
                if train.ended {
                    break;
                }
            }
        }
        (train.len, train.size)
    }

    /// The size of the datagrams to build now: the path's, or what an unproven address may get, so
    /// that a challenge goes out even where a full datagram may not (RFC 9000 §8.2.1).
    #[inline]
    pub(super) fn datagram_size(&self, buf: usize) -> usize {
        let path = self.paths.current();
        path.mtu.current().min(buf).min(path.allowance())
    }

    /// The size of a train's datagrams. A DATAGRAM frame may need the last byte that there is.
    #[inline]
    fn train_size(&self, buf: usize) -> usize {
        let size = self.datagram_size(buf);
        if self.datagrams.wants_to_send() {
            return size;
        }
        let dcid_len = self.paths.current().remote_cids.active_len();
        blocks::datagram_size(size, 1 + dcid_len)
    }

    /// The least that the anti-amplification limit must admit for a datagram to be worth building
    /// (RFC 9000 §14.1).
    pub(super) fn least_datagram(&self) -> u64 {
        if self.initial.is_some() {
            limits::MIN_UDP_PAYLOAD as u64
        } else {
            MIN_PACKET as u64
        }
    }

    /// Whether anything at all waits for a 1-RTT packet.
    /// Keeps RFC 9000 §8.2.2.
    #[inline]
    pub(super) fn has_one_rtt_to_send(&self) -> bool {
        let any = match self.load {
            Load::All => self.connection_wants_to_send(),
            Load::Control => self.path_control_waits(),
            Load::Pinned => self.pinned_wait(),
            Load::Own => false,
        };
        any || self.path_wants_to_send(self.paths.current())
    }

    /// Whether something waits that goes by any path.
    #[inline]
    pub(super) fn connection_wants_to_send(&self) -> bool {
        self.streams.wants_to_send()
            || self.datagrams.wants_to_send()
            || self.pending.handshake_done
            || self.one_rtt_crypto.wants_to_send()
            || self.new_tokens.wants_to_send()
            || self.ack_request_waits()
            || self.path_control_waits()
    }

    /// Whether something waits that goes by this path alone.
    #[inline]
    pub(super) fn path_wants_to_send(&self, path: &Path<SentFrame>) -> bool {
        (path.acks.should_ack_now() && !path.acks_away)
            || path.owed_probes > 0
            || path.ping
            || path.validation.wants_to_send()
            || (self.multipath.is_none()
                && (path.local_cids.wants_to_send() || path.remote_cids.wants_to_send()))
            || is_probing(path)
    }

    /// What a datagram of `size` bytes may hold after `before` bytes of the same train.
    #[inline]
    pub(super) fn admit(&mut self, now: Timestamp, before: usize, size: usize) -> Admission {
        let path = self.paths.current_mut();
        if path.validation.allowance() < (before + size) as u64 {
            return Admission::None;
        }
        // An answer to a challenge must not wait either: what is in flight may all be lost with the
        // address before, and the peer that asks has nothing else to go by.
        if path.owed_probes > 0 || path.validation.wants_to_send() {
            return Admission::Probe;
        }
        // RFC 9002 §7: no more in flight than the window.
        if path.window_room() < size as u64 {
            path.window_limited = true;
            return Admission::AckOnly;
        }
        if before == 0 {
            path.paced_until = None;
            path.paced = path.pacing_budget(now);
        }
        if path.paced < (before + size) as u64 {
            if before == 0 {
                path.paced_until = path.pacing_release();
            }
            return Admission::AckOnly;
        }
        Admission::Full
    }

    /// Writes, seals and records one 1-RTT packet that fills `buf` at most and is padded to
    /// `min_len` bytes. Returns its length; 0 when there was nothing to put into it.
    pub(super) fn one_rtt_packet(
        &mut self,
        now: Timestamp,
        buf: &mut [u8],
        min_len: usize,
        admission: Admission,
    ) -> usize {
        if buf.len() < MIN_PACKET || admission == Admission::None {
            return 0;
        }
        let room = buf.len() - TAG_LEN;
        let mut tail = Bytes::new();
        let mut w = self.writer(&mut buf[..room], &mut tail);
        let dcid = self.paths.current().remote_cids.active();
        let Some(head) = self.begin_one_rtt(now, &mut w, dcid) else {
            return 0;
        };
        let header_len = w.position();
        self.scratch.clear();
        let must_fill = self.write_frames(now, &mut w, admission);
        if w.position() == header_len {
            return 0;
        }
        let mut least = min_len;
        if must_fill {
            least = least.max(limits::MIN_UDP_PAYLOAD);
        }
        let target = least.saturating_sub(TAG_LEN).max(head.least());
        let target = target.min(room);
        let padded = w.position() < target;
        if padded {
            w.zeros(target - w.position());
        }
        let len = w.position() + TAG_LEN;
        if self.load == Load::All && self.wants_copies() {
            self.capture(now, head.pn, &buf[header_len..len - TAG_LEN], len);
        }
        self.finish_one_rtt(now, &mut buf[..len], head, padded, false, &tail)
    }

    /// A writer for a packet that ends with `tail`, or holds everything itself: where the keys seal
    /// in place only, and where somebody watches, who sees packets before they are sealed.
    #[inline]
    pub(super) fn writer<'a>(&self, packet: &'a mut [u8], tail: &'a mut Bytes) -> Writer<'a> {
        let takes_tail = |keys: &OneRttKeys| keys.takes_tail() && !self.watch.is_watching();
        match self.one_rtt.as_deref().is_some_and(takes_tail) {
            true => Writer::with_tail(packet, tail),
            false => Writer::new(packet),
        }
    }

    /// Writes the header of the next 1-RTT packet. `None` when there are no keys, no room to
    /// remember the packet, or no more packets that the keys may protect.
    /// Keeps RFC 9000 §17.4.
    pub(super) fn begin_one_rtt(
        &mut self,
        now: Timestamp,
        w: &mut Writer<'_>,
        dcid: ConnectionId,
    ) -> Option<ShortHeader> {
        let keys = self.one_rtt.as_deref_mut()?;
        let path = self.paths.current_mut();
        if !path.remembers() {
            return None;
        }
        // The reserve behind the AEAD's limit is for the close alone.
        let phase = match keys.begin_packet() {
            Ok(phase) => phase != 0,
            Err(e) => {
                self.fail(now, e);
                return None;
            }
        };
        self.stats.key_updates = keys.updates();
        let pn = path.next_packet_number(&mut self.rng);
        let least = packet_number::encode_len(pn, path.sent.largest_acked());
        let room = w.remaining().saturating_sub(1 + dcid.len());
        let pn_len = blocks::packet_number_len(least, room);
        let pn_offset = header::write_short(w, &dcid, path.spin.value(), phase, pn_len);
        packet_number::write(w, pn, pn_len);
        Some(ShortHeader {
            pn,
            pn_len,
            pn_offset,
        })
    }

    /// A packet for an address that is not in use, filled up with PADDING. It is known to loss
    /// recovery by its number alone: it has no size, and its fate means nothing (RFC 9000 §9.4).
    pub(super) fn probe_packet(
        &mut self,
        now: Timestamp,
        buf: &mut [u8],
        dcid: ConnectionId,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> usize {
        let room = buf.len() - TAG_LEN;
        let mut w = Writer::new(&mut buf[..room]);
        let Some(head) = self.begin_one_rtt(now, &mut w, dcid) else {
            return 0;
        };
        write(&mut w);
        w.zeros(w.remaining());
        let path = self.paths.current_mut();
        let Some(keys) = self.one_rtt.as_deref_mut() else {
            return 0;
        };
        self.fixed_bit.apply(buf, &mut self.rng);
        let payload_at = head.pn_offset + head.pn_len;
        self.watch
            .sent(path.id, (PacketType::OneRtt, head.pn), buf, payload_at);
        self.nonces.on_seal(path.id.0, head.pn);
        let sealed = keys.seal(path.id.0, head.pn, buf, head.pn_offset, head.pn_len);
        if sealed.is_err() {
            return 0;
        }
        path.sent.on_packet_sent(SentPacket::untracked(now), &[]);
        self.stats.packets_sent += 1;
        buf.len()
    }

    /// Seals a packet, whose frames are in `scratch`, and enters it into loss recovery. Returns its
    /// length. Its last bytes are `tail`, for which it has the room.
    pub(super) fn finish_one_rtt(
        &mut self,
        now: Timestamp,
        packet: &mut [u8],
        head: ShortHeader,
        padded: bool,
        mtu_probe: bool,
        tail: &[u8],
    ) -> usize {
        let len = packet.len();
        let path = self.paths.current_mut();
        let Some(keys) = self.one_rtt.as_deref_mut() else {
            return 0;
        };
        let ShortHeader {
            pn,
            pn_len,
            pn_offset,
        } = head;
        self.fixed_bit.apply(packet, &mut self.rng);
        let payload_at = pn_offset + pn_len;
        self.watch
            .sent(path.id, (PacketType::OneRtt, pn), packet, payload_at);
        let at = (pn_offset, pn_len);
        self.nonces.on_seal(path.id.0, pn);
        let sealed = keys.seal_with_tail(path.id.0, pn, packet, at, tail);
        if sealed.is_err() {
            return 0;
        }
        let ack_eliciting = self.scratch.iter().any(|f| !f.is_ack());
        self.record_one_rtt(now, len, ack_eliciting, padded, mtu_probe);
        len
    }

    /// Enters the packet whose frames are in `scratch` into loss recovery.
    pub(super) fn record_one_rtt(
        &mut self,
        now: Timestamp,
        len: usize,
        ack_eliciting: bool,
        padded: bool,
        mtu_probe: bool,
    ) {
        let path = self.paths.current_mut();
        let in_flight = ack_eliciting || padded;
        let packet = SentPacket {
            time_sent: now,
            size: len as u16,
            ack_eliciting,
            in_flight,
            mtu_probe,
            app_limited: !path.window_limited,
            spare: false,
            ecn: path.mark,
        };
        path.ecn.on_sent(2, 1, path.mark);
        path.sent.on_packet_sent(packet, &self.scratch);
        if in_flight {
            // RFC 9002 §7.5: probes count like any other packet.
            path.cc
                .on_packet_sent(now, len as u64, path.bytes_in_flight);
            path.bytes_in_flight += len as u64;
            path.pacer.on_sent(len as u64);
        }
        self.stats.packets_sent += 1;
        if ack_eliciting {
            path.owed_probes = path.owed_probes.saturating_sub(1);
            path.acks.on_elicited();
            self.timers.on_ack_eliciting_sent(now);
        }
    }

    /// A datagram that probes a larger size (RFC 8899 §4.1), when one is due and the window is not
    /// full.
    fn mtu_probe(&mut self, now: Timestamp, buf: &mut [u8]) -> usize {
        let path = self.paths.current_mut();
        if !self.state.is_confirmed()
            || path.owed_probes > 0
            || !path.validation.is_validated()
            || path.state != PathState::Open
        {
            return 0;
        }
        let Some(size) = path.mtu.poll_probe(now) else {
            return 0;
        };
        if size > buf.len() {
            path.mtu.on_too_large(size);
            return 0;
        }
        // A probe that is lost stays in flight for a while: data must still fit beside it.
        let needed = size + 2 * path.mtu.current();
        if path.window_room() < needed as u64 {
            path.mtu.cancel_probe();
            return 0;
        }
        let len = self.lone_packet(now, &mut buf[..size], true, frame::write_ping);
        if len == 0 {
            self.paths.current_mut().mtu.cancel_probe();
        }
        len
    }

    /// A packet that fills `buf` with one unreliable frame and PADDING. Returns its length; 0 when
    /// there may be none.
    pub(super) fn lone_packet(
        &mut self,
        now: Timestamp,
        buf: &mut [u8],
        mtu_probe: bool,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> usize {
        if buf.len() < MIN_PACKET {
            return 0;
        }
        let room = buf.len() - TAG_LEN;
        let mut w = Writer::new(&mut buf[..room]);
        let dcid = self.paths.current().remote_cids.active();
        let Some(head) = self.begin_one_rtt(now, &mut w, dcid) else {
            return 0;
        };
        write(&mut w);
        w.zeros(w.remaining());
        self.scratch.clear();
        self.scratch.push(SentFrame::Unreliable);
        self.finish_one_rtt(now, buf, head, true, mtu_probe, &[])
    }
}
