//! The QUIC wire: packets, frames, transport parameters and varints, parsed and written.
//!
//! Pure functions over byte slices. No input makes them panic, allocate per packet or loop without
//! advancing; what is wrong with an input comes back as an error that names the RFC's code. Keys,
//! state and meaning live in the layers above.

pub mod cid;
pub mod error;
pub mod extensions;
pub mod frame;
pub mod header;
pub mod packet_number;
pub mod tparams;
pub mod varint;
pub mod version;

pub use cid::ConnectionId;
pub use error::{Code, TransportError};
pub use extensions::Extensions;
pub use frame::{Dir, Frame, PacketType, Side, StreamId};
pub use header::{Header, HeaderError, LongType, dcid};
pub use tparams::{PreferredAddress, TransportParameters};
pub use varint::{Reader, Truncated, Writer};
pub use version::{Version, VersionInformation};
