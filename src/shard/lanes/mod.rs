//! Lanes: messages and one-sided operations between two processes, over RDMA queue pairs where
//! both have them and over QUIC streams where not, under one interface.
//!
//! A lane begins with a QUIC connection, whose first stream carries the bootstrap
//! ([`crate::rdma::bootstrap`]). The connection's life is the lane's: when it ends, however it
//! ends, the queue pair, its memory and its domain go. A [`LaneShard`] is the application of a
//! shard; what is done with lanes is a [`LaneApp`], called on the shard's thread. Begin there.
//!
//! **TLS protects the bootstrap. What goes over a queue pair is neither encrypted nor
//! authenticated.** Lanes that run over streams have all of QUIC's protection.

mod app;
mod board;
mod bootstrap;
mod carry;
mod handle;
mod host;
mod pairs;
mod port;
mod post;
mod returns;
mod roce;
mod serve;
mod session;
mod settle;
mod sockets;
mod status;
mod wake;

pub use app::{Consume, LaneApp, LaneEnd, LaneError, LaneInfo, OpError, Operation, Target};
pub use board::{Board, LaneStats, ShardStatus};
pub use handle::Lanes;
pub use host::{LaneConfig, LaneShard};
pub use port::{PortConfig, PortError, PortSetup, Ports, ProviderChoice};
pub use returns::Returns;
pub use roce::{RocePort, RoceSetup};
pub use session::LaneId;
