//! A UDP relay on loopback between clients and a server, with a link between them that misbehaves
//! as it is told, or several paths with a link each.
//!
//! Delay, rate, queue, loss, corruption, reordering, duplication, outages, selected drops, a
//! competing flow, and clients whose port or address changes underway; ECN marks pass through. What
//! happens to a datagram depends on the seed and on the arrivals alone. [`Relay`] runs on a thread
//! of its own; the log that it leaves is what assertions read.
//!
//! `link` decides each datagram's fate, `path` is one of several links and what changes on it,
//! `cross` is the competing flow, `relay` moves the bytes.

mod cross;
mod link;
mod log;
mod path;
mod relay;
mod socket;

pub use link::{Fate, Knob, LinkConfig};
pub use log::{Counts, Direction, Entry, Log};
pub use path::{Change, Event, PathConfig};
pub use relay::{Config, Rebind, RebindKind, Relay};
