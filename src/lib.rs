//! corelane: a thread-per-core transport engine for Linux.
#![warn(missing_docs)]

pub mod api;
pub mod base;
pub mod conn;
pub mod crypto;
pub mod io;
pub mod mem;
pub mod path;
pub mod recovery;
pub mod shard;
pub mod stream;
pub mod sys;
pub mod wire;

/// The examples in the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
