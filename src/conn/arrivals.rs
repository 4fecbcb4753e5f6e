//! From what one receive delivered to the connection that it is for, or to what is done with a
//! datagram that is for none: another shard's, a new connection's, an answer without state, a drop.

use super::application::{Application, Sink};
use super::endpoint::{ConnId, Endpoint};
use super::guard::PortVerdict;
use super::router::Route;
use crate::base::{RecvMeta, Timestamp};
use crate::wire::header::{self, Header, LongType};
use crate::wire::{ConnectionId, Version};

impl Endpoint {
    /// Takes what one receive delivered. Runs of datagrams for one connection are handled together;
    /// every datagram's own connection ID decides. What is too small for a packet is dropped
    /// (RFC 9000 §10.3).
    pub fn handle_train(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        data: &mut [u8],
        app: &mut dyn Application,
    ) {
        self.clock = now;
        let cid_len = self.cids.len();
        let step = meta.segment_size.max(1);
        // Nearly all that is no bulk data.
        if data.len() <= step
            && let Some(dcid) = header::dcid(data, cid_len)
            && let Some(Route::Connection(id)) = self.router.get(dcid)
        {
            return self.deliver(now, meta, id, data, app);
        }
        let (mut start, mut at) = (0, 0);
        let mut run: Option<(Route, ConnectionId)> = None;
        while at < data.len() {
            let end = (at + step).min(data.len());
            let datagram = data.get(at..end).unwrap_or_default();
            let Some(dcid) = header::dcid(datagram, cid_len) else {
                self.flush(now, meta, data.get_mut(start..at), run.take(), app);
                self.stats.unroutable += 1;
                (start, at) = (end, end);
                continue;
            };
            if run.as_ref().is_none_or(|(_, cid)| !cid.is(dcid)) {
                let by_addresses = || self.router.by_addresses(meta, datagram, dcid);
                let route = self.router.get(dcid).or_else(by_addresses);
                let cid = ConnectionId::new(dcid).unwrap_or_default();
                if let (Some(route), Some((same, last))) = (route, &mut run)
                    && *same == route
                {
                    // The same connection by another name, as each packet without one is.
                    *last = cid;
                    at = end;
                    continue;
                }
                self.flush(now, meta, data.get_mut(start..at), run.take(), app);
                start = at;
                match route {
                    Some(route) => run = Some((route, cid)),
                    None => {
                        if let Some(datagram) = data.get_mut(at..end) {
                            self.unrouted(now, meta, datagram, app);
                        }
                        start = end;
                    }
                }
            }
            at = end;
        }
        self.flush(now, meta, data.get_mut(start..), run, app);
    }

    fn flush(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        data: Option<&mut [u8]>,
        run: Option<(Route, ConnectionId)>,
        app: &mut dyn Application,
    ) {
        let (id, data) = match (run, data) {
            (Some((Route::Connection(id), _)), Some(data)) => (id, data),
            (Some((Route::Held(_), dcid)), Some(data)) => {
                self.ahead.keep_train(dcid, meta, data);
                return;
            }
            _ => return,
        };
        if !data.is_empty() {
            self.deliver(now, meta, id, data, app);
        }
    }

    #[inline]
    fn deliver(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        id: ConnId,
        data: &mut [u8],
        app: &mut dyn Application,
    ) {
        let Some(e) = self.entry(id) else {
            return;
        };
        let handshaking = e.conn.is_handshaking();
        e.conn.handle_train(now, meta, data, &mut Sink { app, id });
        let queued = std::mem::replace(&mut e.queued, true);
        self.handshake_trains += u64::from(handshaking);
        if !queued {
            self.ready.push_back(id);
        }
    }

    /// Whether a datagram is a stateless reset of a connection, which then ends.
    fn is_reset(&mut self, now: Timestamp, meta: &RecvMeta, datagram: &[u8]) -> bool {
        let Some(id) = self.router.reset(datagram) else {
            return false;
        };
        let conn = self.connection(id);
        let Some(conn) = conn.filter(|c| c.is_reset_from(meta, datagram)) else {
            return false;
        };
        conn.on_stateless_reset(now);
        self.wake(id);
        true
    }

    /// A datagram whose destination is unknown: another shard's, a new connection, or a stray,
    /// which is dropped (RFC 9000 §5.2.2). Version Negotiation is not answered by another (§6.1).
    fn unrouted(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        datagram: &mut [u8],
        app: &mut dyn Application,
    ) {
        let cid_len = self.cids.len();
        if self.is_reset(now, meta, datagram) {
            return;
        }
        if let Some(dcid) = header::dcid(datagram, cid_len) {
            let dcid = dcid.to_owned();
            if app.on_foreign(&dcid, meta, datagram) {
                return;
            }
        }
        let one = RecvMeta {
            segment_size: datagram.len(),
            ..*meta
        };
        // RFC 9308 §8.1: a service's port is no client's, and its service is not to be answered.
        let from = self.transport.port_guard.verdict(meta.path.remote.port());
        if self.server.is_some() && from == PortVerdict::Block {
            self.stats.unroutable += 1;
            return;
        }
        let parse = match self.transport.grease_quic_bit {
            true => Header::parse_greased,
            false => Header::parse,
        };
        match parse(datagram, cid_len) {
            Ok(Header::Long { version, .. }) if !self.speaks(version) => {
                self.offer_versions(&one, datagram);
            }
            Ok(Header::Long {
                ty: LongType::Initial,
                version,
                dcid,
                scid,
                token,
                ..
            }) => {
                let token = token.to_vec();
                let version = Version::from_number(version).unwrap_or(Version::V1);
                self.on_initial(now, one, version, dcid, scid, &token, datagram, app);
            }
            Ok(Header::Long {
                ty: LongType::ZeroRtt,
                dcid,
                ..
            }) if self.early_data && dcid.len() >= 8 => {
                if !self.ahead.keep(dcid, &one, datagram) {
                    self.stats.unroutable += 1;
                }
            }
            Ok(Header::UnknownVersion { .. }) => self.offer_versions(&one, datagram),
            Ok(Header::Short { dcid, .. }) if self.stateless.has_room() => {
                self.stats.stateless_crypto += 1;
                let token = self.reset_key.reset_token(&dcid);
                if self.stateless.reset(&one, datagram.len(), token) {
                    self.stats.resets += 1;
                }
            }
            _ => self.stats.unroutable += 1,
        }
    }
}
