//! Further paths of the client's connections: sockets bound once for all of them, paths opened as
//! soon as the server permits, and what they counted.

use super::Common;
use crate::cli::paths::Ways;
use crate::cli::report::paths::SeenPath;
use corelane::base::{FourTuple, SocketId, Timestamp};
use corelane::conn::{ConnId, Connection, Event, OpenPathError, PathEvent};
use corelane::path::PathStatus;
use corelane::shard::Context;
use corelane::shard::auto::AutoPaths;
use std::time::Duration;

/// A connection whose paths are not all there yet.
struct Waiting {
    conn: ConnId,
    opened: usize,
    validated: usize,
    /// When the next is tried: each try tells the server what lacks.
    next: Timestamp,
}

/// How often paths are tried.
const RETRY: Duration = Duration::from_millis(10);

/// The paths of one shard's connections, beside their first ones.
pub struct Paths {
    ways: Ways,
    sockets: Vec<SocketId>,
    waiting: Vec<Waiting>,
    /// What they had counted at the end, of each connection.
    pub seen: Vec<SeenPath>,
    /// What has connections find their paths by themselves, where the flags ask for that.
    auto: Option<AutoPaths>,
}

impl Paths {
    pub(super) fn new(ways: Ways) -> Self {
        let auto = ways.auto.then(|| {
            let mut auto = AutoPaths::default();
            auto.set_addresses(ways.addresses());
            auto
        });
        Self {
            ways,
            sockets: Vec::new(),
            waiting: Vec::new(),
            seen: Vec::new(),
            auto,
        }
    }

    /// Paths of each connection, beside the first one.
    pub(super) fn wanted(&self) -> usize {
        self.ways.paths.saturating_sub(1)
    }

    /// Whether paths are found by themselves, and nobody waits for them.
    pub(super) fn is_auto(&self) -> bool {
        self.auto.is_some()
    }

    /// Has a look at everything that connections tell.
    #[inline]
    pub(super) fn watch(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: &Event) {
        if let Some(auto) = &mut self.auto {
            auto.on_event(ctx, conn, event);
        }
    }

    /// Whether there is something to do with the next turn.
    #[inline]
    pub(super) fn wants_turn(&self) -> bool {
        self.auto.as_ref().is_some_and(AutoPaths::wants_turn)
    }

    /// A connection is established; its paths follow.
    pub(super) fn begin(&mut self, common: &Common, ctx: &mut Context<'_>, conn: ConnId) {
        let (opened, validated) = (0, 0);
        self.waiting.push(Waiting {
            conn,
            opened,
            validated,
            next: ctx.now(),
        });
        self.go_on(common, ctx);
    }

    /// Opens what can be opened now; says when to look again.
    pub(super) fn go_on(&mut self, common: &Common, ctx: &mut Context<'_>) -> Option<Timestamp> {
        if let Some(auto) = &mut self.auto {
            return auto.turn(ctx);
        }
        if self.waiting.is_empty() || !self.bind(common, ctx) {
            return None;
        }
        let (now, wanted) = (ctx.now(), self.wanted());
        let due = |w: &&mut Waiting| w.opened < wanted && w.next <= now;
        for waiting in self.waiting.iter_mut().filter(due) {
            waiting.next = now + RETRY;
            while let Some(&socket) = self.sockets.get(waiting.opened)
                && let Some(local) = ctx.bound_at(socket)
            {
                let tuple = FourTuple::new(local, common.target.addr);
                match ctx.open_path(waiting.conn, socket, tuple, PathStatus::Available) {
                    Ok(_) => waiting.opened += 1,
                    Err(OpenPathError::NotConfirmed | OpenPathError::NoConnectionId) => break,
                    Err(e) => {
                        waiting.opened = usize::MAX;
                        let local = local.ip();
                        let say = || format!("no path from {local}: {e}");
                        common.live.report_trouble(say);
                    }
                }
            }
        }
        self.waiting.retain(|w| w.opened != usize::MAX);
        let open = self.waiting.iter().filter(|w| w.opened < wanted);
        open.map(|w| w.next).min()
    }

    /// Binds the sockets, once; false when that failed.
    fn bind(&mut self, common: &Common, ctx: &mut Context<'_>) -> bool {
        while self.sockets.len() < self.wanted() {
            let socket = self.ways.socket(self.sockets.len() + 1, common.target.addr);
            let added = socket
                .map_err(|e| e.to_string())
                .and_then(|s| ctx.add_socket(s).map_err(|e| e.to_string()));
            match added {
                Ok(id) => self.sockets.push(id),
                Err(e) => {
                    common.live.report_trouble(|| e);
                    self.waiting.clear();
                    return false;
                }
            }
        }
        true
    }

    /// Something happened to a path; true when the connection has all of them now.
    pub(super) fn on_event(&mut self, common: &Common, conn: ConnId, event: PathEvent) -> bool {
        let wanted = self.wanted();
        let Some(at) = self.waiting.iter().position(|w| w.conn == conn) else {
            return false;
        };
        let Some(waiting) = self.waiting.get_mut(at) else {
            return false;
        };
        match event {
            PathEvent::Validated(_) => waiting.validated += 1,
            PathEvent::Abandoned { id, error, .. } => {
                let say = || format!("path {id} did not come about: {error}");
                common.live.report_trouble(say);
            }
            _ => {}
        }
        let all = waiting.validated >= wanted;
        if all {
            self.waiting.swap_remove(at);
        }
        all
    }

    /// A connection is over.
    pub(super) fn on_closed(
        &mut self,
        now: Timestamp,
        conn: ConnId,
        connection: Option<&mut Connection>,
    ) {
        self.waiting.retain(|w| w.conn != conn);
        if self.wanted() > 0
            && let Some(connection) = connection
        {
            // Those that were forgotten meanwhile as well.
            let past: Vec<_> = connection.past_paths().collect();
            let seen = past
                .into_iter()
                .chain(connection.paths())
                .map(|info| SeenPath {
                    info,
                    since_last_ack: info.since_last_ack(now),
                });
            self.seen.extend(seen);
        }
    }
}
