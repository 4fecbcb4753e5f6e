//! A UDP socket for the stacks that bring none: what they want sent leaves as trains that the
//! kernel cuts (GSO), what arrives comes coalesced (GRO) and many at a time, and waiting ends at
//! the stack's next timer, to the nanosecond.
//!
//! Nothing is copied on the way: a train is gathered from wherever its packets lie, and packets are
//! handed over in the buffer that the kernel filled.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use crate::now;

/// What the kernel coalesces at most, bytes.
const COALESCED_MAX: usize = 1 << 16;
/// Coalesced packets that one system call takes.
const BATCH: usize = 8;
/// The largest train: what UDP carries over IPv4, bytes.
const TRAIN_MAX: usize = 65_507;

/// The socket. Sending and waiting share it; what arrives goes through an [`Inbox`].
pub struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl Udp {
    /// Binds a free port of the loopback, with socket buffers of `buffer` bytes, or the kernel's
    /// default.
    ///
    /// # Errors
    /// When the system has none.
    pub fn bind(buffer: Option<usize>) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        if let Some(bytes) = buffer {
            let options = SockRef::from(&socket);
            options.set_recv_buffer_size(bytes)?;
            options.set_send_buffer_size(bytes)?;
        }
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?;
        Ok(Self {
            socket,
            state,
            local,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// How many packets of `payload` bytes a train holds.
    pub fn train_max(&self, payload: usize) -> usize {
        (TRAIN_MAX / payload.max(1)).clamp(1, self.state.max_gso_segments())
    }

    /// Sends the bytes of `train` as packets of `segment` bytes, of which the last may be shorter.
    /// Waits for room in the socket.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn send(&self, to: SocketAddr, train: &[IoSlice<'_>], segment: usize) -> io::Result<()> {
        let bytes: usize = train.iter().map(|part| part.len()).sum();
        let to = SockaddrStorage::from(to);
        let size = u16::try_from(segment).map_err(io::Error::other)?;
        let cut = [ControlMessage::UdpGsoSegments(&size)];
        let cut = if bytes > segment { &cut[..] } else { &[] };
        loop {
            let fd = self.socket.as_raw_fd();
            match sendmsg(fd, train, cut, MsgFlags::empty(), Some(&to)) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => {
                    wait_for(&self.socket, PollFlags::OUT, None, &[])?;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Waits until something has arrived, until `deadline`, or until one of `others`, two at most,
    /// can be read.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub fn wait(&self, deadline: Option<Instant>, others: &[BorrowedFd<'_>]) -> io::Result<()> {
        wait_for(&self.socket, PollFlags::IN, deadline, others)
    }
}

fn wait_for(
    socket: &UdpSocket,
    what: PollFlags,
    deadline: Option<Instant>,
    others: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let timeout = deadline.map(|at| at.saturating_duration_since(now()));
    let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
    let mut fds = [
        PollFd::new(socket, what),
        PollFd::new(socket, PollFlags::empty()),
        PollFd::new(socket, PollFlags::empty()),
    ];
    for (fd, other) in fds[1..].iter_mut().zip(others) {
        *fd = PollFd::from_borrowed_fd(*other, PollFlags::IN);
    }
    match poll(&mut fds[..=others.len().min(2)], timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The buffers that packets arrive in.
pub struct Inbox {
    buffers: Vec<u8>,
    metas: [RecvMeta; BATCH],
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            buffers: vec![0; BATCH * COALESCED_MAX],
            metas: [RecvMeta::default(); BATCH],
        }
    }
}

impl Inbox {
    /// Takes what has arrived, as much as one system call brings, and hands over each packet with
    /// its sender. False when nothing had arrived.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn receive(
        &mut self,
        udp: &Udp,
        mut each: impl FnMut(&mut [u8], SocketAddr),
    ) -> io::Result<bool> {
        let mut rest = self.buffers.chunks_exact_mut(COALESCED_MAX);
        let mut slices: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(rest.next().unwrap_or_default()));
        let socket = (&udp.socket).into();
        let count = match udp.state.recv(socket, &mut slices, &mut self.metas) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(e) => return Err(e),
        };
        let buffers = self.buffers.chunks_exact_mut(COALESCED_MAX);
        for (buffer, meta) in buffers.zip(&self.metas[..count]) {
            for packet in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                each(packet, meta.addr);
            }
        }
        Ok(count > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    fn received(udp: &Udp, inbox: &mut Inbox) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        udp.wait(Some(now() + Duration::from_secs(5)), &[]).unwrap();
        while inbox.receive(udp, |p, _| packets.push(p.to_vec())).unwrap() {}
        packets
    }

    #[test]
    fn a_train_gathered_from_parts_arrives_as_its_packets() {
        let (a, b) = (Udp::bind(None).unwrap(), Udp::bind(Some(1 << 20)).unwrap());
        let mut inbox = Inbox::default();
        let parts = [[1; 1200].as_slice(), &[2; 1200], &[3; 7]];
        let slices = parts.map(IoSlice::new);
        a.send(b.local_addr(), &slices, 1200).unwrap();
        assert_eq!(received(&b, &mut inbox), parts);
        a.send(b.local_addr(), &slices[2..], 1200).unwrap();
        assert_eq!(received(&b, &mut inbox), parts[2..]);
        assert!(
            !inbox
                .receive(&b, |_, _| panic!("nothing was sent"))
                .unwrap()
        );
    }

    #[test]
    fn trains_fit_into_what_udp_carries() {
        let udp = Udp::bind(None).unwrap();
        assert_eq!(udp.train_max(1452), 45);
        assert_eq!(udp.train_max(16_383), 3);
        assert_eq!(udp.train_max(65_507), 1);
        assert_eq!((udp.train_max(1_000_000), udp.train_max(0)), (1, 64));
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_when_told_to_stop() {
        let udp = Udp::bind(None).unwrap();
        let deadline = now() + Duration::from_millis(2);
        udp.wait(Some(deadline), &[]).unwrap();
        assert!(now() >= deadline);
        udp.wait(Some(deadline), &[]).unwrap();
        let stop = crate::Stop::new().unwrap();
        stop.set();
        udp.wait(None, &[stop.as_fd()]).unwrap();
    }
}
