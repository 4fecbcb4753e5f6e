//! Handshakes, so many at a time, each from the first packet to the moment at which the client may
//! send data. Where sessions are resumed, a connection stays until it has brought the next one's.

use super::Common;
use crate::cli::bench::table::ByConn;
use corelane::base::Timestamp;
use corelane::conn::ConnId;
use corelane::shard::Context;
use corelane::sys::clock::Clock;

/// The load of one shard.
pub struct HandshakeLoad {
    parallel: usize,
    resume: bool,
    /// When the handshakes under way began.
    begun: ByConn<Timestamp>,
}

impl HandshakeLoad {
    pub fn new(parallel: usize, resume: bool) -> Self {
        Self {
            parallel,
            resume,
            begun: ByConn::default(),
        }
    }

    pub fn start(&mut self, common: &mut Common, ctx: &mut Context<'_>) {
        (0..self.parallel).for_each(|_| self.begin(common, ctx));
    }

    fn begin(&mut self, common: &mut Common, ctx: &mut Context<'_>) {
        if common.ceased {
            return;
        }
        let now = Clock::now();
        if let Some(conn) = common.connect(ctx) {
            self.begun.insert(conn, now);
        }
    }

    pub fn on_connected(&mut self, common: &mut Common, ctx: &mut Context<'_>, conn: ConnId) {
        let Some(begun) = self.begun.get_mut(conn) else {
            return;
        };
        let took = Clock::now() - *begun;
        let resumed = ctx
            .connection(conn)
            .is_some_and(|c| c.session().is_resumed() == Some(true));
        if resumed == self.resume {
            common.record.response.record(took);
            common.counters().operations.add(1);
        }
        if !self.resume {
            self.end(common, ctx, conn);
        }
    }

    /// The session comes with the confirmation, or just before.
    pub fn on_confirmed(&mut self, common: &mut Common, ctx: &mut Context<'_>, conn: ConnId) {
        if self.resume {
            self.end(common, ctx, conn);
        }
    }

    fn end(&mut self, common: &mut Common, ctx: &mut Context<'_>, conn: ConnId) {
        self.begun.remove(conn);
        let now = ctx.now();
        if let Some(connection) = ctx.connection(conn) {
            connection.close(now, 0, b"");
        }
        self.begin(common, ctx);
    }

    /// A connection is over: the next one begins, unless it had been established.
    pub fn on_closed(&mut self, common: &mut Common, ctx: &mut Context<'_>, conn: ConnId) {
        if self.begun.remove(conn).is_some() {
            self.begin(common, ctx);
        }
    }
}
