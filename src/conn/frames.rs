//! What each frame does: a dispatcher and one handler a frame.
//!
//! A frame that its packet type does not admit, or that breaks its rule, ends the connection with
//! the code that RFC 9000 names. Acknowledgements are `ack`'s business; stream frames go to
//! `crate::stream`.

use super::Connection;
use super::error::ConnectionError;
use super::input::Packet;
use crate::base::Timestamp;
use crate::path::PathId;
use crate::stream::StreamSink;
use crate::wire::frame::{ConnectionClose, Frame, NewConnectionId, PathFrame, Stream};
use crate::wire::{PacketType, Reader, Side, TransportError};

/// What a packet's frames were.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Some frame asks for an acknowledgement.
    pub(super) ack_eliciting: bool,
    /// All frames were probing frames (RFC 9000 §9.1).
    pub(super) probing: bool,
}

impl Connection {
    #[inline]
    pub(super) fn handle_frames(
        &mut self,
        now: Timestamp,
        packet: &Packet<'_>,
        sink: &mut dyn StreamSink,
    ) -> Result<Seen, TransportError> {
        // RFC 9000 §12.4.
        if packet.payload.is_empty() {
            return Err(TransportError::protocol_violation(
                "a packet without frames",
            ));
        }
        let mut seen = Seen {
            ack_eliciting: false,
            probing: true,
        };
        let mut r = Reader::new(packet.payload);
        loop {
            if packet.ty == PacketType::OneRtt {
                while let Some(stream) = Stream::next(&mut r)? {
                    (seen.ack_eliciting, seen.probing) = (true, false);
                    self.on_stream(&stream, sink)?;
                }
            }
            if r.is_empty() {
                break;
            }
            self.handle_other_frame(now, packet, &mut r, &mut seen, sink)?;
            if self.state.is_closed() {
                break;
            }
        }
        self.charge_glitches(now)?;
        Ok(seen)
    }

    /// Handles a frame, and DATAGRAM frames that follow one. Apart, for packets of bulk data hold
    /// STREAM frames alone and are not to pay for what others need.
    #[inline(never)]
    fn handle_other_frame(
        &mut self,
        now: Timestamp,
        packet: &Packet<'_>,
        r: &mut Reader<'_>,
        seen: &mut Seen,
        sink: &mut dyn StreamSink,
    ) -> Result<(), TransportError> {
        let frame = Frame::parse(r).map_err(|e| self.extensions.fault(e))?;
        if packet.ty != PacketType::OneRtt && !Frame::allowed_in(frame.ty(), packet.ty) {
            return Err(TransportError::protocol_violation(
                "a frame that this packet type does not admit",
            )
            .with_frame(frame.ty()));
        }
        seen.ack_eliciting |= frame.is_ack_eliciting();
        match frame {
            Frame::Stream(stream) => {
                seen.probing = false;
                self.on_stream(&stream, sink)
            }
            Frame::Datagram(first) => {
                seen.probing = false;
                self.on_datagrams(packet, first, r, sink)
            }
            frame => {
                seen.probing &= frame.is_probing();
                let ty = frame.ty();
                self.note_glitch(packet.ty, &frame);
                self.handle_frame(now, packet, frame)
                    .map_err(|e| e.with_frame(ty))
            }
        }
    }

    #[inline]
    fn on_stream(
        &mut self,
        stream: &Stream<'_>,
        sink: &mut dyn StreamSink,
    ) -> Result<(), TransportError> {
        self.streams
            .on_stream(stream, sink)
            .map_err(|e| e.with_frame(stream.ty()))
    }

    /// Keeps RFC 9000 §19.17.
    fn handle_frame(
        &mut self,
        now: Timestamp,
        packet: &Packet<'_>,
        frame: Frame<'_>,
    ) -> Result<(), TransportError> {
        match frame {
            Frame::Padding | Frame::Ping => Ok(()),
            Frame::Ack(ack) => match self.multipath.is_some() && packet.ty == PacketType::OneRtt {
                true => self.on_path_ack(now, packet, PathId::ZERO, &ack),
                false => self.on_ack(now, packet, &ack),
            },
            Frame::Crypto { offset, data } => self.on_crypto(now, packet.ty, offset, data),
            // Handled by the caller, which has the sink.
            Frame::Stream(_) => Ok(()),
            Frame::ResetStream(f) => self.streams.on_reset(&f),
            Frame::StopSending { id, code } => self.streams.on_stop_sending(id, code),
            Frame::MaxData(max) => {
                self.streams.on_max_data(max);
                Ok(())
            }
            Frame::MaxStreamData { id, max } => self.streams.on_max_stream_data(id, max),
            Frame::MaxStreams { dir, max } => {
                self.streams.on_max_streams(dir, max);
                Ok(())
            }
            Frame::DataBlocked(limit) => {
                self.streams.on_data_blocked(limit);
                Ok(())
            }
            Frame::StreamDataBlocked { id, limit } => {
                self.streams.on_stream_data_blocked(id, limit)
            }
            Frame::StreamsBlocked { dir, limit } => {
                self.streams.on_streams_blocked(dir, limit);
                Ok(())
            }
            Frame::NewToken(token) => self.on_new_token(token),
            Frame::NewConnectionId(new) => self.on_new_connection_id(now, packet, new),
            Frame::RetireConnectionId(seq) => self.on_retire_connection_id(now, packet, seq),
            Frame::PathChallenge(data) => {
                self.on_path_challenge(now, packet, data);
                Ok(())
            }
            Frame::PathResponse(data) => {
                self.on_path_response(now, data);
                Ok(())
            }
            // RFC 9000 §19.20.
            Frame::HandshakeDone => self.on_handshake_done(now),
            // Handled by the caller, which takes all that follow each other.
            Frame::Datagram(_) => Ok(()),
            Frame::AckFrequency(f) => self.on_ack_frequency(&f),
            Frame::ImmediateAck => self.on_immediate_ack(),
            Frame::PathAck { path, ack } => self.on_path_ack(now, packet, path, &ack),
            Frame::Path(f) => self.on_path_frame(now, packet.dcid, &f),
            Frame::Address(f) => self.on_address_frame(now, &f),
            Frame::ConnectionClose(close) => {
                self.on_close(now, &close);
                Ok(())
            }
        }
    }

    fn on_new_connection_id(
        &mut self,
        now: Timestamp,
        packet: &Packet<'_>,
        new: NewConnectionId,
    ) -> Result<(), TransportError> {
        if self.multipath.is_some() {
            // Multipath §3.2: it is about the first path.
            let path = PathId::ZERO;
            let frame = PathFrame::NewConnectionId { path, new };
            return self.on_path_frame(now, packet.dcid, &frame);
        }
        let remote = &mut self.paths.current_mut().remote_cids;
        remote.on_new(new.seq, new.retire_prior_to, new.cid, new.reset_token)
    }

    fn on_retire_connection_id(
        &mut self,
        now: Timestamp,
        packet: &Packet<'_>,
        seq: u64,
    ) -> Result<(), TransportError> {
        if self.multipath.is_some() {
            let path = PathId::ZERO;
            let frame = PathFrame::RetireConnectionId { path, seq };
            return self.on_path_frame(now, packet.dcid, &frame);
        }
        let used = crate::wire::ConnectionId::new(packet.dcid).unwrap_or_default();
        self.paths.current_mut().local_cids.on_retire(seq, &used)
    }

    /// Keeps RFC 9000 §19.20.
    fn on_handshake_done(&mut self, now: Timestamp) -> Result<(), TransportError> {
        if self.side == Side::Server {
            return Err(TransportError::protocol_violation(
                "a client sent HANDSHAKE_DONE",
            ));
        }
        if self.confirm_handshake() {
            self.begin_preferred(now);
        }
        Ok(())
    }

    fn on_close(&mut self, now: Timestamp, close: &ConnectionClose<'_>) {
        let why = match close.frame_type {
            Some(_) => ConnectionError::ClosedByPeer {
                code: close.error,
                reason: String::from_utf8_lossy(close.reason).into_owned(),
            },
            None => ConnectionError::ApplicationClosed {
                code: close.error.0,
                reason: close.reason.to_vec(),
            },
        };
        self.state.move_to_draining();
        self.events.push_closed(why);
        self.start_drain_timer(now);
    }
}
