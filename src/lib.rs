//! corelane: a thread-per-core QUIC transport engine for Linux.
//!
//! Three depths, each built on the one before:
//!
//! 1. [`conn`], the state machine: bytes and time go in, bytes and events come out. Begin at
//!    [`conn::Endpoint`].
//! 2. [`shard`], callbacks: an application object on each pinned thread. Begin at
//!    [`shard::ShardApp`] and [`shard::engine::Engine`].
//! 3. [`api`], async handles for any executor. Begin at [`api::Endpoint`].
//!
//! Beside these are lanes ([`shard::lanes`]): messages and memory that the peer reads and writes,
//! over RDMA or QUIC. Begin at [`shard::lanes::LaneApp`].
//!
//! [`stream`] has the streams of the first two depths, [`base::limits`] every limit and default.
//! The other modules are what these are made of. The README says what is supported, and its
//! examples are in `examples/`.
#![warn(missing_docs)]

pub mod api;
pub mod base;
pub mod conn;
pub mod crypto;
pub mod io;
pub mod mem;
pub mod path;
pub mod rdma;
pub mod recovery;
pub mod shard;
pub mod stream;
pub mod sys;
pub mod wire;

/// The examples in the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
