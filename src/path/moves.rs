//! A path's move to other addresses, and what is kept for a return (RFC 9000 §9.3, §9.4).
//!
//! What was learnt of the old addresses, congestion and round-trip times, does not count for the
//! new ones, and neither do packets that were sent to the old ones. They stay in the packet number
//! space, which is the connection's: what is lost of them is sent again.

use super::{Path, PathConfig, mtu, pacer};
use crate::base::{FourTuple, SocketId};
use crate::recovery::{Controller, MtuDiscovery, Pacer, Rtt};

/// Addresses that were proven and then left, with what was learnt of them.
#[derive(Debug)]
pub struct Former {
    /// The socket.
    pub socket: SocketId,
    /// Both ends.
    pub tuple: FourTuple,
    /// `None` where it was kept for the new addresses.
    learnt: Option<Learnt>,
}

#[derive(Debug)]
struct Learnt {
    rtt: Rtt,
    cc: Controller,
    pacer: Pacer,
    mtu: MtuDiscovery,
}

impl<F: Copy> Path<F> {
    /// Moves to other addresses. What was learnt starts afresh, unless `keep`: a change of the
    /// peer's port alone is most often a NAT's doing (RFC 9000 §9.4). Addresses that were proven
    /// are kept for a return.
    pub fn move_to(&mut self, socket: SocketId, tuple: FourTuple, keep: bool, config: &PathConfig) {
        let left = (self.socket, self.tuple);
        self.socket = socket;
        self.tuple = tuple;
        let learnt = (!keep).then(|| self.start_afresh(config));
        // Addresses that were never proven are nothing to return to: older ones stay.
        if self.validation.is_validated() {
            let (socket, tuple) = left;
            self.former = Some(Box::new(Former {
                socket,
                tuple,
                learnt,
            }));
        }
    }

    /// Goes back to the addresses that were proven before, if there are any, with what was learnt
    /// of them.
    pub fn move_back(&mut self, config: &PathConfig) -> bool {
        let Some(former) = self.former.take() else {
            return false;
        };
        self.socket = former.socket;
        self.tuple = former.tuple;
        self.validation.set_validated();
        if let Some(learnt) = former.learnt {
            self.start_afresh(config);
            self.rtt = learnt.rtt;
            self.cc = learnt.cc;
            self.pacer = learnt.pacer;
            self.mtu = learnt.mtu;
        }
        true
    }

    fn start_afresh(&mut self, config: &PathConfig) -> Learnt {
        let mtu = mtu(config, &self.tuple, self.peer_mtu);
        let cc = Controller::new(config.congestion, mtu.current());
        self.pto_count = 0;
        self.window_limited = false;
        self.bytes_in_flight = 0;
        self.first_pn = self.sent.next_packet_number();
        // RFC 9000 §9.2: the new path may treat the marks differently.
        self.ecn.restart(config.ecn);
        Learnt {
            rtt: std::mem::replace(&mut self.rtt, Rtt::new(config.initial_rtt)),
            cc: std::mem::replace(&mut self.cc, cc),
            pacer: std::mem::replace(&mut self.pacer, pacer(config)),
            mtu: std::mem::replace(&mut self.mtu, mtu),
        }
    }
}
