//! Depth 2, callbacks: an application object on each shard, called on the shard's thread with the
//! received bytes still in the receive buffer. A server that answers requests, and a client that
//! measures how long an answer takes, in one process.

use corelane::base::{SocketId, Timestamp};
use corelane::conn::{ConnId, Event};
use corelane::shard::engine::{Bind, Engine, EngineConfig, Idle};
use corelane::shard::{Context, ShardApp};
use corelane::stream::{StreamEvent, Streams, Taken};
use corelane::wire::{Dir, StreamId};
use rustls::pki_types::ServerName;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

mod tls;

const REQUEST: [u8; 64] = [b'?'; 64];
const REQUESTS: usize = 1000;

/// Answers each request on its own stream, from inside the callback that brought it.
struct Server;

impl ShardApp for Server {
    type Command = ();

    fn on_stream_data(
        &mut self,
        _: ConnId,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        // A stream that is gone needs no answer, and the answers are small enough to fit.
        let _ = streams.write(id, data);
        if fin {
            let _ = streams.finish(id);
        }
        Taken::All
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event) {
        // Bytes come by themselves; accepting lets the peer open more streams.
        if let (Event::Stream(StreamEvent::Opened(dir)), Some(conn)) = (event, ctx.connection(conn))
        {
            while conn.streams_mut().accept(dir).is_some() {}
        }
    }
}

/// Sends one request after the other.
struct Client {
    server: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    sent_at: Timestamp,
    answered: bool,
    times: Vec<Duration>,
    conn: Option<ConnId>,
    done: mpsc::Sender<Vec<Duration>>,
}

impl Client {
    fn request(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now();
        let Some(conn) = self.conn.and_then(|id| ctx.connection(id)) else {
            return;
        };
        if self.times.len() == REQUESTS {
            conn.close(now, 0, b"done");
            return;
        }
        let streams = conn.streams_mut();
        if let Ok(id) = streams.open(Dir::Bi) {
            let _ = streams.write(id, &REQUEST);
            let _ = streams.finish(id);
            self.sent_at = now;
        }
    }
}

impl ShardApp for Client {
    type Command = ();

    fn on_stream_data(
        &mut self,
        _: ConnId,
        _: &mut Streams,
        _: StreamId,
        _: &[u8],
        fin: bool,
    ) -> Taken {
        self.answered |= fin;
        Taken::All
    }

    fn on_command(&mut self, ctx: &mut Context<'_>, (): ()) {
        let name = ServerName::try_from("localhost").expect("a DNS name");
        let socket = ctx.sockets().first().map_or(SocketId(0), |(id, _)| *id);
        match ctx.connect(socket, self.server, self.tls.clone(), name, None) {
            Ok(_) => {}
            Err(e) => eprintln!("{e}"),
        }
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected => {
                self.conn = Some(conn);
                self.request(ctx);
            }
            Event::Closed(why) => {
                println!("{why}");
                // The receiver waits for nothing else.
                let _ = self.done.send(std::mem::take(&mut self.times));
            }
            _ => {}
        }
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        if std::mem::take(&mut self.answered) {
            self.times.push(ctx.now().saturating_since(self.sent_at));
            self.request(ctx);
        }
        None
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (server_tls, client_tls) = tls::configs()?;
    let mut config = EngineConfig::new("server");
    config.server = Some(server_tls);
    config.bind = Bind::Shared("127.0.0.1:0".parse()?);
    config.idle = Idle::Park;
    let mut server = Engine::start(&config, |_| Server)?;

    let (done, times) = mpsc::channel();
    let mut config = EngineConfig::new("client");
    config.idle = Idle::Park;
    let addr = server.local_addrs()[0];
    let mut client = Engine::start(&config, |_| Client {
        server: addr,
        tls: client_tls.clone(),
        sent_at: Timestamp::ZERO,
        answered: false,
        times: Vec::with_capacity(REQUESTS),
        conn: None,
        done: done.clone(),
    })?;
    client.senders()[0].send(())?;
    let mut times = times.recv()?;
    times.sort_unstable();
    if let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) {
        println!(
            "{} answers; median {median:?}, worst {worst:?}",
            times.len()
        );
    }
    client.stop();
    server.stop();
    client.join()?;
    server.join()?;
    Ok(())
}
