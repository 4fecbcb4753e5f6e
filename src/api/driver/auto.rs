//! The shard's side of automatic paths: which addresses this host has, a socket for each that is of
//! use, and connections that ask for it told of them.
//!
//! The kernel is listened to while a connection wants to know, and asked a few times a second, so
//! that nothing more has to end a shard's sleep. Which paths are opened is the connection's own
//! matter (`crate::conn::multipath`), and which addresses can work `crate::path::candidates`'.

use super::Driver;
use super::moves::LINGER;
use super::paths::is_live;
use crate::base::{AddressState, LocalAddress, SocketId, Timestamp, limits};
use crate::conn::{ConnId, Connection, LocalSocket};
use crate::path::candidates::check;
use crate::shard::Context;
use crate::sys::netlink::RouteWatcher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// How often the kernel is asked what has changed.
const LOOK: Duration = Duration::from_millis(250);
/// The same while its first answer is under way.
const SETTLE: Duration = Duration::from_millis(5);

/// What a shard knows of this host's addresses.
#[derive(Default)]
pub(super) struct Automatic {
    /// What the application says that there is, in place of the kernel.
    given: Option<Arc<[IpAddr]>>,
    /// Open while a connection wants to know.
    watcher: Option<RouteWatcher>,
    /// Sockets that were made for addresses.
    sockets: Vec<(LocalAddress, SocketId)>,
    /// When to look next; `None` while nobody wants to know.
    next: Option<Timestamp>,
    /// Look with the next turn.
    pub(super) due: bool,
}

/// A connection whose paths are automatic.
struct Client {
    id: ConnId,
    max: usize,
    remotes: Vec<SocketAddr>,
    /// Where it leaves from already.
    homes: Vec<(IpAddr, SocketId, u16)>,
}

impl Client {
    fn of(id: ConnId, conn: &Connection) -> Option<Self> {
        let max = conn.auto_paths()?;
        let mut remotes = vec![conn.path().remote];
        remotes.extend(conn.peer_addresses());
        let live = conn.paths().filter(|p| is_live(p.state));
        let homes = live.filter_map(|p| {
            let (local, remote) = (p.tuple.local, p.tuple.remote);
            let ip = Some(local.ip()).filter(|ip| !ip.is_unspecified());
            let ip = ip.or_else(|| source_towards(remote))?;
            Some((ip, p.socket, local.port()))
        });
        Some(Self {
            id,
            max,
            remotes,
            homes: homes.collect(),
        })
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

/// The address that the system chooses for packets to `remote`.
fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting sends nothing: it looks up the route.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}

impl Automatic {
    /// Looks with the next turn, if `conn` or one that is known already wants to know.
    pub(super) fn consider(&mut self, conn: Option<&Connection>) {
        let known = self.next.is_some();
        let wants = known || conn.is_some_and(|c| c.auto_paths().is_some());
        self.due |= wants;
    }

    /// This host's addresses; `None` while the kernel has not told all.
    fn addresses(&mut self) -> Option<Vec<LocalAddress>> {
        if let Some(given) = &self.given {
            self.watcher = None;
            let of = |ip: &IpAddr| LocalAddress {
                ip: *ip,
                interface: 0,
                state: AddressState::Preferred,
            };
            return Some(given.iter().map(of).collect());
        }
        let mut watcher = match self.watcher.take().map_or_else(RouteWatcher::new, Ok) {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::warn!(%error, "the host's addresses are not known: no automatic paths");
                return Some(Vec::new());
            }
        };
        // What there is now says it all.
        let mut events = Vec::new();
        if let Err(error) = watcher.read(&mut events) {
            tracing::warn!(%error, "the host's addresses are asked for anew");
            return None;
        }
        let all = watcher.is_settled().then(|| watcher.addresses().collect());
        self.watcher = Some(watcher);
        all
    }

    /// What a connection is to be told.
    fn seen_by(
        &self,
        ctx: &Context<'_>,
        client: &Client,
        all: &[LocalAddress],
    ) -> Vec<LocalSocket> {
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
        placed.take(limits::INTERFACES).collect()
    }
}

impl Driver {
    /// The application names this host's addresses, or leaves it to the kernel.
    pub(super) fn take_addresses(&mut self, given: Option<Arc<[IpAddr]>>) {
        self.auto.given = given;
        self.auto.consider(None);
    }

    /// Looks whether addresses have come or gone, if that is due, and tells the connections that
    /// want to know; says when to do so next.
    pub(super) fn follow_addresses(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let now = ctx.now();
        let due = self.auto.due || self.auto.next.is_some_and(|at| at <= now);
        if !due {
            return self.auto.next;
        }
        self.auto.due = false;
        let ids = self.conns.iter().flatten().map(|c| c.id);
        let endpoint = ctx.endpoint();
        let client = |id| Client::of(id, endpoint.connection(id)?);
        let clients: Vec<Client> = ids.filter_map(client).collect();
        if clients.is_empty() {
            (self.auto.next, self.auto.watcher) = (None, None);
            self.keep_sockets_at(ctx, &[]);
            return None;
        }
        let Some(all) = self.auto.addresses() else {
            self.auto.next = Some(now + SETTLE);
            return self.auto.next;
        };
        let usable = |a: &LocalAddress| clients.iter().any(|c| c.reaches_from(a));
        let all: Vec<LocalAddress> = all.into_iter().filter(usable).collect();
        self.keep_sockets_at(ctx, &all);
        self.make_sockets(ctx, &clients, &all);
        for client in &clients {
            let seen = self.auto.seen_by(ctx, client, &all);
            if let Some(driver) = self.conn(client.id)
                && driver.told != seen
                && let Some(conn) = ctx.connection(client.id)
            {
                conn.set_local_addresses(now, &seen);
                driver.told = seen;
            }
        }
        self.auto.next = Some(now + LOOK);
        self.auto.next
    }

    /// Lets go of the sockets of other addresses. They are closed once no path uses them.
    fn keep_sockets_at(&mut self, ctx: &mut Context<'_>, all: &[LocalAddress]) {
        let open = |id: SocketId| ctx.bound_at(id).is_some();
        self.auto.sockets.retain(|(_, id)| open(*id));
        let gone = |s: &mut (LocalAddress, SocketId)| !all.iter().any(|a| a.ip == s.0.ip);
        let gone = self.auto.sockets.extract_if(.., gone).map(|(_, id)| id);
        let before = self.added.sockets.len();
        self.added.sockets.extend(gone);
        if self.added.sockets.len() > before {
            self.added.look_at = Some(ctx.now() + LINGER);
        }
    }

    /// Binds sockets to what is new, to one address of each interface first, and at most as many as
    /// a connection wants paths.
    fn make_sockets(&mut self, ctx: &mut Context<'_>, clients: &[Client], all: &[LocalAddress]) {
        let max = clients.iter().map(|c| c.max).max().unwrap_or(0);
        for again in [false, true] {
            for address in all {
                let sockets = &self.auto.sockets;
                let has = |s: &(LocalAddress, SocketId)| s.0.ip == address.ip;
                let beside = |s: &(LocalAddress, SocketId)| s.0.interface == address.interface;
                if sockets.len() >= max
                    || sockets.iter().any(has)
                    || (!again && sockets.iter().any(beside))
                    || !clients.iter().any(|c| c.lacks(address))
                {
                    continue;
                }
                match bind(ctx, address) {
                    Ok(id) => self.auto.sockets.push((*address, id)),
                    Err(error) => tracing::debug!(ip = %address.ip, %error, "no socket there"),
                }
            }
        }
    }
}

fn bind(
    ctx: &mut Context<'_>,
    at: &LocalAddress,
) -> Result<SocketId, Box<dyn std::error::Error + Send + Sync>> {
    let mut addr = SocketAddr::new(at.ip, 0);
    if let SocketAddr::V6(v6) = &mut addr
        && v6.ip().is_unicast_link_local()
    {
        v6.set_scope_id(at.interface);
    }
    Ok(ctx.add_socket(UdpSocket::bind(addr)?)?)
}
