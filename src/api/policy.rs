//! How one connection uses its paths, said through its handle while it runs; the endpoint's
//! [`TransportConfig::multipath`](super::TransportConfig) is where it begins.

use super::connection::Connection;
use super::shared::Request;
use crate::base::Timestamp;
use crate::conn::{self, AdvertiseError, ConnectionError, CopyStats};
use crate::path::duplicate::DuplicationConfig;
use crate::path::reinject::{ReinjectionConfig, TargetSelector};
use crate::wire::StreamId;
use std::net::SocketAddr;
use std::time::Duration;

/// What a handle has the shard do with the connection itself.
pub(super) type Work = Box<dyn FnOnce(Timestamp, &mut conn::Connection) + Send>;

impl Connection {
    /// Sends some frames on several paths from now on, or none. False when there are no several
    /// paths.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn set_duplication(
        &self,
        config: Option<DuplicationConfig>,
    ) -> Result<bool, ConnectionError> {
        self.with(move |_, c| c.set_duplication(config)).await
    }

    /// Has the data of a stream sent on several paths, or no more, where the configuration copies
    /// what is chosen. False when too many streams are chosen, or nothing is copied.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn duplicate_stream(
        &self,
        stream: StreamId,
        on: bool,
    ) -> Result<bool, ConnectionError> {
        self.with(move |_, c| c.duplicate_stream(stream, on)).await
    }

    /// Sends what is overdue or lost on one path again on another from now on, or no more.
    /// `selector`, which runs on the shard's thread and must not block, chooses where to; without
    /// one the configuration does. False when there are no several paths.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn set_reinjection(
        &self,
        config: Option<ReinjectionConfig>,
        selector: Option<Box<dyn TargetSelector>>,
    ) -> Result<bool, ConnectionError> {
        self.with(move |_, c| c.set_reinjection(config, selector))
            .await
    }

    /// Says after which time the data of a stream is of no use any more, or that it always is: what
    /// of it may come too late on its path is sent on another as well, if reinjection looks at
    /// deadlines. False when it does not, or too many streams have one.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn set_stream_deadline(
        &self,
        stream: StreamId,
        within: Option<Duration>,
    ) -> Result<bool, ConnectionError> {
        self.with(move |now, c| c.set_stream_deadline(stream, within.map(|d| now + d)))
            .await
    }

    /// Tells the peer that this side can be reached at `addr` too, once the handshake is complete;
    /// it hears [`PathEvent::PeerAddress`](super::PathEvent::PeerAddress). Both sides must have
    /// [`MultipathConfig::addresses`](super::MultipathConfig::addresses), and ours must allow it.
    ///
    /// # Errors
    /// [`AdvertiseError`]: the peer is not told.
    pub async fn advertise_address(&self, addr: SocketAddr) -> Result<(), AdvertiseError> {
        let told = self.with(move |_, c| c.advertise_address(addr)).await;
        told.unwrap_or(Err(AdvertiseError::Closed))
    }

    /// What copies have added to this connection's packets.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn copy_stats(&self) -> Result<CopyStats, ConnectionError> {
        self.with(|_, c| c.copy_stats()).await
    }

    /// Has the shard do something with the connection.
    pub(super) async fn with<T: Clone + Send + Sync + 'static>(
        &self,
        work: impl FnOnce(Timestamp, &mut conn::Connection) -> T + Send + 'static,
    ) -> Result<T, ConnectionError> {
        self.ask(|reply| {
            Request::With(Box::new(move |now, conn| {
                let _ = reply.set(work(now, conn));
            }))
        })
        .await
    }
}
