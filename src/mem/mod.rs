//! Memory that the kernel or a device reads and writes while we do other things.
//!
//! [`region`] maps it, [`pool`] cuts it into fixed buffers that are lent out as leases. Nothing
//! here knows what the bytes mean.

pub mod pool;
pub mod region;

pub use pool::{Lease, Pool};
pub use region::{Pages, Region};
