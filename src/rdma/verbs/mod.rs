//! Queue pairs of the kernel's RDMA devices, through libibverbs.
//!
//! Built with the cargo feature `rdma-verbs`; without it, and on a machine without a device,
//! [`devices`] says in one line what is missing. A [`Device`] is one shard's share of a device that
//! the process opens once. Its datagrams are the kernel's or the network card's business: nothing
//! has to be driven; completions are polled, or waited for on [`super::Port::wake_fds`].

use super::error::RdmaError;
use std::net::IpAddr;

#[cfg(feature = "rdma-verbs")]
mod context;
#[cfg(feature = "rdma-verbs")]
mod device;
#[cfg(feature = "rdma-verbs")]
mod ffi;
#[cfg(feature = "rdma-verbs")]
mod memory;
#[cfg(feature = "rdma-verbs")]
mod objects;
#[cfg(feature = "rdma-verbs")]
mod removal;
#[cfg(feature = "rdma-verbs")]
mod requests;
#[cfg(feature = "rdma-verbs")]
mod tags;

#[cfg(feature = "rdma-verbs")]
pub use device::{Device, Opened};

/// Why there is no device of verbs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The cargo feature is off.
    #[error("no verbs: built without the feature rdma-verbs (cargo build --features rdma-verbs)")]
    NotBuilt,
    /// The kernel has no RDMA, or not here.
    #[error("no verbs: the kernel has no RDMA subsystem (ib_uverbs) here")]
    NoDriver,
    /// It has, but no device.
    #[error(
        "no verbs: no RDMA device (for one without hardware: rdma link add rxe0 type rxe netdev …)"
    )]
    NoDevice,
    /// There is none of this name.
    #[error("no verbs: there is no RDMA device {0}")]
    NoSuchDevice(String),
    /// The device of this name, or every one, has another address.
    #[error("no verbs: {} {ip}", no_device(.device.as_deref()))]
    NoAddress {
        /// Its name, if one was asked for.
        device: Option<String>,
        /// The address asked for.
        ip: IpAddr,
    },
    /// There is, and it cannot be opened.
    #[error("no verbs: {0}")]
    Refused(#[from] RdmaError),
}

fn no_device(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("the RDMA device {name} has not the address"),
        None => "no RDMA device has the address".to_owned(),
    }
}

/// The names of the machine's devices: at least one.
pub fn devices() -> Result<Vec<String>, Unavailable> {
    #[cfg(not(feature = "rdma-verbs"))]
    return Err(Unavailable::NotBuilt);
    #[cfg(feature = "rdma-verbs")]
    match ffi::devices() {
        Ok(names) if names.is_empty() => Err(Unavailable::NoDevice),
        Ok(names) => Ok(names),
        Err(error) => Err(unlisted(&error)),
    }
}

/// What it means when the list of devices cannot be had.
#[cfg(feature = "rdma-verbs")]
fn unlisted(error: &std::io::Error) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Unavailable::NoDriver,
        _ => RdmaError::system("ibv_get_device_list", error).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_one_line() {
        for unavailable in [
            Unavailable::NotBuilt,
            Unavailable::NoDriver,
            Unavailable::NoDevice,
            Unavailable::NoSuchDevice("mlx5_9".into()),
            Unavailable::NoAddress {
                device: None,
                ip: IpAddr::from([127, 0, 0, 1]),
            },
            Unavailable::NoAddress {
                device: Some("mlx5_9".into()),
                ip: IpAddr::from([127, 0, 0, 1]),
            },
            RdmaError::NoGid { index: 1 }.into(),
        ] {
            let text = unavailable.to_string();
            assert!(
                text.starts_with("no verbs: ") && !text.contains('\n'),
                "{text}"
            );
        }
        match devices() {
            Ok(names) => assert!(!names.is_empty()),
            Err(error) => assert_eq!(
                error == Unavailable::NotBuilt,
                !cfg!(feature = "rdma-verbs"),
                "{error}"
            ),
        }
    }
}
