//! Sockets beyond the usual: brought by the embedder, connected to one peer, or shared with another
//! protocol whose datagrams are read and sent through the endpoint.

use super::endpoint::{Endpoint, EndpointBuilder};
use super::shared::{Command, OtherDatagram};
use crate::base::limits;
use crate::shard::demux::{Demux, OutboxError};
use crate::shard::engine::Bind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;

impl EndpointBuilder {
    /// The sockets of the shards: as an engine's [`Bind`].
    #[must_use]
    pub fn sockets(mut self, bind: Bind) -> Self {
        if let Bind::Sockets(given) = &bind {
            self.config_mut().shards = given.len();
        }
        self.config_mut().bind = bind;
        self
    }

    /// Connects to `peer` alone, from a connected socket: see [`Bind::Connected`].
    #[must_use]
    pub fn connected(self, peer: SocketAddr) -> Self {
        self.sockets(Bind::Connected(peer))
    }

    /// Shares the sockets with another protocol, whose datagrams come by
    /// [`Endpoint::recv_other`].
    #[must_use]
    pub fn demux(mut self, demux: Demux) -> Self {
        self.config_mut().demux = Some(demux);
        self
    }
}

impl Endpoint {
    /// Settings for an endpoint of one shard on a socket that the embedder made: see
    /// [`Bind::Sockets`].
    pub fn from_socket(socket: UdpSocket) -> EndpointBuilder {
        Self::builder().sockets(Bind::sockets([socket]))
    }

    /// The next datagram that is not QUIC, as [`EndpointBuilder::demux`] tells them; `None` once
    /// the endpoint is closed.
    ///
    /// Cancel-safe. At most [`OTHER_DATAGRAMS`](limits::OTHER_DATAGRAMS) wait; then the oldest is
    /// dropped.
    pub async fn recv_other(&self) -> Option<OtherDatagram> {
        let hub = &self.inner.hub;
        let next = || {
            let other = hub.others.queue.pop();
            let closed = hub.closed.get().is_some();
            (closed || other.is_some()).then_some(other)
        };
        hub.others.waiters.until(next).await
    }

    /// Sends a datagram that is not QUIC from the socket that has `local`'s port, from the first
    /// if that is 0. Delivery is UDP's.
    ///
    /// # Errors
    /// Too many wait for the shard, or no datagram is that long.
    pub fn send_other(&self, datagram: OtherDatagram) -> Result<(), OutboxError> {
        let len = datagram.data.len();
        if len == 0 || len > limits::MAX_UDP_PAYLOAD {
            return Err(OutboxError::Length(len));
        }
        let inner = &self.inner;
        let port = datagram.local.port();
        let at = inner.local_addrs.iter().position(|a| a.port() == port);
        let Some(link) = inner.links.get(at.unwrap_or(0)) else {
            return Ok(());
        };
        let others = &link.others;
        others.queue.push(datagram).map_err(|_| OutboxError::Full)?;
        if !others.called.swap(true, Ordering::SeqCst) {
            link.send(Command::Look);
        }
        Ok(())
    }
}
