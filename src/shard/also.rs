//! An engine's sockets, one of each address for every shard: its own, and the further addresses at
//! which it listens (RFC 9000 §9.6).

use super::bind::{self, Bind, Bound};
use super::engine::{EngineConfig, EngineError};
use super::steer::CidCodec;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

/// All of them.
pub(super) struct Sockets {
    /// Each shard's, its own first.
    pub(super) of_shards: Vec<Vec<UdpSocket>>,
    /// The addresses of the shards' own.
    pub(super) own: Vec<SocketAddr>,
    /// The further addresses, with the ports that the system chose.
    pub(super) also: Vec<SocketAddr>,
    /// As [`Bound::steered`], of the shards' own.
    pub(super) steered: bool,
}

/// Binds them, and attaches the steering program to each group.
pub(super) fn open(
    config: &EngineConfig,
    codecs: &[Arc<CidCodec>],
) -> Result<Sockets, EngineError> {
    let Bound { sockets, steered } = bind::bind(&config.bind, config.shards, codecs)?;
    let own = addresses(&sockets)?;
    let mut of_shards: Vec<Vec<UdpSocket>> = sockets.into_iter().map(|s| vec![s]).collect();
    let mut also = Vec::with_capacity(config.also.len());
    for addr in &config.also {
        let group = bind::bind(&Bind::Shared(*addr), config.shards, codecs)?.sockets;
        also.extend(addresses(&group)?.first());
        for (shard, socket) in of_shards.iter_mut().zip(group) {
            shard.push(socket);
        }
    }
    Ok(Sockets {
        of_shards,
        own,
        also,
        steered,
    })
}

pub(super) fn addresses(sockets: &[UdpSocket]) -> Result<Vec<SocketAddr>, EngineError> {
    let addrs = sockets.iter().map(UdpSocket::local_addr);
    addrs.collect::<Result<_, _>>().map_err(EngineError::Spawn)
}

/// The configuration with the ports that the system chose in place of preferred addresses' zeroes.
pub(super) fn named_ports(config: &EngineConfig, also: &[SocketAddr]) -> EngineConfig {
    let mut preferred = config.transport.preferred_address;
    let port_at = |ip: IpAddr| also.iter().find(|a| a.ip() == ip).map(SocketAddr::port);
    if let Some(v4) = preferred.v4.as_mut().filter(|a| a.port() == 0) {
        v4.set_port(port_at((*v4.ip()).into()).unwrap_or(0));
    }
    if let Some(v6) = preferred.v6.as_mut().filter(|a| a.port() == 0) {
        v6.set_port(port_at((*v6.ip()).into()).unwrap_or(0));
    }
    let mut config = config.clone();
    if preferred != config.transport.preferred_address {
        Arc::make_mut(&mut config.transport).preferred_address = preferred;
    }
    config
}
