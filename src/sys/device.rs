//! Sockets that use one network interface and no other, whatever the routes say.
//!
//! Two interfaces that lead to one peer often share a default route, which then decides for both;
//! a path that is to leave by one of them needs a socket that is bound to it (SO_BINDTODEVICE).
//! A socket may be bound once without privileges since Linux 5.7; before that, and to bind it
//! elsewhere, CAP_NET_RAW is needed.

use socket2::SockRef;
use std::io;
use std::net::UdpSocket;

/// Why a socket could not be bound to an interface.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no interface of that name.
    #[error("there is no network interface `{0}`: see `ip link`")]
    Unknown(String),
    /// The process may not.
    #[error("binding a socket to `{0}` needs CAP_NET_RAW on this kernel (or Linux 5.7)")]
    NotPermitted(String),
    /// The system refused for another reason.
    #[error("cannot bind a socket to `{0}`: {1}")]
    System(String, #[source] io::Error),
}

/// Lets `socket` send by the interface `device` and hear what arrives there, and nothing else.
///
/// # Errors
/// [`DeviceError`]; the socket is as before.
pub fn bind_to_device(socket: &UdpSocket, device: &str) -> Result<(), DeviceError> {
    // An empty name would undo what an earlier one did, and a long one be cut.
    if device.is_empty() || device.len() >= libc::IFNAMSIZ || device.contains('\0') {
        return Err(DeviceError::Unknown(device.into()));
    }
    let bound = SockRef::from(socket).bind_device(Some(device.as_bytes()));
    bound.map_err(|e| match e.raw_os_error() {
        Some(libc::ENODEV) => DeviceError::Unknown(device.into()),
        Some(libc::EPERM) => DeviceError::NotPermitted(device.into()),
        _ => DeviceError::System(device.into(), e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_stays_on_its_interface() {
        let [a, b] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        match bind_to_device(&a, "lo") {
            Ok(()) => {}
            Err(DeviceError::NotPermitted(_)) => {
                println!("skipped: CAP_NET_RAW is missing, and the kernel is older than 5.7");
                return;
            }
            Err(e) => panic!("{e}"),
        }
        let device = SockRef::from(&a).device().unwrap();
        assert_eq!(device.as_deref(), Some(&b"lo"[..]));
        a.send_to(b"x", b.local_addr().unwrap()).unwrap();
        assert_eq!(b.recv_from(&mut [0; 9]).unwrap().1, a.local_addr().unwrap());
    }

    #[test]
    fn a_name_that_is_none_is_told_apart() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for name in ["", "no-such-device", "a-name-longer-than-15-bytes", "l\0o"] {
            let error = bind_to_device(&socket, name).unwrap_err();
            assert!(matches!(error, DeviceError::Unknown(_)), "{name}: {error}");
        }
    }
}
