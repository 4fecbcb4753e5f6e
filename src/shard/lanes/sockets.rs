//! The shard's sockets that a device in user space sends by, beside its own.

use super::host::Host;
use crate::rdma::{Port, SocketChange};
use crate::shard::Context;

impl<P: Port> Host<P> {
    /// Does what the device wants about its sockets.
    #[inline]
    pub(super) fn change_sockets(&mut self, ctx: &mut Context<'_>) {
        while let Some(port) = &mut self.port
            && let Some(change) = port.socket_change()
        {
            match change {
                SocketChange::Connect { beside, way } => {
                    let made = ctx.add_own_beside(beside, way.local, way.remote);
                    if let Err(error) = &made {
                        tracing::debug!(%error, peer = %way.remote, "no connected socket");
                    }
                    port.connected(made.ok());
                }
                SocketChange::Close(socket) => ctx.remove_socket(socket),
            }
        }
    }
}
