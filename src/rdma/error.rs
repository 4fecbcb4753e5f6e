//! What a call can fail with, by whose fault it is.
//!
//! What goes wrong on the wire is no error of a call: it is a completion's [`super::Status`], an
//! [`super::AsyncEvent`] or a counter.

use super::attr::QpState;
use std::io;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The peer's, on the wire or in what it announced.
    Peer,
    /// A configured value's, or a limit's.
    Configuration,
    /// The calling program's.
    Misuse,
    /// The machine's.
    System,
}

/// A call that failed. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RdmaError {
    /// A value that the peer announced cannot be used.
    #[error("the peer's {name} is {value}: {allowed}")]
    PeerAttribute {
        /// Which.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
    /// An attribute is out of its range.
    #[error("{name} is {value}: {allowed}")]
    Attribute {
        /// Which.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
    /// The device has as many of these as it can have.
    #[error("no room for more {what}: the device has at most {limit}")]
    Limit {
        /// Objects, or bytes.
        what: &'static str,
        /// How many.
        limit: u64,
    },
    /// An address vector names no address of this device.
    #[error("the device has no GID at index {index}")]
    NoGid {
        /// The index asked for.
        index: u8,
    },
    /// The object is gone, or another device's.
    #[error("there is no such {0}")]
    Unknown(&'static str),
    /// Objects of one call belong to different protection domains.
    #[error("the {0} is of another protection domain")]
    ForeignDomain(&'static str),
    /// Others still use the object.
    #[error("the {what} is in use by {users} others")]
    Busy {
        /// The object.
        what: &'static str,
        /// How many use it.
        users: u32,
    },
    /// Not in this state.
    #[error("{call} in state {state:?}: possible in {allowed}")]
    State {
        /// What was called.
        call: &'static str,
        /// The queue pair's state.
        state: QpState,
        /// The states where it is possible.
        allowed: &'static str,
    },
    /// The queue holds as many requests as it was made for.
    #[error("the {what} is full with {depth} requests")]
    QueueFull {
        /// Which queue.
        what: &'static str,
        /// Its length.
        depth: u32,
    },
    /// The queue pair receives from a shared receive queue; post there.
    #[error("the queue pair receives from a shared receive queue")]
    SharedReceives,
    /// Bytes outside a region.
    #[error("{len} bytes from {offset} are not all in a region of {region}")]
    OutOfRange {
        /// The first byte.
        offset: u64,
        /// How many.
        len: u64,
        /// The region's length.
        region: u64,
    },
    /// The machine refused.
    #[error("{op}: {}", io::Error::from_raw_os_error(*errno))]
    System {
        /// The call or operation.
        op: &'static str,
        /// What the kernel answered.
        errno: i32,
    },
}

impl RdmaError {
    /// Whose fault it is.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::PeerAttribute { .. } => Blame::Peer,
            Self::Attribute { .. } | Self::Limit { .. } | Self::NoGid { .. } => {
                Blame::Configuration
            }
            Self::Unknown(_)
            | Self::ForeignDomain(_)
            | Self::Busy { .. }
            | Self::State { .. }
            | Self::QueueFull { .. }
            | Self::SharedReceives
            | Self::OutOfRange { .. } => Blame::Misuse,
            Self::System { .. } => Blame::System,
        }
    }

    /// The error of `op` as the standard library reported it.
    pub(crate) fn system(op: &'static str, error: &io::Error) -> Self {
        Self::System {
            op,
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

/// A batch of requests that was posted up to one of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request {index} of the batch: {error}")]
pub struct PostError {
    /// The first request that was not posted; those before it were.
    pub index: usize,
    /// Why.
    pub error: RdmaError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_and_whose() {
        let error = RdmaError::State {
            call: "post_send",
            state: QpState::Init,
            allowed: "RTS",
        };
        assert_eq!(
            error.to_string(),
            "post_send in state Init: possible in RTS"
        );
        assert_eq!(error.blame(), Blame::Misuse);
        let error = PostError { index: 3, error };
        assert!(
            error
                .to_string()
                .starts_with("request 3 of the batch: post_send")
        );
        let error = RdmaError::system("mmap", &io::Error::from_raw_os_error(libc::ENOMEM));
        assert_eq!(error.blame(), Blame::System);
        assert!(error.to_string().starts_with("mmap: "), "{error}");
    }
}
