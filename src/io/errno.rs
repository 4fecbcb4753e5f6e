//! Every errno that the socket calls can give, by name, with what it means for us.
//!
//! The class decides what a backend does: try again [later](Class::Later), count the datagram as
//! [dropped](Class::Drop) and go on, or give the socket up as [broken](Class::Broken). The network
//! can cause only the first two. An errno that is not listed counts as a drop: losing a datagram
//! is always survivable.

use std::fmt;

/// What a backend does about an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing was sent or received, and a later attempt may succeed.
    Later,
    /// This datagram (or train) is lost; why.
    Drop(&'static str),
    /// The socket will never work again; why.
    Broken(&'static str),
}

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident => $class:expr,)*) => {
        /// The listed errnos.
        const TABLE: &[(i32, &str, Class)] = &[$((libc::$name, stringify!($name), $class),)*];
    };
}

use Class::{Broken, Drop, Later};

errnos! {
    // EWOULDBLOCK is the same number.
    EAGAIN => Later,
    EINTR => Later,
    // Our own cancellation, when a socket is removed with sends in flight.
    ECANCELED => Drop("the operation was cancelled because its socket was removed"),
    // Answers of the network (ICMP) to something sent before; the call itself did nothing.
    ECONNREFUSED => Drop("nobody listens on the peer's port (ICMP port unreachable)"),
    ECONNRESET => Drop("the peer's host reset the association"),
    EHOSTUNREACH => Drop("no host answers there (ICMP host unreachable, or ARP failed)"),
    ENETUNREACH => Drop("no route to the peer's network"),
    EHOSTDOWN => Drop("the peer's host is down"),
    ENETDOWN => Drop("the network interface is down"),
    ENETRESET => Drop("the network dropped the association"),
    ENONET => Drop("the machine is not on the network"),
    ETIMEDOUT => Drop("the neighbour did not answer in time"),
    EPROTO => Drop("an ICMP parameter problem came back"),
    // The datagram does not fit; path MTU discovery provokes this on purpose.
    EMSGSIZE => Drop("the datagram is larger than the interface or the path carries"),
    // Local policy.
    EPERM => Drop("a firewall rule on this machine rejects the datagram"),
    EACCES => Drop("the destination is a broadcast or otherwise forbidden address"),
    // Local shortage. The datagram is gone: the queue discipline or the allocator dropped it.
    ENOBUFS => Drop("the interface's queue is full"),
    ENOMEM => Drop("the kernel has no memory for the datagram"),
    // The message as we built it.
    EINVAL => Drop("the kernel refuses the message's address, control data or segment size"),
    EIO => Drop("the interface cannot segment or checksum the train"),
    ENOPROTOOPT => Drop("the kernel does not know a control message"),
    EADDRNOTAVAIL => Drop("the source address does not belong to this machine"),
    EAFNOSUPPORT => Drop("the destination's address family is not the socket's"),
    EDESTADDRREQ => Drop("the datagram has no destination"),
    ENODEV => Drop("the interface has gone away"),
    ENXIO => Drop("the interface has gone away"),
    EISCONN => Drop("the socket is connected and the kernel refuses a destination"),
    // The socket itself.
    EBADF => Broken("the descriptor is closed"),
    ENOTSOCK => Broken("the descriptor is not a socket"),
    EOPNOTSUPP => Broken("the socket does not support the operation"),
    ENOTCONN => Broken("the socket has been disconnected"),
    EPIPE => Broken("the socket has been shut down"),
    EFAULT => Broken("a buffer lies outside of the address space"),
    // Only the set-up of rings and sockets gives these.
    ENOSYS => Broken("the kernel does not have the system call"),
    EEXIST => Broken("the ring belongs to another thread"),
    EMFILE => Broken("the process has too many open files"),
    ENFILE => Broken("the system has too many open files"),
}

/// Errnos with a name here; one more slot in a table of counts is for all others.
pub(super) const COUNT: usize = TABLE.len();

impl Errno {
    /// The calling thread's last error.
    pub fn last() -> Self {
        Self(
            std::io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO),
        )
    }

    /// Its place in the table; [`COUNT`] when it is not listed.
    pub(super) fn index(self) -> usize {
        TABLE
            .iter()
            .position(|(code, ..)| *code == self.0)
            .unwrap_or(COUNT)
    }

    /// The errno at a place in the table.
    pub(super) fn at(index: usize) -> Option<Self> {
        TABLE.get(index).map(|(code, ..)| Self(*code))
    }

    /// Its symbolic name, `"unlisted"` when it has none here.
    pub fn name(self) -> &'static str {
        TABLE.get(self.index()).map_or("unlisted", |(_, n, _)| n)
    }

    /// What to do about it.
    pub fn class(self) -> Class {
        TABLE
            .get(self.index())
            .map_or(Drop("an errno that no socket call documents"), |t| t.2)
    }

    /// Whether a `sendmsg` with UDP_SEGMENT may have failed because of UDP_SEGMENT, so that the
    /// segments are worth trying one by one.
    pub(super) fn may_be_segmentation(self) -> bool {
        matches!(
            self.0,
            libc::EINVAL | libc::EIO | libc::ENOPROTOOPT | libc::EOPNOTSUPP
        )
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class() {
            Later => write!(f, "{}: try again", self.name()),
            Drop(why) | Broken(why) => write!(f, "{} ({}): {why}", self.name(), self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_is_listed_once_and_unknown_ones_are_drops() {
        for (i, (code, name, _)) in TABLE.iter().enumerate() {
            assert_eq!(Errno(*code).index(), i, "{name} is listed twice");
            assert_eq!(Errno::at(i), Some(Errno(*code)));
        }
        let strange = Errno(9999);
        assert_eq!((strange.index(), strange.name()), (COUNT, "unlisted"));
        assert!(matches!(strange.class(), Drop(_)));
        assert_eq!(Errno(libc::EWOULDBLOCK).class(), Later);
        assert_eq!(format!("{:?}", Errno(libc::EMSGSIZE)), "EMSGSIZE(90)");
    }

    #[test]
    fn what_the_network_can_cause_never_breaks_a_socket() {
        use libc::*;
        for code in [
            ECONNREFUSED,
            EHOSTUNREACH,
            ENETUNREACH,
            EMSGSIZE,
            EPERM,
            EPROTO,
        ] {
            assert!(matches!(Errno(code).class(), Drop(_)), "{:?}", Errno(code));
        }
    }
}
