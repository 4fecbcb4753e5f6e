//! Which provider serves the queue pairs of an engine's shards, chosen when the engine is made.

use super::roce::RoceSetup;
use crate::rdma::{AnyDevice, verbs};
use crate::shard::Context;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Whose queue pairs lanes run over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderChoice {
    /// The kernel's where there is a device with the address, else ours in user space.
    #[default]
    Auto,
    /// The kernel's, or an error.
    Verbs,
    /// Ours in user space.
    Roce,
}

/// What the ports of an engine's shards are made from.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Whose.
    pub provider: ProviderChoice,
    /// A device of the kernel's by its name; without one, the first with the address.
    pub device: Option<String>,
    /// The address; unspecified for any.
    pub ip: IpAddr,
    /// In user space: the first shard's UDP port, the next shards have the next ones; 0 lets the
    /// system choose. `None` takes the standard's where it is free, for peers on devices of the
    /// kernel's reach no other, else what the system chooses.
    pub roce_port: Option<u16>,
    /// In user space: the machine's addresses when `ip` is unspecified.
    pub addresses: Vec<IpAddr>,
}

/// Why shards have no ports.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Verbs were asked for.
    #[error(transparent)]
    Verbs(#[from] verbs::Unavailable),
    /// The port in user space is not to be had.
    #[error("cannot bind RoCE to {addr}: {source}")]
    Bind {
        /// Where to.
        addr: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

/// Ports that can be opened, one for each shard.
#[derive(Debug)]
pub struct Ports {
    /// One for each shard, in order.
    pub setups: Vec<PortSetup>,
    /// The kernel's device that they share; `None` in user space.
    pub device: Option<String>,
    /// Why they are not the kernel's, where that was left open.
    pub missing: Option<verbs::Unavailable>,
}

/// One shard's port before it is opened.
#[derive(Debug)]
pub enum PortSetup {
    /// In user space.
    Roce(RoceSetup),
    /// A share of the kernel's device.
    #[cfg(feature = "rdma-verbs")]
    Verbs(verbs::Opened),
}

impl PortConfig {
    /// The default choice at `ip`.
    pub fn new(ip: IpAddr) -> Self {
        Self {
            provider: ProviderChoice::Auto,
            device: None,
            ip,
            roce_port: None,
            addresses: Vec::new(),
        }
    }

    /// Finds the device, or binds the sockets.
    ///
    /// # Errors
    /// [`PortError`].
    pub fn ports(&self, shards: usize) -> Result<Ports, PortError> {
        let missing = match self.provider {
            ProviderChoice::Roce => None,
            ProviderChoice::Verbs => return Ok(self.verbs(shards)?),
            ProviderChoice::Auto => match self.verbs(shards) {
                Ok(ports) => return Ok(ports),
                // One that is named is wanted.
                Err(missing) if self.device.is_some() => return Err(missing.into()),
                Err(missing) => Some(missing),
            },
        };
        let setups = (0..shards).map(|n| self.roce(n).map(PortSetup::Roce));
        Ok(Ports {
            setups: setups.collect::<Result<_, _>>()?,
            device: None,
            missing,
        })
    }

    /// An address of the device of the kernel's that would be chosen, IPv4 where it has such.
    ///
    /// # Errors
    /// Why there is none.
    #[cfg(feature = "rdma-verbs")]
    pub fn device_address(&self) -> Result<IpAddr, verbs::Unavailable> {
        verbs::Opened::find(self.device.as_deref(), self.ip)?.address()
    }

    /// An address of the device of the kernel's that would be chosen; here there is none.
    ///
    /// # Errors
    /// That it was not built.
    #[cfg(not(feature = "rdma-verbs"))]
    pub fn device_address(&self) -> Result<IpAddr, verbs::Unavailable> {
        Err(verbs::Unavailable::NotBuilt)
    }

    #[cfg(feature = "rdma-verbs")]
    fn verbs(&self, shards: usize) -> Result<Ports, verbs::Unavailable> {
        let opened = verbs::Opened::find(self.device.as_deref(), self.ip)?;
        Ok(Ports {
            device: Some(opened.name().to_owned()),
            setups: (0..shards)
                .map(|_| PortSetup::Verbs(opened.clone()))
                .collect(),
            missing: None,
        })
    }

    #[cfg(not(feature = "rdma-verbs"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    fn verbs(&self, _: usize) -> Result<Ports, verbs::Unavailable> {
        Err(verbs::Unavailable::NotBuilt)
    }

    fn roce(&self, shard: usize) -> Result<RoceSetup, PortError> {
        let own = &self.addresses;
        let first = self.roce_port.unwrap_or(RoceSetup::PORT);
        let port = match first {
            0 => 0,
            first => first.saturating_add(shard as u16),
        };
        match RoceSetup::bind(self.ip, port, own) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && self.roce_port.is_none() => {
                RoceSetup::bind(self.ip, 0, own)
            }
            bound => bound,
        }
        .map_err(|source| PortError::Bind {
            addr: SocketAddr::new(self.ip, port),
            source,
        })
    }
}

impl PortSetup {
    /// Opens the port on its shard.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn open(self, ctx: &mut Context<'_>) -> Result<Option<AnyDevice>, String> {
        match self {
            Self::Roce(setup) => Ok(setup.open(ctx)?.map(AnyDevice::from)),
            #[cfg(feature = "rdma-verbs")]
            Self::Verbs(opened) => {
                let seed = crate::crypto::random::seed().map_err(|e| e.to_string())?;
                let device = opened.device(crate::base::Rng::from_seed(seed));
                device.map(|d| Some(d.into())).map_err(|e| e.to_string())
            }
        }
    }
}
