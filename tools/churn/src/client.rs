//! The side that churns: connections that live for a few random deeds and end in every way there
//! is. What a shard does follows from its seed, as far as the network lets it.

use crate::gauges::Gauges;
use crate::server::GLANCE;
use bytes::Bytes;
use corelane::base::{Rng, SocketId, Timestamp};
use corelane::conn::{ConnId, Connection, ConnectionError, Event};
use corelane::shard::{Context, ShardApp};
use corelane::stream::{StreamEvent, Streams, Taken};
use corelane::wire::{Dir, StreamId};
use rustls::pki_types::ServerName;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The most bytes that one stream carries.
const STREAM_MAX: u64 = 40_000;
/// Deeds of one connection, at most.
const DEEDS: u64 = 24;
/// Pause between two deeds, at most.
const PAUSE: Duration = Duration::from_millis(60);

/// What one client shard is to do.
pub struct Task {
    /// Addresses of the server: its own, and those of relays.
    pub servers: Vec<SocketAddr>,
    /// Trusts the server.
    pub tls: Arc<rustls::ClientConfig>,
    /// Connections at a time.
    pub parallel: usize,
    /// Of everything random.
    pub seed: u64,
}

/// What handles ask of a client.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Begin connections, until told otherwise.
    Go,
    /// Begin no more; those that live end soon.
    Cease,
}

/// A connection's life.
struct Life {
    deeds: u64,
    /// It is to end by somebody's will.
    doomed: bool,
    /// Streams whose echo is awaited: bytes to come, and what they are.
    awaited: HashMap<StreamId, (u64, u8)>,
}

/// One shard's client.
pub struct Client {
    task: Task,
    gauges: Arc<Gauges>,
    rng: Rng,
    going: bool,
    lives: HashMap<ConnId, Life>,
    due: BinaryHeap<Reverse<(Timestamp, ConnId)>>,
    /// When a connection could not be begun: not again before then.
    rest: Timestamp,
}

impl Client {
    /// A client that waits for [`Order::Go`].
    pub fn new(task: Task, gauges: Arc<Gauges>) -> Self {
        Self {
            rng: Rng::from_u64(task.seed),
            task,
            gauges,
            going: false,
            lives: HashMap::new(),
            due: BinaryHeap::new(),
            rest: Timestamp::ZERO,
        }
    }

    fn begin(&mut self, ctx: &mut Context<'_>) {
        let at = self.rng.below(self.task.servers.len() as u64) as usize;
        // Some ask for a name that the server cannot prove: their handshakes fail.
        let doomed = self.rng.below(40) == 0;
        let name = if doomed { "nobody" } else { "localhost" };
        let name = ServerName::try_from(name).expect("a DNS name");
        let socket = ctx.sockets().first().map_or(SocketId(0), |(id, _)| *id);
        let tls = self.task.tls.clone();
        match ctx.connect(socket, self.task.servers[at], tls, name, None) {
            Ok(id) => {
                Gauges::add(&self.gauges.begun, 1);
                let life = Life {
                    deeds: 1 + self.rng.below(DEEDS),
                    doomed,
                    awaited: HashMap::new(),
                };
                self.lives.insert(id, life);
            }
            Err(_) => {
                Gauges::add(&self.gauges.failed, 1);
                self.rest = ctx.now() + PAUSE;
            }
        }
    }

    fn pause(&mut self) -> Duration {
        Duration::from_nanos(self.rng.below(PAUSE.as_nanos() as u64))
    }

    /// One deed of a connection, or its end.
    fn act(&mut self, ctx: &mut Context<'_>, id: ConnId) {
        let now = ctx.now();
        let Some(life) = self.lives.get_mut(&id) else {
            return;
        };
        let Some(conn) = ctx.connection(id) else {
            return;
        };
        if life.deeds == 0 || !self.going {
            if life.awaited.is_empty() || self.rng.below(4) == 0 || !self.going {
                life.doomed = true;
                // One in eight says nothing and is left to its idle timeout.
                if !self.going || self.rng.below(8) > 0 {
                    conn.close(now, self.rng.below(100), b"that was all");
                }
                return;
            }
        } else {
            life.deeds -= 1;
            do_something(life, conn, &mut self.rng, &self.gauges);
        }
        let next = now + self.pause();
        self.due.push(Reverse((next, id)));
    }

    fn on_closed(&mut self, id: ConnId, why: &ConnectionError) {
        Gauges::add(&self.gauges.ended, 1);
        let Some(life) = self.lives.remove(&id) else {
            return;
        };
        // A server may hang up on whom it likes.
        let meant = life.doomed || matches!(why, ConnectionError::ApplicationClosed { .. });
        if !meant {
            Gauges::add(&self.gauges.failed, 1);
        }
    }
}

/// A stream with an echo, a stream that is abandoned by either side, datagrams, new keys.
fn do_something(life: &mut Life, conn: &mut Connection, rng: &mut Rng, gauges: &Gauges) {
    let deed = rng.below(10);
    if deed == 8 {
        for n in 0..=rng.below(4) {
            let data = vec![n as u8; 1 + rng.below(1000) as usize];
            let sent = conn.send_datagram(Bytes::from(data)).is_ok();
            Gauges::add(&gauges.datagrams, u64::from(sent));
        }
        return;
    }
    if deed == 9 {
        let done = conn.update_keys();
        Gauges::add(&gauges.key_updates, u64::from(done));
        return;
    }
    let streams = conn.streams_mut();
    let dir = if deed == 7 { Dir::Uni } else { Dir::Bi };
    let Ok(id) = streams.open(dir) else {
        return;
    };
    Gauges::add(&gauges.streams, 1);
    let (len, byte) = (1 + rng.below(STREAM_MAX), rng.next_u64() as u8);
    // It fits the send buffer of a fresh stream.
    let _ = streams.write(id, &vec![byte; len as usize]);
    match deed {
        0..=4 => {
            let _ = streams.finish(id);
            life.awaited.insert(id, (len, byte));
        }
        5 => {
            let _ = streams.reset(id, 1);
            let _ = streams.stop_sending(id, 1);
            Gauges::add(&gauges.resets, 1);
        }
        6 => {
            let _ = streams.stop_sending(id, 2);
            let _ = streams.finish(id);
            Gauges::add(&gauges.resets, 1);
        }
        _ => {
            let _ = streams.reset(id, 3);
            Gauges::add(&gauges.resets, 1);
        }
    }
}

impl ShardApp for Client {
    type Command = Order;

    fn on_stream_data(
        &mut self,
        conn: ConnId,
        _: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        let life = self.lives.get_mut(&conn);
        let Some((left, byte)) = life.and_then(|l| l.awaited.get_mut(&id)) else {
            return Taken::All;
        };
        *left = left.saturating_sub(data.len() as u64);
        let right = data.iter().all(|b| b == byte) && (*left == 0) == fin;
        Gauges::add(&self.gauges.wrong, u64::from(!right));
        Gauges::add(&self.gauges.echoed, data.len() as u64);
        if fin && let Some(life) = self.lives.get_mut(&conn) {
            life.awaited.remove(&id);
        }
        Taken::All
    }

    fn on_command(&mut self, _: &mut Context<'_>, order: Order) {
        self.going = matches!(order, Order::Go);
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, id: ConnId, event: Event) {
        match event {
            Event::Connected => {
                Gauges::add(&self.gauges.established, 1);
                self.due.push(Reverse((ctx.now(), id)));
            }
            Event::DatagramReceived => {
                if let Some(conn) = ctx.connection(id) {
                    while conn.recv_datagram().is_some() {}
                }
            }
            Event::Stream(StreamEvent::Opened(dir)) => {
                if let Some(conn) = ctx.connection(id) {
                    while conn.streams_mut().accept(dir).is_some() {}
                }
            }
            Event::Stream(StreamEvent::Reset(stream, _)) => {
                if let Some(life) = self.lives.get_mut(&id) {
                    life.awaited.remove(&stream);
                }
            }
            Event::Closed(why) => self.on_closed(id, &why),
            _ => {}
        }
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let now = ctx.now();
        while let Some(Reverse((at, id))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            self.act(ctx, id);
        }
        if !self.going {
            // Those that still shake hands, or wait for their timeout, are hurried.
            let left: Vec<ConnId> = self.lives.keys().copied().collect();
            for id in left {
                self.act(ctx, id);
            }
        }
        while self.going && self.lives.len() < self.task.parallel && now >= self.rest {
            self.begin(ctx);
        }
        let endpoint = ctx.endpoint();
        let (connections, routes) = (endpoint.len(), endpoint.routes());
        self.gauges.set(connections, routes);
        if connections == 0 && !self.going {
            self.due.clear();
            return None;
        }
        let next = self.due.peek().map(|Reverse((at, _))| *at);
        Some(next.unwrap_or(now + GLANCE).min(now + GLANCE))
    }
}
