//! An endpoint's further sockets: at several local addresses or on several interfaces, added and
//! removed while it runs.

use super::endpoint::Endpoint;
use super::shared::Command;
use crate::shard::engine::EngineError;
use std::net::{IpAddr, SocketAddr};

/// A socket to add, for each shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// The local address. At a server, or with a port that is named, the shards share it and are
    /// steered to by connection ID; a client's port 0 gives each shard a port of its own.
    pub bind: SocketAddr,
    /// The network interface to use alone, whatever the routes say (SO_BINDTODEVICE); it needs
    /// CAP_NET_RAW before Linux 5.7.
    pub device: Option<String>,
}

impl SocketOptions {
    /// A socket at `bind` on any interface.
    pub fn at(bind: SocketAddr) -> Self {
        let device = None;
        Self { bind, device }
    }

    /// On this interface alone.
    #[must_use]
    pub fn device(mut self, name: &str) -> Self {
        self.device = Some(name.to_owned());
        self
    }
}

impl Endpoint {
    /// Has every shard take a further socket, for paths of connections
    /// ([`Connection::open_path`](super::Connection::open_path) by its address) and, at a server,
    /// for whoever connects there. It stays until [`Endpoint::remove_socket`]. Returns the address
    /// of each shard's; a path must name that of its connection's shard, which is the same one for
    /// all where they share it.
    ///
    /// # Errors
    /// It cannot be bound; nothing has changed then.
    pub fn add_socket(&self, options: &SocketOptions) -> Result<Vec<SocketAddr>, EngineError> {
        let device = options.device.as_deref();
        let binder = self.binder();
        let sockets = binder.bind(options.bind, self.is_server(), device)?;
        let addrs = sockets.iter().map(|(_, addr)| *addr).collect();
        for (link, (socket, _)) in self.links().iter().zip(sockets) {
            link.send(Command::AddSocket(socket));
        }
        Ok(addrs)
    }

    /// Has every shard give up its sockets at `addr`. Paths over them are closed where the
    /// connection has another; the sockets go when nothing uses them any more: connections that
    /// have nothing else stay there until they move or end, and new ones leave from elsewhere.
    /// The endpoint's last socket stays.
    pub fn remove_socket(&self, addr: SocketAddr) {
        for link in self.links() {
            link.send(Command::RemoveSocket(addr));
        }
    }

    /// Names the addresses of this host that automatic paths leave from
    /// ([`MultipathConfig::auto_paths`](super::MultipathConfig::auto_paths)), in place of those
    /// that the kernel tells of; `None` goes back to the kernel's. Paths from addresses that are
    /// not named any more are given up where another works.
    pub fn set_local_addresses(&self, addresses: Option<&[IpAddr]>) {
        let given = addresses.map(<[IpAddr]>::to_vec);
        for link in self.links() {
            link.send(Command::LocalAddresses(given.clone()));
        }
    }
}
