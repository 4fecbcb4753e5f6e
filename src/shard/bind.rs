//! The sockets of an engine's shards: bound to one address and steered, each to a port of its own,
//! connected to one peer, or brought by the embedder.

use super::engine::EngineError;
use super::steer::CidCodec;
use crate::sys::{device, reuseport};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

/// Which sockets the shards get.
#[derive(Clone, Debug)]
pub enum Bind {
    /// One address for all shards, steered by connection ID.
    Shared(SocketAddr),
    /// A socket of its own for each shard, at this address with a port that the system chooses.
    Each(IpAddr),
    /// A socket of its own for each shard that is connected to this one peer: it hears nobody else,
    /// and connections to others are refused. Saves the kernel a look at its routes for each train.
    /// An unreachable peer shows in the backend's counters and by the handshake's deadline.
    Connected(SocketAddr),
    /// Sockets that the embedder made, one for each shard and in the order of the shards. The
    /// engine works on duplicates of their descriptors and sets their options; the sockets are
    /// closed when the configuration is dropped as well. Several on one address (SO_REUSEPORT) are
    /// steered as with [`Bind::Shared`], and must have been bound in this order.
    Sockets(Arc<[UdpSocket]>),
}

impl Bind {
    /// The embedder's sockets, one for each shard.
    pub fn sockets(sockets: impl IntoIterator<Item = UdpSocket>) -> Self {
        Self::Sockets(sockets.into_iter().collect())
    }
}

/// The sockets of all shards, in order.
pub(super) struct Bound {
    pub(super) sockets: Vec<UdpSocket>,
    /// All are bound to one address, and only connection IDs tell which shard a datagram is for.
    pub(super) steered: bool,
}

/// Binds one socket for each of `shards`, and attaches the steering program to a group.
pub(super) fn bind(
    how: &Bind,
    shards: usize,
    codecs: &[Arc<CidCodec>],
) -> Result<Bound, EngineError> {
    let sockets = match how {
        Bind::Shared(addr) => group(*addr, shards)?,
        Bind::Each(ip) => {
            let addr = SocketAddr::new(*ip, 0);
            let one = |_| bind_one(addr, false, None);
            (0..shards).map(one).collect::<Result<_, _>>()?
        }
        Bind::Connected(peer) => {
            let one = |_| connect_one(*peer);
            (0..shards).map(one).collect::<Result<_, _>>()?
        }
        Bind::Sockets(given) if given.len() != shards => {
            let given = given.len();
            return Err(EngineError::Sockets { given, shards });
        }
        Bind::Sockets(given) => given
            .iter()
            .map(|s| s.try_clone().map_err(EngineError::Spawn))
            .collect::<Result<_, _>>()?,
    };
    let steered = is_group(&sockets);
    if let (true, Some(first), Some(codec)) = (steered, sockets.first(), codecs.first())
        && let Err(error) = reuseport::attach(first, &codec.program())
    {
        tracing::warn!(%error, "no kernel steering by connection ID; shards forward instead");
    }
    Ok(Bound { sockets, steered })
}

/// Whether several sockets share an address.
fn is_group(sockets: &[UdpSocket]) -> bool {
    let addr = |s: &UdpSocket| s.local_addr().ok();
    match sockets {
        [first, rest @ ..] if !rest.is_empty() => {
            let first = addr(first);
            first.is_some() && rest.iter().all(|s| addr(s) == first)
        }
        _ => false,
    }
}

fn group(addr: SocketAddr, shards: usize) -> Result<Vec<UdpSocket>, EngineError> {
    let mut out: Vec<UdpSocket> = Vec::with_capacity(shards);
    for _ in 0..shards {
        // With port 0 the first socket's port is everyone's.
        let addr = out
            .first()
            .and_then(|s| s.local_addr().ok())
            .unwrap_or(addr);
        out.push(bind_one(addr, shards > 1, None)?);
    }
    Ok(out)
}

pub(super) fn bind_one(
    addr: SocketAddr,
    shared: bool,
    device: Option<&str>,
) -> Result<UdpSocket, EngineError> {
    let failed = |source| EngineError::Bind {
        addr,
        hint: hint(&source),
        source,
    };
    let socket = open(addr, shared).map_err(failed)?;
    // Before it has an address: sockets on two interfaces do not get in each other's way then.
    if let Some(device) = device {
        device::bind_to_device(&socket, device)?;
    }
    let bound = SockRef::from(&socket).bind(&addr.into());
    bound.map(|()| socket).map_err(failed)
}

fn open(addr: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        // Both families, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn connect_one(peer: SocketAddr) -> Result<UdpSocket, EngineError> {
    let any: IpAddr = if peer.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = bind_one(SocketAddr::new(any, 0), false, None)?;
    socket
        .connect(peer)
        .map_err(|source| EngineError::Connect { peer, source })?;
    Ok(socket)
}

/// What to do about a socket that could not be bound.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "; another process or engine has the port: stop it, or take another port (0 lets the \
             system choose)"
        }
        Some(libc::EADDRNOTAVAIL) => "; this machine does not have the address: see `ip address`",
        Some(libc::EACCES) => "; ports below 1024 need CAP_NET_BIND_SERVICE: take a higher one",
        Some(libc::EMFILE) => "; the process has too many open files: raise `ulimit -n`",
        Some(libc::ENFILE) => "; the system has too many open files: raise fs.file-max",
        Some(libc::EAFNOSUPPORT) => "; this machine has no such address family: is IPv6 disabled?",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_told_with_what_to_do() {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = first.local_addr().unwrap();
        let error = bind(&Bind::Shared(addr), 1, &[]).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("take another port"), "{text}");
        assert!(text.contains(&addr.to_string()), "{text}");
        let error = bind(&Bind::Each("192.0.2.1".parse().unwrap()), 1, &[]);
        let text = error.err().unwrap().to_string();
        assert!(text.contains("ip address"), "{text}");
        assert!(hint(&io::Error::from_raw_os_error(libc::EMFILE)).contains("ulimit -n"));
    }

    #[test]
    fn brought_sockets_are_counted_and_a_group_is_recognised() {
        let one = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = bind(&Bind::sockets([one()]), 2, &[]).err().unwrap();
        assert!(error.to_string().contains("1 socket"), "{error}");
        let bound = bind(&Bind::sockets([one(), one()]), 2, &[]).unwrap();
        assert!(!bound.steered);
        let shared = reuseport::bind_group("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let bound = bind(&Bind::sockets(shared), 3, &[]).unwrap();
        assert!(bound.steered);
        let alone = bind(&Bind::Shared("127.0.0.1:0".parse().unwrap()), 1, &[]).unwrap();
        assert!(!alone.steered);
    }
}
