//! RoCE v2 packets of a reliable connection: parse and write, pure, over slices.
//!
//! A packet is a UDP payload: BTH, what its opcode says, data, zeros up to a multiple of four, and
//! the ICRC ([`icrc`]). No input panics and nothing allocates. Which packets make sense in which
//! order is the queue pair's business.

pub mod headers;
pub mod icrc;
pub mod opcode;
pub mod packet;
pub mod psn;

pub use headers::{Aeth, AtomicEth, Bth, Reth};
pub use icrc::{Icrc, Verdict};
pub use opcode::{Kind, Opcode, Place, Refusal};
pub use packet::{Ext, Malformed, Packet};
pub use psn::Psn;
