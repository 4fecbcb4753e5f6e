//! The shard's side of one connection: what its handles ask for, what its events mean to them.

use super::moves::Moving;
use super::paths::Begun;
use super::stream::{Block, Receiving, Sending};
use crate::api::lazy::Lazy;
use crate::api::shared::{
    ConnShared, Halves, Handshake, LastStats, NO_DATAGRAMS, RecvShared, Request, SendShared,
    Supply, Ticket, Work, send_state,
};
use crate::base::Timestamp;
use crate::conn::{ConnId, Connection, ConnectionError, EarlyData, Event};
use crate::stream::{DatagramError, StreamEvent, Streams, Taken};
use crate::wire::{Dir, StreamId};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One stream, as far as handles have it: halves that are over are gone from here.
#[derive(Default)]
struct Stream {
    send: Option<Sending>,
    recv: Option<Receiving>,
}

/// One connection.
pub(super) struct ConnDriver {
    pub(super) id: ConnId,
    pub(super) shared: Arc<ConnShared>,
    ticket: Ticket,
    streams: HashMap<StreamId, Stream>,
    /// A datagram that found the connection's queue full.
    in_hand: Option<Bytes>,
    /// Handles that wait for a move.
    pub(super) moving: Vec<Moving>,
    /// Handles that wait for a new path.
    pub(super) opening: Vec<Begun>,
    /// The peer moved, and the handles do not know yet.
    moved: bool,
}

impl ConnDriver {
    pub(super) fn new(id: ConnId, ticket: Ticket) -> Self {
        let shared = ticket.shared.clone();
        // A connection is begun once.
        let _ = shared.id.set(id);
        Self {
            id,
            shared,
            ticket,
            streams: HashMap::new(),
            in_hand: None,
            moving: Vec::new(),
            opening: Vec::new(),
            moved: false,
        }
    }

    /// Does what handles asked for since the last time.
    pub(super) fn work(&mut self, now: Timestamp, conn: &mut Connection) {
        self.shared.called.store(false, Ordering::SeqCst);
        while let Some(work) = self.shared.work.pop() {
            match work {
                Work::Send(s) => self.with_send(s.id, |half| half.work(conn.streams_mut())),
                Work::Recv(r) => self.with_recv(r.id, |half| half.work(conn.streams_mut())),
            }
        }
        self.send_datagrams(conn);
        self.receive_datagrams(conn);
        self.answer(now, conn);
        for dir in [Dir::Bi, Dir::Uni] {
            self.open(conn.streams_mut(), dir);
            self.accept(conn.streams_mut(), dir);
        }
        self.note(conn);
        if let Some((code, reason)) = self.shared.close.get() {
            conn.close(now, *code, reason);
        }
    }

    /// Runs `f` on a stream's sending half, and forgets the half when `f` says that it is over.
    fn with_send(&mut self, id: StreamId, f: impl FnOnce(&mut Sending) -> bool) {
        if let Some(stream) = self.streams.get_mut(&id)
            && let Some(half) = &mut stream.send
            && !f(half)
        {
            stream.send = None;
            self.forget(id);
        }
    }

    /// Runs `f` on a stream's receiving half, and forgets the half when `f` says that it is over.
    fn with_recv(&mut self, id: StreamId, f: impl FnOnce(&mut Receiving) -> bool) {
        if let Some(stream) = self.streams.get_mut(&id)
            && let Some(half) = &mut stream.recv
            && !f(half)
        {
            stream.recv = None;
            self.forget(id);
        }
    }

    fn forget(&mut self, id: StreamId) {
        if self
            .streams
            .get(&id)
            .is_some_and(|s| s.send.is_none() && s.recv.is_none())
        {
            self.streams.remove(&id);
        }
    }

    /// Offers received bytes to the handle. The flag tells whether the stream is to be flushed, and
    /// was not before.
    #[inline]
    pub(super) fn offer(
        &mut self,
        id: StreamId,
        block: &mut Block,
        data: &[u8],
        fin: bool,
    ) -> (Taken, bool) {
        // A stream that no handle has stays where its flow control holds it.
        let Some(half) = self.streams.get_mut(&id).and_then(|s| s.recv.as_mut()) else {
            return (Taken::Prefix(0), false);
        };
        let taken = half.offer(self.id.index(), block, data, fin);
        let fresh = taken == Taken::All && !std::mem::replace(&mut half.dirty, true);
        (taken, fresh)
    }

    /// Shows a handle the bytes that were offered this turn.
    pub(super) fn flush(&mut self, id: StreamId) {
        self.with_recv(id, |half| {
            half.dirty = false;
            half.flush()
        });
    }

    /// Passes an event on.
    pub(super) fn on_event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Connected => self.connected(conn),
            Event::EarlyData => {
                self.note(conn);
                self.shared.early.store(true, Ordering::SeqCst);
                self.shared.waiters.notify();
            }
            Event::Stream(event) => self.on_stream_event(conn.streams_mut(), event),
            Event::DatagramReceived => self.receive_datagrams(conn),
            Event::DatagramsUnblocked => self.send_datagrams(conn),
            Event::PeerAddressChanged | Event::Migrated(_) => self.moved = true,
            Event::Path(event) => self.on_path_event(conn, event),
            // The end is the driver's matter; what else there may be is no handle's concern.
            _ => {}
        }
        self.note(conn);
    }

    fn connected(&mut self, conn: &Connection) {
        let session = conn.session();
        self.note(conn);
        // The handshake ends once.
        let _ = self.shared.handshake.set(Handshake {
            alpn: session.alpn().map(<[u8]>::to_vec),
            server_name: session.server_name().map(str::to_owned),
            certificates: session.peer_certificates().map(<[_]>::to_vec),
            resumed: session.is_resumed().unwrap_or(false),
            early: conn.early_data() == EarlyData::Accepted,
            multipath: conn.is_multipath(),
        });
        self.shared.waiters.notify();
    }

    /// Keeps what handles read without asking.
    fn note(&mut self, conn: &Connection) {
        let max = conn.max_datagram_size().unwrap_or(NO_DATAGRAMS);
        self.shared.max_datagram.store(max, Ordering::Relaxed);
        if self.moved
            && let Ok(mut remote) = self.shared.remote.try_lock()
        {
            *remote = conn.path().remote;
            self.moved = false;
        }
    }

    fn on_stream_event(&mut self, streams: &mut Streams, event: StreamEvent) {
        match event {
            StreamEvent::Opened(dir) => self.accept(streams, dir),
            StreamEvent::Available(dir) => self.open(streams, dir),
            StreamEvent::Readable(id) => self.with_recv(id, |half| half.pull(streams)),
            StreamEvent::Writable(id) => self.with_send(id, |half| half.pump(streams)),
            StreamEvent::Reset(id, code) => self.with_recv(id, |half| {
                half.reset(code);
                false
            }),
            StreamEvent::Stopped(id, code) => self.with_send(id, |half| {
                half.stopped(code);
                false
            }),
            StreamEvent::Finished(id) => self.with_send(id, |half| {
                half.over(send_state::FINISHED);
                false
            }),
        }
    }

    /// Opens the streams that futures wait for, as many as the peer permits.
    fn open(&mut self, streams: &mut Streams, dir: Dir) {
        while lacks(&self.shared.open[dir as usize]) {
            let Ok(id) = streams.open(dir) else { break };
            let send = Some(Arc::new(SendShared::new(id)));
            let recv = (dir == Dir::Bi).then(|| Arc::new(RecvShared::new(id)));
            self.hand_out(streams, id, Halves { send, recv }, false);
        }
    }

    /// Accepts the streams that futures wait for, as many as the peer opened.
    fn accept(&mut self, streams: &mut Streams, dir: Dir) {
        while lacks(&self.shared.accept[dir as usize]) {
            let Some(id) = streams.accept(dir) else { break };
            let send = (dir == Dir::Bi).then(|| Arc::new(SendShared::new(id)));
            let mut recv = RecvShared::new(id);
            recv.early = streams.is_early(id);
            let recv = Some(Arc::new(recv));
            self.hand_out(streams, id, Halves { send, recv }, true);
        }
    }

    fn hand_out(&mut self, streams: &mut Streams, id: StreamId, halves: Halves, accepted: bool) {
        let stream = Stream {
            send: halves.send.clone().map(Sending::new),
            recv: halves.recv.clone().map(Receiving::new),
        };
        self.streams.insert(id, stream);
        // What came before it was accepted is waiting in the stream.
        self.with_recv(id, |half| half.pull(streams));
        let kinds = if accepted {
            &self.shared.accept
        } else {
            &self.shared.open
        };
        if let Some(supply) = kinds[id.dir() as usize].get() {
            // There is room, for it lacked, and only this thread adds.
            let _ = supply.ready.push(halves);
            supply.waiters.notify();
        }
    }

    fn send_datagrams(&mut self, conn: &mut Connection) {
        let Some(out) = self.shared.outbox.get() else {
            return;
        };
        let mut batch = conn.datagram_batch();
        let mut taken = false;
        while let Some(data) = self.in_hand.take().or_else(|| out.queue.pop()) {
            taken = true;
            // One that no longer fits is lost, as datagrams may be.
            if let Ok(batch) = &mut batch
                && let Err((DatagramError::Full, data)) = batch.push_bytes(data)
            {
                self.in_hand = Some(data);
                break;
            }
        }
        if taken {
            out.waiters.notify();
        }
    }

    fn receive_datagrams(&mut self, conn: &mut Connection) {
        let Some(inbox) = self.shared.inbox.get() else {
            return;
        };
        let mut brought = false;
        loop {
            if inbox.queue.is_full() {
                inbox.more.store(true, Ordering::SeqCst);
                // The reader may have taken some before it could see that there is more.
                if inbox.queue.is_full() {
                    break;
                }
            }
            let Some(data) = conn.recv_datagram() else {
                break;
            };
            let _ = inbox.queue.push(data);
            brought = true;
        }
        if brought {
            inbox.waiters.notify();
        }
    }

    fn answer(&mut self, now: Timestamp, conn: &mut Connection) {
        let mut answered = false;
        while let Some(request) = self.shared.next_request() {
            answered = true;
            match request {
                Request::Stats(reply) => {
                    let _ = reply.set((conn.stats(), conn.path_stats()));
                }
                Request::Export {
                    len,
                    label,
                    context,
                    reply,
                } => {
                    let mut out = vec![0; len];
                    let done =
                        conn.session()
                            .export_keying_material(&mut out, &label, context.as_deref());
                    let _ = reply.set(done.map(|()| out));
                }
                Request::UpdateKeys(reply) => {
                    let _ = reply.set(conn.update_keys());
                }
                Request::Paths(reply) => {
                    let _ = reply.set(conn.paths().collect());
                }
                Request::SetPathStatus { id, status, reply } => {
                    let _ = reply.set(conn.set_path_status(id, status));
                }
                Request::With(work) => work(now, conn),
                Request::PinStream { id, pin, reply } => {
                    let _ = reply.set(conn.set_stream_path(id, pin));
                }
                Request::SendDatagramOn { pin, data, reply } => {
                    let _ = reply.set(conn.send_datagram_on(pin, data));
                }
                Request::ClosePath { id, error, reply } => {
                    let _ = reply.set(conn.close_path(now, id, error));
                }
            }
        }
        if answered {
            self.shared.waiters.notify();
        }
    }

    /// The connection is over for its handles. The ticket stays until it is gone.
    pub(super) fn close(mut self, conn: Option<&mut Connection>, why: ConnectionError) -> Ticket {
        let shared = &self.shared;
        let mut streams = None;
        if let Some(conn) = conn {
            if let Some(failure) = conn.session().failure() {
                let _ = shared.tls_failure.set(failure.clone());
            }
            let stats = LastStats {
                connection: conn.stats(),
                path: conn.path_stats(),
                paths: conn.paths().collect(),
                past_paths: conn.past_paths().collect(),
            };
            let _ = shared.last_stats.set(Box::new(stats));
            self.receive_datagrams(conn);
            streams = Some(conn.streams_mut());
        }
        // Before the streams, which tell their handles to look at it.
        self.shared.end(why);
        for stream in self.streams.values_mut() {
            if let Some(half) = &mut stream.send {
                half.over(send_state::LOST);
            }
            if let Some(half) = &mut stream.recv {
                half.over(streams.as_deref_mut());
            }
        }
        self.ticket
    }
}

/// Whether somebody waits for a stream of that kind.
fn lacks(supply: &Lazy<Supply>) -> bool {
    supply.get().is_some_and(Supply::lacks)
}
