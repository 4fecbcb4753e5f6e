//! Early data (RFC 9001 §4.6): 0-RTT packets sent by a client that resumes, opened by a server that
//! accepts them, and what becomes of them when it does not.
//!
//! 0-RTT shares the packet number space of 1-RTT, so an accepted packet is acknowledged, lost and
//! repaired like any other. A rejected one was never there: streams begin anew with the same IDs
//! and bytes, sent as 1-RTT under the limits that the handshake brought. Sessions and the rule
//! against replay are `crypto::early`'s.

use super::Connection;
use super::error::ConnectionError;
use super::events::Event;
use super::input::{Long, Packet, next_expected};
use super::space::SentFrame;
use super::state::CloseFrame;
use super::train::Admission;
use crate::base::{RecvMeta, Timestamp};
use crate::crypto::{Key, TAG_LEN, UsedKeys, early, open, seal, unprotect};
use crate::path::PathId;
use crate::stream::{self, StreamSink};
use crate::wire::error::Code;
use crate::wire::frame::Ack;
use crate::wire::header::{self, LongType};
use crate::wire::{PacketType, Side, TransportError, TransportParameters, Writer, packet_number};
use std::time::Duration;

/// What became of a connection's early data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyData {
    /// There is none: no session was resumed, or not with early data.
    #[default]
    None,
    /// A client may send it; the server has not answered yet.
    Offered,
    /// The server took it.
    Accepted,
    /// The server did not take it. All of it but datagrams is sent again as 1-RTT.
    Rejected,
}

/// A connection's part in early data.
#[derive(Debug, Default)]
pub(super) struct ZeroRtt {
    status: EarlyData,
    /// Whether TLS was asked.
    decided: bool,
    /// For sending at a client, for receiving at a server.
    key: Option<Box<Key>>,
    /// The parameters of the connection that is resumed, while a client relies on them.
    remembered: Option<Box<TransportParameters>>,
    /// When a server forgets its key.
    discard_at: Option<Timestamp>,
    /// Packet numbers below were rejected.
    rejected_below: u64,
}

impl ZeroRtt {
    /// Whether 0-RTT packets may be sent.
    /// Keeps RFC 9001 §5.6.
    #[inline]
    pub(super) fn can_send(&self) -> bool {
        self.status == EarlyData::Offered && self.key.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.discard_at
    }

    pub(super) fn on_timeout(&mut self, now: Timestamp) {
        if self.discard_at.is_some_and(|at| at <= now) {
            self.discard_at = None;
            self.key = None;
        }
    }

    /// RFC 9001 §4.9.3: a client has no use for the key once it has those of 1-RTT (RFC 9000
    /// §17.2.3); a server keeps it for packets that were reordered, for three PTO.
    /// Keeps RFC 9001 §5.6.
    pub(super) fn on_handshake_complete(&mut self, now: Timestamp, side: Side, pto: Duration) {
        match side {
            Side::Client => self.key = None,
            Side::Server => self.discard_at = self.key.is_some().then(|| now + pto * 3),
        }
    }

    /// RFC 9001 §4.6.2: an acknowledgement of a rejected packet is a violation.
    #[inline]
    pub(super) fn check_ack(&self, ack: &Ack<'_>) -> Result<(), TransportError> {
        if self.rejected_below == 0 {
            return Ok(());
        }
        let lowest = ack.ranges.last().map(|r| *r.start());
        if lowest.is_some_and(|pn| pn < self.rejected_below) {
            return Err(TransportError::protocol_violation(
                "ACK of a rejected 0-RTT packet",
            ));
        }
        Ok(())
    }
}

/// Of a server's parameters those that a later connection may go by (RFC 9000 §7.4.1).
fn remembered(p: TransportParameters) -> TransportParameters {
    let default = TransportParameters::default();
    TransportParameters {
        ack_delay_exponent: default.ack_delay_exponent,
        max_ack_delay: default.max_ack_delay,
        initial_source_connection_id: None,
        original_destination_connection_id: None,
        preferred_address: None,
        retry_source_connection_id: None,
        stateless_reset_token: None,
        version_information: None,
        grease_quic_bit: false,
        min_ack_delay: None,
        // Multipath §2.1.
        initial_max_path_id: None,
        advertise_addresses: false,
        ..p
    }
}

impl Connection {
    /// What became of the connection's early data.
    pub fn early_data(&self) -> EarlyData {
        self.zero_rtt.status
    }

    /// Asks TLS about early data, once it can tell: at a client as soon as it has written its
    /// ClientHello, at a server when it has read it and the parameters in it. RFC 9001 §5.6: only
    /// if the application's TLS configuration asks for it.
    /// Keeps RFC 9000 §7.4.1.
    pub(super) fn begin_zero_rtt(&mut self) {
        if std::mem::replace(&mut self.zero_rtt.decided, true) {
            return;
        }
        let Some(key) = self.session.zero_rtt_keys() else {
            return;
        };
        match self.side {
            Side::Client => {
                // rustls keeps the parameters with the session.
                let Some(params) = self
                    .session
                    .peer_params()
                    .and_then(|bytes| TransportParameters::decode(Side::Server, bytes).ok())
                else {
                    return;
                };
                let params = remembered(params);
                self.streams.set_peer_limits(&params);
                self.datagrams.set_peer_max(params.max_datagram_frame_size);
                self.zero_rtt.remembered = Some(Box::new(params));
                self.zero_rtt.status = EarlyData::Offered;
            }
            Side::Server => {
                self.streams.begin_early();
                self.zero_rtt.status = EarlyData::Accepted;
            }
        }
        self.zero_rtt.key = Some(Box::new(key));
        self.events.push(Event::EarlyData);
    }

    /// Takes the limits of the server's parameters, which tell a client the fate of its early data.
    pub(super) fn set_peer_limits(
        &mut self,
        now: Timestamp,
        params: &TransportParameters,
    ) -> Result<(), TransportError> {
        self.datagrams.set_peer_max(params.max_datagram_frame_size);
        if self.zero_rtt.status != EarlyData::Offered {
            self.streams.set_peer_limits(params);
            return Ok(());
        }
        let remembered = self.zero_rtt.remembered.take();
        if !self.session.early_data_accepted() {
            self.on_rejected(now, params);
            return Ok(());
        }
        // RFC 9000 §7.4.1
        if remembered.is_some_and(|old| early::is_reduced(&old, params)) {
            return Err(TransportError::protocol_violation(
                "early data was accepted and a limit lowered",
            ));
        }
        self.zero_rtt.status = EarlyData::Accepted;
        self.streams.set_peer_limits(params);
        Ok(())
    }

    /// RFC 9001 §4.6.2: what was sent early counts for nothing.
    fn on_rejected(&mut self, now: Timestamp, params: &TransportParameters) {
        self.zero_rtt.status = EarlyData::Rejected;
        self.events.push(Event::EarlyDataRejected);
        if !self.streams.restart(params) {
            // More streams were opened early than the server permits now: they can neither be sent
            // nor taken back.
            let frame = CloseFrame {
                code: Code::APPLICATION_ERROR,
                frame_type: Some(0),
                reason: b"early data was rejected and does not fit".to_vec(),
            };
            if self.state.move_to_closing(frame) {
                self.events.push_closed(ConnectionError::EarlyDataRejected);
                self.start_drain_timer(now);
            }
            return;
        }
        self.forget_sent(|frame| match frame {
            // The streams themselves have forgotten their data.
            SentFrame::Stream(stream::SentFrame::Stream { .. }) => None,
            other => Some(other),
        });
        self.zero_rtt.rejected_below = self.paths.current().sent.next_packet_number();
    }

    /// RFC 9000 §17.2.5.3: what went to the server before its Retry was dropped there; it is sent
    /// again under new numbers.
    /// Keeps RFC 9000 §17.2.3.
    pub(super) fn resend_early(&mut self) {
        if self.zero_rtt.can_send() {
            self.forget_sent(Some);
        }
    }

    /// The client begins again in another version: no early data goes with that (RFC 9369 §5), and
    /// what was sent waits to be told rejected.
    pub(super) fn withdraw_early(&mut self) {
        if self.zero_rtt.can_send() {
            self.forget_sent(Some);
            self.zero_rtt.key = None;
        }
    }

    /// Takes every packet of the 1-RTT space out of flight and sends again what `pick` leaves.
    fn forget_sent(&mut self, pick: impl Fn(SentFrame) -> Option<SentFrame>) {
        let mut again = std::mem::take(&mut self.scratch);
        again.clear();
        let path = self.paths.current_mut();
        let bytes = path
            .sent
            .discard(|_, _, frames| again.extend(frames.iter().copied().filter_map(&pick)));
        path.bytes_in_flight = path.bytes_in_flight.saturating_sub(bytes);
        for frame in again.drain(..) {
            self.send_again(frame);
        }
        self.scratch = again;
    }

    /// Bytes of a 0-RTT packet's header.
    pub(super) fn zero_rtt_header(&self) -> usize {
        let remote = self.paths.current().remote_cids.active().len();
        header::long_size(LongType::ZeroRtt, remote, self.ids.local_scid.len(), 0) + 4
    }

    /// Writes, seals and records one 0-RTT packet that fills `buf` at most and is padded to
    /// `min_len` bytes. Returns its length; 0 when there was nothing to put into it.
    ///
    /// RFC 9001 §6.6: the AEAD's limit is out of reach, for nothing is acknowledged and the
    /// congestion window ends what is sent.
    pub(super) fn zero_rtt_packet(
        &mut self,
        now: Timestamp,
        buf: &mut [u8],
        min_len: usize,
        admission: Admission,
    ) -> usize {
        // Room for a short frame, or the packet is not worth its header.
        let least = self.zero_rtt_header() + 32 + TAG_LEN;
        // RFC 9000 §12.5: no acknowledgement goes into such a packet. What the handshake has yet to
        // send must find room in the window, for until it is done nothing of this is acknowledged.
        let path = self.paths.current();
        let reserve = (2 * path.mtu.current()) as u64;
        let barred = match admission {
            Admission::None | Admission::AckOnly => true,
            Admission::Full => path.window_room() < reserve,
            Admission::Probe => false,
        };
        if barred || buf.len() < least || self.paths.current().is_full() {
            return 0;
        }
        let room = buf.len() - TAG_LEN;
        let mut w = Writer::new(&mut buf[..room]);
        let path = self.paths.current_mut();
        let pn = path.next_packet_number(&mut self.rng);
        let pn_len = packet_number::encode_len(pn, path.sent.largest_acked());
        let (ty, remote) = (LongType::ZeroRtt, path.remote_cids.active());
        let scid = &self.ids.local_scid;
        // RFC 9369 §4.1: early data keeps the version of the first flight.
        let version = self.ids.version.original.number();
        let offsets = header::write_long(&mut w, ty, version, &remote, scid, &[], pn_len);
        packet_number::write(&mut w, pn, pn_len);
        let header_len = w.position();
        self.scratch.clear();
        // A client that has received nothing in this space owes none of the frames that RFC 9000
        // §12.5 bars from it.
        self.write_frames(now, &mut w, admission);
        if w.position() == header_len {
            return 0;
        }
        // RFC 9001 §5.4.2: the sample starts four bytes after the packet number's first.
        let target = min_len.saturating_sub(TAG_LEN);
        let target = target.max(offsets.packet_number + 4).min(room);
        let padded = w.position() < target;
        if padded {
            w.zeros(target - w.position());
        }
        let len = w.position() + TAG_LEN;
        offsets.patch_length(&mut w, len);
        let Some(key) = self.zero_rtt.key.as_deref() else {
            return 0;
        };
        let (packet, at) = (&mut buf[..len], offsets.packet_number);
        self.watch
            .sent(PathId::ZERO, (PacketType::ZeroRtt, pn), packet, at + pn_len);
        self.nonces.on_seal(0, pn);
        if seal(key, 0, pn, packet, at, pn_len).is_err() {
            return 0;
        }
        self.stats.zero_rtt_packets_sent += 1;
        self.record_one_rtt(now, len, true, padded, false);
        len
    }

    /// Handles a 0-RTT packet. A client drops it (RFC 9001 §5.6); a server without a key does,
    /// which it has only for early data that it accepts. What acknowledges it is a 1-RTT packet
    /// (RFC 9000 §13.2.6). Frames that it cannot have are a violation, CRYPTO too (RFC 9001 §8.3).
    pub(super) fn open_zero_rtt(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        long: Long,
        packet: &mut [u8],
        sink: &mut dyn StreamSink,
    ) -> Result<(), TransportError> {
        let Some(key) = self
            .zero_rtt
            .key
            .as_deref()
            .filter(|_| self.side == Side::Server)
        else {
            // The ClientHello may come yet.
            if self.side == Side::Server && !self.zero_rtt.decided {
                self.keep_early(now, meta, packet);
            } else {
                self.stats.packets_dropped += 1;
            }
            return Ok(());
        };
        let largest = self.paths.current().acks.largest();
        let opened = unprotect(&*key.header, packet, long.pn_offset).and_then(|head| {
            let pn = packet_number::decode(head.pn, head.pn_len, next_expected(largest));
            let header_len = long.pn_offset + head.pn_len;
            let len = open(&*key.packet, 0, pn, packet, header_len).ok()?;
            Some((head.first, pn, header_len, len))
        });
        let Some((first, pn, header_len, len)) = opened else {
            self.stats.packets_undecryptable += 1;
            if let Some(keys) = self.one_rtt.as_deref_mut() {
                keys.add_failures(1)?;
            }
            return Ok(());
        };
        if self.paths.current_mut().acks.is_duplicate(pn) {
            self.stats.packets_duplicate += 1;
            return Ok(());
        }
        if self.ids.remote_scid != Some(long.scid) {
            self.stats.packets_dropped += 1;
            return Ok(());
        }
        if first & header::RESERVED_LONG != 0 {
            return Err(TransportError::protocol_violation("reserved bits are set"));
        }
        let Some(payload) = packet.get(header_len..header_len + len) else {
            return Ok(());
        };
        self.stats.zero_rtt_packets_received += 1;
        let packet = Packet {
            ty: PacketType::ZeroRtt,
            pn,
            dcid: long.dcid.as_slice(),
            payload,
            size: header_len + len + TAG_LEN,
            meta,
            used: UsedKeys::Current,
        };
        self.handle_packet(now, &packet, sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::PathId;
    use crate::wire::ConnectionId;
    use crate::wire::tparams::PreferredAddress;

    /// RFC 9000 §7.4.1: what belongs to one connection is not remembered, the rest is.
    #[test]
    fn what_belongs_to_one_connection_is_not_remembered() {
        let cid = ConnectionId::new(&[1; 8]).unwrap();
        let reset_token = [2; 16];
        let kept = TransportParameters {
            max_idle_timeout: Duration::from_secs(9),
            max_udp_payload_size: 1300,
            initial_max_data: 1,
            initial_max_stream_data_bidi_local: 2,
            initial_max_stream_data_bidi_remote: 3,
            initial_max_stream_data_uni: 4,
            initial_max_streams_bidi: 5,
            initial_max_streams_uni: 6,
            disable_active_migration: true,
            active_connection_id_limit: 7,
            max_datagram_frame_size: 8,
            ..TransportParameters::default()
        };
        let all = TransportParameters {
            ack_delay_exponent: 10,
            max_ack_delay: Duration::from_millis(100),
            initial_source_connection_id: Some(cid),
            original_destination_connection_id: Some(cid),
            retry_source_connection_id: Some(cid),
            stateless_reset_token: Some(reset_token),
            preferred_address: Some(PreferredAddress {
                v4: None,
                v6: None,
                cid,
                reset_token,
            }),
            initial_max_path_id: Some(PathId(3)),
            advertise_addresses: true,
            ..kept.clone()
        };
        assert_eq!(remembered(all), kept);
    }
}
