//! A UDP relay on loopback between clients and one server, with a link between them that misbehaves
//! as it is told.
//!
//! Delay, rate, queue, loss, corruption, reordering, duplication, outages, selected drops, a
//! competing flow, and clients whose port or address changes underway; ECN marks pass through. What
//! happens to a datagram depends on the seed and on the arrivals alone. [`Relay`] runs on a thread
//! of its own; the log that it leaves is what assertions read.
//!
//! `link` decides each datagram's fate, `cross` is the competing flow, `relay` moves the bytes.

mod cross;
mod link;
mod log;
mod relay;
mod socket;

pub use link::{Fate, LinkConfig};
pub use log::{Counts, Direction, Entry, Log};
pub use relay::{Config, Rebind, RebindKind, Relay};
