//! What can go wrong with a backend as a whole or with one of its sockets.
//!
//! A datagram that the kernel or the network refuses is not an error here: it is counted in
//! [`super::IoStats`] under its errno's name. An error means that something must be closed or
//! configured differently.

use super::SocketId;
use super::errno::Errno;

/// A failure of the operating system that a retry does not cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// A system call of the backend itself failed.
    #[error("{op}: {errno}")]
    System {
        /// The system call or operation.
        op: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
    /// One socket is beyond use; the others are not affected. Reported once, after which the
    /// socket stays silent until it is removed.
    #[error("{op} on socket {}: {errno}", socket.0)]
    Socket {
        /// The socket.
        socket: SocketId,
        /// The system call or operation.
        op: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
    /// The backend holds as many sockets as it was configured for.
    #[error("no room for another socket: this backend holds at most {limit}")]
    TooManySockets {
        /// The configured number of sockets.
        limit: usize,
    },
    /// The backend watches as many descriptors as it can.
    #[error("no room for another watched descriptor: this backend has at most {limit}")]
    TooManyWatches {
        /// How many it can.
        limit: usize,
    },
    /// A simulated backend has addresses of its network only: use `SimBackend::bind`.
    #[error("a simulated backend takes no socket or descriptor of the system")]
    Simulated,
    /// The kernel, or a seccomp profile, does not offer what the backend needs.
    #[error("{what} is not available here: {errno}")]
    Unavailable {
        /// What is missing.
        what: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
}

impl IoError {
    /// The error of `op` that the calling thread's `errno` holds.
    pub(super) fn last(op: &'static str) -> Self {
        Self::from_io(op, &std::io::Error::last_os_error())
    }

    /// The error of `op` as the standard library reported it.
    pub(super) fn from_io(op: &'static str, error: &std::io::Error) -> Self {
        Self::System {
            op,
            errno: Errno(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}
