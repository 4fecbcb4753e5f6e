//! What a backend tells of received trains: that they come, and then the trains themselves.

use super::RecvMeta;

/// Trains that are told of before their turn, at most.
pub const AHEAD: usize = 3;

/// See [`Backend::recv_ahead`](super::Backend::recv_ahead).
#[derive(Debug)]
pub enum Arrival<'a> {
    /// The bytes of a train whose turn comes soon, if its sender's address can be read.
    Coming(&'a [u8]),
    /// A train; the bytes may be changed.
    Train(&'a RecvMeta, &'a mut [u8]),
}
