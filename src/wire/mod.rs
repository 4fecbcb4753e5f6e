//! The QUIC wire: packets, frames, transport parameters and varints, parsed and written.
//!
//! Pure functions over byte slices. No input makes them panic, allocate per packet or loop without
//! advancing; what is wrong with an input comes back as an error that names the RFC's code. Keys,
//! state and meaning live in the layers above.

pub mod cid;
pub mod varint;

pub use cid::ConnectionId;
pub use varint::{Reader, Truncated, Writer};
