//! A connection of either implementation: its paths, streams and datagrams, what it tells of the
//! paths, and what it heard of them.

use crate::links::LOCALS;
use crate::{Fault, Kind};
use bytes::Bytes;
use corelane::api::{
    ClosePathError, Connection, ConnectionStats, OpenPathError, PathError, PathEvent, PathId,
    PathOptions, PathState, PathStatus,
};
use noq::{FourTuple, FrameStats};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_stream::StreamExt;

/// The most that a stream brings.
const LIMIT: usize = 64 << 20;
/// How often what gives no sign is asked for.
const STEP: Duration = Duration::from_millis(5);

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The other side answered on it.
    Opened(u32),
    /// It was abandoned.
    Gone {
        /// Which.
        id: u32,
        /// By the other side.
        by_peer: bool,
    },
    /// What the other side would have it used for.
    Status(u32, PathStatus),
}

/// A path as one side sees it.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Bytes of UDP payload sent.
    pub sent: u64,
    /// Bytes of UDP payload received.
    pub received: u64,
    /// What this side would have it used for.
    pub status: PathStatus,
    /// The other side's address.
    pub remote: SocketAddr,
}

pub(crate) enum Which {
    Corelane(Connection),
    Noq(noq::Connection),
}

#[derive(Default)]
struct Heard {
    news: Mutex<Vec<News>>,
    more: Notify,
}

impl Heard {
    fn news(&self) -> MutexGuard<'_, Vec<News>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, news: Option<News>) {
        self.news().extend(news);
        self.more.notify_waiters();
    }
}

/// See the module.
pub struct Peer {
    which: Which,
    heard: Arc<Heard>,
}

fn of_ours(event: PathEvent) -> Option<News> {
    match event {
        PathEvent::Validated(id) => Some(News::Opened(id.0)),
        PathEvent::Abandoned { id, by_peer, .. } => Some(News::Gone { id: id.0, by_peer }),
        PathEvent::Status(id, status) => Some(News::Status(id.0, status)),
        _ => None,
    }
}

/// noq does not say what number an identifier is.
fn number(id: noq::PathId) -> u32 {
    id.to_string().parse().unwrap_or(u32::MAX)
}

fn status_of(status: noq::PathStatus) -> PathStatus {
    match status {
        noq::PathStatus::Available => PathStatus::Available,
        noq::PathStatus::Backup => PathStatus::Backup,
    }
}

fn status_for(status: PathStatus) -> noq::PathStatus {
    match status {
        PathStatus::Available => noq::PathStatus::Available,
        PathStatus::Backup => noq::PathStatus::Backup,
    }
}

fn of_noqs(event: &noq::PathEvent) -> Option<News> {
    match event {
        noq::PathEvent::Established { id, .. } => Some(News::Opened(number(*id))),
        noq::PathEvent::Abandoned { id, reason, .. } => Some(News::Gone {
            id: number(*id),
            // The reason's type has no name outside.
            by_peer: format!("{reason:?}").starts_with("RemoteAbandoned"),
        }),
        noq::PathEvent::RemoteStatus { id, status, .. } => {
            Some(News::Status(number(*id), status_of(*status)))
        }
        _ => None,
    }
}

impl Peer {
    /// Around a connection; in a tokio runtime.
    pub(crate) fn new(which: Which) -> Self {
        let heard = Arc::new(Heard::default());
        let hearing = heard.clone();
        match &which {
            Which::Corelane(connection) => {
                let connection = connection.clone();
                tokio::spawn(async move {
                    while let Ok(event) = connection.path_event().await {
                        hearing.hear(of_ours(event));
                    }
                });
            }
            Which::Noq(connection) => {
                let mut events = connection.path_events();
                tokio::spawn(async move {
                    while let Some(event) = events.next().await {
                        hearing.hear(event.ok().as_ref().and_then(of_noqs));
                    }
                });
            }
        }
        Self { which, heard }
    }

    /// Whose connection it is.
    pub fn kind(&self) -> Kind {
        match &self.which {
            Which::Corelane(_) => Kind::Corelane,
            Which::Noq(_) => Kind::Noq,
        }
    }

    /// Whether both sides take several paths.
    pub fn is_multipath(&self) -> bool {
        match &self.which {
            Which::Corelane(connection) => connection.is_multipath(),
            Which::Noq(connection) => connection.is_multipath_enabled(),
        }
    }

    /// Opens a path from one of [`LOCALS`] to `remote`, as soon as the server permits one more, and
    /// waits until the server answered on it.
    ///
    /// # Errors
    /// There will be no such path.
    pub async fn open_path(
        &self,
        local: usize,
        remote: SocketAddr,
        status: PathStatus,
    ) -> Result<u32, Fault> {
        let local = LOCALS[local];
        loop {
            match &self.which {
                Which::Corelane(connection) => {
                    let mut options = PathOptions::from(SocketAddr::new(local, 0)).to(remote);
                    options.status = Some(status);
                    match connection.open_path(options).await {
                        Ok(path) => return Ok(path.id().0),
                        Err(PathError::Refused(
                            OpenPathError::NoPathId | OpenPathError::NoConnectionId,
                        )) => {}
                        Err(why) => return Err(why.into()),
                    }
                }
                Which::Noq(connection) => {
                    let tuple = FourTuple::new(remote, Some(local));
                    match connection.open_path(tuple, status_for(status)).await {
                        Ok(path) => return Ok(number(path.id())),
                        Err(
                            noq::PathError::RemoteCidsExhausted | noq::PathError::MaxPathIdReached,
                        ) => {}
                        Err(why) => return Err(why.into()),
                    }
                }
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// Abandons a path.
    ///
    /// # Errors
    /// There is no such path.
    pub async fn close_path(&self, id: u32) -> Result<(), Fault> {
        match &self.which {
            Which::Corelane(connection) => Ok(connection.path(PathId(id)).close().await?),
            Which::Noq(connection) => {
                let path = connection.path(id.into());
                Ok(path.ok_or(ClosePathError::Unknown)?.close()?)
            }
        }
    }

    /// Says what a path is to be used for.
    ///
    /// # Errors
    /// There is no such path.
    pub async fn set_status(&self, id: u32, status: PathStatus) -> Result<(), Fault> {
        match &self.which {
            Which::Corelane(connection) => {
                Ok(connection.path(PathId(id)).set_status(status).await?)
            }
            Which::Noq(connection) => {
                let path = connection.path(id.into()).ok_or(ClosePathError::Unknown)?;
                path.set_status(status_for(status))?;
                Ok(())
            }
        }
    }

    /// A path that is in use, as it stands.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn view(&self, id: u32) -> Result<Option<View>, Fault> {
        match &self.which {
            Which::Corelane(connection) => {
                let paths = connection.paths().await?.into_iter();
                let mut open = paths.filter(|p| p.state == PathState::Open);
                Ok(open.find(|p| p.id.0 == id).map(|p| View {
                    sent: p.counters.bytes_sent,
                    received: p.counters.bytes_received,
                    status: p.status,
                    remote: p.tuple.remote,
                }))
            }
            Which::Noq(connection) => {
                let Some(path) = connection.path(id.into()) else {
                    return Ok(None);
                };
                let stats = path.stats();
                let (Ok(status), Ok(remote)) = (path.status(), path.remote_address()) else {
                    return Ok(None);
                };
                Ok(Some(View {
                    sent: stats.udp_tx.bytes,
                    received: stats.udp_rx.bytes,
                    status: status_of(status),
                    remote,
                }))
            }
        }
    }

    /// All that happened to paths so far.
    pub fn news(&self) -> Vec<News> {
        self.heard.news().clone()
    }

    /// Waits until something happened to a path.
    pub async fn wait_for(&self, wanted: impl Fn(News) -> bool) {
        loop {
            let more = self.heard.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if self.heard.news().iter().any(|n| wanted(*n)) {
                return;
            }
            more.await;
        }
    }

    /// Moves to new keys; false when it is too early for that.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn update_keys(&self) -> Result<bool, Fault> {
        match &self.which {
            Which::Corelane(connection) => Ok(connection.update_keys().await?),
            Which::Noq(connection) => {
                // Does nothing while it is too early, and does not tell.
                connection.force_key_update();
                Ok(true)
            }
        }
    }

    /// Sends a stream and ends it.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn send(&self, data: &[u8]) -> Result<(), Fault> {
        match &self.which {
            Which::Corelane(connection) => {
                let mut stream = connection.open_uni().await?;
                stream.write_all(data).await?;
                stream.finish()?;
            }
            Which::Noq(connection) => {
                let mut stream = connection.open_uni().await?;
                stream.write_all(data).await?;
                stream.finish()?;
            }
        }
        Ok(())
    }

    /// All of the next stream.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn receive(&self) -> Result<Bytes, Fault> {
        Ok(match &self.which {
            Which::Corelane(connection) => {
                connection.accept_uni().await?.read_to_end(LIMIT).await?
            }
            Which::Noq(connection) => connection
                .accept_uni()
                .await?
                .read_to_end(LIMIT)
                .await?
                .into(),
        })
    }

    /// Sends a datagram, after those that wait.
    ///
    /// # Errors
    /// The connection is over, or its path too small.
    pub async fn send_datagram(&self, data: Bytes) -> Result<(), Fault> {
        match &self.which {
            Which::Corelane(connection) => Ok(connection.send_datagram(data).await?),
            Which::Noq(connection) => Ok(connection.send_datagram_wait(data).await?),
        }
    }

    /// The next datagram.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn read_datagram(&self) -> Result<Bytes, Fault> {
        Ok(match &self.which {
            Which::Corelane(connection) => connection.read_datagram().await?,
            Which::Noq(connection) => connection.read_datagram().await?,
        })
    }

    /// What corelane counted.
    ///
    /// # Errors
    /// The connection is over, or not corelane's.
    pub async fn stats(&self) -> Result<ConnectionStats, Fault> {
        match &self.which {
            Which::Corelane(connection) => Ok(connection.stats().await?),
            Which::Noq(_) => Err("these are noq's".into()),
        }
    }

    /// The frames that noq sent and received on a path; none where it is not noq's, or gone.
    pub fn frames(&self, id: u32) -> Option<(FrameStats, FrameStats)> {
        let Which::Noq(connection) = &self.which else {
            return None;
        };
        let stats = connection.path_stats(id.into())?;
        Some((stats.frame_tx, stats.frame_rx))
    }

    /// Closes the connection.
    pub fn close(&self) {
        match &self.which {
            Which::Corelane(connection) => connection.close(0, b""),
            Which::Noq(connection) => connection.close(0u8.into(), b""),
        }
    }

    /// Why it is over, if it is.
    pub fn close_reason(&self) -> Option<String> {
        match &self.which {
            Which::Corelane(connection) => connection.close_reason().map(|e| e.to_string()),
            Which::Noq(connection) => connection.close_reason().map(|e| e.to_string()),
        }
    }
}
