//! Groups of UDP sockets on one address, and the program that chooses among them.
//!
//! The kernel numbers the sockets of a group in the order in which they were bound. The program
//! sees the UDP payload and returns a number; one that is no socket's means the kernel's own hash
//! of the addresses. What the program says is the caller's.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Binds `count` sockets to `address`, the first of which chooses the port when it is 0. An IPv6
/// wildcard takes IPv4 as well. Errors are those of `socket`, `setsockopt` and `bind`.
pub fn bind_group(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bind_one(address)?;
        address.set_port(socket.local_addr()?.port());
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Binds one more socket to `address`, which other sockets of this user may share.
pub fn bind_one(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Attaches a classic BPF program to the group that `socket` belongs to, in place of any other.
/// Fails with EINVAL when the kernel does not accept the program.
pub fn attach(socket: &UdpSocket, program: &[libc::sock_filter]) -> io::Result<()> {
    let too_long = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(too_long)?,
        // The kernel only reads it.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `fprog` and the `len` instructions it points to live through the call, which copies
    // them.
    let r = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const fprog).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if r == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_shares_one_port() {
        let group = bind_group("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let port = group[0].local_addr().unwrap().port();
        assert!(group.iter().all(|s| s.local_addr().unwrap().port() == port));
    }

    #[test]
    fn a_program_that_does_not_return_is_refused() {
        let group = bind_group("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let load = libc::sock_filter {
            code: 0x30,
            jt: 0,
            jf: 0,
            k: 0,
        };
        let error = attach(&group[0], &[load]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
