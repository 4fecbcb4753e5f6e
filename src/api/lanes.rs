//! Lanes as handles for any executor: messages, requests that are answered, and one-sided
//! operations, over RDMA where both ends have it and over QUIC where not.
//!
//! The same lanes as [`crate::shard::lanes`] has, whose callbacks a driver on each shard turns into
//! futures. Flow control reaches the program: a message that nobody has taken keeps its place in
//! the peer's window, and sending waits for room. **What goes over a queue pair is not encrypted.**

mod driver;
mod shared;

use super::waiters::Waiters;
use crate::rdma::AnyDevice;
use crate::shard::Context;
use crate::shard::engine::{Engine, EngineConfig, EngineError};
use crate::shard::lanes::{
    LaneConfig, LaneEnd, LaneError, LaneInfo, LaneShard, OpError, Operation, PortConfig, PortError,
    Target,
};
use bytes::Bytes;
use driver::Driver;
use shared::{Answer, Command, Hub, LaneShared, Out, Ticket};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Messages of the program have marks below this one; those above tell requests and answers.
pub const FIRST_RESERVED_TAG: u32 = 1 << 31;
/// Set in an answer's mark, clear in a request's.
const ANSWER: u32 = 1 << 30;

/// Why lanes cannot be had here.
#[derive(Debug, thiserror::Error)]
pub enum LaneStartError {
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// RDMA was asked for and is not to be had.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Why a call on a lane failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneFailure {
    /// The lane cannot do this; it goes on.
    #[error(transparent)]
    Refused(#[from] LaneError),
    /// Marks from [`FIRST_RESERVED_TAG`] on tell requests and answers.
    #[error("messages have marks below {FIRST_RESERVED_TAG}; {0} is none")]
    Tag(u32),
    /// It was begun and not done; the lane goes on.
    #[error(transparent)]
    Operation(#[from] OpError),
    /// The lane has ended.
    #[error(transparent)]
    Ended(#[from] LaneEnd),
}

/// Lanes over the shards of one engine: a client, a server, or both.
///
/// Clones are handles to the same. When the last is dropped, the shards end once their lanes have.
#[derive(Clone)]
pub struct LaneEndpoint {
    inner: Arc<Inner>,
}

struct Inner {
    hub: Arc<Hub>,
    next: AtomicUsize,
    local_addrs: Vec<SocketAddr>,
    device: Option<String>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.hub.shut_down();
    }
}

impl LaneEndpoint {
    /// Starts the engine's shards, with RDMA as `port` says; without it lanes run over QUIC. TLS of
    /// a server needs [`ALPN`](crate::rdma::bootstrap::ALPN).
    ///
    /// # Errors
    /// [`LaneStartError`]; nothing is left running then.
    pub fn start(
        config: &EngineConfig,
        lanes: LaneConfig,
        port: Option<&PortConfig>,
    ) -> Result<Self, LaneStartError> {
        let ports = port.map(|p| p.ports(config.shards)).transpose()?;
        let device = ports.as_ref().and_then(|p| p.device.clone());
        let mut setups = ports.into_iter().flat_map(|p| p.setups);
        let hub = Arc::new(Hub::new(config.shards));
        let engine: Engine<LaneShard<AnyDevice, Driver>> = Engine::start(config, |shard| {
            let setup = setups.next();
            let open = move |ctx: &mut Context<'_>| setup.map_or(Ok(None), |s| s.open(ctx));
            LaneShard::new(lanes.clone(), open, Driver::new(hub.clone(), shard))
        })?;
        for (link, sender) in hub.links.iter().zip(engine.senders()) {
            link.connect(sender.clone());
        }
        Ok(Self {
            inner: Arc::new(Inner {
                hub,
                next: AtomicUsize::new(0),
                local_addrs: engine.local_addrs().to_vec(),
                device,
            }),
        })
    }

    /// Where each shard is bound.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.inner.local_addrs
    }

    /// The device of the kernel's that is used; `None` in user space and without RDMA.
    pub fn device(&self) -> Option<&str> {
        self.inner.device.as_deref()
    }

    fn begin(&self, target: Target, status_only: bool) -> Lane {
        let hub = &self.inner.hub;
        let at = self.inner.next.fetch_add(1, Ordering::Relaxed) % hub.links.len();
        let shared = Arc::new(LaneShared::new(hub.links[at].clone()));
        let ticket = Ticket::new(shared.clone());
        let command = Command::Connect(Box::new(target), ticket, status_only);
        shared.link.send(command);
        Lane::of(shared)
    }

    /// Opens a lane. Dropping the future gives it up.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self, target: Target) -> Result<Lane, LaneEnd> {
        let lane = self.begin(target, false);
        lane.opened().await?;
        Ok(lane)
    }

    /// The next lane that a client opened; `None` once the shards have ended. Cancel-safe.
    pub async fn accept(&self) -> Option<Lane> {
        let hub = &self.inner.hub;
        let next = || match hub.accepted.pop() {
            Some(lane) => Some(Some(Lane::of(lane))),
            None => hub.is_over().then_some(None),
        };
        hub.waiters.until(next).await
    }

    /// What a server tells of itself, as JSON.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn status(&self, target: Target) -> Result<String, LaneEnd> {
        let asked = self.begin(target, true);
        let shared = &asked.handle.0;
        let told = || {
            let json = shared.status.get().map(|json| Ok(json.clone()));
            json.or_else(|| shared.end.get().map(|end| Err(end.clone())))
        };
        shared.waiters.until(told).await
    }

    /// Takes no more lanes, ends those there are with what they accepted delivered, and waits until
    /// nothing is left.
    pub async fn shutdown(&self) {
        let hub = &self.inner.hub;
        hub.shut_down();
        hub.waiters.until(|| hub.is_over().then_some(())).await;
    }
}

impl fmt::Debug for LaneEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneEndpoint")
            .field("local_addrs", &self.inner.local_addrs)
            .field("device", &self.inner.device)
            .finish_non_exhaustive()
    }
}

/// What the last handle of a lane is: dropping it ends the lane.
struct Handle(Arc<LaneShared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

/// A lane. Clones are handles to the same; when the last is dropped, the lane ends as by
/// [`Lane::close`].
#[derive(Clone)]
pub struct Lane {
    handle: Arc<Handle>,
}

/// A message.
#[derive(Clone)]
pub struct LaneMessage {
    /// The sender's mark; 0 of a request.
    pub tag: u32,
    /// Its bytes.
    pub data: Bytes,
    request: Option<(u32, Lane)>,
}

impl LaneMessage {
    /// Whether the sender waits for an answer.
    pub const fn is_request(&self) -> bool {
        self.request.is_some()
    }

    /// Answers a request; to another message nothing is said.
    ///
    /// # Errors
    /// As of [`Lane::send`].
    pub async fn answer(&self, data: impl Into<Bytes>) -> Result<(), LaneFailure> {
        match &self.request {
            Some((tag, lane)) => lane.send_marked(*tag | ANSWER, data.into()).await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for LaneMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneMessage")
            .field("tag", &self.tag)
            .field("data", &self.data)
            .field("is_request", &self.is_request())
            .finish()
    }
}

impl Lane {
    fn of(shared: Arc<LaneShared>) -> Self {
        Self {
            handle: Arc::new(Handle(shared)),
        }
    }

    fn shared(&self) -> &Arc<LaneShared> {
        &self.handle.0
    }

    async fn opened(&self) -> Result<LaneInfo, LaneEnd> {
        let s = self.shared();
        let opened = || {
            let info = s.info.get().map(|info| Ok(*info));
            info.or_else(|| s.end.get().map(|end| Err(end.clone())))
        };
        s.waiters.until(opened).await
    }

    /// What the lane was when it opened: whether it had a queue pair, the peer, the numbers.
    ///
    /// # Panics
    /// Never: a lane is handed out when it is open.
    pub fn info(&self) -> LaneInfo {
        *self.shared().info.get().expect("known once open")
    }

    /// Whether the lane has left its queue pair for QUIC since.
    pub fn has_fallen_back(&self) -> bool {
        self.shared().fallen_back.load(Ordering::Relaxed)
    }

    /// Has the shard do something, and waits for what becomes of it.
    async fn ask(&self, make: impl FnOnce(Answer) -> Out) -> Result<Bytes, LaneFailure> {
        let s = self.shared();
        let answer = Answer::default();
        s.put(make(answer.clone()));
        let done = || {
            let ended = || s.end.get().map(|end| Err(end.clone().into()));
            answer.get().or_else(ended)
        };
        s.waiters.until(done).await
    }

    async fn send_marked(&self, tag: u32, data: Bytes) -> Result<(), LaneFailure> {
        self.ask(|answer| Out::Send(tag, data, answer))
            .await
            .map(drop)
    }

    /// Sends a message; returns once the lane has accepted it, from when on it is delivered once
    /// and in order unless the lane is lost. A future that is dropped midway may have sent it.
    ///
    /// # Errors
    /// [`LaneFailure`].
    pub async fn send(&self, tag: u32, data: impl Into<Bytes>) -> Result<(), LaneFailure> {
        if tag >= FIRST_RESERVED_TAG {
            return Err(LaneFailure::Tag(tag));
        }
        self.send_marked(tag, data.into()).await
    }

    /// Sends a request and waits for its answer; any number may be under way. A future that is
    /// dropped midway leaves the answer to nobody.
    ///
    /// # Errors
    /// [`LaneFailure`].
    pub async fn request(&self, data: impl Into<Bytes>) -> Result<Bytes, LaneFailure> {
        let data = data.into();
        self.ask(|answer| Out::Request(data, answer)).await
    }

    /// The next message or request, in the peer's order. Its place in the peer's window is free
    /// from then on. Cancel-safe.
    ///
    /// # Errors
    /// How the lane ended, after the last message.
    pub async fn recv(&self) -> Result<LaneMessage, LaneEnd> {
        let s = self.shared();
        let next = || {
            if let Some(message) = s.inbox.pop() {
                return Some(Ok(message));
            }
            let end = s.end.get()?;
            // What came before the end is there by now.
            Some(s.inbox.pop().ok_or_else(|| end.clone()))
        };
        let (tag, data) = s.waiters.until(next).await?;
        s.taken.fetch_add(1, Ordering::Relaxed);
        s.call();
        let is_request = tag >= FIRST_RESERVED_TAG;
        Ok(LaneMessage {
            tag: if is_request { 0 } else { tag },
            data,
            request: is_request.then(|| (tag, self.clone())),
        })
    }

    /// Does something with the peer's region, and waits until it is done: what it fetched lies in
    /// the own region then. The own bytes that it is about must stay as they are until then.
    ///
    /// # Errors
    /// [`LaneFailure`].
    pub async fn operate(&self, what: Operation) -> Result<(), LaneFailure> {
        self.ask(|answer| Out::Operate(what, answer))
            .await
            .map(drop)
    }

    /// Bytes of the own region, which the peer's operations reach without a word.
    ///
    /// # Errors
    /// [`LaneFailure`].
    pub async fn look(&self, at: u64, len: usize) -> Result<Bytes, LaneFailure> {
        self.ask(|answer| Out::Look(at, len, answer)).await
    }

    /// Writes to the own region.
    ///
    /// # Errors
    /// [`LaneFailure`].
    pub async fn fill(&self, at: u64, data: impl Into<Bytes>) -> Result<(), LaneFailure> {
        let data = data.into();
        self.ask(|answer| Out::Fill(at, data, answer))
            .await
            .map(drop)
    }

    /// Ends the lane once the peer has every accepted message and we have its, or patience is over;
    /// how it ended.
    pub async fn close(&self) -> LaneEnd {
        self.shared().hang_up();
        self.ended().await
    }

    /// Waits for the lane's end. Cancel-safe.
    pub async fn ended(&self) -> LaneEnd {
        let s = self.shared();
        s.waiters.until(|| s.end.get().cloned()).await
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("info", &self.shared().info.get())
            .field("end", &self.shared().end.get())
            .finish_non_exhaustive()
    }
}
