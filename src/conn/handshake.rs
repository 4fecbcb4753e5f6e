//! The handshake's course: CRYPTO bytes to and from TLS, keys installed and discarded, transport
//! parameters checked and applied, Retry as a client sees it. Versions are `version`'s business.

use super::Connection;
use super::events::Event;
use super::params::PeerParams;
use super::space::HandshakeSpace;
use super::version::Negotiation;
use crate::base::{RecvMeta, Timestamp};
use crate::crypto::{KeyChange, OneRttKeys, initial_keys, retry};
use crate::wire::{
    ConnectionId, Extensions, PacketType, Side, TransportError, TransportParameters, Version,
};

/// The level that TLS writes at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Initial,
    Handshake,
    OneRtt,
}

/// The connection IDs that the handshake authenticates (RFC 9000 §7.3), and where TLS stands.
#[derive(Debug)]
pub(crate) struct HandshakeIds {
    /// The first connection ID of ours.
    pub(crate) local_scid: ConnectionId,
    /// The destination of the client's very first packet.
    pub(crate) original_dcid: ConnectionId,
    /// The peer's first source connection ID, once a packet authenticated.
    pub(crate) remote_scid: Option<ConnectionId>,
    /// The source connection ID of a Retry.
    pub(crate) retry_scid: Option<Box<ConnectionId>>,
    /// The token that a client's Initial packets carry.
    pub(crate) token: Vec<u8>,
    /// Which versions the packets have.
    pub(crate) version: Negotiation,
    level: Level,
    params_applied: bool,
    /// TLS completed, whatever became of the connection since.
    pub(crate) completed: bool,
}

impl HandshakeIds {
    pub(crate) fn new(
        local_scid: ConnectionId,
        original_dcid: ConnectionId,
        remote_scid: Option<ConnectionId>,
        retry_scid: Option<ConnectionId>,
        version: Negotiation,
    ) -> Self {
        Self {
            local_scid,
            original_dcid,
            remote_scid,
            retry_scid: retry_scid.map(Box::new),
            token: Vec::new(),
            version,
            level: Level::Initial,
            params_applied: false,
            completed: false,
        }
    }

    /// Whether the peer's transport parameters are known.
    pub(crate) fn params_applied(&self) -> bool {
        self.params_applied
    }

    /// Where the first packet of ours goes.
    pub(crate) fn first_remote(&self) -> ConnectionId {
        self.remote_scid.unwrap_or(self.original_dcid)
    }

    /// The destination that a client's Initial packets carry until it learns ours.
    pub(crate) fn client_dcid(&self) -> ConnectionId {
        self.retry_scid
            .as_deref()
            .copied()
            .unwrap_or(self.original_dcid)
    }
}

impl Connection {
    /// Starts TLS. A client's first flight waits for `poll_transmit` afterwards.
    pub(crate) fn start(&mut self, now: Timestamp) {
        if let Err(e) = self.drive_tls(now) {
            self.fail(now, e);
        }
    }

    pub(super) fn on_crypto(
        &mut self,
        now: Timestamp,
        ty: PacketType,
        offset: u64,
        data: &[u8],
    ) -> Result<(), TransportError> {
        let reading = match (self.session.is_handshaking(), self.handshake.is_some()) {
            (true, false) => Level::Initial,
            (true, true) => Level::Handshake,
            (false, _) => Level::OneRtt,
        };
        let (stream, level) = match ty {
            PacketType::Initial => (self.initial.as_mut().map(|s| &mut s.crypto), Level::Initial),
            PacketType::Handshake => (
                self.handshake.as_mut().map(|s| &mut s.crypto),
                Level::Handshake,
            ),
            _ => (Some(&mut self.one_rtt_crypto), Level::OneRtt),
        };
        let Some(stream) = stream else { return Ok(()) };
        let before = stream.received();
        let session = &mut self.session;
        let version = &mut self.ids.version;
        if self.side == Side::Client && ty == PacketType::Initial {
            // RFC 9369 §4.1: the version of the server's first CRYPTO frame is the connection's.
            if !version.is_settled() {
                version.settle();
                session.stay();
            }
        }
        let reading_hello = version.is_reading_hello();
        // What a server sends after the handshake are session tickets.
        let drop_tickets =
            self.side == Side::Client && level == Level::OneRtt && !version.keeps_tickets();
        stream.recv(offset, data, |bytes| {
            // RFC 9001 §4.1.3: bytes of a level that TLS has left behind are a violation; those
            // of a level ahead cannot be here, for they had no keys.
            if level != reading {
                return Err(TransportError::protocol_violation(
                    "CRYPTO data at the wrong level",
                ));
            }
            if reading_hello {
                version.collect(bytes);
                return Ok(());
            }
            if drop_tickets {
                return Ok(());
            }
            session.read_crypto(bytes)
        })?;
        if stream.received() != before {
            if reading_hello {
                self.read_hello()?;
            }
            self.drive_tls(now)?;
        }
        Ok(())
    }

    /// Takes from TLS what it has: bytes to send, keys, parameters, completion.
    /// Keeps RFC 9000 §7.4.1.
    fn drive_tls(&mut self, now: Timestamp) -> Result<(), TransportError> {
        let mut out = Vec::new();
        loop {
            out.clear();
            let change = self.session.write_crypto(&mut out);
            let stream = match self.ids.level {
                Level::Initial => self.initial.as_mut().map(|s| &mut s.crypto),
                Level::Handshake => self.handshake.as_mut().map(|s| &mut s.crypto),
                Level::OneRtt => Some(&mut self.one_rtt_crypto),
            };
            if let Some(stream) = stream {
                stream.send(&out);
            }
            match change {
                Some(KeyChange::Handshake(keys)) => {
                    self.handshake = Some(Box::new(HandshakeSpace::new(keys)));
                    self.ids.level = Level::Handshake;
                }
                Some(KeyChange::OneRtt(keys, next)) => {
                    let mut keys = OneRttKeys::new(keys, next);
                    // RFC 9001 §6.6: the integrity limit counts failures across all keys.
                    keys.add_failures(self.stats.packets_undecryptable)?;
                    if let Some(packets) = self.config.key_update_packets {
                        keys.set_update_after(packets);
                    }
                    self.one_rtt = Some(Box::new(keys));
                    self.ids.level = Level::OneRtt;
                }
                None if out.is_empty() => break,
                None => {}
            }
        }
        // A client that resumes has the last connection's parameters at hand until it has read the
        // server's; a server reads the client's before it has keys for its answer.
        let theirs = match self.side {
            Side::Client => self.ids.level == Level::OneRtt,
            Side::Server => self.ids.level != Level::Initial,
        };
        if theirs && !self.ids.params_applied {
            self.take_peer_params(now)?;
        }
        if self.side == Side::Client || theirs {
            self.begin_zero_rtt();
        }
        if self.state.is_handshaking() && !self.session.is_handshaking() && self.one_rtt.is_some() {
            self.complete_handshake(now);
        }
        Ok(())
    }

    /// TLS is done; a server says so with HANDSHAKE_DONE, not before (RFC 9000 §19.20).
    fn complete_handshake(&mut self, now: Timestamp) {
        self.state.move_to_complete();
        self.ids.completed = true;
        self.timers.handshake = Timestamp::NEVER;
        let pto = self.paths.current().rtt.pto(self.peer_params.max_ack_delay);
        self.zero_rtt.on_handshake_complete(now, self.side, pto);
        self.streams.end_early();
        self.events.push(Event::Connected);
        if self.side == Side::Server {
            // RFC 9001 §4.1.2: a server's handshake is confirmed when it completes, and it says so.
            self.pending.handshake_done = true;
            self.confirm_handshake();
        }
    }

    /// True when it was not confirmed before.
    pub(super) fn confirm_handshake(&mut self) -> bool {
        let confirmed = self.state.move_to_confirmed();
        if confirmed {
            self.discard_initial();
            // RFC 9001 §4.9.2.
            self.discard_handshake();
            if let Some(keys) = self.one_rtt.as_deref_mut() {
                keys.on_handshake_confirmed();
            }
            self.session.finish();
            if self.side == Side::Client {
                self.events.push(Event::HandshakeConfirmed);
            }
        }
        confirmed
    }

    /// A Handshake packet from the peer authenticated (RFC 9000 §8.1, RFC 9001 §4.9.1).
    pub(super) fn on_handshake_packet_opened(&mut self, meta: &RecvMeta) {
        if self.side == Side::Server {
            let path = self.paths.current_mut();
            // It proves the address that it came from, and no other.
            if meta.path.remote == path.tuple.remote {
                path.validation.set_validated();
            }
            self.discard_initial();
        }
    }

    /// Discards Initial keys and forgets what was sent with them (RFC 9002 §6.4). Its timers go
    /// with it, and the backoff starts anew (RFC 9002 §6.2.2).
    pub(super) fn discard_initial(&mut self) {
        if let Some(mut space) = self.initial.take() {
            self.ids.version.forget_other();
            let path = self.paths.current_mut();
            path.bytes_in_flight = path
                .bytes_in_flight
                .saturating_sub(space.sent.discard(|_, _, _| {}));
            path.pto_count = 0;
        }
    }

    fn discard_handshake(&mut self) {
        if let Some(mut space) = self.handshake.take() {
            let path = self.paths.current_mut();
            path.bytes_in_flight = path
                .bytes_in_flight
                .saturating_sub(space.sent.discard(|_, _, _| {}));
            path.pto_count = 0;
        }
    }

    fn take_peer_params(&mut self, now: Timestamp) -> Result<(), TransportError> {
        let Some(bytes) = self.session.peer_params() else {
            return Ok(());
        };
        let params = TransportParameters::decode(self.side.peer(), bytes)?;
        self.check_peer_ids(&params)?;
        self.check_peer_versions(&params)?;
        self.ids.params_applied = true;
        self.enable_ack_frequency(&params);
        let declared = super::params::local(&self.config, self.ids.local_scid);
        self.extensions = Extensions::negotiated(&declared, &params);
        if params.grease_quic_bit && self.config.grease_quic_bit {
            self.fixed_bit.switch_on();
        }
        self.set_peer_limits(now, &params)?;
        let path = self.paths.current_mut();
        path.local_cids
            .set_peer_limit(params.active_connection_id_limit);
        path.set_mtu_ceiling(params.max_udp_payload_size);
        if let Some(token) = params.stateless_reset_token {
            path.remote_cids.set_first_token(token);
        }
        if let Some(p) = &params.preferred_address {
            // RFC 9000 §5.1.1: its connection ID is as good as one from a frame.
            path.remote_cids
                .on_new(1, 0, p.cid, p.reset_token)
                .map_err(|e| TransportError::transport_parameter_error(e.reason))?;
        }
        self.begin_multipath(&params)?;
        self.timers.set_peer_idle(params.max_idle_timeout);
        self.timers.on_packet_received(now);
        self.peer_params = PeerParams::of(&params);
        self.watch.keep_peer_params(params);
        Ok(())
    }

    /// RFC 9000 §7.3: the parameters name the connection IDs that the packets carried.
    fn check_peer_ids(&self, params: &TransportParameters) -> Result<(), TransportError> {
        if params.initial_source_connection_id != self.ids.remote_scid {
            return Err(TransportError::transport_parameter_error(
                "initial_source_connection_id does not match",
            ));
        }
        if self.side == Side::Client {
            if params.original_destination_connection_id != Some(self.ids.original_dcid) {
                return Err(TransportError::transport_parameter_error(
                    "original_destination_connection_id does not match",
                ));
            }
            if params.retry_source_connection_id.as_ref() != self.ids.retry_scid.as_deref() {
                return Err(TransportError::transport_parameter_error(
                    "retry_source_connection_id does not match",
                ));
            }
        }
        Ok(())
    }

    /// A Retry arrived (RFC 9000 §17.2.5): at most one, only before anything else, only authentic,
    /// with a new connection ID (§17.2.5.1). The handshake goes on with it (§17.2.5.3).
    /// Keeps RFC 9000 §8.1.3.
    pub(super) fn on_retry(
        &mut self,
        packet: &[u8],
        version: u32,
        scid: ConnectionId,
        token: Vec<u8>,
    ) {
        // RFC 9369 §4.1: a Retry has the original version, and the answer to it too.
        let original = self.ids.version.original;
        let welcome = self.side == Side::Client
            && self.ids.remote_scid.is_none()
            && self.ids.retry_scid.is_none()
            && !token.is_empty()
            && scid != self.ids.original_dcid
            && Version::from_number(version) == Some(original)
            && retry::is_valid(original, self.ids.original_dcid.as_slice(), packet);
        let keys = initial_keys(version, scid.as_slice(), self.side);
        let (Some(space), true, Some(keys)) = (self.initial.as_deref_mut(), welcome, keys) else {
            self.stats.packets_dropped += 1;
            return;
        };
        // The Retry's token takes the place of a stored one, and never gets to the store (RFC 9000
        // §8.1.3).
        // RFC 9000 §17.2.5.2: new keys from the new destination; packet numbers go on.
        space.keys = keys;
        space.crypto.resend_all();
        let path = self.paths.current_mut();
        path.bytes_in_flight = path
            .bytes_in_flight
            .saturating_sub(space.sent.discard(|_, _, _| {}));
        // RFC 9002 §6.3: nothing is known of the path; backoff and window begin anew.
        path.reset_for_retry(&self.config.path());
        path.remote_cids.set_first(scid);
        self.ids.version.forget_other();
        self.ids.retry_scid = Some(Box::new(scid));
        self.ids.token = token;
        self.resend_early();
    }
}
