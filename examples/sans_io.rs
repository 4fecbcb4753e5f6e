//! Depth 1, sans I/O: two endpoints in memory, no sockets, no clock. Time is a number that this
//! program moves, so a handshake over a path of 20 ms takes no time at all to run.

use corelane::base::{Ecn, FourTuple, RecvMeta, SocketId, Timestamp};
use corelane::conn::endpoint::Next;
use corelane::conn::{Application, ConnId, Endpoint, EndpointConfig, Event};
use corelane::crypto::random;
use corelane::stream::{ReadChunk, StreamEvent, Streams, Taken};
use corelane::wire::{Dir, StreamId};
use rustls::pki_types::ServerName;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

mod tls;

const DELAY: Duration = Duration::from_millis(10);

/// Leaves received bytes to be read from their streams.
struct Buffer;

impl Application for Buffer {
    fn on_stream_data(
        &mut self,
        _: ConnId,
        _: &mut Streams,
        _: StreamId,
        _: &[u8],
        _: bool,
    ) -> Taken {
        Taken::Prefix(0)
    }
}

/// An endpoint, what is under way to it, and when its connections want to be called.
struct Side {
    name: &'static str,
    endpoint: Endpoint,
    addr: SocketAddr,
    /// Trains with the time of their arrival and the size of their segments.
    inbox: VecDeque<(Timestamp, usize, Vec<u8>)>,
    timers: BTreeMap<ConnId, Timestamp>,
}

impl Side {
    fn new(name: &'static str, config: EndpointConfig, addr: &str) -> Result<Self, Box<dyn Error>> {
        let endpoint = Endpoint::new(config)?;
        let addr = addr.parse()?;
        Ok(Self {
            name,
            endpoint,
            addr,
            inbox: VecDeque::new(),
            timers: BTreeMap::new(),
        })
    }

    /// When this side has something to do next.
    fn next(&self) -> Option<Timestamp> {
        let arrival = self.inbox.front().map(|(at, ..)| *at);
        self.timers.values().copied().chain(arrival).min()
    }

    /// Takes in what is due at `now`, then lets every connection that wants to act, and puts what
    /// it sends under way to `peer`.
    fn turn(&mut self, now: Timestamp, peer: &mut Side) {
        let path = FourTuple::new(self.addr, peer.addr);
        while self.inbox.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, segment_size, mut train)) = self.inbox.pop_front() else {
                break;
            };
            let meta = RecvMeta {
                socket: SocketId(0),
                path,
                ecn: Ecn::NotEct,
                segment_size,
            };
            self.endpoint
                .handle_train(now, &meta, &mut train, &mut Buffer);
        }
        let due = self
            .timers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(id, _)| *id);
        for id in due.collect::<Vec<_>>() {
            self.timers.remove(&id);
            self.endpoint.handle_timeout(now, id);
        }
        let mut buffer = vec![0; 65_536];
        while let Some(id) = self.endpoint.poll_ready() {
            while let Some(event) = self.endpoint.connection(id).and_then(|c| c.poll_event()) {
                self.on_event(now, id, event);
            }
            let Some(conn) = self.endpoint.connection(id) else {
                continue;
            };
            while let Some(sent) = conn.poll_transmit(now, &mut buffer) {
                let train = buffer[..sent.len].to_vec();
                peer.inbox
                    .push_back((now + DELAY, sent.segment_size, train));
            }
            match self.endpoint.finish(id) {
                Next::Timeout(at) => self.timers.insert(id, at),
                Next::Quiet | Next::Gone => self.timers.remove(&id),
            };
        }
        // Answers that belong to no connection: Retry, resets, refusals.
        while let Some(sent) = self.endpoint.poll_transmit(&mut buffer) {
            let datagram = buffer[..sent.len].to_vec();
            peer.inbox
                .push_back((now + DELAY, sent.segment_size, datagram));
        }
    }

    /// The client asks once; the server answers with what it was asked, and closes.
    fn on_event(&mut self, now: Timestamp, id: ConnId, event: Event) {
        let ms = now.saturating_since(Timestamp::ZERO).as_millis();
        println!("{ms:>4} ms  {:<7} {event:?}", self.name);
        let is_client = self.name == "client";
        let Some(conn) = self.endpoint.connection(id) else {
            return;
        };
        match event {
            Event::Connected if is_client => {
                let streams = conn.streams_mut();
                if let Ok(stream) = streams.open(Dir::Bi) {
                    let _ = streams.write(stream, b"what time is it?");
                    let _ = streams.finish(stream);
                }
            }
            Event::Stream(StreamEvent::Opened(dir)) => {
                while conn.streams_mut().accept(dir).is_some() {}
            }
            Event::Stream(StreamEvent::Readable(stream)) => {
                while let Ok(ReadChunk::Data(data)) = conn.streams_mut().read_bytes(stream, 1000) {
                    println!(
                        "         {:<7} {:?}",
                        self.name,
                        String::from_utf8_lossy(&data)
                    );
                    if is_client {
                        conn.close(now, 0, b"thanks");
                    } else {
                        let _ = conn
                            .streams_mut()
                            .write(stream, format!("{ms} ms").as_bytes());
                        let _ = conn.streams_mut().finish(stream);
                    }
                }
            }
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (server_tls, client_tls) = tls::configs()?;
    let mut config = EndpointConfig::new(random::seed()?);
    config.server = Some(server_tls);
    let mut server = Side::new("server", config, "192.0.2.1:443")?;
    let config = EndpointConfig::new(random::seed()?);
    let mut client = Side::new("client", config, "192.0.2.2:1000")?;

    let mut now = Timestamp::ZERO;
    let path = FourTuple::new(client.addr, server.addr);
    let name = ServerName::try_from("localhost")?;
    client
        .endpoint
        .connect(now, SocketId(0), path, client_tls, name, None)?;
    loop {
        client.turn(now, &mut server);
        server.turn(now, &mut client);
        match client.next().into_iter().chain(server.next()).min() {
            Some(at) => now = at.max(now),
            None => break,
        }
    }
    println!(
        "connections left: {}",
        client.endpoint.len() + server.endpoint.len()
    );
    Ok(())
}
