//! What a shard asks of the machine it runs on: the clock, the processor cores, its addresses.
//!
//! Nothing here knows sockets or QUIC. The clock is read in [`clock`] and nowhere else in the
//! crate; everything above takes a `Timestamp` as an argument.

pub mod affinity;
pub mod clock;
pub mod device;
pub mod netlink;
pub mod pages;
pub mod reuseport;
