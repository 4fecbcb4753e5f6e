//! The vocabulary every other layer shares: time, addresses, ECN, limits, seeded randomness and
//! bounded queues.
//!
//! Nothing here reads a clock, touches the operating system or knows a protocol. Time enters the
//! engine as a [`Timestamp`] argument and randomness as a [`Rng`] argument, so that the same code
//! runs on a real shard and under a simulator that replays a seed exactly.

pub mod limits;
pub mod net;
pub mod queue;
pub mod rng;
pub mod time;

pub use net::{AddressState, Ecn, FourTuple, LocalAddress, PathId, RecvMeta, SocketId, Transmit};
pub use queue::BoundedQueue;
pub use rng::Rng;
pub use time::Timestamp;
