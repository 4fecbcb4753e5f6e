//! The shard's side of automatic paths: which addresses this host has, a socket for each that is of
//! use, and connections that ask for it (`MultipathConfig::auto_paths`) told of them.
//!
//! An application holds one [`AutoPaths`] and passes it events and turns. The kernel is listened to
//! while a connection wants to know, and asked a few times a second, so that nothing more has to
//! end a shard's sleep. Which paths are opened is the connection's own matter
//! (`crate::conn::multipath`), and which addresses can work `crate::path::candidates`'.

use super::Context;
use crate::base::{AddressState, LocalAddress, SocketId, Timestamp, limits};
use crate::conn::{ConnId, Connection, Event, LocalSocket};
use crate::path::PathState;
use crate::path::candidates::check;
use crate::sys::device;
use crate::sys::netlink::RouteWatcher;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How often the kernel is asked what has changed.
const LOOK: Duration = Duration::from_millis(250);
/// The same while its first answer is under way.
const SETTLE: Duration = Duration::from_millis(5);

/// What a shard knows of this host's addresses, and the sockets that it has made for them.
#[derive(Debug, Default)]
pub struct AutoPaths {
    /// Connections that want to know.
    clients: Vec<ConnId>,
    /// Those of them to be told with the next turn.
    fresh: Vec<ConnId>,
    /// What the application says that there is, in place of the kernel.
    given: Option<Vec<IpAddr>>,
    /// Open while a connection wants to know.
    watcher: Option<RouteWatcher>,
    /// What there was at the last look.
    all: Vec<LocalAddress>,
    /// All are to be told.
    changed: bool,
    /// The same with the next look: an address could not be bound to.
    retry: bool,
    /// Sockets that were made for addresses.
    sockets: Vec<(LocalAddress, SocketId)>,
    /// Those of addresses that are gone, until no path uses them.
    leaving: Vec<SocketId>,
    /// The kernel has not told all yet.
    settling: bool,
    /// When to look next; `None` while nobody wants to know.
    next: Option<Timestamp>,
}

/// A connection whose paths are automatic.
struct Client {
    id: ConnId,
    remotes: Vec<SocketAddr>,
    /// Where it leaves from already.
    homes: Vec<(IpAddr, SocketId, u16)>,
}

/// The addresses that the system chooses for packets to others, as far as they were asked for.
#[derive(Default)]
struct Sources(HashMap<SocketAddr, Option<IpAddr>>);

impl Sources {
    fn towards(&mut self, remote: SocketAddr) -> Option<IpAddr> {
        let known = self.0.entry(remote);
        *known.or_insert_with(|| source_towards(remote).ok())
    }
}

fn source_towards(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting sends nothing: it looks up the route.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

impl Client {
    fn of(id: ConnId, conn: &Connection, sources: &mut Sources) -> Self {
        let mut remotes = vec![conn.path().remote];
        remotes.extend(conn.peer_addresses());
        let live = conn
            .paths()
            .filter(|p| !matches!(p.state, PathState::Abandoned(_)));
        let homes = live.filter_map(|p| {
            let (local, remote) = (p.tuple.local, p.tuple.remote);
            let ip = Some(local.ip()).filter(|ip| !ip.is_unspecified());
            let ip = ip.or_else(|| sources.towards(remote))?;
            Some((ip, p.socket, local.port()))
        });
        let homes = homes.collect();
        Self { id, remotes, homes }
    }

    fn home(&self, ip: IpAddr) -> Option<(SocketId, u16)> {
        let mut homes = self.homes.iter();
        homes.find(|h| h.0 == ip).map(|h| (h.1, h.2))
    }

    fn reaches_from(&self, local: &LocalAddress) -> bool {
        self.remotes.iter().any(|to| check(local, *to).is_ok())
    }

    /// Whether it could use a socket there that it has not.
    fn lacks(&self, local: &LocalAddress) -> bool {
        self.home(local.ip).is_none() && self.reaches_from(local)
    }
}

impl AutoPaths {
    /// Passes on what a connection has to tell.
    pub fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: &Event) {
        // Where it leaves from, or goes to, may be different after a change of its paths.
        if !matches!(
            event,
            Event::Connected | Event::Path(_) | Event::Migrated(_)
        ) {
            return;
        }
        let connection = ctx.endpoint().connection(conn);
        if connection.is_none_or(|c| c.auto_paths().is_none()) {
            return;
        }
        if matches!(event, Event::Connected) {
            self.clients.push(conn);
        }
        if !self.fresh.contains(&conn) {
            self.fresh.push(conn);
        }
    }

    /// Names this host's addresses in place of the kernel; `None` leaves it to the kernel again.
    pub fn set_addresses(&mut self, given: Option<Vec<IpAddr>>) {
        self.given = given;
        self.changed = true;
    }

    /// Whether there is something to do with the next turn; for
    /// [`ShardApp::wants_turn`](super::ShardApp::wants_turn).
    #[inline]
    pub fn wants_turn(&self) -> bool {
        let news = !self.fresh.is_empty() || (self.changed && !self.clients.is_empty());
        news && !self.settling
    }

    /// Looks whether addresses have come or gone, if that is due, and tells the connections that
    /// want to know; says when to do so next. For
    /// [`ShardApp::on_turn`](super::ShardApp::on_turn).
    #[inline]
    pub fn turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        if self.wants_turn() || self.next.is_some_and(|at| at <= ctx.now()) {
            self.next = self.look(ctx);
        }
        self.next
    }

    fn look(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let now = ctx.now();
        let next = self.next.filter(|at| *at > now);
        if next.is_none() {
            self.forget_closed(ctx);
        }
        if self.clients.is_empty() {
            self.fresh.clear();
            (self.watcher, self.settling) = (None, false);
            self.all.clear();
            self.leave(ctx, |_| true);
            return (!self.leaving.is_empty()).then_some(now + LOOK);
        }
        self.settling = !self.learn();
        if self.settling {
            return Some(now + SETTLE);
        }
        let fresh = std::mem::take(&mut self.fresh);
        let all = std::mem::take(&mut self.changed) | std::mem::take(&mut self.retry);
        let told = if all { self.clients.clone() } else { fresh };
        let mut sources = Sources::default();
        let endpoint = ctx.endpoint();
        let client = |id| Some(Client::of(id, endpoint.connection(id)?, &mut sources));
        let clients: Vec<Client> = told.into_iter().filter_map(client).collect();
        let all = std::mem::take(&mut self.all);
        self.leave(ctx, |address| !all.iter().any(|a| a.ip == address.ip));
        self.make_sockets(ctx, &clients, &all);
        for client in &clients {
            self.tell(ctx, client, &all);
        }
        self.all = all;
        Some(next.unwrap_or(now + LOOK))
    }

    /// Forgets connections that are over, and closes what they leave.
    fn forget_closed(&mut self, ctx: &mut Context<'_>) {
        let endpoint = ctx.endpoint();
        let mut open = |id: &ConnId| endpoint.connection(*id).is_some_and(|c| !c.is_closed());
        self.clients.retain(&mut open);
        self.close_left(ctx);
    }

    /// Takes in this host's addresses; false while the kernel has not told all.
    fn learn(&mut self) -> bool {
        let all = if let Some(given) = &self.given {
            self.watcher = None;
            let of = |ip: &IpAddr| LocalAddress {
                ip: *ip,
                interface: 0,
                state: AddressState::Preferred,
            };
            given.iter().map(of).collect()
        } else {
            match self.ask_kernel() {
                Ok(Some(all)) => all,
                Ok(None) => return false,
                Err(error) if self.next.is_none() => {
                    tracing::warn!(%error, "the host's addresses are not known: no automatic paths");
                    return true;
                }
                Err(error) => {
                    tracing::debug!(%error, "the host's addresses are asked for anew");
                    return true;
                }
            }
        };
        self.changed |= all != self.all;
        self.all = all;
        true
    }

    fn ask_kernel(&mut self) -> io::Result<Option<Vec<LocalAddress>>> {
        let mut watcher = self.watcher.take().map_or_else(RouteWatcher::new, Ok)?;
        // What there is now says it all.
        watcher.read(&mut Vec::new())?;
        let all = watcher.is_settled().then(|| watcher.addresses().collect());
        self.watcher = Some(watcher);
        Ok(all)
    }

    /// Tells a connection what it can leave from.
    fn tell(&self, ctx: &mut Context<'_>, client: &Client, all: &[LocalAddress]) {
        let usable = all.iter().filter(|a| client.reaches_from(a));
        let placed = usable.filter_map(|address| {
            let made = || {
                let (_, socket) = self.sockets.iter().find(|s| s.0.ip == address.ip)?;
                Some((*socket, ctx.bound_at(*socket)?.port()))
            };
            let (socket, port) = client.home(address.ip).or_else(made)?;
            let address = *address;
            Some(LocalSocket {
                socket,
                port,
                address,
            })
        });
        let seen: Vec<LocalSocket> = placed.take(limits::INTERFACES).collect();
        let now = ctx.now();
        let conn = ctx.endpoint().connection(client.id);
        if conn.is_some_and(|conn| conn.set_local_addresses(now, &seen)) {
            ctx.endpoint().wake(client.id);
        }
    }

    /// Lets go of the sockets of addresses that are `gone`, and of those that were closed.
    fn leave(&mut self, ctx: &Context<'_>, gone: impl Fn(&LocalAddress) -> bool) {
        let open = |id: SocketId| ctx.bound_at(id).is_some();
        self.sockets.retain(|(_, id)| open(*id));
        let left = self.sockets.extract_if(.., |(address, _)| gone(address));
        self.leaving.extend(left.map(|(_, id)| id));
    }

    /// Closes the sockets that were let go and that no path uses any more.
    fn close_left(&mut self, ctx: &mut Context<'_>) {
        if self.leaving.is_empty() {
            return;
        }
        let endpoint = ctx.endpoint();
        let mut used = Vec::new();
        for id in endpoint.ids().collect::<Vec<_>>() {
            if let Some(conn) = endpoint.connection(id) {
                used.extend(self.leaving.iter().filter(|s| conn.uses_socket(**s)));
            }
        }
        for socket in self.leaving.extract_if(.., |s| !used.contains(s)) {
            ctx.remove_socket(socket);
        }
    }

    /// Binds sockets to what a connection could use, to one address of each interface first.
    fn make_sockets(&mut self, ctx: &mut Context<'_>, clients: &[Client], all: &[LocalAddress]) {
        for again in [false, true] {
            for address in all {
                let sockets = &self.sockets;
                let has = |s: &(LocalAddress, SocketId)| s.0.ip == address.ip;
                let beside = |s: &(LocalAddress, SocketId)| s.0.interface == address.interface;
                if sockets.len() >= limits::PATHS
                    || sockets.iter().any(has)
                    || (!again && sockets.iter().any(beside))
                    || !clients.iter().any(|c| c.lacks(address))
                {
                    continue;
                }
                let mut remotes = clients.iter().flat_map(|c| &c.remotes);
                let at_home = remotes.any(|to| all.iter().any(|a| a.ip == to.ip()));
                let device = device_of(self.watcher.as_ref(), address).filter(|_| !at_home);
                match bind(ctx, address, device) {
                    Ok(id) => self.sockets.push((*address, id)),
                    Err(error) => {
                        tracing::debug!(ip = %address.ip, %error, "no socket there yet");
                        self.retry = true;
                    }
                }
            }
        }
    }
}

/// The interface to send by: two of them often share a default route, which would lead both the
/// same way.
fn device_of<'a>(watcher: Option<&'a RouteWatcher>, address: &LocalAddress) -> Option<&'a str> {
    let name = watcher?.interface_name(address.interface);
    Some(name).filter(|name| !name.is_empty())
}

fn bind(
    ctx: &mut Context<'_>,
    at: &LocalAddress,
    device: Option<&str>,
) -> Result<SocketId, Box<dyn std::error::Error + Send + Sync>> {
    let mut addr = SocketAddr::new(at.ip, 0);
    if let SocketAddr::V6(v6) = &mut addr
        && v6.ip().is_unicast_link_local()
    {
        v6.set_scope_id(at.interface);
    }
    let socket = UdpSocket::bind(addr)?;
    if let Some(device) = device
        && let Err(error) = device::bind_to_device(&socket, device)
    {
        tracing::debug!(%error, "the routes decide");
    }
    Ok(ctx.add_socket(socket)?)
}
