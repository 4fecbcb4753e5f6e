//! `roce` on a UDP socket and rxe, as two devices that reach each other: in the guest, over a pair
//! of network interfaces whose other end is in a network namespace, where port 4791 is free.

use crate::guest::{place, wait_readable};
use crate::link::Net;
use corelane::base::{Ecn, FourTuple, RecvMeta, Rng, SocketId, Timestamp};
use corelane::rdma::roce::{Config, Identification};
use corelane::rdma::*;
use corelane::sys::clock::Clock;
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// The device on our end, and the namespace of the other.
const DEVICE: &str = "rxe2";
const NAMESPACE: &str = "/run/netns/peer";
const OTHER_END: [&str; 2] = ["[fd00::2]:4791", "10.97.0.2:4791"];

pub struct Crossed {
    kernel: verbs::Device,
    user: roce::Device,
    socket: UdpSocket,
    addr: SocketAddr,
    /// Which end `roce` is.
    user_end: usize,
    /// Where the kernel's is.
    place: AddressVector,
    buffer: Vec<u8>,
}

/// A socket of another namespace: made by a thread that goes there and ends.
fn socket(addr: SocketAddr) -> UdpSocket {
    let made = std::thread::spawn(move || {
        let namespace = File::open(NAMESPACE).expect("the namespace");
        // SAFETY: moves this thread alone, by a descriptor that is open.
        let moved = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(moved, 0, "{}", std::io::Error::last_os_error());
        UdpSocket::bind(addr).expect("the port is free there")
    });
    let socket = made.join().expect("a socket");
    // Without fragments, and so with identification 0; and rxe leaves the checksum of UDP out.
    let (level, name, value) = match addr {
        SocketAddr::V4(_) => (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DO,
        ),
        SocketAddr::V6(_) => (libc::IPPROTO_UDP, libc::UDP_NO_CHECK6_RX, 1),
    };
    // SAFETY: an integer option, of an integer's length.
    let set = unsafe {
        let value = std::ptr::from_ref(&value).cast();
        libc::setsockopt(socket.as_raw_fd(), level, name, value, 4)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    socket.set_nonblocking(true).expect("set");
    socket
}

impl Crossed {
    pub fn new(v4: bool, user_end: usize) -> Self {
        let addr: SocketAddr = OTHER_END[usize::from(v4)].parse().expect("an address");
        let mut config = Config::new(SocketId(0), addr);
        config.identification = Identification::Zero;
        let kernel = verbs::Device::open(Some(DEVICE), Rng::from_u64(1)).expect("a device");
        Self {
            place: place(&kernel, v4),
            kernel,
            user: roce::Device::new(config, Rng::from_u64(2)).expect("a device"),
            socket: socket(addr),
            addr,
            user_end,
            buffer: vec![0; 65_536],
        }
    }

    /// Sends what there is to be sent.
    fn transmit(&mut self) {
        while let Some(t) = self.user.poll_transmit(Clock::now(), &mut self.buffer) {
            for packet in self.buffer[..t.len].chunks(t.segment_size) {
                // A full socket loses it, as a network would.
                let _ = self.socket.send_to(packet, t.path.remote);
            }
        }
    }

    /// Takes what has come.
    fn receive(&mut self) -> bool {
        let mut any = false;
        while let Ok((len, from)) = self.socket.recv_from(&mut self.buffer) {
            any = true;
            let meta = RecvMeta {
                socket: SocketId(0),
                path: FourTuple::new(self.addr, from),
                ecn: Ecn::NotEct,
                segment_size: len,
            };
            let packet = &mut self.buffer[..len];
            self.user.handle_train(Clock::now(), &meta, packet);
            self.transmit();
        }
        any
    }
}

impl Drop for Crossed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("        {:?}", self.user.stats());
        }
    }
}

impl Net for Crossed {
    fn dev(&mut self, end: usize) -> &mut dyn Provider {
        if end == self.user_end {
            &mut self.user
        } else {
            &mut self.kernel
        }
    }

    fn place(&self, end: usize) -> AddressVector {
        if end != self.user_end {
            return self.place;
        }
        let dgid = self.addr.ip().into();
        AddressVector {
            sgid_index: 0,
            dgid,
            udp_port: self.addr.port(),
        }
    }

    fn is_rxe(&self, end: usize) -> bool {
        end != self.user_end
    }

    fn arm(&mut self, end: usize, cq: CompletionQueueId) {
        if end != self.user_end {
            self.kernel.req_notify_cq(cq).expect("armed");
        }
    }

    fn wait(&mut self) {
        self.transmit();
        if self.receive() {
            return;
        }
        let until = self.user.poll_timeout();
        let mut patience = 20;
        if until != Timestamp::NEVER {
            let left = until.saturating_since(Clock::now());
            patience = patience.min(left.as_millis() as i32 + 1);
        }
        let mut fds = crate::guest::wake_fds(&self.kernel);
        fds.push(self.socket.as_raw_fd());
        wait_readable(&fds, patience);
        self.kernel.ack_cq_events();
        self.receive();
        self.user.handle_timeout(Clock::now());
        self.transmit();
    }
}
