//! A socket of its own for one peer: connected, it spares the kernel a look at its routes for each
//! train that leaves, and the peer's address for each that comes.
//!
//! Over IPv6 only: the kernel counts up IPv4's identification for a connected socket, from where it
//! does not say, and the ICRC covers it. The first peer has the socket until its last queue pair is
//! gone; what others send goes to the device's own, as does what the peer sends from another port.

use crate::base::{FourTuple, SocketId};
use crate::rdma::port::SocketChange;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No peer has one.
    #[default]
    None,
    /// To be opened beside the device's own.
    Wanted(SocketId),
    /// It was asked for.
    Asked,
    Open(SocketId),
    /// There is none to be had.
    Refused,
    /// To be closed.
    Closing(SocketId),
}

/// The socket and whose it is.
#[derive(Debug, Default)]
pub(super) struct Direct {
    way: Option<FourTuple>,
    users: usize,
    state: State,
}

impl Direct {
    /// A queue pair is connected this way, beside the device's own socket: whether it is one of
    /// the socket's users.
    pub fn join(&mut self, way: FourTuple, own: SocketId) -> bool {
        if self.state == State::None && way.remote.is_ipv6() {
            self.way = Some(way);
            self.state = State::Wanted(own);
        }
        let joins = self.way == Some(way);
        self.users += usize::from(joins);
        joins
    }

    /// A user is gone.
    pub fn leave(&mut self) {
        self.users -= 1;
        if self.users == 0 {
            self.way = None;
            self.state = match self.state {
                State::Open(socket) => State::Closing(socket),
                _ => State::None,
            };
        }
    }

    /// What its users send by, when it is open.
    pub fn socket(&self) -> Option<SocketId> {
        match self.state {
            State::Open(socket) => Some(socket),
            _ => None,
        }
    }

    /// What is to be done about it, told once.
    #[inline]
    pub fn change(&mut self) -> Option<SocketChange> {
        match (self.state, self.way) {
            (State::Wanted(own), Some(way)) => {
                self.state = State::Asked;
                Some(SocketChange::Connect { beside: own, way })
            }
            (State::Closing(socket), _) => {
                self.state = State::None;
                Some(SocketChange::Close(socket))
            }
            _ => None,
        }
    }

    /// What was asked for was done, or cannot be.
    pub fn connected(&mut self, socket: Option<SocketId>) {
        if self.state == State::Asked {
            self.state = socket.map_or(State::Refused, State::Open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(peer: &str) -> FourTuple {
        let local = if peer.starts_with('[') {
            "[::1]:1"
        } else {
            "127.0.0.1:1"
        };
        FourTuple::new(local.parse().unwrap(), peer.parse().unwrap())
    }

    #[test]
    fn the_first_peer_has_it_until_its_last_queue_pair_is_gone() {
        let (own, made) = (SocketId(3), SocketId(5));
        let (a, b) = (way("[::1]:2"), way("[::1]:4"));
        let mut d = Direct::default();
        assert!(!d.join(way("127.0.0.1:2"), own) && d.change().is_none());
        assert!(d.join(a, own) && !d.join(b, own) && d.join(a, own));
        let connect = SocketChange::Connect {
            beside: own,
            way: a,
        };
        assert_eq!(d.change(), Some(connect));
        assert_eq!((d.change(), d.socket()), (None, None));
        d.connected(Some(made));
        assert_eq!((d.change(), d.socket()), (None, Some(made)));
        d.leave();
        assert_eq!(d.socket(), Some(made));
        d.leave();
        // Not another's before it is closed.
        assert_eq!((d.socket(), d.join(b, own)), (None, false));
        assert_eq!(d.change(), Some(SocketChange::Close(made)));
        assert!(d.change().is_none() && d.join(b, own));
        assert!(d.change().is_some());
        d.connected(None);
        // Not asked for again while that peer has queue pairs.
        assert!(d.join(b, own) && d.change().is_none());
        assert_eq!(d.socket(), None);
        d.leave();
        d.leave();
        assert!(d.change().is_none() && d.join(a, own));
    }
}
