//! The loop around an endpoint of tquic: what arrives goes in, timers fire when they are due, and
//! the packets that it hands out leave as trains, gathered from where they lie.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use bytes::Bytes;
use corelane_bench_peer::streams::CHUNK;
use corelane_bench_peer::udp::{Inbox, Udp};
use corelane_bench_peer::{Fault, SERVER_NAME, now};
use tquic::{Config, Connection, Endpoint, PacketInfo, PacketSendHandler, TransportHandler};

/// Where bulk data comes from.
static FILL: [u8; CHUNK] = [0x5a; CHUNK];

/// What an endpoint sends with.
struct Sender {
    udp: Rc<Udp>,
    /// Why the socket failed: tquic does not take that back.
    fault: RefCell<Option<io::Error>>,
}

impl PacketSendHandler for Sender {
    fn on_packets_send(&self, packets: &[(Vec<u8>, PacketInfo)]) -> tquic::Result<usize> {
        let mut train = Vec::with_capacity(64);
        let mut rest = packets;
        while let Some((first, PacketInfo { dst, .. })) = rest.first() {
            let segment = first.len();
            let fitting = rest[..rest.len().min(self.udp.train_max(segment))]
                .iter()
                .take_while(|(packet, info)| packet.len() <= segment && info.dst == *dst)
                .count();
            // A shorter one ends the train.
            let full = rest[..fitting]
                .iter()
                .take_while(|(packet, _)| packet.len() == segment)
                .count();
            let count = fitting.min(full + 1);
            train.extend(rest[..count].iter().map(|(packet, _)| IoSlice::new(packet)));
            if let Err(e) = self.udp.send(*dst, &train, segment) {
                self.fault.borrow_mut().get_or_insert(e);
            }
            train.clear();
            rest = &rest[count..];
        }
        Ok(packets.len())
    }
}

/// An endpoint with its socket.
pub struct Driver {
    /// The endpoint.
    pub endpoint: Endpoint,
    sender: Rc<Sender>,
    inbox: Inbox,
}

impl Driver {
    /// An endpoint on `udp` that tells `handler` what happens.
    pub fn new(
        udp: Udp,
        config: Box<Config>,
        is_server: bool,
        handler: Box<dyn TransportHandler>,
    ) -> Self {
        let sender = Rc::new(Sender {
            udp: Rc::new(udp),
            fault: RefCell::default(),
        });
        Self {
            endpoint: Endpoint::new(config, is_server, handler, sender.clone()),
            sender,
            inbox: Inbox::default(),
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.sender.udp.local_addr()
    }

    /// Begins a connection, resuming `session` if there is one. It leaves with the next turn.
    ///
    /// # Errors
    /// When tquic refuses.
    pub fn connect(&mut self, to: SocketAddr, session: Option<&[u8]>) -> Result<u64, Fault> {
        let (local, name) = (self.local_addr(), Some(SERVER_NAME));
        Ok(self
            .endpoint
            .connect(local, to, name, session, None, None)?)
    }

    /// Sends what there is to send, waits until something is to do or one of `others` can be read,
    /// and lets the endpoint do it.
    ///
    /// # Errors
    /// When the endpoint or its socket fails.
    pub fn turn(&mut self, others: &[BorrowedFd<'_>]) -> Result<(), Fault> {
        self.endpoint.process_connections()?;
        let timer = self.endpoint.timeout().map(|wait| now() + wait);
        let Sender { udp, fault } = &*self.sender;
        udp.wait(timer, others)?;
        let (dst, time) = (udp.local_addr(), now());
        let endpoint = &mut self.endpoint;
        self.inbox.receive(udp, |packet, src| {
            // What a packet does wrong shows in its connection's state.
            let _ = endpoint.recv(packet, &PacketInfo { src, dst, time });
        })?;
        self.endpoint.on_timeout(now());
        self.endpoint.process_connections()?;
        match fault.borrow_mut().take() {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }
}

/// Fills the streams `ids` in turn, a chunk each, as long as any takes something.
pub fn flood(connection: &mut Connection, ids: &mut Vec<u64>) {
    let mut takes = !ids.is_empty();
    while takes {
        takes = false;
        ids.retain(|id| {
            match connection.stream_write(*id, Bytes::from_static(&FILL), false) {
                Ok(written) => takes |= written == CHUNK,
                Err(tquic::Error::Done) => {}
                Err(_) => return false,
            }
            true
        });
    }
    // The connection's window may end within a round: another begins the next one.
    if ids.len() > 1 {
        ids.rotate_left(1);
    }
}

/// Gives the rest of `data` to the stream. True when nothing is left, or the stream has ended.
pub fn write_all(connection: &mut Connection, id: u64, data: &mut Bytes) -> bool {
    match connection.stream_write(id, data.clone(), true) {
        Ok(written) if written < data.len() => {
            *data = data.slice(written..);
            false
        }
        Err(tquic::Error::Done) => false,
        Ok(_) | Err(_) => true,
    }
}
