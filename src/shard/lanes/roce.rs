//! The user-space provider on a shard: its socket and its addresses.

use crate::base::limits;
use crate::crypto::random;
use crate::rdma::roce::{Config, Device, LocalAddress, PORT};
use crate::shard::Context;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The port that lanes over RoCE v2 in user space use.
pub type RocePort = Device;

/// Where a shard's RoCE device is.
#[derive(Debug)]
pub struct RoceSetup {
    socket: UdpSocket,
    addresses: Vec<IpAddr>,
}

impl RoceSetup {
    /// Binds a shard's socket to `ip` and `port`; 0 lets the system choose one. Peers that are no
    /// corelane reach port [`PORT`] only. `also` are the machine's addresses when `ip` is
    /// unspecified.
    ///
    /// # Errors
    /// Those of binding.
    pub fn bind(ip: IpAddr, port: u16, also: &[IpAddr]) -> io::Result<Self> {
        let addr = SocketAddr::new(ip, port);
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() && ip.is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        let addresses = if ip.is_unspecified() {
            also.to_vec()
        } else {
            vec![ip]
        };
        Ok(Self {
            socket: socket.into(),
            addresses,
        })
    }

    /// The port of the standard.
    pub const PORT: u16 = PORT;

    /// Opens the device on a shard.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn open(self, ctx: &mut Context<'_>) -> Result<Option<RocePort>, String> {
        let port = self.socket.local_addr().map_err(|e| e.to_string())?.port();
        crate::io::sockopt::accept_unchecked(&self.socket);
        let socket = ctx.add_own_socket(self.socket).map_err(|e| e.to_string())?;
        let local = |ip: &IpAddr| LocalAddress {
            socket,
            addr: SocketAddr::new(*ip, port),
        };
        let mut config = Config::new(socket, SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port));
        config.addresses = self.addresses.iter().map(local).collect();
        // Nobody waits for the completion of a lane's message: the peer's own counts say it.
        config.ack_delay = limits::ROCE_ACK_DELAY;
        let seed = random::seed().map_err(|e| e.to_string())?;
        let rng = crate::base::Rng::from_seed(seed);
        Device::new(config, rng)
            .map(Some)
            .map_err(|e| e.to_string())
    }
}
