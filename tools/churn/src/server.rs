//! The side that is churned against: echoes streams and datagrams, abandons what is abandoned, and
//! hangs up on some.

use crate::gauges::Gauges;
use corelane::base::{Rng, Timestamp};
use corelane::conn::{ConnId, Event};
use corelane::shard::{Context, ShardApp};
use corelane::stream::{StreamEvent, Streams, Taken};
use corelane::wire::StreamId;
use std::sync::Arc;
use std::time::Duration;

/// How often gauges are read again while connections exist.
pub const GLANCE: Duration = Duration::from_millis(20);

/// One shard's server.
pub struct Server {
    gauges: Arc<Gauges>,
    rng: Rng,
}

impl Server {
    /// A server that counts in `gauges`.
    pub fn new(gauges: Arc<Gauges>, seed: u64) -> Self {
        Self {
            gauges,
            rng: Rng::from_u64(seed),
        }
    }

    fn on_stream_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: StreamEvent) {
        let Some(conn) = ctx.connection(conn) else {
            return;
        };
        let streams = conn.streams_mut();
        match event {
            StreamEvent::Opened(dir) => {
                while streams.accept(dir).is_some() {
                    Gauges::add(&self.gauges.streams, 1);
                }
            }
            // No echo of what was abandoned. It fails where there is no way back: as well.
            StreamEvent::Reset(id, code) => {
                let _ = streams.reset(id, code);
                Gauges::add(&self.gauges.resets, 1);
            }
            // The client wants no echo, so we want no more of its stream.
            StreamEvent::Stopped(id, code) => {
                let _ = streams.stop_sending(id, code);
                Gauges::add(&self.gauges.resets, 1);
            }
            _ => {}
        }
    }
}

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
        // What a client sends on one stream fits the send buffer; one-way streams have no echo.
        let _ = streams.write(id, data);
        if fin {
            let _ = streams.finish(id);
        }
        Taken::All
    }

    fn on_accepted(&mut self, _: ConnId) {
        Gauges::add(&self.gauges.begun, 1);
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, id: ConnId, event: Event) {
        match event {
            Event::Stream(event) => self.on_stream_event(ctx, id, event),
            Event::Connected => Gauges::add(&self.gauges.established, 1),
            Event::DatagramReceived => {
                let now = ctx.now();
                let hang_up = self.rng.below(400) == 0;
                let Some(conn) = ctx.connection(id) else {
                    return;
                };
                while let Some(datagram) = conn.recv_datagram() {
                    // One that does not fit is lost, as datagrams are.
                    let _ = conn.send_datagram(datagram);
                }
                if hang_up {
                    conn.close(now, 7, b"enough");
                }
            }
            Event::PeerAddressChanged => Gauges::add(&self.gauges.migrations, 1),
            Event::Closed(_) => Gauges::add(&self.gauges.ended, 1),
            _ => {}
        }
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let endpoint = ctx.endpoint();
        let (connections, routes) = (endpoint.len(), endpoint.routes());
        self.gauges.set(connections, routes);
        (connections + routes > 0).then(|| ctx.now() + GLANCE)
    }
}
