//! Memory that the kernel or a device reads and writes while we do other things.
//!
//! [`region`] maps it, [`pool`] cuts it into fixed buffers that are lent out as leases, [`owned`]
//! keeps it whole for one owner. Nothing here knows what the bytes mean. [`prefetch`] is for any
//! memory.

pub mod owned;
pub mod pool;
mod prefetch;
pub mod region;

pub use owned::Owned;
pub use pool::{Lease, Pool};
pub use prefetch::{prefetch, prefetch_at};
pub use region::{Pages, Region};
