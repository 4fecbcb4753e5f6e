//! The third depth: an async face for any executor, tokio included.
//!
//! An [`Endpoint`] runs shards on threads of their own and hands out connections; those hand out
//! streams. All of it is handles: futures only wait for the shards, with nothing but `std::task`,
//! so there is no runtime to choose and no timer to drive. Where flow control holds a peer or a
//! writer back, the future waits; nothing is buffered without bound. Which futures may be dropped
//! midway without losing anything, each says.
//!
//! ```no_run
//! # type Outcome = Result<(), Box<dyn std::error::Error>>;
//! # async fn demo(tls: std::sync::Arc<rustls::ClientConfig>) -> Outcome {
//! let endpoint = corelane::api::Endpoint::client(tls)?;
//! let connection = endpoint.connect("192.0.2.1:4433".parse()?, "example.org").await?;
//! let (mut send, mut recv) = connection.open_bi().await?;
//! send.write_all(b"hello").await?;
//! send.finish()?;
//! println!("{:?}", recv.read_to_end(1 << 20).await?);
//! connection.close(0, b"done");
//! endpoint.wait_idle().await;
//! # Ok(()) }
//! ```

#[cfg(any(feature = "tokio", feature = "futures-io"))]
mod adapters;
mod connection;
mod datagrams;
mod driver;
mod endpoint;
pub mod error;
mod incoming;
pub mod keylog;
pub mod lanes;
mod lazy;
mod migrate;
mod other;
mod paths;
mod policy;
mod recv_stream;
mod send_stream;
mod shared;
mod sockets;
mod waiters;

pub use connection::{Connecting, Connection};
pub use endpoint::{Endpoint, EndpointBuilder};
pub use error::{
    ConnectError, KeyingMaterialError, MigrationError, PathError, ReadError, ReadExactError,
    ReadToEndError, RetryError, SendDatagramError, WriteError,
};
pub use incoming::Incoming;
pub use paths::{Path, PathOptions};
pub use recv_stream::RecvStream;
pub use send_stream::SendStream;
pub use shared::OtherDatagram;
pub use sockets::SocketOptions;

// What the face speaks of and other layers define.
pub use crate::conn::{AddressConfig, AdvertiseError};
pub use crate::conn::{ClosePathError, CopyStats, MultipathConfig, OpenPathError};
pub use crate::conn::{
    ConnectionError, ConnectionStats, MigrateError, MigrationFailure, PathStats, PortGuard,
    PreferredAddresses, TransportConfig,
};
pub use crate::conn::{PathEvent, PathInfo, PinError};
pub use crate::conn::{TokenMemory, TokenStore};
pub use crate::io::Choice;
pub use crate::path::duplicate::DuplicationConfig;
pub use crate::path::failure::FailureConfig;
pub use crate::path::reinject::{ReinjectionConfig, TargetSelector};
pub use crate::path::schedule::{SchedulerContext, SchedulerKind};
pub use crate::path::{PathCounters, PathId, PathState, PathStatus};
pub use crate::shard::demux::{Demux, OutboxError};
pub use crate::shard::engine::{Bind, EngineConfig, EngineError, Idle, now};
pub use crate::shard::metrics::{Metrics, MetricsReader, ShardMetrics};
pub use crate::shard::qlog::Qlog;
pub use crate::stream::DatagramStats;
pub use crate::sys::affinity::Core;
pub use crate::wire::{Code, StreamId};
pub use bytes::Bytes;
pub use rustls;
