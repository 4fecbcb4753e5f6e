//! A socket and the quiche connections on it: what arrives goes to the connection it is for, timers
//! fire when they are due, and what a connection has to send leaves as trains.
//!
//! The application takes the connections that something happened to from [`Endpoint::next`], and
//! hands each back to [`Endpoint::flush`] when it has read and written. Pacing's release times are
//! not waited for, as quiche's own programs do not without a kernel that paces.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use bytes::Bytes;
use corelane_bench_peer::udp::{Inbox, Udp};
use corelane_bench_peer::{SERVER_NAME, now};
use quiche::{BufFactory, Config, ConnectionId, Error, RecvInfo};
use ring::rand::{SecureRandom, SystemRandom};

/// The length of the connection IDs that this side chooses, bytes.
const ID_LEN: usize = 16;
/// The largest packet that a buffer has room for, bytes.
const TRAIN_BYTES: usize = 1 << 16;
/// Trains that leave before the socket is read again.
const TRAINS: usize = 4;

type Id = [u8; ID_LEN];

/// Buffers of which sending copies nothing: quiche shares what the application gives it.
#[derive(Clone, Debug, Default)]
pub struct Shared;

impl BufFactory for Shared {
    type Buf = Bytes;
    type DgramBuf = Bytes;

    fn buf_from_slice(buf: &[u8]) -> Bytes {
        Bytes::copy_from_slice(buf)
    }

    fn dgram_buf_from_slice(buf: &[u8]) -> Bytes {
        Bytes::copy_from_slice(buf)
    }
}

/// A connection of quiche.
pub type Quic = quiche::Connection<Shared>;

/// A connection with what the application keeps for it.
pub struct Peer<A> {
    /// The connection.
    pub quic: Quic,
    /// The application's.
    pub app: A,
    id: Id,
    /// The ID that the client chose for its first packets.
    first_id: Option<Id>,
    timer: Option<Instant>,
    is_queued: bool,
}

/// The socket and its connections.
pub struct Endpoint<A> {
    udp: Udp,
    inbox: Inbox,
    train: Vec<u8>,
    table: Table<A>,
}

/// The connections: by ID, by timer, and those that something happened to.
struct Table<A> {
    config: Config,
    is_server: bool,
    local: SocketAddr,
    random: SystemRandom,
    peers: Vec<Option<Box<Peer<A>>>>,
    free: Vec<usize>,
    ids: HashMap<Id, usize>,
    timers: BTreeSet<(Instant, usize)>,
    queue: VecDeque<usize>,
    /// Whom the last packet was for: mostly the next is, too.
    last: Option<(Id, usize)>,
}

impl<A: Default> Endpoint<A> {
    /// An endpoint on `udp`. Only a server's takes connections.
    pub fn new(udp: Udp, config: Config, is_server: bool) -> Self {
        let local = udp.local_addr();
        Self {
            udp,
            inbox: Inbox::default(),
            train: vec![0; TRAIN_BYTES],
            table: Table {
                config,
                is_server,
                local,
                random: SystemRandom::new(),
                peers: Vec::new(),
                free: Vec::new(),
                ids: HashMap::new(),
                timers: BTreeSet::new(),
                queue: VecDeque::new(),
                last: None,
            },
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.table.local
    }

    /// Begins a connection, resuming `session` if there is one, and sends its first packets.
    ///
    /// # Errors
    /// When quiche or the system refuses.
    pub fn connect(&mut self, to: SocketAddr, session: Option<&[u8]>) -> io::Result<usize> {
        let at = self.table.connect(to, session).map_err(io::Error::other)?;
        self.flush(at)?;
        Ok(at)
    }

    /// The connection `at`, while it lasts.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Peer<A>> {
        self.table.peers.get_mut(at)?.as_deref_mut()
    }

    /// Waits until something is to do or one of `others` can be read, and does what quiche can do
    /// without its application.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn turn(&mut self, others: &[BorrowedFd<'_>]) -> io::Result<()> {
        if self.table.queue.is_empty() {
            let timer = self.table.timers.first().map(|(at, _)| *at);
            self.udp.wait(timer, others)?;
        }
        let table = &mut self.table;
        self.inbox
            .receive(&self.udp, |packet, from| table.deliver(packet, from))?;
        table.fire();
        Ok(())
    }

    /// A connection that something happened to since the last turn.
    pub fn next(&mut self) -> Option<usize> {
        let at = self.table.queue.pop_front()?;
        if let Some(peer) = self.get_mut(at) {
            peer.is_queued = false;
        }
        Some(at)
    }

    /// Whether more connections wait in [`Endpoint::next`].
    pub fn queued(&self) -> usize {
        self.table.queue.len()
    }

    /// Looks at connection `at` again without waiting.
    pub fn queue(&mut self, at: usize) {
        self.table.queue(at);
    }

    /// Sends what connection `at` has to send, sets its timer, and forgets it if it has ended.
    /// When more is left than some trains hold, the connection is queued again.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn flush(&mut self, at: usize) -> io::Result<()> {
        let Self {
            udp, train, table, ..
        } = self;
        let Some(peer) = table.peers.get_mut(at).and_then(Option::as_deref_mut) else {
            return Ok(());
        };
        let mut is_done = false;
        for _ in 0..TRAINS {
            is_done = send_train(udp, train, &mut peer.quic)?;
            if is_done {
                break;
            }
        }
        let is_closed = peer.quic.is_closed();
        let timer = peer.quic.timeout_instant().filter(|_| !is_closed);
        if timer != peer.timer {
            let old = std::mem::replace(&mut peer.timer, timer);
            old.map(|old| table.timers.remove(&(old, at)));
            timer.map(|new| table.timers.insert((new, at)));
        }
        if is_closed {
            table.forget(at);
        } else if !is_done {
            table.queue(at);
        }
        Ok(())
    }
}

/// Sends one train. True when the connection has nothing more to send now.
fn send_train(udp: &Udp, train: &mut [u8], quic: &mut Quic) -> io::Result<bool> {
    let payload = quic.max_send_udp_payload_size();
    let room = (udp.train_max(payload) * payload).min(train.len());
    // As many small packets as the kernel cuts from a train, too.
    let mut left = udp.train_max(1);
    let (mut end, mut segment, mut to) = (0, 0, None);
    let is_done = loop {
        if end + payload > room || left == 0 {
            break false;
        }
        left -= 1;
        let Ok((size, info)) = quic.send(&mut train[end..end + payload]) else {
            break true;
        };
        if end > 0 && size > segment {
            // It cannot share the train: the one before ended it.
            udp.send(info.to, &[IoSlice::new(&train[..end])], segment)?;
            train.copy_within(end..end + size, 0);
            end = 0;
        }
        if end == 0 {
            segment = size;
        }
        to = Some(info.to);
        end += size;
        if size < segment {
            break false;
        }
    };
    if let Some(to) = to {
        udp.send(to, &[IoSlice::new(&train[..end])], segment)?;
    }
    Ok(is_done)
}

impl<A: Default> Table<A> {
    fn new_id(&self) -> Result<Id, Error> {
        let mut id = [0; ID_LEN];
        let filled = self.random.fill(&mut id);
        filled.map(|()| id).map_err(|_| Error::CryptoFail)
    }

    fn connect(&mut self, to: SocketAddr, session: Option<&[u8]>) -> Result<usize, Error> {
        let id = self.new_id()?;
        let mut quic = quiche::connect_with_buffer_factory(
            Some(SERVER_NAME),
            &ConnectionId::from_ref(&id),
            self.local,
            to,
            &mut self.config,
        )?;
        if let Some(session) = session {
            quic.set_session(session)?;
        }
        Ok(self.add(quic, id, None))
    }

    fn add(&mut self, quic: Quic, id: Id, first_id: Option<Id>) -> usize {
        let peer = Peer {
            quic,
            app: A::default(),
            id,
            first_id,
            timer: None,
            is_queued: false,
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        for id in [Some(id), first_id].into_iter().flatten() {
            self.ids.insert(id, at);
        }
        self.peers[at] = Some(Box::new(peer));
        at
    }

    fn forget(&mut self, at: usize) {
        let Some(peer) = self.peers.get_mut(at).and_then(Option::take) else {
            return;
        };
        for id in [Some(peer.id), peer.first_id].into_iter().flatten() {
            self.ids.remove(&id);
        }
        if peer.is_queued {
            self.queue.retain(|queued| *queued != at);
        }
        self.last = None;
        self.free.push(at);
    }

    fn queue(&mut self, at: usize) {
        if let Some(peer) = self.peers.get_mut(at).and_then(Option::as_deref_mut)
            && !peer.is_queued
        {
            peer.is_queued = true;
            self.queue.push_back(at);
        }
    }

    fn deliver(&mut self, packet: &mut [u8], from: SocketAddr) {
        let Some(at) = self.find(packet, from) else {
            return;
        };
        let to = self.local;
        if let Some(peer) = self.peers[at].as_deref_mut() {
            // What a packet does wrong shows in the connection's state.
            let _ = peer.quic.recv(packet, RecvInfo { from, to });
            self.queue(at);
        }
    }

    /// Whom a packet is for; a server opens a connection for an Initial packet of a stranger.
    fn find(&mut self, packet: &mut [u8], from: SocketAddr) -> Option<usize> {
        let first = *packet.first()?;
        if first & 0x80 == 0 {
            // RFC 9000 §17.3: a short header has nothing but the ID that this side chose.
            let id: Id = *packet.get(1..)?.first_chunk()?;
            return self.lookup(id);
        }
        let header = quiche::Header::from_slice(packet, ID_LEN).ok()?;
        let known = Id::try_from(&header.dcid[..]).ok();
        if let Some(at) = known.and_then(|id| self.lookup(id)) {
            return Some(at);
        }
        if !self.is_server || header.ty != quiche::Type::Initial {
            return None;
        }
        let id = self.new_id().ok()?;
        let scid = ConnectionId::from_ref(&id);
        let config = &mut self.config;
        let quic = quiche::accept_with_buf_factory(&scid, None, self.local, from, config).ok()?;
        Some(self.add(quic, id, known))
    }

    fn lookup(&mut self, id: Id) -> Option<usize> {
        if let Some((last, at)) = self.last
            && last == id
        {
            return Some(at);
        }
        let at = *self.ids.get(&id)?;
        self.last = Some((id, at));
        Some(at)
    }

    /// Runs the timers that are due.
    fn fire(&mut self) {
        let Some(&(first, _)) = self.timers.first() else {
            return;
        };
        let now = now();
        if first > now {
            return;
        }
        while let Some(&(due, at)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            if let Some(peer) = self.peers[at].as_deref_mut() {
                peer.timer = None;
                peer.quic.on_timeout();
            }
            self.queue(at);
        }
    }
}
