//! A shard's lanes: their sessions, the provider that they share, and the shard's turn.

use super::app::{LaneApp, LaneEnd, LaneInfo, OpError, Target};
use super::board::{Board, LaneStats, Told};
use super::carry::{BATCH, NONE};
use super::handle::Lanes;
use super::pairs::Pairs;
use super::post::Planned;
use super::returns::Returns;
use super::session::{LaneId, Session, State};
use super::wake::Wakes;
use crate::base::{RecvMeta, SocketId, Timestamp, Transmit, limits};
use crate::conn::{ConnId, Decision, Event, Incoming};
use crate::io::WatchId;
use crate::rdma::parts::{Parts, Plan, Shared};
use crate::rdma::quota::Quotas;
use crate::rdma::registry::{Owner, Registry};
use crate::rdma::slots::{Key, Slots};
use crate::rdma::{Access, Completion, Mtu, Port, QueuePairId};
use crate::shard::{Context, ShardApp};
use crate::stream::{StreamEvent, Streams, Taken};
use crate::wire::StreamId;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Rounds of what lanes have to do within a turn, as one lane's news make work for another.
const ROUNDS: usize = 4;

/// How often to look whether a shard that ends is done.
const DRAINING: Duration = Duration::from_millis(5);

/// What a shard's lanes are made with.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// Sizes of each lane.
    pub plan: Plan,
    /// Receives that all lanes of the shard share, where the provider can share them.
    pub receives: u32,
    /// Entries of the completion queue, or as many as the device can; each client claims as many as
    /// it may fill.
    pub completions: u32,
    /// How long a peer may take for a step of the bootstrap, and for its goodbye.
    pub patience: Duration,
    /// How a client's lane that left its queue pair tries to come back to one, and whether a server
    /// lets it; `None` has lanes stay on their streams.
    pub returns: Option<Returns>,
    /// Whether long writes go packet by packet between two providers in user space
    /// ([`Port::split_writes`]); whole where a peer does not want it or is a device.
    pub splits_writes: bool,
    /// Lanes at a time.
    pub max_lanes: usize,
    /// Whether a peer's queue pair may be at another address than its QUIC connection comes from.
    /// Packets go to where the peer says; only peers that are trusted with that should be.
    pub foreign_gids: bool,
    /// What one identity may have; servers ask it before they allocate.
    pub quotas: Quotas,
    /// Where every object is entered.
    pub registry: Registry,
    /// Where each shard of an engine tells of its lanes, so that any one answers for all. Another
    /// engine needs another.
    pub board: Board,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            plan: Plan {
                slot: 4096,
                window: 8,
                operations: 16,
                region: 64 * 1024,
                access: Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC,
                mtu: Mtu::Mtu4096,
                rd_atomic: 8,
            },
            receives: 1024,
            completions: 64 * 1024,
            patience: Duration::from_secs(10),
            returns: Some(Returns::default()),
            splits_writes: true,
            max_lanes: limits::LANES,
            foreign_gids: false,
            quotas: Quotas::new(Default::default()),
            registry: Registry::default(),
            board: Board::default(),
        }
    }
}

/// Makes a shard's port on its first turn, with its sockets at hand; `None` goes without RDMA.
pub(super) type Open<P> = Box<dyn FnOnce(&mut Context<'_>) -> Result<Option<P>, String> + Send>;

/// News for the application.
pub(super) enum News {
    Open(LaneInfo),
    Room,
    Done(u64, Result<(), OpError>),
    Fallback,
    Return,
    Status(String),
    Closed(LaneEnd),
}

/// What waits until all completions were seen.
pub(super) enum Parting {
    /// A lane leaves its queue pair.
    Queue(Key),
    /// A client is gone.
    Client(Box<Parts>),
}

/// Everything but the application.
pub struct Host<P: Port> {
    pub(super) config: LaneConfig,
    pub(super) open: Option<Open<P>>,
    pub(super) port: Option<P>,
    pub(super) shared: Option<Shared>,
    pub(super) shard: usize,
    pub(super) sessions: Slots<Session>,
    pub(super) by_conn: HashMap<ConnId, Key, foldhash::quality::RandomState>,
    pub(super) by_qp: Pairs,
    pub(super) dirty: VecDeque<Key>,
    pub(super) timers: BTreeSet<(Timestamp, Key)>,
    /// Lanes that will ask for another queue pair, and when.
    pub(super) returns: BTreeSet<(Timestamp, Key)>,
    /// The turn's time.
    pub(super) now: Timestamp,
    pub(super) to_connect: VecDeque<(Key, Target)>,
    pub(super) news: VecDeque<(LaneId, News)>,
    pub(super) parting: Vec<Parting>,
    pub(super) wakes: Wakes,
    pub(super) scratch: Vec<u8>,
    /// Lanes with something to post, each once.
    pub(super) gathered: Vec<Key>,
    /// Receives to post again: whose they were, and their place.
    pub(super) receives: Vec<(QueuePairId, u64)>,
    /// A lane's list while it is put together, and copies of what is posted inline.
    pub(super) batch: Vec<Planned>,
    pub(super) inline: Vec<u8>,
    /// Where completions are polled to.
    pub(super) completions: Box<[Completion]>,
    /// They were polled when trains came, in this turn, and this was told.
    polled: Option<bool>,
    pub(super) closing: bool,
    pub(super) stats: LaneStats,
    /// Lanes that are open.
    pub(super) lanes: u64,
    /// What the board was told last.
    pub(super) told: Option<Told>,
}

impl<P: Port> Host<P> {
    /// Has a lane looked at this turn.
    pub(super) fn touch(&mut self, key: Key) {
        if let Some(s) = self.sessions.get_mut(key)
            && !std::mem::replace(&mut s.dirty, true)
        {
            self.dirty.push_back(key);
        }
    }

    /// Ends a lane when it is not done by then; replaces an earlier deadline.
    pub(super) fn set_deadline(&mut self, key: Key, at: Timestamp) {
        if let Some(s) = self.sessions.get_mut(key) {
            self.timers.remove(&(s.deadline, key));
            s.deadline = at;
            if at != Timestamp::NEVER {
                self.timers.insert((at, key));
            }
        }
    }

    /// Has a lane's connection closed, for this reason.
    pub(super) fn end(&mut self, key: Key, why: LaneEnd) {
        if let Some(s) = self.sessions.get_mut(key) {
            s.end.get_or_insert(why);
            self.touch(key);
        }
    }

    /// Closed for what the peer did.
    pub(super) fn misbehaved(&mut self, key: Key, why: String) {
        self.stats.misbehaved += 1;
        self.end(key, LaneEnd::Failed(why));
    }

    pub(super) fn tell(&mut self, key: Key, news: News) {
        self.news.push_back((LaneId(key), news));
    }

    /// Makes the provider and what the clients share, once.
    fn begin(&mut self, ctx: &mut Context<'_>) {
        let Some(open) = self.open.take() else {
            return;
        };
        self.shard = ctx.shard();
        let shard = self.shard;
        self.config.registry = self.config.registry.of_shard(shard);
        match open(ctx) {
            Ok(port) => self.port = port,
            Err(error) => tracing::warn!(shard, %error, "no RDMA: lanes run over QUIC"),
        }
        let Some(port) = &mut self.port else {
            return;
        };
        let c = &self.config;
        let sizes = (c.completions, c.receives, c.plan.slot);
        match Shared::build(port, &c.registry, Owner::Shard(shard), sizes) {
            Ok(shared) => {
                self.shared = Some(shared);
                if let Err(error) = self.watch_device(ctx) {
                    tracing::warn!(shard, %error, "no RDMA: lanes run over QUIC");
                    self.give_back(ctx);
                }
            }
            Err(error) => {
                tracing::warn!(shard, %error, "no RDMA: lanes run over QUIC");
                self.port = None;
            }
        }
    }

    /// The shard's own objects and its share of the device go, once no client has any.
    pub(super) fn give_back(&mut self, ctx: &mut Context<'_>) {
        self.unwatch_device(ctx);
        self.change_sockets(ctx);
        self.receives.clear();
        if let (Some(shared), Some(port)) = (self.shared.take(), &mut self.port) {
            shared.tear_down(port);
        }
        self.port = None;
    }

    /// The connection of a lane is gone: so is the lane.
    fn remove(&mut self, key: Key, lost: String) {
        let Some(mut s) = self.sessions.remove(key) else {
            return;
        };
        self.timers.remove(&(s.deadline, key));
        self.returns.remove(&(s.way.at, key));
        if let Some(conn) = s.conn {
            self.by_conn.remove(&conn);
        }
        if let Some(parts) = s.parts.take() {
            self.part(parts);
        }
        self.stats.ended += 1;
        self.lanes -= u64::from(s.counted);
        let agreed = s.state == State::Left || s.acked_bye;
        let why = match s.end.take() {
            Some(why) => why,
            None if agreed => LaneEnd::Finished,
            None => LaneEnd::Lost(lost),
        };
        self.tell(key, News::Closed(why));
    }

    /// Flushes a client's queue pair; the rest goes once its completions were seen.
    pub(super) fn part(&mut self, parts: Parts) {
        if let (Some(qp), Some(port)) = (parts.qp(), &mut self.port)
            && let Err(error) = port.modify_to_err(qp.id)
        {
            tracing::error!(%error, "a queue pair could not be stopped");
        }
        self.parting.push(Parting::Client(Box::new(parts)));
    }

    /// All completions were seen: what waited for it goes.
    pub(super) fn finish_parting(&mut self) {
        if self.parting.is_empty() {
            return;
        }
        self.wakes.on_removed();
        for parting in std::mem::take(&mut self.parting) {
            match (parting, &mut self.port) {
                (Parting::Client(parts), Some(port)) => {
                    if let Some(qp) = parts.qp() {
                        self.by_qp.remove(qp.id);
                    }
                    parts.tear_down(port);
                }
                (Parting::Client(_), None) => {}
                (Parting::Queue(key), _) => self.left_queue(key),
            }
        }
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let waited = self.sessions.get(key).map(|s| s.state);
            match waited {
                Some(State::Left) => self.end(key, LaneEnd::Finished),
                _ => self.end(key, LaneEnd::Failed("the peer took too long".into())),
            }
        }
    }
}

/// The application of a shard that has lanes. See the module's documentation.
pub struct LaneShard<P: Port, A> {
    pub(super) host: Host<P>,
    pub(super) app: A,
}

impl<P: Port, A: LaneApp<P>> LaneShard<P, A> {
    /// Lanes for `app`, over queue pairs of the port that `open` makes on the shard's first turn.
    pub fn new(
        config: LaneConfig,
        open: impl FnOnce(&mut Context<'_>) -> Result<Option<P>, String> + Send + 'static,
        app: A,
    ) -> Self {
        let host = Host {
            open: Some(Box::new(open)),
            port: None,
            shared: None,
            shard: 0,
            sessions: Slots::new(config.max_lanes.min(limits::LANES)),
            by_conn: HashMap::default(),
            by_qp: Pairs::default(),
            dirty: VecDeque::new(),
            timers: BTreeSet::new(),
            returns: BTreeSet::new(),
            now: Timestamp::ZERO,
            to_connect: VecDeque::new(),
            news: VecDeque::new(),
            parting: Vec::new(),
            wakes: Wakes::new(),
            scratch: Vec::new(),
            gathered: Vec::new(),
            receives: Vec::new(),
            batch: Vec::new(),
            inline: Vec::new(),
            completions: vec![NONE; BATCH].into(),
            polled: None,
            closing: false,
            stats: LaneStats::default(),
            lanes: 0,
            told: None,
            config,
        };
        Self { host, app }
    }

    /// The application.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// What happened so far.
    pub fn stats(&self) -> LaneStats {
        self.host.stats
    }

    fn connect(&mut self, ctx: &mut Context<'_>) {
        while let Some((key, target)) = self.host.to_connect.pop_front() {
            let sockets = ctx.sockets();
            let same = sockets
                .iter()
                .find(|(_, a)| a.is_ipv4() == target.addr.is_ipv4());
            let Some(&(socket, _)) = same else {
                let why = format!("no socket reaches {}", target.addr);
                self.host.remove(key, why);
                continue;
            };
            match ctx.connect(socket, target.addr, target.tls, target.name, None) {
                Ok(conn) => {
                    self.host.by_conn.insert(conn, key);
                    if let Some(s) = self.host.sessions.get_mut(key) {
                        s.conn = Some(conn);
                    }
                }
                Err(e) => self.host.remove(key, e.to_string()),
            }
        }
    }

    /// Looks at every lane that something happened to.
    fn look(&mut self, ctx: &mut Context<'_>) {
        for _ in 0..ROUNDS {
            for _ in 0..self.host.dirty.len() {
                let Some(key) = self.host.dirty.pop_front() else {
                    break;
                };
                if let Some(s) = self.host.sessions.get_mut(key) {
                    s.dirty = false;
                    self.serve(ctx, key);
                }
            }
            self.host.finish_parting();
            self.bring_news(ctx.now());
            if self.host.dirty.is_empty() {
                break;
            }
        }
    }

    pub(super) fn bring_news(&mut self, now: Timestamp) {
        while let Some((lane, news)) = self.host.news.pop_front() {
            let host = &mut self.host;
            let lanes = &mut Lanes { now, host };
            match news {
                News::Open(info) => self.app.on_open(lanes, lane, &info),
                News::Room => self.app.on_room(lanes, lane),
                News::Done(op, result) => self.app.on_done(lanes, lane, op, result),
                News::Fallback => self.app.on_fallback(lanes, lane),
                News::Return => self.app.on_return(lanes, lane),
                News::Status(json) => self.app.on_status(lanes, lane, &json),
                News::Closed(why) => self.app.on_closed(lanes, lane, &why),
            }
        }
    }

    /// Everything was drained after a shutdown: the shard's own objects go, and the loop ends.
    fn finish(&mut self, ctx: &mut Context<'_>) {
        let host = &mut self.host;
        if host.closing && host.sessions.len() == 0 && host.parting.is_empty() {
            host.give_back(ctx);
            host.publish();
            if ctx.endpoint().is_empty() {
                ctx.stop();
            }
        }
    }
}

impl<P: Port, A: LaneApp<P>> ShardApp for LaneShard<P, A> {
    type Command = A::Command;

    fn on_stream_data(
        &mut self,
        conn: ConnId,
        _: &mut Streams,
        id: StreamId,
        data: &[u8],
        _: bool,
    ) -> Taken {
        let Some(&key) = self.host.by_conn.get(&conn) else {
            return Taken::All;
        };
        let Some(s) = self.host.sessions.get_mut(key) else {
            return Taken::All;
        };
        if *s.stream.get_or_insert(id) != id {
            return Taken::All;
        }
        let taken = if s.inbox.len() > limits::LANE_BACKLOG {
            Taken::Prefix(0)
        } else {
            s.inbox.extend_from_slice(data);
            Taken::All
        };
        self.host.touch(key);
        taken
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event) {
        let Some(&key) = self.host.by_conn.get(&conn) else {
            return;
        };
        match event {
            Event::Closed(why) => {
                self.host.remove(key, why.to_string());
                self.bring_news(ctx.now());
            }
            Event::Stream(StreamEvent::Opened(dir)) => {
                // Not through the context: the connection is having its turn to send.
                if let Some(connection) = ctx.endpoint().connection(conn) {
                    while connection.streams_mut().accept(dir).is_some() {}
                }
            }
            Event::Connected | Event::Stream(_) => self.host.touch(key),
            _ => {}
        }
    }

    fn on_incoming(&mut self, _: &Incoming) -> Decision {
        if self.host.closing || self.host.sessions.is_full() {
            Decision::Refuse
        } else {
            Decision::Accept
        }
    }

    fn on_accepted(&mut self, conn: ConnId) {
        let session = Session::new(true, self.host.config.plan, Timestamp::NEVER);
        if let Ok(key) = self.host.sessions.insert(session) {
            if let Some(s) = self.host.sessions.get_mut(key) {
                s.conn = Some(conn);
                s.state = State::Greeting;
            }
            self.host.by_conn.insert(conn, key);
            self.host.touch(key);
        }
    }

    #[inline]
    fn on_own_train(&mut self, now: Timestamp, meta: &RecvMeta, train: &mut [u8]) {
        if let Some(port) = &mut self.host.port {
            port.handle_train(now, meta, train);
        }
    }

    #[inline]
    fn on_own_trains(&mut self, now: Timestamp) {
        self.host.now = now;
        // A device with trains takes no message before the next of them: receives can wait for the
        // end of the turn, as what it tells can, and who waits for an answer has it sooner.
        let there = self.poll_completions(now, Host::send_gathered);
        self.host.polled = Some(there);
    }

    #[inline]
    fn next_own(&self) -> Option<SocketId> {
        self.host.port.as_ref()?.next_socket()
    }

    #[inline]
    fn poll_own(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        self.host.port.as_mut()?.poll_gather(now, buf)
    }

    #[inline]
    fn own_piece(&self, n: usize) -> Option<(usize, &[u8])> {
        self.host.port.as_ref()?.piece(n)
    }

    fn polls(&self) -> bool {
        // Completions of what moves by itself are found by asking.
        let asks = self.host.port.as_ref().is_some_and(Port::moves_itself);
        asks || self.app.polls()
    }

    fn wants_turn(&self) -> bool {
        let host = &self.host;
        let waits = !host.dirty.is_empty() || !host.news.is_empty() || !host.parting.is_empty();
        waits || !host.gathered.is_empty() || host.wakes.found()
    }

    #[inline]
    fn may_sleep(&mut self) -> bool {
        self.host.arm()
    }

    fn on_readable(&mut self, _: &mut Context<'_>, id: WatchId) {
        self.host.on_device_readable(id);
    }

    fn on_command(&mut self, ctx: &mut Context<'_>, command: A::Command) {
        self.host.begin(ctx);
        // What it posts may be complete at once.
        self.host.polled = None;
        let (now, host) = (ctx.now(), &mut self.host);
        self.app.on_command(&mut Lanes { now, host }, command);
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let now = ctx.now();
        self.host.now = now;
        self.host.begin(ctx);
        let mut polled = std::mem::take(&mut self.host.polled);
        if let Some(port) = &mut self.host.port
            && port.poll_timeout() <= now
        {
            port.handle_timeout(now);
            polled = None;
        }
        self.connect(ctx);
        if polled.unwrap_or_else(|| self.poll_completions(now, Host::ring)) {
            self.hear_device(now);
        }
        self.host.finish_parting();
        self.host.expire(now);
        self.host.ask_due(now);
        self.bring_news(now);
        let host = &mut self.host;
        let later = self.app.on_turn(&mut Lanes { now, host });
        self.look(ctx);
        self.host.ring();
        self.host.change_sockets(ctx);
        self.host.retire_device(ctx);
        self.host.publish();
        self.finish(ctx);
        let timeout = self.host.port.as_ref().map(Port::poll_timeout);
        let first = self.host.timers.first().map(|(at, _)| *at);
        let back = self.host.returns.first().map(|(at, _)| *at);
        // Nothing tells when the last connection is drained.
        let again = self.host.closing.then(|| now + DRAINING);
        let all = [
            later,
            timeout.filter(|t| *t != Timestamp::NEVER),
            first,
            back,
            again,
        ];
        all.into_iter().flatten().min()
    }
}
