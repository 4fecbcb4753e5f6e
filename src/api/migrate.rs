//! Moving clients to other local addresses (RFC 9000 §9.2).

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::error::MigrationError;
use super::paths::move_to;
use super::shared::Command;
use crate::sys::reuseport;
use std::io;
use std::net::SocketAddr;

impl Connection {
    /// Moves this client's connection to `local`: to the socket of its shard that is bound there,
    /// or to a new one. With port 0 the system chooses. The server is asked over the new addresses
    /// first; until it answers, and if it does not, everything goes on over the present ones.
    /// Returns where the connection is then.
    ///
    /// Dropping the future stops the waiting, not the move.
    ///
    /// # Errors
    /// [`MigrationError`]; the connection stays where it is.
    pub async fn migrate_to(&self, local: SocketAddr) -> Result<SocketAddr, MigrationError> {
        move_to(self.shared(), None, local).await
    }
}

impl Endpoint {
    /// Binds new sockets at `addr`, one for each shard, and moves every client connection to them,
    /// as [`Connection::migrate_to`] does; connections begun from now on leave from there. Port 0
    /// gives each shard a port of its own. The server's role stays where it is.
    ///
    /// A connection that cannot move stays at its present address. Returns the new addresses.
    ///
    /// # Errors
    /// The sockets cannot be bound; nothing has changed then.
    pub fn rebind(&self, addr: SocketAddr) -> io::Result<Vec<SocketAddr>> {
        let links = self.links();
        let sockets = if addr.port() == 0 {
            let each = links.iter().map(|_| reuseport::bind_group(addr, 1));
            let groups: Vec<_> = each.collect::<io::Result<_>>()?;
            groups.into_iter().flatten().collect()
        } else {
            reuseport::bind_group(addr, links.len())?
        };
        let addrs = sockets.iter().map(|s| s.local_addr());
        let addrs = addrs.collect::<io::Result<Vec<_>>>()?;
        for (link, socket) in links.iter().zip(sockets) {
            link.send(Command::Rebind(socket));
        }
        Ok(addrs)
    }
}
