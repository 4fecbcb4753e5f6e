//! Connections that come and go over real sockets on loopback: streams echoed and abandoned,
//! datagrams, key updates, NAT rebindings, handshakes that fail, ends of every kind. What exists is
//! counted when nothing goes on: before, after a warm-up, and it must be the same after the run.
#![expect(
    clippy::disallowed_methods,
    reason = "a run over real sockets goes by the machine's clock"
)]

pub mod client;
pub mod gauges;
pub mod memory;
pub mod nat;
pub mod server;

use client::{Client, Order, Task};
use corelane::base::Rng;
use corelane::conn::TransportConfig;
use corelane::io::Choice;
use corelane::shard::engine::{Bind, Engine, EngineConfig, Idle};
use gauges::{Counts, Gauges};
use nat::Nat;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivatePkcs8KeyDer;
use server::Server;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a phase lasts.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// So long.
    Time(Duration),
    /// Until so many more connections have ended.
    Ended(u64),
}

/// What a run is.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Churn before the first count, so that tables have their size.
    pub warm_up: Until,
    /// Churn between the first count and the last.
    pub run: Until,
    /// Connections at a time, of each client shard.
    pub parallel: usize,
    /// Shards of each side.
    pub shards: usize,
    /// The backend of both sides.
    pub backend: Choice,
    /// Of what is random.
    pub seed: u64,
    /// How often relays take new ports.
    pub rebind: Duration,
    /// Between two samples.
    pub interval: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            warm_up: Until::Time(Duration::from_secs(20)),
            run: Until::Time(Duration::from_secs(600)),
            parallel: 40,
            shards: 2,
            backend: Choice::Auto,
            seed: 1,
            rebind: Duration::from_millis(500),
            interval: Duration::from_secs(20),
        }
    }
}

/// What there is at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Since the start.
    pub elapsed: Duration,
    /// Both sides' counters.
    pub client: Counts,
    /// Both sides' counters.
    pub server: Counts,
    /// Ports that relays gave up.
    pub rebinds: u64,
    /// Bytes allocated; 0 without [`memory::Counting`].
    pub heap: isize,
    /// Resident bytes.
    pub resident: u64,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// At rest after the warm-up.
    pub before: Sample,
    /// At rest after the run.
    pub after: Sample,
    /// Send buffers of all shards that never came back.
    pub tx_lent: usize,
}

/// How much more may be there at the end.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes allocated.
    pub heap: isize,
    /// Resident bytes.
    pub resident: u64,
}

impl Outcome {
    /// What is left that should not be, in words.
    pub fn faults(&self, bounds: Bounds) -> Vec<String> {
        let (a, b) = (&self.before, &self.after);
        let mut out = Vec::new();
        let mut check = |bad: bool, what: String| {
            if bad {
                out.push(what);
            }
        };
        for (side, c) in [("client", &b.client), ("server", &b.server)] {
            check(
                c.connections + c.routes > 0,
                format!(
                    "{side}: {} connections, {} routes left",
                    c.connections, c.routes
                ),
            );
        }
        check(
            self.tx_lent > 0,
            format!("{} send buffers not returned", self.tx_lent),
        );
        check(
            b.client.begun != b.client.ended,
            format!("{} begun, {} ended", b.client.begun, b.client.ended),
        );
        check(
            b.client.wrong > 0,
            format!("{} wrong echoes", b.client.wrong),
        );
        check(
            b.client.failed * 20 > b.client.ended,
            format!("{} of {} failed", b.client.failed, b.client.ended),
        );
        check(
            b.heap - a.heap > bounds.heap,
            format!("{} more bytes allocated than before", b.heap - a.heap),
        );
        let resident = b.resident.saturating_sub(a.resident);
        check(
            resident > bounds.resident,
            format!("{resident} more bytes resident than before"),
        );
        out
    }
}

/// The parts of a run that is going on.
struct Running {
    client: Engine<Client>,
    server: Engine<Server>,
    nats: Vec<Nat>,
    gauges: [Vec<Arc<Gauges>>; 2],
    begun: Instant,
    interval: Duration,
}

/// Runs a plan; each sample goes to `show`.
///
/// # Errors
/// Sockets or threads are not to be had, or a shard broke.
pub fn run(plan: &Plan, show: &mut dyn FnMut(&Sample)) -> Result<Outcome, Box<dyn Error>> {
    let running = Running::start(plan)?;
    running.churn(plan.warm_up, show)?;
    let before = running.sample();
    show(&before);
    running.churn(plan.run, show)?;
    let after = running.sample();
    show(&after);
    let tx_lent = running.end()?;
    Ok(Outcome {
        before,
        after,
        tx_lent,
    })
}

impl Running {
    fn start(plan: &Plan) -> Result<Self, Box<dyn Error>> {
        let (server_tls, client_tls) = tls()?;
        let mut rng = Rng::from_u64(plan.seed);
        let all = || (0..plan.shards).map(|_| Arc::new(Gauges::default()));
        let gauges: [Vec<_>; 2] = [all().collect(), all().collect()];
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout = Duration::from_secs(3);
        transport.key_update_packets = Some(1000);
        let mut config = EngineConfig::new("churn-server");
        config.shards = plan.shards;
        config.backend = plan.backend;
        config.idle = Idle::Park;
        config.transport = Arc::new(transport);
        let mut clients = config.clone();
        config.server = Some(server_tls);
        config.bind = Bind::Shared(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let seed = rng.next_u64();
        let server = Engine::start(&config, |n| {
            Server::new(gauges[1][n].clone(), seed ^ n as u64)
        })?;
        let addr = server.local_addrs()[0];
        let nats = (0..2)
            .map(|_| Nat::start(addr, plan.rebind))
            .collect::<Result<Vec<_>, _>>()?;
        clients.name = "churn-client".to_owned();
        clients.bind = Bind::Each(Ipv4Addr::LOCALHOST.into());
        let servers: Vec<SocketAddr> = nats.iter().map(Nat::addr).chain([addr, addr]).collect();
        let client = Engine::start(&clients, |n| {
            let task = Task {
                servers: servers.clone(),
                tls: client_tls.clone(),
                parallel: plan.parallel,
                seed: rng.next_u64(),
            };
            Client::new(task, gauges[0][n].clone())
        })?;
        Ok(Self {
            client,
            server,
            nats,
            gauges,
            begun: Instant::now(),
            interval: plan.interval,
        })
    }

    fn sample(&self) -> Sample {
        let side = |n: usize| gauges::sum(self.gauges[n].iter().map(Arc::as_ref));
        Sample {
            elapsed: self.begun.elapsed(),
            client: side(0),
            server: side(1),
            rebinds: self.nats.iter().map(Nat::rebinds).sum(),
            heap: memory::heap(),
            resident: memory::resident(),
        }
    }

    fn order(&self, order: Order) -> Result<(), Box<dyn Error>> {
        for sender in self.client.senders() {
            sender
                .send(order)
                .map_err(|_| "a shard takes no commands")?;
        }
        Ok(())
    }

    /// Churns, then waits until nothing is left; for ever if something is left for ever would be
    /// no answer, so a minute at most.
    fn churn(&self, until: Until, show: &mut dyn FnMut(&Sample)) -> Result<(), Box<dyn Error>> {
        let (from, begun) = (self.sample().client.ended, Instant::now());
        let mut next = begun + self.interval;
        self.order(Order::Go)?;
        loop {
            std::thread::sleep(Duration::from_millis(10));
            let done = match until {
                Until::Time(time) => begun.elapsed() >= time,
                Until::Ended(n) => self.sample().client.ended - from >= n,
            };
            if done {
                break;
            }
            if Instant::now() >= next {
                next += self.interval;
                show(&self.sample());
            }
        }
        self.order(Order::Cease)?;
        let ceased = Instant::now();
        let mut quiet = 0;
        while quiet < 10 && ceased.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(20));
            let s = self.sample();
            let left = [s.client, s.server].map(|c| c.connections + c.routes);
            let over = left == [0, 0] && s.client.begun == s.client.ended;
            quiet = if over { quiet + 1 } else { 0 };
        }
        Ok(())
    }

    fn end(mut self) -> Result<usize, Box<dyn Error>> {
        self.client.stop();
        self.server.stop();
        let clients = self.client.join()?;
        let servers = self.server.join()?;
        let lent = clients.iter().map(|r| r.tx_lent).sum::<usize>();
        Ok(lent + servers.iter().map(|r| r.tx_lent).sum::<usize>())
    }
}

type Tls = (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>);

/// A certificate for `localhost` and a client that trusts it.
fn tls() -> Result<Tls, Box<dyn Error>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )?;
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(server), Arc::new(client)))
}
