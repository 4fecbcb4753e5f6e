//! The file exchange on corelane's shards: one application that is a server, a client, or both.

use super::files::{ALPN, File, NOT_FOUND, Request};
use bytes::{Buf, Bytes};
use corelane::base::Timestamp;
use corelane::conn::{
    ConnId, ConnectionError, Decision, EarlyData, Event, Incoming, TransportConfig,
};
use corelane::shard::app::{Context, ShardApp};
use corelane::stream::{OpenError, StreamEvent, Streams, Taken, WriteError};
use corelane::wire::{Dir, StreamId};
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// One stream's bytes, both ways.
#[derive(Default)]
struct Exchange {
    incoming: Vec<u8>,
    outgoing: Bytes,
    /// Which request of the client it is.
    request: Option<usize>,
    answered: bool,
}

/// What a client is to do.
#[derive(Clone)]
pub struct Job {
    pub remote: SocketAddr,
    pub tls: Arc<rustls::ClientConfig>,
    pub transport: Arc<TransportConfig>,
    pub requests: Vec<Vec<u8>>,
    /// Ends the shard's loop when the connection is over.
    pub stop: bool,
}

/// A server of files and, given a job, a client.
#[derive(Default)]
pub struct FileApp {
    pub files: Vec<File>,
    pub job: Option<Job>,
    conn: Option<ConnId>,
    next: usize,
    closing: bool,
    /// The datagram size at the end.
    pub mtu: usize,
    /// The handshake is confirmed.
    pub confirmed: bool,
    exchanges: HashMap<(ConnId, StreamId), Exchange>,
    pub answers: Vec<Option<Vec<u8>>>,
    /// How connections ended.
    pub closed: Vec<ConnectionError>,
    /// Moves that came about.
    pub moves: usize,
    /// What should not have happened.
    pub faults: Vec<String>,
    /// Leave every byte to be read from the stream.
    pub reluctant: bool,
    /// Have clients prove their address first.
    pub prove: bool,
    /// What became of the client's early data.
    pub early: EarlyData,
    /// ALPN as negotiated.
    pub alpn: Option<Vec<u8>>,
}

impl FileApp {
    pub fn server(files: &[File]) -> Self {
        Self {
            files: files.to_vec(),
            ..Self::default()
        }
    }

    pub fn client(job: Job) -> Self {
        let answers = vec![None; job.requests.len()];
        Self {
            job: Some(job),
            answers,
            ..Self::default()
        }
    }

    /// The client's connection, while it is there to be moved.
    pub fn connection(&self) -> Option<ConnId> {
        self.conn
            .filter(|_| self.confirmed && self.closed.is_empty())
    }

    /// Whether every answer is there.
    pub fn complete(&self) -> bool {
        self.answers.iter().all(Option::is_some)
    }

    fn take(&mut self, streams: &mut Streams, conn: ConnId, id: StreamId, data: &[u8], fin: bool) {
        let x = self.exchanges.entry((conn, id)).or_default();
        x.incoming.extend_from_slice(data);
        if !fin {
            return;
        }
        match x.request {
            Some(request) => {
                self.answers[request] = Some(std::mem::take(&mut x.incoming));
                self.exchanges.remove(&(conn, id));
            }
            None => {
                let answer = Request::parse(&x.incoming).and_then(|r| r.answer(&self.files));
                x.answered = true;
                match answer {
                    Some(answer) => x.outgoing = answer.into(),
                    None => {
                        let _ = streams.reset(id, NOT_FOUND.into());
                        return;
                    }
                }
                self.push(streams, conn, id);
            }
        }
    }

    /// Writes what the stream takes, and its end after the last byte.
    fn push(&mut self, streams: &mut Streams, conn: ConnId, id: StreamId) {
        let Some(x) = self.exchanges.get_mut(&(conn, id)) else {
            return;
        };
        while x.outgoing.has_remaining() {
            match streams.write_bytes(id, x.outgoing.clone()) {
                Ok(0) => return,
                Ok(n) => x.outgoing.advance(n),
                Err(e) => {
                    self.faults.push(format!("write on {id:?}: {e}"));
                    return;
                }
            }
        }
        match streams.finish(id) {
            Ok(()) | Err(WriteError::Finished) => {}
            Err(e) => self.faults.push(format!("finish {id:?}: {e}")),
        }
        if x.answered {
            self.exchanges.remove(&(conn, id));
        }
    }

    fn request(&mut self, ctx: &mut Context<'_>) {
        let (Some(job), Some(conn)) = (&self.job, self.conn) else {
            return;
        };
        let requests = job.requests.clone();
        let Some(c) = ctx.connection(conn) else {
            return;
        };
        while self.next < requests.len() {
            let id = match c.streams_mut().open(Dir::Bi) {
                Ok(id) => id,
                Err(OpenError::Limit) => return,
            };
            let outgoing = Bytes::from(requests[self.next].clone());
            let request = Some(self.next);
            self.exchanges.insert(
                (conn, id),
                Exchange {
                    outgoing,
                    request,
                    ..Default::default()
                },
            );
            self.next += 1;
            self.push(c.streams_mut(), conn, id);
        }
    }

    fn drain(&mut self, ctx: &mut Context<'_>, conn: ConnId, id: StreamId) {
        let Some(c) = ctx.connection(conn) else {
            return;
        };
        loop {
            match c.streams_mut().read_bytes(id, usize::MAX) {
                Ok(corelane::stream::ReadChunk::Data(data)) => {
                    self.take(c.streams_mut(), conn, id, &data, false);
                }
                Ok(corelane::stream::ReadChunk::Finished) => {
                    self.take(c.streams_mut(), conn, id, &[], true);
                    return;
                }
                Ok(corelane::stream::ReadChunk::Blocked) => return,
                Err(e) => {
                    self.faults.push(format!("read on {id:?}: {e}"));
                    return;
                }
            }
        }
    }
}

impl ShardApp for FileApp {
    type Command = ();

    fn on_stream_data(
        &mut self,
        conn: ConnId,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        if self.reluctant {
            let n = data.len() / 3;
            self.take(streams, conn, id, &data[..n], false);
            return Taken::Prefix(n);
        }
        self.take(streams, conn, id, data, fin);
        Taken::All
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected => {
                self.alpn = ctx
                    .connection(conn)
                    .and_then(|c| c.alpn().map(<[u8]>::to_vec));
                if let Some(c) = ctx.connection(conn) {
                    self.early = c.early_data();
                }
                if self.alpn.as_deref() != Some(ALPN) {
                    self.faults.push(format!("ALPN {:?}", self.alpn));
                }
                self.request(ctx);
            }
            Event::EarlyData => self.request(ctx),
            Event::HandshakeConfirmed => self.confirmed = true,
            Event::Migrated(_) => self.moves += 1,
            Event::Stream(StreamEvent::Available(_)) => self.request(ctx),
            Event::Stream(StreamEvent::Readable(id)) => self.drain(ctx, conn, id),
            Event::Stream(StreamEvent::Writable(id)) => {
                if let Some(c) = ctx.connection(conn) {
                    self.push(c.streams_mut(), conn, id);
                }
            }
            Event::Stream(StreamEvent::Reset(id, code)) => {
                self.faults.push(format!("{id:?} was reset with {code:#x}"));
            }
            Event::Closed(why) => {
                self.exchanges.retain(|(c, _), _| *c != conn);
                self.closed.push(why);
                if self.job.as_ref().is_some_and(|j| j.stop) {
                    ctx.stop();
                }
            }
            _ => {}
        }
    }

    fn on_incoming(&mut self, incoming: &Incoming) -> Decision {
        if self.prove && !incoming.validated {
            Decision::Retry
        } else {
            Decision::Accept
        }
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let job = self.job.as_ref()?;
        match self.conn {
            None => {
                let socket = ctx.sockets().first()?.0;
                let name = ServerName::try_from("localhost").ok()?;
                let (tls, transport) = (job.tls.clone(), job.transport.clone());
                match ctx.connect(socket, job.remote, tls, name, Some(transport)) {
                    Ok(conn) => self.conn = Some(conn),
                    Err(e) => {
                        self.faults.push(e.to_string());
                        ctx.stop();
                    }
                }
            }
            Some(conn) if self.complete() && !self.closing => {
                self.closing = true;
                let now = ctx.now();
                if let Some(c) = ctx.connection(conn).filter(|c| !c.is_closed()) {
                    self.mtu = c.path_stats().mtu;
                    c.close(now, 0, b"done");
                }
            }
            Some(_) => {}
        }
        None
    }
}
