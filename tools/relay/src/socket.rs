//! A UDP socket of the relay: single datagrams in and out, with their ECN marks.

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Room for bursts: the relay is one thread among many.
const KERNEL_BUFFER: usize = 4 << 20;

/// A bound socket.
pub struct Port {
    io: UdpSocket,
    state: UdpSocketState,
    /// Where it is bound.
    pub local: SocketAddr,
}

impl Port {
    /// Binds; in a tokio runtime only.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // The system may grant less.
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
        socket.bind(&addr.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        let io = UdpSocket::from_std(socket.into())?;
        let local = io.local_addr()?;
        Ok(Self { io, state, local })
    }

    /// Waits for datagrams and hands out each with its sender and its ECN bits.
    pub async fn receive(
        &self,
        buffer: &mut [u8],
        mut each: impl FnMut(SocketAddr, u8, &[u8]),
    ) -> io::Result<()> {
        loop {
            self.io.readable().await?;
            let mut meta = [RecvMeta::default()];
            let got = self.io.try_io(Interest::READABLE, || {
                let mut slices = [IoSliceMut::new(buffer)];
                self.state.recv((&self.io).into(), &mut slices, &mut meta)
            });
            match got {
                Ok(_) => {
                    let [meta] = meta;
                    let ecn = meta.ecn.map_or(0, |e| e as u8);
                    let train = &buffer[..meta.len];
                    for datagram in train.chunks(meta.stride.max(1)) {
                        each(meta.addr, ecn, datagram);
                    }
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // An ICMP error about an earlier send says nothing about this socket.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends one datagram; false when the socket has no room for it or refuses it.
    pub fn send(&self, to: SocketAddr, ecn: u8, contents: &[u8]) -> bool {
        let transmit = Transmit {
            destination: to,
            ecn: EcnCodepoint::from_bits(ecn),
            contents,
            segment_size: None,
            src_ip: None,
        };
        // Not through the runtime, which takes a fresh socket for one that is not writable.
        let sent = self.state.try_send((&self.io).into(), &transmit);
        sent.is_ok()
    }
}
