//! The addresses of this machine, as they come and go: a watcher of the kernel's route messages.
//!
//! A [`RouteWatcher`] asks once for all links and addresses and then hears of changes; both come as
//! the same [`RouteEvent`]s. When messages were lost it asks again and tells the difference. It
//! never blocks; whoever holds it polls its descriptor. Which addresses make paths is decided in
//! `path::candidates`. The messages are few and read here (`message`), where a library would decode
//! all attributes of all links and fail on those of a newer kernel.

mod message;

use crate::base::{LocalAddress, limits};
use message::{Body, Message};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Room for one read; the kernel fills at most so much with the answers to a dump.
const BUFFER: usize = 32 * 1024;
/// Dumps in a row that a change overtook or that failed, before it is left at what is known.
const RETRIES: u32 = 8;

/// What happened to an address or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteEvent {
    /// An address is there, or its state has changed.
    AddressAdded {
        /// The address.
        address: LocalAddress,
        /// The name of its interface; empty when the kernel has not told.
        interface: Box<str>,
        /// The kernel's flags (`IFA_F_*`).
        flags: u32,
    },
    /// An address is gone.
    AddressRemoved {
        /// The address as it was.
        address: LocalAddress,
    },
    /// A link carries packets (again); its addresses are of use.
    LinkUp {
        /// Its index.
        interface: u32,
    },
    /// A link carries nothing, or is gone; its addresses are of no use, whatever is said of them.
    LinkDown {
        /// Its index.
        interface: u32,
    },
}

#[derive(Debug)]
struct Link {
    index: u32,
    name: Box<str>,
    is_up: bool,
    is_seen: bool,
}

#[derive(Debug)]
struct Known {
    address: LocalAddress,
    flags: u32,
    is_seen: bool,
}

/// What was asked for and is being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dump {
    Links,
    Addresses,
    Idle,
}

/// What is known, and what messages change about it; apart from the socket.
#[derive(Debug)]
struct Table {
    links: Vec<Link>,
    addresses: Vec<Known>,
    dump: Dump,
    seq: u32,
    retries: u32,
    /// The dump at hand is to be repeated from the start.
    is_stale: bool,
}

/// What is to be asked of the kernel next.
type Request = Option<u16>;

impl Table {
    const fn new() -> Self {
        Self {
            links: Vec::new(),
            addresses: Vec::new(),
            dump: Dump::Idle,
            seq: 0,
            retries: 0,
            is_stale: false,
        }
    }

    /// Begins to learn everything anew.
    fn restart(&mut self) -> Request {
        for link in &mut self.links {
            link.is_seen = false;
        }
        for known in &mut self.addresses {
            known.is_seen = false;
        }
        self.is_stale = false;
        self.dump = Dump::Links;
        self.seq = self.seq.wrapping_add(1);
        Some(libc::RTM_GETLINK)
    }

    /// Messages were lost. The kernel answers one request after the other, so one that is being
    /// answered is waited for.
    fn lost(&mut self) -> Request {
        self.is_stale = true;
        match self.dump {
            Dump::Idle => self.restart(),
            Dump::Links | Dump::Addresses => None,
        }
    }

    fn take(&mut self, message: Message<'_>, events: &mut Vec<RouteEvent>) -> Request {
        let is_ours = self.dump != Dump::Idle && message.seq == self.seq;
        self.is_stale |= is_ours && message.is_interrupted;
        match message.body {
            Body::Link { index, name, is_up } => self.link(index, name, is_up, events),
            Body::LinkGone { index } => {
                self.links.retain(|l| l.index != index);
                events.push(RouteEvent::LinkDown { interface: index });
            }
            Body::Address { address, flags } => self.address(address, flags, events),
            Body::AddressGone { address } => {
                let same = |k: &mut Known| is_same(&k.address, &address);
                let gone = self.addresses.extract_if(.., same);
                events.extend(gone.map(removed));
            }
            // Lost messages are made up for by asking again.
            Body::Overrun => return self.lost(),
            Body::Done if is_ours => return self.next_dump(events),
            // What was not told is not gone.
            Body::Failed(_) if is_ours => {
                self.is_stale = true;
                return self.next_dump(events);
            }
            Body::Done | Body::Failed(_) | Body::Other => {}
        }
        None
    }

    fn next_dump(&mut self, events: &mut Vec<RouteEvent>) -> Request {
        if self.is_stale && self.retries < RETRIES {
            self.retries += 1;
            return self.restart();
        }
        match self.dump {
            Dump::Links if !self.is_stale => {
                self.dump = Dump::Addresses;
                self.seq = self.seq.wrapping_add(1);
                return Some(libc::RTM_GETADDR);
            }
            Dump::Addresses if !self.is_stale => self.forget_unseen(events),
            Dump::Links | Dump::Addresses | Dump::Idle => {}
        }
        self.dump = Dump::Idle;
        self.retries = 0;
        None
    }

    /// What a whole dump did not mention is gone.
    fn forget_unseen(&mut self, events: &mut Vec<RouteEvent>) {
        let gone = self.addresses.extract_if(.., |k| !k.is_seen);
        events.extend(gone.map(removed));
        let gone = self.links.extract_if(.., |l| !l.is_seen);
        events.extend(gone.map(|l| RouteEvent::LinkDown { interface: l.index }));
    }

    fn link(&mut self, index: u32, name: &[u8], is_up: bool, events: &mut Vec<RouteEvent>) {
        let name: Box<str> = String::from_utf8_lossy(name).into();
        let event = if is_up {
            RouteEvent::LinkUp { interface: index }
        } else {
            RouteEvent::LinkDown { interface: index }
        };
        if let Some(link) = self.links.iter_mut().find(|l| l.index == index) {
            if link.is_up != is_up {
                events.push(event);
            }
            (link.name, link.is_up, link.is_seen) = (name, is_up, true);
        } else if self.links.len() < limits::INTERFACES {
            events.push(event);
            self.links.push(Link {
                index,
                name,
                is_up,
                is_seen: true,
            });
        }
    }

    fn address(&mut self, address: LocalAddress, flags: u32, events: &mut Vec<RouteEvent>) {
        let same = |k: &&mut Known| is_same(&k.address, &address);
        if let Some(known) = self.addresses.iter_mut().find(same) {
            let is_news = known.address.state != address.state;
            (known.address, known.flags, known.is_seen) = (address, flags, true);
            if !is_news {
                return;
            }
        } else if self.addresses.len() < limits::INTERFACES {
            self.addresses.push(Known {
                address,
                flags,
                is_seen: true,
            });
        } else {
            return;
        }
        events.push(RouteEvent::AddressAdded {
            address,
            interface: self.name(address.interface).into(),
            flags,
        });
    }

    fn name(&self, index: u32) -> &str {
        let link = self.links.iter().find(|l| l.index == index);
        link.map_or("", |l| &l.name)
    }

    fn is_up(&self, index: u32) -> bool {
        self.links.iter().any(|l| l.index == index && l.is_up)
    }
}

fn is_same(a: &LocalAddress, b: &LocalAddress) -> bool {
    (a.ip, a.interface) == (b.ip, b.interface)
}

fn removed(known: Known) -> RouteEvent {
    RouteEvent::AddressRemoved {
        address: known.address,
    }
}

/// Follows the addresses of the network namespace that it was opened in.
#[derive(Debug)]
pub struct RouteWatcher {
    socket: Socket,
    table: Table,
    buffer: Box<[u8]>,
}

impl RouteWatcher {
    /// Opens the socket and asks for what there is; [`Self::read`] tells it.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `send`.
    pub fn new() -> io::Result<Self> {
        let ty = Type::RAW.nonblocking().cloexec();
        let protocol = Protocol::from(libc::NETLINK_ROUTE);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), ty, Some(protocol))?;
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        socket.bind(&address(groups as u32)?)?;
        let mut watcher = Self {
            socket,
            table: Table::new(),
            buffer: vec![0; BUFFER].into(),
        };
        let request = watcher.table.restart();
        watcher.ask(request)?;
        Ok(watcher)
    }

    /// Appends what has happened since the last call. Never blocks; call it when the descriptor is
    /// readable.
    ///
    /// # Errors
    /// Those of `recv` and `send`, but for lost messages, which are made up for.
    pub fn read(&mut self, events: &mut Vec<RouteEvent>) -> io::Result<()> {
        loop {
            let len = match self.receive() {
                Ok(len) => len,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => None,
                Err(e) => return Err(e),
            };
            // The last request counts: a later one starts over.
            let mut request = None;
            match len {
                None => request = self.table.lost(),
                Some(len) => {
                    let read = self.buffer.get(..len).unwrap_or_default();
                    for message in message::messages(read) {
                        request = self.table.take(message, events).or(request);
                    }
                }
            }
            self.ask(request)?;
        }
    }

    /// The addresses on links that carry packets, as of the last [`Self::read`].
    pub fn addresses(&self) -> impl Iterator<Item = LocalAddress> {
        let all = self.table.addresses.iter().map(|k| k.address);
        all.filter(|a| self.table.is_up(a.interface))
    }

    /// Whether all that there is has been told.
    pub fn is_settled(&self) -> bool {
        self.table.dump == Dump::Idle
    }

    /// The name of an interface; empty when it is not known.
    pub fn interface_name(&self, index: u32) -> &str {
        self.table.name(index)
    }

    fn ask(&self, request: Request) -> io::Result<()> {
        if let Some(ty) = request {
            self.socket
                .send(&message::dump_request(ty, self.table.seq))?;
        }
        Ok(())
    }

    /// The length of what the kernel said; `None` when it said more than there was room for.
    fn receive(&mut self) -> io::Result<Option<usize>> {
        loop {
            // SAFETY: all zeros are a valid `sockaddr_nl`.
            let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            let mut from_len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            // SAFETY: the buffer and the address are writable for the lengths given, and live
            // through the call.
            let got = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    libc::MSG_TRUNC,
                    (&raw mut from).cast(),
                    &raw mut from_len,
                )
            };
            let Ok(len) = usize::try_from(got) else {
                return Err(io::Error::last_os_error());
            };
            // Only the kernel has number 0; another process may send here too.
            if from.nl_pid == 0 {
                return Ok((len <= self.buffer.len()).then_some(len));
            }
        }
    }
}

impl AsFd for RouteWatcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The address of a netlink socket that hears these groups; the kernel chooses its number.
fn address(groups: u32) -> io::Result<SockAddr> {
    // SAFETY: the storage is zeroed and larger than a `sockaddr_nl`, which is what is written into
    // it and what the length says.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let nl = storage.cast::<libc::sockaddr_nl>();
            (*nl).nl_family = libc::AF_NETLINK as libc::sa_family_t;
            (*nl).nl_groups = groups;
            *len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

#[cfg(test)]
mod tests;
