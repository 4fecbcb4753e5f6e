//! The network: a relay before the server, with a link of its own for each address of the client.

use crate::Fault;
use corelane_relay::{Change, Config, LinkConfig, PathConfig, Relay};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The client's addresses; the first is where its connection begins.
pub const LOCALS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)),
];

/// See the module.
pub struct Links(Relay);

impl Links {
    /// Links of 20 Mbit/s, 5 ms and a queue of 50 ms, with so much loss, to a server. Bulk data
    /// fills more than one of them.
    ///
    /// # Errors
    /// No address is to be had.
    pub fn start(server: SocketAddr, loss: f64) -> Result<Self, Fault> {
        let link = LinkConfig {
            delay: Duration::from_millis(5),
            rate: Some(20_000_000),
            queue: usize::MAX,
            queue_time: Some(Duration::from_millis(50)),
            mtu: 1472,
            loss,
            ..LinkConfig::default()
        };
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let path = |local| PathConfig {
            client: Some(local),
            ..PathConfig::new(here, server).with_link(link.clone())
        };
        let paths = LOCALS.into_iter().map(path).collect();
        Ok(Self(Relay::start(Config::of_paths(paths))?))
    }

    /// Where clients send to, on every link.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// The clients of a link get another port before the server, as by a NAT.
    pub fn rebind(&self, link: usize) {
        self.0.change(link, Change::Rebind);
    }

    /// Bytes that each link carried, to the server and to the client.
    pub fn bytes(&self) -> Vec<(u64, u64)> {
        let counts = self.0.counts().into_iter();
        counts.map(|(up, down)| (up.bytes, down.bytes)).collect()
    }
}
