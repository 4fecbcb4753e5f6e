//! Which QUIC version a connection speaks (RFC 9368), and how it comes to another one than the
//! client began with (RFC 9369 §4.1).
//!
//! Compatible: the server reads the client's offer in its ClientHello and answers in the version
//! that it prefers; the client follows the first authentic packet of it. Incompatible: a Version
//! Negotiation packet makes the client begin again in the same [`Connection`]. Either way the
//! handshake authenticates what both spoke, and a forger gains nothing but an error.

use super::endpoint::Endpoint;
use super::handshake::HandshakeIds;
use super::space::HandshakeSpace;
use super::{Connection, TransportConfig};
use crate::base::{RecvMeta, Timestamp, limits};
use crate::conn::ConnectionError;
use crate::crypto::client_hello::{self, ClientHello};
use crate::crypto::{ConfigError, Keys, Session, TokenKey, initial_keys, remains, tickets};
use crate::wire::header::{self, Versions as VersionList};
use crate::wire::version::Versions;
use crate::wire::{
    ConnectionId, LongType, Side, TransportError, TransportParameters, Version, VersionInformation,
};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use std::sync::Arc;

/// The version_information of an endpoint that speaks `spoken` in packets of `chosen`.
pub(super) fn information(spoken: &Versions, chosen: Version) -> VersionInformation {
    VersionInformation {
        chosen: chosen.number(),
        available: spoken.clone(),
    }
}

/// A server's TLS configuration for each version.
pub(super) struct ServerTls([Arc<rustls::ServerConfig>; 2]);

impl ServerTls {
    /// Where only one version is spoken, tickets are left as they are.
    pub(super) fn new(tls: Arc<rustls::ServerConfig>, config: &TransportConfig) -> Self {
        let tls = remains::tapped(&tls);
        if config.spoken().len() < 2 {
            return Self([tls.clone(), tls]);
        }
        Self(Version::ALL.map(|version| tickets::for_version(&tls, version)))
    }

    pub(super) fn of(&self, version: Version) -> Arc<rustls::ServerConfig> {
        let [v1, v2] = &self.0;
        match version {
            Version::V1 => v1.clone(),
            Version::V2 => v2.clone(),
        }
    }
}

/// What a client needs to begin again in another version.
pub(super) struct ClientStart {
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) name: ServerName<'static>,
    pub(super) params: TransportParameters,
}

impl ClientStart {
    /// The TLS session of a first flight in `version`, with its transport parameters.
    pub(super) fn session(
        &self,
        version: Version,
        spoken: &Versions,
        rng: &mut crate::base::Rng,
    ) -> Result<Session, ConfigError> {
        let mut params = self.params.clone();
        params.version_information = Some(information(spoken, version));
        let mut encoded = Vec::with_capacity(256);
        params.encode(Side::Client, &mut encoded, rng);
        let name = self.name.clone();
        if spoken.len() > 1 {
            Session::movable_client(version, &self.tls, name, encoded)
        } else {
            Session::resting_client(version, &self.tls, name, encoded)
        }
    }
}

/// What a server needs to answer in the version that it prefers.
pub(super) struct Upgrade {
    pub(super) version: Version,
    /// TLS of that version.
    pub(super) tls: Arc<rustls::ServerConfig>,
    pub(super) params: TransportParameters,
    /// The beginning of the ClientHello.
    hello: Vec<u8>,
}

impl Upgrade {
    /// `None` where the server keeps what the client began with.
    pub(super) fn new(
        config: &TransportConfig,
        original: Version,
        tls: impl FnOnce(Version) -> Arc<rustls::ServerConfig>,
        params: &TransportParameters,
    ) -> Option<Box<Self>> {
        let version = config.preferred_version?;
        (version != original && config.spoken().contains(&version)).then(|| {
            Box::new(Self {
                version,
                tls: tls(version),
                params: params.clone(),
                hello: Vec::new(),
            })
        })
    }
}

/// Where version negotiation stands.
pub(crate) struct Negotiation {
    /// The version of the client's first flight.
    pub(super) original: Version,
    /// The version that a client tried first of all.
    tried: Version,
    /// The version in use: of everything that is sent, but for early data.
    pub(super) chosen: Version,
    spoken: Versions,
    /// Whether the version can change no more.
    settled: bool,
    /// A Version Negotiation packet brought the client here.
    reacted: bool,
    /// Initial keys of the version that is not in use, while its packets may come.
    other: Option<Box<(Version, Keys)>>,
    client: Option<Box<ClientStart>>,
    server: Option<Box<Upgrade>>,
}

impl std::fmt::Debug for Negotiation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Negotiation")
            .field("original", &self.original)
            .field("chosen", &self.chosen)
            .field("settled", &self.settled)
            .finish_non_exhaustive()
    }
}

impl Negotiation {
    pub(super) fn client(original: Version, spoken: Versions, start: ClientStart) -> Self {
        let settled = spoken.len() < 2;
        Self {
            original,
            tried: original,
            chosen: original,
            spoken,
            settled,
            reacted: false,
            other: None,
            client: (!settled).then(|| Box::new(start)),
            server: None,
        }
    }

    pub(super) fn server(
        original: Version,
        spoken: Versions,
        upgrade: Option<Box<Upgrade>>,
    ) -> Self {
        Self {
            original,
            tried: original,
            chosen: original,
            spoken,
            settled: upgrade.is_none(),
            reacted: false,
            other: None,
            client: None,
            server: upgrade,
        }
    }

    /// Whether a packet of `version` is one to open, or to keep until there are keys (RFC 9000
    /// §5.2.1, as RFC 9368 §2.3 changes it).
    pub(super) fn admits(&self, side: Side, ty: LongType, version: Version) -> bool {
        if ty == LongType::ZeroRtt {
            // RFC 9369 §4.1: early data never changes its version.
            return version == self.original;
        }
        // RFC 9369 §4.1: Handshake packets of another version are dropped, and so are Initial
        // packets whose keys are gone.
        version == self.chosen
            || (ty == LongType::Initial && self.other.as_ref().is_some_and(|o| o.0 == version))
            || (side == Side::Client && !self.settled && self.spoken.contains(&version))
    }

    /// The Initial keys of a version that is not in use; `dcid` is what they are derived from.
    pub(super) fn other_keys(
        &mut self,
        side: Side,
        version: Version,
        dcid: &ConnectionId,
    ) -> Option<&Keys> {
        if self.other.as_ref().is_none_or(|o| o.0 != version) {
            let keys = initial_keys(version.number(), dcid.as_slice(), side)?;
            self.other = Some(Box::new((version, keys)));
        }
        self.other.as_ref().map(|o| &o.1)
    }

    /// Initial packets come no more, or the connection ID that their keys follow from changed.
    pub(super) fn forget_other(&mut self) {
        self.other = None;
    }

    /// Whether the version can change no more.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// The version can change no more.
    pub(super) fn settle(&mut self) {
        self.settled = true;
        self.client = None;
        self.server = None;
    }

    /// Whether a client may keep session tickets. They are good in the version of their connection
    /// alone (RFC 9369 §5), and the next one begins in the version that this one tried.
    pub(super) fn keeps_tickets(&self) -> bool {
        self.chosen == self.tried
    }

    /// Whether a server still collects the ClientHello.
    pub(super) fn is_reading_hello(&self) -> bool {
        self.server.is_some()
    }

    /// More of the ClientHello came.
    pub(super) fn collect(&mut self, bytes: &[u8]) {
        if let Some(upgrade) = &mut self.server {
            upgrade.hello.extend_from_slice(bytes);
        }
    }

    /// The version that a client takes out of a Version Negotiation packet's list.
    fn pick(&self, listed: impl Fn(Version) -> bool) -> Option<Version> {
        self.spoken.iter().copied().find(|v| listed(*v))
    }
}

impl Endpoint {
    /// The key of tokens of a version.
    pub(super) fn token_key(&self, version: Version) -> &TokenKey {
        let [v1, v2] = &self.token_keys;
        match version {
            Version::V1 => v1,
            Version::V2 => v2,
        }
    }

    pub(super) fn speaks(&self, number: u32) -> bool {
        Version::from_number(number).is_some_and(|v| self.transport.spoken().contains(&v))
    }

    /// Answers a datagram of a version that is not spoken here, where it is long enough to begin a
    /// connection (RFC 9000 §6.1).
    pub(super) fn offer_versions(&mut self, meta: &RecvMeta, datagram: &[u8]) {
        let ids = header::long_cids(datagram);
        let Some((dcid, scid)) =
            ids.filter(|_| self.server.is_some() && meta.segment_size >= limits::MIN_UDP_PAYLOAD)
        else {
            self.stats.unroutable += 1;
            return;
        };
        self.stats.version_negotiations += 1;
        let spoken = self.transport.spoken();
        self.stateless
            .version_negotiation(meta, dcid, scid, &spoken);
    }
}

impl Connection {
    /// The QUIC version in use. It can change until the handshake is complete.
    pub fn version(&self) -> Version {
        self.ids.version.chosen
    }

    /// The server answered in another version than the client's: a packet of it authenticated.
    pub(super) fn follow_server(&mut self, version: Version) {
        let negotiation = &mut self.ids.version;
        if self.side == Side::Server || negotiation.settled || version == negotiation.chosen {
            return;
        }
        if let (Some(space), Some(other)) = (
            self.initial.as_deref_mut(),
            negotiation.other.as_deref_mut(),
        ) && other.0 == version
        {
            std::mem::swap(&mut space.keys, &mut other.1);
            other.0 = negotiation.chosen;
        }
        negotiation.chosen = version;
        negotiation.settle();
        self.session.move_to(version);
    }

    /// A server has more of the ClientHello: once it is whole, decides on the version and gives it
    /// to TLS.
    pub(super) fn read_hello(&mut self) -> Result<(), TransportError> {
        let Some(upgrade) = self.ids.version.server.as_deref() else {
            return Ok(());
        };
        let wanted = match client_hello::peek(&upgrade.hello) {
            ClientHello::Needs(n) if n <= limits::CLIENT_HELLO => return Ok(()),
            ClientHello::Whole {
                params: Some(params),
                early_data: false,
            } => TransportParameters::decode(Side::Client, params)
                .ok()
                .and_then(|p| p.version_information)
                .is_some_and(|i| {
                    i.chosen == self.ids.version.original.number()
                        && i.available.contains(&upgrade.version)
                }),
            _ => false,
        };
        let upgrade = self.ids.version.server.take();
        self.ids.version.settle();
        let Some(upgrade) = upgrade else {
            return Ok(());
        };
        let hello = if wanted {
            self.upgrade(*upgrade)
        } else {
            upgrade.hello
        };
        self.session.read_crypto(&hello)
    }

    /// Begins to answer in the version that this server prefers; gives the ClientHello back.
    fn upgrade(&mut self, upgrade: Upgrade) -> Vec<u8> {
        let Upgrade {
            version,
            tls,
            mut params,
            hello,
        } = upgrade;
        let dcid = self.ids.client_dcid();
        let negotiation = &mut self.ids.version;
        params.version_information = Some(information(&negotiation.spoken, version));
        let mut encoded = Vec::with_capacity(256);
        params.encode(Side::Server, &mut encoded, &mut self.rng);
        let keys = initial_keys(version.number(), dcid.as_slice(), Side::Server);
        let (Some(space), Some(keys), Ok(session)) = (
            self.initial.as_deref_mut(),
            keys,
            Session::server_of(version, tls, encoded),
        ) else {
            // What cannot be had is not needed: the client's own version will do.
            return hello;
        };
        self.session = session;
        let old = std::mem::replace(&mut space.keys, keys);
        // RFC 9369 §4.1: the client goes on in its version until it hears of the new one.
        negotiation.other = Some(Box::new((negotiation.original, old)));
        negotiation.chosen = version;
        hello
    }

    /// Version Negotiation arrived (RFC 9000 §6.2): it counts only for a connection that has
    /// received nothing else, never when it offers the version in use, and only once.
    pub(super) fn on_version_negotiation(
        &mut self,
        now: Timestamp,
        dcid: &[u8],
        scid: &[u8],
        list: VersionList<'_>,
    ) {
        let ids = &self.ids;
        let ours = dcid == ids.local_scid.as_slice() && scid == ids.original_dcid.as_slice();
        let negotiation = &ids.version;
        let heed = self.side == Side::Client
            && ours
            && !list.contains(negotiation.original.number())
            && !negotiation.reacted
            && ids.remote_scid.is_none()
            && ids.retry_scid.is_none();
        if !heed {
            self.stats.packets_dropped += 1;
            return;
        }
        let other = negotiation.pick(|v| list.contains(v.number()));
        if other.is_some_and(|version| self.begin_again(now, version)) {
            return;
        }
        self.state.move_to_draining();
        self.events.push_closed(ConnectionError::VersionMismatch);
        self.start_drain_timer(now);
    }

    /// Starts over in another version (RFC 9368 §2.1): a new first flight to a new destination
    /// connection ID, with nothing kept but our own connection ID, which routes here.
    fn begin_again(&mut self, now: Timestamp, version: Version) -> bool {
        let Some(start) = self.ids.version.client.take() else {
            return false;
        };
        let mut start = *start;
        // RFC 9369 §5: no session of the other version is resumed in this one.
        let mut tls = rustls::ClientConfig::clone(&start.tls);
        tls.resumption = Resumption::disabled();
        start.tls = Arc::new(tls);
        let spoken = self.ids.version.spoken.clone();
        let odcid = ConnectionId::new(&self.rng.array::<8>()).unwrap_or_default();
        let session = start.session(version, &spoken, &mut self.rng);
        let keys = initial_keys(version.number(), odcid.as_slice(), Side::Client);
        let (Ok(session), Some(keys)) = (session, keys) else {
            return false;
        };
        let path = self.paths.current_mut();
        if let Some(mut old) = self.initial.take() {
            let lost = old.sent.discard(|_, _, _| {});
            path.bytes_in_flight = path.bytes_in_flight.saturating_sub(lost);
        }
        path.pto_count = 0;
        path.remote_cids.set_first(odcid);
        self.withdraw_early();
        let mut negotiation = Negotiation::client(version, spoken, start);
        negotiation.reacted = true;
        negotiation.tried = self.ids.version.tried;
        let scid = self.ids.local_scid;
        self.ids = HandshakeIds::new(scid, odcid, None, None, negotiation);
        self.initial = Some(Box::new(HandshakeSpace::new(keys)));
        self.session = session;
        self.early.clear();
        self.start(now);
        true
    }

    /// RFC 9368 §4: what the peer says of its versions must lead to the one in use.
    pub(super) fn check_peer_versions(
        &self,
        params: &TransportParameters,
    ) -> Result<(), TransportError> {
        let wrong = TransportError::version_negotiation_error;
        let negotiation = &self.ids.version;
        let chosen = match self.side {
            Side::Client => negotiation.chosen,
            // The server's answer may have another version; the client could not know.
            Side::Server => negotiation.original,
        };
        let v1_alone;
        let information = match &params.version_information {
            Some(information) => information,
            // RFC 9368 §8: version 1 was there before the parameter was.
            None if negotiation.reacted && chosen == Version::V1 => {
                v1_alone = information_of_v1();
                &v1_alone
            }
            None if negotiation.reacted || negotiation.chosen != negotiation.original => {
                return Err(wrong("version_information is missing"));
            }
            None => return Ok(()),
        };
        if information.chosen != chosen.number() {
            return Err(wrong("the chosen version is not the one in use"));
        }
        if negotiation.reacted {
            // What the server lists would have led here, had it been in the packet that did. A
            // list without a version that we know counts as the empty one that §4 refuses.
            let available = &information.available;
            let picked = negotiation.pick(|v| available.contains(&v) || v == chosen);
            if available.is_empty() || picked != Some(chosen) {
                return Err(wrong("a Version Negotiation packet was forged"));
            }
        }
        Ok(())
    }
}

fn information_of_v1() -> VersionInformation {
    let mut only = Versions::new();
    only.push(Version::V1);
    information(&only, Version::V1)
}
