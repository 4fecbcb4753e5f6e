//! The sockets of a simulated network: who is bound where, and what waits to be read.
//!
//! Sockets on one address form a group in the order of binding, as with SO_REUSEPORT; when one
//! leaves, the last takes its place, as in Linux. A socket holds so many bytes and drops the rest.

use super::Train;
use crate::base::net::canonical;
use crate::io::{Errno, IoError, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Bytes that wait in one socket, the default of a kernel backend's socket.
const RECEIVE_BYTES: usize = 8 << 20;
/// The first port that is given out by itself, as IANA assigns them.
const FIRST_EPHEMERAL: u16 = 49_152;

/// A socket of the whole network.
pub(super) type SocketKey = usize;
/// Chooses among the sockets of a group.
pub(super) type Program = Box<dyn FnMut(&[u8]) -> Option<usize> + Send>;

#[derive(Default)]
struct Group {
    members: Vec<SocketKey>,
    program: Option<Program>,
}

#[derive(Debug)]
struct Inbox {
    trains: VecDeque<Train>,
    bytes: usize,
    waker: Waker,
}

/// Why a train found no socket.
#[derive(Debug)]
pub(super) enum Refused {
    Nobody,
    Full,
}

#[derive(Default)]
pub(super) struct Sockets {
    inboxes: Vec<Option<Inbox>>,
    groups: BTreeMap<SocketAddr, Group>,
}

impl Sockets {
    /// Binds a socket to `address`, or to all of `hosts` when its IP is unspecified; chooses a
    /// free port when its port is 0. Gives the address it is bound to.
    pub(super) fn bind(
        &mut self,
        hosts: &[IpAddr],
        address: SocketAddr,
        waker: Waker,
    ) -> Result<(SocketKey, SocketAddr), IoError> {
        let mut address = canonical(address);
        let refuse = |errno| IoError::System {
            op: "bind",
            errno: Errno(errno),
        };
        // A dual-stack wildcard takes both families, as in Linux.
        let family = |ip: &IpAddr| address.is_ipv6() || ip.is_ipv4();
        let ips: Vec<IpAddr> = if address.ip().is_unspecified() {
            hosts.iter().copied().filter(family).collect()
        } else {
            hosts
                .iter()
                .copied()
                .filter(|&ip| ip == address.ip())
                .collect()
        };
        if ips.is_empty() {
            return Err(refuse(libc::EADDRNOTAVAIL));
        }
        if address.port() == 0 {
            let free = |port: &u16| {
                let taken = |ip: &IpAddr| self.is_bound(SocketAddr::new(*ip, *port));
                !ips.iter().any(taken)
            };
            let port = (FIRST_EPHEMERAL..=u16::MAX).find(free);
            address.set_port(port.ok_or_else(|| refuse(libc::EADDRINUSE))?);
        }
        let key = self.inboxes.len();
        self.inboxes.push(Some(Inbox {
            trains: VecDeque::new(),
            bytes: 0,
            waker,
        }));
        for ip in ips {
            let at = SocketAddr::new(ip, address.port());
            self.groups.entry(at).or_default().members.push(key);
        }
        Ok((key, address))
    }

    pub(super) fn unbind(&mut self, key: SocketKey) {
        if let Some(inbox) = self.inboxes.get_mut(key) {
            *inbox = None;
        }
        for group in self.groups.values_mut() {
            if let Some(place) = group.members.iter().position(|&m| m == key) {
                group.members.swap_remove(place);
            }
        }
    }

    pub(super) fn steer(&mut self, address: SocketAddr, program: Program) {
        self.groups.entry(canonical(address)).or_default().program = Some(program);
    }

    pub(super) fn deliver(&mut self, train: Train) -> Result<(), Refused> {
        let group = self
            .groups
            .get_mut(&train.path.local)
            .ok_or(Refused::Nobody)?;
        let first = train
            .bytes
            .get(..train.segment_size)
            .unwrap_or(&train.bytes);
        let steered = group.program.as_mut().and_then(|program| program(first));
        let key = steered
            .and_then(|place| group.members.get(place))
            .or_else(|| {
                let hash = super::link_seed(
                    u64::from(train.path.remote.port()),
                    train.path.remote.ip(),
                    train.path.local.ip(),
                );
                let count = group.members.len().max(1) as u64;
                group.members.get((hash % count) as usize)
            });
        let Some(Some(inbox)) = key.and_then(|&key| self.inboxes.get_mut(key)) else {
            return Err(Refused::Nobody);
        };
        if inbox.bytes.saturating_add(train.bytes.len()) > RECEIVE_BYTES {
            return Err(Refused::Full);
        }
        inbox.bytes += train.bytes.len();
        inbox.trains.push_back(train);
        inbox.waker.wake();
        Ok(())
    }

    pub(super) fn receive(&mut self, key: SocketKey) -> Option<Train> {
        let inbox = self.inboxes.get_mut(key)?.as_mut()?;
        let train = inbox.trains.pop_front()?;
        inbox.bytes -= train.bytes.len();
        Some(train)
    }

    pub(super) fn unread(&self, key: SocketKey) -> bool {
        let inbox = self.inboxes.get(key).and_then(Option::as_ref);
        inbox.is_some_and(|inbox| !inbox.trains.is_empty())
    }

    pub(super) fn has_unread(&self) -> bool {
        self.inboxes
            .iter()
            .flatten()
            .any(|inbox| !inbox.trains.is_empty())
    }

    fn is_bound(&self, address: SocketAddr) -> bool {
        let group = self.groups.get(&address);
        group.is_some_and(|group| !group.members.is_empty())
    }
}
