//! Sockets for shards that run already: one for each, bound and steered as the engine's first ones
//! are, by one network interface if that is asked for.

use super::engine::EngineError;
use super::steer::CidCodec;
use super::{also, bind};
use crate::sys::reuseport;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

/// Binds further sockets for the shards of one engine.
#[derive(Clone, Debug)]
pub struct Binder {
    pub(super) codecs: Arc<[Arc<CidCodec>]>,
}

impl Binder {
    /// One socket at `addr` for each shard, in their order, that uses the interface `device` alone
    /// if one is named. With `shared` all have one port, the system's choice if it is 0, and the
    /// kernel steers among them by connection ID; otherwise port 0 gives each a port of its own.
    ///
    /// # Errors
    /// [`EngineError::Bind`] and [`EngineError::Device`]; nothing is left bound then.
    pub fn bind(
        &self,
        addr: SocketAddr,
        shared: bool,
        device: Option<&str>,
    ) -> Result<Vec<(UdpSocket, SocketAddr)>, EngineError> {
        let shards = self.codecs.len();
        let shared = (shared || addr.port() != 0) && shards > 1;
        let mut sockets: Vec<UdpSocket> = Vec::with_capacity(shards);
        for _ in 0..shards {
            let first = sockets.first().filter(|_| shared);
            let at = first.and_then(|s| s.local_addr().ok()).unwrap_or(addr);
            sockets.push(bind::bind_one(at, shared, device)?);
        }
        if shared
            && let (Some(first), Some(codec)) = (sockets.first(), self.codecs.first())
            && let Err(error) = reuseport::attach(first, &codec.program())
        {
            tracing::warn!(%error, "no kernel steering by connection ID; shards forward instead");
        }
        let addrs = also::addresses(&sockets)?;
        Ok(sockets.into_iter().zip(addrs).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binder(shards: u8) -> Binder {
        let codec = |shard| CidCodec::new(7, 8, shard, shards, None).map(Arc::new);
        Binder {
            codecs: (0..shards).map(codec).collect::<Result<_, _>>().unwrap(),
        }
    }

    fn ports(sockets: &[(UdpSocket, SocketAddr)]) -> Vec<u16> {
        let mut ports: Vec<u16> = sockets.iter().map(|(_, addr)| addr.port()).collect();
        ports.dedup();
        ports
    }

    #[test]
    fn a_group_has_one_port_and_others_have_each_their_own() {
        let any = "127.0.0.1:0".parse().unwrap();
        let group = binder(3).bind(any, true, None).unwrap();
        assert_eq!((group.len(), ports(&group).len()), (3, 1));
        let each = binder(3).bind(any, false, None).unwrap();
        assert_eq!(ports(&each).len(), 3);
        // A port that is named is everybody's.
        let taken = group[0].1;
        drop(group);
        assert_eq!(ports(&binder(2).bind(taken, false, None).unwrap()).len(), 1);
    }

    #[test]
    fn an_interface_that_is_not_there_is_told() {
        let any = "127.0.0.1:0".parse().unwrap();
        let error = binder(1).bind(any, false, Some("no-such-device"));
        assert!(matches!(error, Err(EngineError::Device(_))));
    }
}
