//! corelane and noq behind one face, so that a test about several paths is written once and played
//! with either of them as the client and the other as the server.
//!
//! `endpoint` starts either, `peer` is a connection of either with what both can tell of its paths,
//! `links` is the network between them: a relay with a link for each of the client's addresses.
//! The tests are in `tests/noq`.

mod endpoint;
mod links;
mod peer;

pub use endpoint::{Accepted, Endpoint, Identity};
pub use links::{LOCALS, Links};
pub use peer::{News, Peer, View};

/// Anything that goes wrong, as text for a test's failure.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// An implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This one.
    Corelane,
    /// The other one.
    Noq,
}

impl Kind {
    /// The one that it is tested with.
    pub fn other(self) -> Self {
        match self {
            Self::Corelane => Self::Noq,
            Self::Noq => Self::Corelane,
        }
    }
}
