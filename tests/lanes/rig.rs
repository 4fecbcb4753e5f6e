//! A server and clients on engines of their own, and an application that does what it is told and
//! tells what happens.

use crate::certs::Identity;
use crate::faulty::{Faults, Faulty};
use crate::place::{Place, is_native, place};
use corelane::conn::TransportConfig;
use corelane::rdma::bootstrap::ALPN;
use corelane::rdma::quota::{Amount, Quotas};
use corelane::rdma::registry::{Owner, Registry};
use corelane::rdma::{AsyncEvent, Objects};
use corelane::shard::Context;
use corelane::shard::engine::{Bind, Engine, EngineConfig, Idle};
use corelane::shard::lanes::{
    Consume, LaneApp, LaneConfig, LaneEnd, LaneError, LaneId, LaneInfo, LaneShard, LaneStats,
    Lanes, OpError, Operation, Target,
};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Only a failure waits so long.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What an application is told to do.
pub enum Order {
    Connect(Target),
    Status(Target),
    Send(LaneId, u32, Vec<u8>),
    Operate(LaneId, u64, Operation),
    Fill(LaneId, u64, Vec<u8>),
    Look(LaneId, u64, usize),
    FallBack(LaneId),
    Info(LaneId),
    Close(LaneId),
    Count,
    /// All of them in one turn.
    Together(Vec<Order>),
    Shutdown,
}

/// What it tells.
#[derive(Debug)]
pub enum Told {
    Open(LaneId, LaneInfo),
    Message(LaneId, u32, Vec<u8>),
    Done(u64, Result<(), OpError>),
    Room,
    Fallback,
    Return,
    Info(LaneInfo),
    Status(String),
    Device(AsyncEvent),
    Closed(LaneEnd),
    Refused(LaneError),
    Bytes(Vec<u8>),
    Count(usize, LaneStats, Option<Objects>, [u64; 2]),
}

/// The application; `echo` answers every message with itself.
pub struct App {
    pub told: mpsc::Sender<Told>,
    pub echo: bool,
    /// Messages that found the lane full, in order.
    waiting: Vec<(LaneId, u32, Vec<u8>)>,
}

impl App {
    fn say(&self, told: Told) {
        // A test that has seen enough does not listen.
        let _ = self.told.send(told);
    }

    fn send(&mut self, lanes: &mut Lanes<'_, Faulty>, lane: LaneId, tag: u32, data: &[u8]) {
        if self.waiting.iter().any(|w| w.0 == lane) {
            self.waiting.push((lane, tag, data.to_vec()));
            return;
        }
        match lanes.send(lane, tag, data) {
            Ok(()) => {}
            Err(LaneError::Full) => self.waiting.push((lane, tag, data.to_vec())),
            Err(e) => self.say(Told::Refused(e)),
        }
    }
}

impl LaneApp<Faulty> for App {
    type Command = Order;

    fn on_open(&mut self, _: &mut Lanes<'_, Faulty>, lane: LaneId, info: &LaneInfo) {
        self.say(Told::Open(lane, *info));
    }

    fn on_message(
        &mut self,
        lanes: &mut Lanes<'_, Faulty>,
        lane: LaneId,
        tag: u32,
        data: &[u8],
    ) -> Consume {
        if self.echo {
            self.send(lanes, lane, tag, data);
        } else {
            self.say(Told::Message(lane, tag, data.to_vec()));
        }
        Consume::Now
    }

    fn on_done(
        &mut self,
        _: &mut Lanes<'_, Faulty>,
        _: LaneId,
        op: u64,
        result: Result<(), OpError>,
    ) {
        self.say(Told::Done(op, result));
    }

    fn on_room(&mut self, lanes: &mut Lanes<'_, Faulty>, lane: LaneId) {
        for (of, tag, data) in std::mem::take(&mut self.waiting) {
            if of == lane {
                self.send(lanes, lane, tag, &data);
            } else {
                self.waiting.push((of, tag, data));
            }
        }
        self.say(Told::Room);
    }

    fn on_fallback(&mut self, _: &mut Lanes<'_, Faulty>, _: LaneId) {
        self.say(Told::Fallback);
    }

    fn on_return(&mut self, _: &mut Lanes<'_, Faulty>, _: LaneId) {
        self.say(Told::Return);
    }

    fn on_status(&mut self, _: &mut Lanes<'_, Faulty>, _: LaneId, json: &str) {
        self.say(Told::Status(json.into()));
    }

    fn on_device_event(&mut self, _: &mut Lanes<'_, Faulty>, event: AsyncEvent) {
        self.say(Told::Device(event));
    }

    fn on_closed(&mut self, _: &mut Lanes<'_, Faulty>, lane: LaneId, why: &LaneEnd) {
        self.waiting.retain(|w| w.0 != lane);
        self.say(Told::Closed(why.clone()));
    }

    fn on_command(&mut self, lanes: &mut Lanes<'_, Faulty>, order: Order) {
        let done = match order {
            Order::Connect(target) => lanes.connect(target).map(drop),
            Order::Status(target) => lanes.status(target).map(drop),
            Order::Send(lane, tag, data) => {
                self.send(lanes, lane, tag, &data);
                Ok(())
            }
            Order::Operate(lane, op, what) => lanes.operate(lane, op, what),
            Order::Fill(lane, at, bytes) => lanes.write(lane, at, &bytes),
            Order::Look(lane, at, len) => {
                let mut bytes = vec![0; len];
                let looked = lanes.read(lane, at, &mut bytes);
                self.say(Told::Bytes(bytes));
                looked
            }
            Order::FallBack(lane) => {
                lanes.fall_back(lane);
                Ok(())
            }
            Order::Info(lane) => {
                self.say(Told::Info(lanes.info(lane).expect("an open lane")));
                Ok(())
            }
            Order::Close(lane) => {
                lanes.close(lane);
                Ok(())
            }
            Order::Count => {
                let objects = lanes.device().map(|d| d.1);
                let stats = lanes
                    .port()
                    .and_then(|p| p.device.as_roce())
                    .map(|d| d.stats());
                let rnr = stats.map_or([0; 2], |s| [s.rnr_naks_sent, s.bad_icrc]);
                self.say(Told::Count(lanes.count(), lanes.stats(), objects, rnr));
                Ok(())
            }
            Order::Together(orders) => {
                orders.into_iter().for_each(|o| self.on_command(lanes, o));
                Ok(())
            }
            Order::Shutdown => {
                lanes.shutdown();
                Ok(())
            }
        };
        if let Err(e) = done {
            self.say(Told::Refused(e));
        }
    }
}

/// How an end is made.
#[derive(Clone)]
pub struct Options {
    pub rdma: bool,
    pub v6: bool,
    pub idle: Idle,
    pub config: LaneConfig,
    pub quic_idle: Duration,
    pub keep_alive: Option<Duration>,
    pub echo: bool,
    pub shards: usize,
    /// What the device is told to do.
    pub faults: Faults,
    /// Somewhere else than the environment says.
    pub place: Option<Place>,
}

impl Options {
    pub fn new() -> Self {
        let mut config = LaneConfig::default();
        config.plan.region = 16 * 1024;
        config.plan.slot = 1024;
        config.registry = Registry::default();
        // Those that are to come back say so.
        config.returns = None;
        config.quotas = Quotas::new(Amount::default());
        if !is_native() {
            // Under emulation a hundred handshakes take their time.
            config.patience = DEADLINE;
        }
        Self {
            rdma: true,
            v6: false,
            idle: Idle::Park,
            config,
            quic_idle: if is_native() {
                Duration::from_secs(30)
            } else {
                DEADLINE
            },
            keep_alive: None,
            echo: false,
            shards: 1,
            faults: Faults::default(),
            place: None,
        }
    }

    pub fn quic(mut self) -> Self {
        self.rdma = false;
        self
    }
}

/// One shard with lanes.
pub struct End {
    pub engine: Engine<LaneShard<Faulty, App>>,
    pub told: mpsc::Receiver<Told>,
    pub registry: Registry,
    pub quotas: Quotas,
}

impl End {
    pub fn start(name: &str, options: &Options, server: Option<&Identity>) -> Self {
        let mut config = EngineConfig::new(name);
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout = options.quic_idle;
        transport.keep_alive_interval = options.keep_alive;
        transport.handshake_deadline = transport.handshake_deadline.max(options.config.patience);
        transport.streams.max_streams_bidi = 1;
        config.transport = Arc::new(transport);
        config.idle = options.idle;
        config.shards = options.shards;
        let place = options.place.unwrap_or_else(|| place(server.is_some()));
        config.bind = Bind::Shared(SocketAddr::new(place.ip(options.v6), 0));
        config.server = server.map(|id| Arc::new(id.server_config(&[ALPN])));
        let (tell, told) = mpsc::channel();
        let port = options.rdma.then(|| place.port(options.v6));
        let engine = place.within(|| {
            let ports = port.map(|p| p.ports(options.shards).expect("a port"));
            let mut setups = ports.into_iter().flat_map(|p| p.setups);
            Engine::start(&config, |_| {
                let app = App {
                    told: tell.clone(),
                    echo: options.echo,
                    waiting: Vec::new(),
                };
                let setup = setups.next();
                let faults = options.faults.clone();
                let open = move |ctx: &mut Context<'_>| -> Result<_, String> {
                    let device = setup.map_or(Ok(None), |s| s.open(ctx))?;
                    Ok(device.map(|device| Faulty {
                        device,
                        faults,
                        shares: None,
                    }))
                };
                LaneShard::new(options.config.clone(), open, app)
            })
        });
        Self {
            engine: engine.expect("an engine"),
            told,
            registry: options.config.registry.clone(),
            quotas: options.config.quotas.clone(),
        }
    }

    pub fn order(&self, order: Order) {
        assert!(self.engine.senders()[0].send(order).is_ok());
    }

    /// The next thing told that `f` takes; others are passed by.
    pub fn wait<T>(&self, what: &str, mut f: impl FnMut(Told) -> Option<T>) -> T {
        loop {
            match self.told.recv_timeout(DEADLINE) {
                Ok(told) => {
                    if let Some(found) = f(told) {
                        return found;
                    }
                }
                Err(e) => panic!("waiting for {what}: {e}"),
            }
        }
    }

    pub fn opened(&self) -> (LaneId, LaneInfo) {
        self.wait("a lane", |t| match t {
            Told::Open(lane, info) => Some((lane, info)),
            Told::Closed(why) => panic!("not opened: {why}"),
            _ => None,
        })
    }

    pub fn message(&self) -> (LaneId, u32, Vec<u8>) {
        self.wait("a message", |t| match t {
            Told::Message(lane, tag, data) => Some((lane, tag, data)),
            Told::Closed(why) => panic!("closed: {why}"),
            _ => None,
        })
    }

    pub fn done(&self) -> (u64, Result<(), OpError>) {
        self.wait("an operation", |t| match t {
            Told::Done(op, result) => Some((op, result)),
            _ => None,
        })
    }

    pub fn closed(&self) -> LaneEnd {
        self.wait("an end", |t| match t {
            Told::Closed(why) => Some(why),
            _ => None,
        })
    }

    pub fn refused(&self) -> LaneError {
        self.wait("a refusal", |t| match t {
            Told::Refused(e) => Some(e),
            _ => None,
        })
    }

    pub fn look(&self, lane: LaneId, at: u64, len: usize) -> Vec<u8> {
        self.order(Order::Look(lane, at, len));
        self.wait("bytes", |t| match t {
            Told::Bytes(bytes) => Some(bytes),
            _ => None,
        })
    }

    pub fn count(&self) -> (usize, LaneStats, Option<Objects>, [u64; 2]) {
        self.order(Order::Count);
        self.wait("counts", |t| match t {
            Told::Count(n, stats, objects, more) => Some((n, stats, objects, more)),
            _ => None,
        })
    }

    /// Waits until nothing is left but what the shard itself has.
    pub fn emptied(&self) -> Option<Objects> {
        loop {
            // First, for what goes between the two is counted still.
            let mut all = self.registry.objects().into_iter();
            let own = all.all(|o| matches!(o.owner, Owner::Shard(_)));
            let (lanes, _, objects, _) = self.count();
            if own && lanes == 0 {
                return objects;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends everything in order, and sees that nothing is left.
    pub fn finish(self) {
        for sender in self.engine.senders() {
            assert!(sender.send(Order::Shutdown).is_ok());
        }
        let reports = self.engine.join().expect("the shard ends well");
        assert!(reports.iter().all(|r| r.tx_lent == 0));
        assert_eq!(self.registry.objects(), []);
        assert_eq!(self.quotas.identities(), 0);
    }
}

/// A server and one client engine that trusts it.
pub struct Pair {
    pub server: End,
    pub client: End,
    pub target: Target,
    /// Whom clients trust.
    pub ca: CertificateDer<'static>,
}

impl Pair {
    pub fn new(server: &Options, client: &Options) -> Self {
        let identity = Identity::generate();
        let name = crate::certs::SERVER_NAME.try_into().expect("a name");
        let server = End::start("server", server, Some(&identity));
        let target = Target {
            addr: server.engine.local_addrs()[0],
            name,
            tls: Arc::new(identity.client_config(&[ALPN])),
        };
        let client = End::start("client", client, None);
        Self {
            server,
            client,
            target,
            ca: identity.ca.clone(),
        }
    }

    /// A lane: its client's and its server's name, and what the client was told.
    pub fn connect(&self) -> (LaneId, LaneId, LaneInfo) {
        self.client.order(Order::Connect(self.target.clone()));
        let (client, info) = self.client.opened();
        let (server, other) = self.server.opened();
        assert_eq!(info.client, other.client);
        (client, server, info)
    }

    pub fn finish(self) {
        self.client.finish();
        self.server.finish();
    }
}
