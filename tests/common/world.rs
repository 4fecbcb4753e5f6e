//! The whole engine in one thread and virtual time: server shards and a client shard on a simulated
//! network, every fault drawn from a seed.

mod paths;

use super::certs::Identity;
use super::file_app::{FileApp, Job};
use super::files::{ALPN, File, Request};
use corelane::base::{Rng, SocketId, Timestamp};
use corelane::conn::{EarlyData, Endpoint, EndpointConfig, MigrateError, TransportConfig};
use corelane::crypto::{Session, early};
use corelane::io::sim::{BurstLoss, LinkConfig, Network, SimBackend};
use corelane::io::{Backend, IoConfig};
use corelane::recovery::Algorithm;
use corelane::shard::mailbox::Mailbox;
use corelane::shard::steer::CidCodec;
use corelane::shard::{CodecCids, Shard};
use corelane::wire::{ConnectionId, Side, TransportParameters, Version, header};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const PORT: u16 = 4433;
/// The client's other host, and the server's preferred one.
const CLIENT_2: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
const SERVER_2: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
const CID_LEN: usize = 8;

/// What one seed came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Virtual time until everything was delivered and forgotten.
    pub took: Duration,
    /// Datagrams that entered the network.
    pub datagrams: u64,
    /// Datagrams that changed shards.
    pub forwarded: u64,
    /// Times that the client moved, or went to the server's preferred address.
    pub moves: usize,
    /// Paths that the client opened beside its first.
    pub paths: usize,
    /// What became of the client's early data.
    pub early: EarlyData,
}

/// Shards of one world and the way between them.
pub struct World {
    network: Network,
    servers: Vec<Shard<FileApp>>,
    client: Shard<FileApp>,
    now: Timestamp,
    rng: Rng,
    rebound: bool,
    /// Moves that the client has yet to make, and when the next is due.
    moves: u64,
    move_at: Timestamp,
    /// What it does with several paths instead, and where the server is.
    paths: Option<paths::Changes>,
    remote: SocketAddr,
}

impl World {
    /// A world whose every choice follows from `seed`.
    pub fn new(seed: u64, shards: usize, identity: &Identity) -> Self {
        Self::with_paths(seed, shards, identity, false)
    }

    /// The same, where the client may have several paths and uses them.
    pub fn with_paths(seed: u64, shards: usize, identity: &Identity, several: bool) -> Self {
        let mut rng = Rng::from_u64(seed);
        let network = Network::new(rng.next_u64());
        let now = Timestamp::from_nanos(1_000_000_000);
        network.advance_to(now);
        network.link(CLIENT, SERVER, link(&mut rng));
        let down = link(&mut rng);
        let corrupts = down.corrupt > 0.0;
        network.link(SERVER, CLIENT, down);
        for (client, server) in [(CLIENT, SERVER_2), (CLIENT_2, SERVER), (CLIENT_2, SERVER_2)] {
            network.link(client, server, link(&mut rng));
            network.link(server, client, link(&mut rng));
        }
        let files = files(&mut rng);
        let server_addr = SocketAddr::new(SERVER, PORT);
        let max_paths = if several { paths::MOST } else { 0 };
        let mut transport = transport(&mut rng);
        transport.max_paths = max_paths;
        let mut server_addrs = vec![server_addr];
        if rng.chance(0.3) {
            let preferred = SocketAddr::new(SERVER_2, PORT);
            transport.preferred_address.set(preferred);
            server_addrs.push(preferred);
        }
        if corrupts {
            // Nothing protects a Version Negotiation packet: no connection may hang by one.
            transport.versions = Version::ALL.to_vec();
        }
        let transport = Arc::new(transport);
        let secret = rng.next_u64();
        let mailboxes = Mailbox::build(shards);
        let tokens = rng.array();
        // Drawn apart, so that worlds without early data stay what they were.
        let mut early = Rng::from_u64(!seed);
        let (tls, client_tls) = tls(&mut early, identity);
        let prove = early.chance(0.3);
        let mut servers: Vec<Shard<FileApp>> = Vec::new();
        for (index, mailbox) in mailboxes.into_iter().enumerate() {
            let mut app = FileApp::server(&files);
            app.reluctant = rng.chance(0.2);
            app.prove = prove;
            let mut config = EndpointConfig::new(rng.array());
            config.server = Some(tls.clone());
            config.secret = tokens;
            config.transport = transport.clone();
            let codec = codec(secret, index, shards);
            let addrs = &server_addrs;
            servers.push(shard(
                &network, now, index, codec, mailbox, config, addrs, app,
            ));
        }
        if rng.chance(0.5) {
            let codec = codec(secret, 0, shards);
            for addr in server_addrs {
                let codec = codec.clone();
                network.steer(addr, move |datagram| {
                    let dcid = header::dcid(datagram, CID_LEN)?;
                    codec.shard_of(dcid).map(usize::from)
                });
            }
        }
        let mut client_transport = self::transport(&mut rng);
        client_transport.max_paths = max_paths;
        let job = Job {
            remote: server_addr,
            tls: client_tls,
            transport: Arc::new(client_transport),
            requests: requests(&files),
            stop: false,
        };
        let mut app = FileApp::client(job);
        app.reluctant = rng.chance(0.2);
        let config = EndpointConfig::new(rng.array());
        let mailbox = Mailbox::build(1).remove(0);
        let addrs = [(CLIENT, 5000), (CLIENT, 5001), (CLIENT_2, 5002)].map(SocketAddr::from);
        let codec = codec(rng.next_u64(), 0, 1);
        let client = shard(&network, now, 0, codec, mailbox, config, &addrs, app);
        let moves = match rng.chance(0.5) {
            true if !several => 1 + rng.below(5),
            _ => 0,
        };
        let mut world = Self {
            network,
            servers,
            client,
            now,
            rng,
            rebound: false,
            moves,
            move_at: now,
            paths: several.then(|| paths::Changes::new(seed, now)),
            remote: server_addr,
        };
        world.plan_faults();
        world
    }

    fn plan_faults(&mut self) {
        for _ in 0..self.rng.below(3) {
            let from = self.now + Duration::from_millis(self.rng.below(4_000));
            let until = from + Duration::from_millis(self.rng.below(1_500));
            let (a, b) = match self.rng.below(3) {
                0 => (Some(SERVER), None),
                1 => (Some(CLIENT), None),
                _ => (None, None),
            };
            self.network.blackhole(a, b, from..until);
        }
    }

    /// The client gets another address, once the handshake is confirmed: until then QUIC relies on
    /// the address it began with (RFC 9000 §9).
    fn plan_rebinding(&mut self) {
        self.rebound = true;
        for n in 0..self.rng.below(3) {
            let at = self.now + Duration::from_millis(1 + self.rng.below(3_000));
            let external = SocketAddr::from(([10, 0, 1, n as u8], 6000 + n as u16));
            self.network
                .rebind(SocketAddr::new(CLIENT, 5000), external, at);
        }
    }

    /// Runs until every answer has arrived and every connection is forgotten.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub fn run(mut self) -> Result<Outcome, String> {
        let start = self.now;
        let end = start + Duration::from_secs(600);
        let mut next_update = start;
        while self.now < end {
            let next = self.settle()?;
            if self.idle() {
                return self.verdict(start);
            }
            if self.client.app().confirmed && !self.rebound {
                self.plan_rebinding();
            }
            self.move_client()?;
            self.change_paths()?;
            if self.now >= next_update {
                next_update = self.now + Duration::from_millis(50 + self.rng.below(500));
                self.update_keys();
            }
            let next = next.into_iter().chain(self.network.next_event()).min();
            self.now = next
                .unwrap_or(end)
                .max(self.now + Duration::from_nanos(1))
                .min(end);
            self.network.advance_to(self.now);
        }
        let (app, faults) = (self.client.app(), self.faults());
        let missing = app.answers.iter().filter(|a| a.is_none()).count();
        Err(format!(
            "not idle after 10 minutes: {missing} answers missing, {faults}"
        ))
    }

    /// Turns every shard until none has anything to do; returns the next deadline.
    fn settle(&mut self) -> Result<Option<Timestamp>, String> {
        for _ in 0..10_000 {
            let mut busy = false;
            let mut next: Option<Timestamp> = None;
            for shard in self.servers.iter_mut().chain([&mut self.client]) {
                let turn = shard.run_once(self.now).map_err(|e| e.to_string())?;
                busy |= turn.worked || turn.busy;
                next = next.into_iter().chain(turn.next).min();
            }
            if !busy && !self.network.has_unread() {
                return Ok(next);
            }
        }
        Err(format!("the shards do not come to rest: {}", self.faults()))
    }

    fn update_keys(&mut self) {
        let shards = self.servers.iter_mut().chain([&mut self.client]);
        for shard in shards {
            let ids: Vec<_> = shard.endpoint().ids().collect();
            for id in ids {
                if self.rng.chance(0.3)
                    && let Some(conn) = shard.endpoint().connection(id)
                {
                    conn.update_keys();
                }
            }
        }
    }

    /// The client moves to one of its sockets, with or without asking first.
    fn move_client(&mut self) -> Result<(), String> {
        let Some(conn) = self.client.app().connection() else {
            return Ok(());
        };
        if self.moves == 0 || self.now < self.move_at {
            return Ok(());
        }
        self.moves -= 1;
        self.move_at = self.now + Duration::from_millis(self.rng.below(1_500));
        let socket = self.client.sockets()[self.rng.below(3) as usize].0;
        let at_once = self.rng.chance(0.3);
        let done = self.client.with_context(self.now, |_, ctx| {
            if at_once {
                ctx.migrate_at_once(conn, socket)
            } else {
                ctx.migrate(conn, socket)
            }
        });
        match done {
            Ok(_) | Err(MigrateError::NoConnectionId | MigrateError::Closed) => Ok(()),
            Err(e) => Err(format!("a move was refused: {e}")),
        }
    }

    fn idle(&mut self) -> bool {
        let done = self.client.app().complete() && !self.client.app().closed.is_empty();
        done && self.client.endpoint().is_empty()
            && self.servers.iter_mut().all(|s| s.endpoint().is_empty())
    }

    fn faults(&self) -> String {
        let shards = self.servers.iter().chain([&self.client]);
        let all: Vec<_> = shards.map(|s| (&s.app().faults, &s.app().closed)).collect();
        format!("{all:?}")
    }

    fn verdict(mut self, start: Timestamp) -> Result<Outcome, String> {
        let job = self.client.app().job.clone().ok_or("no job")?;
        for (request, answer) in job.requests.iter().zip(&self.client.app().answers) {
            let request = Request::parse(request).ok_or("a bad request")?;
            let files = &self.servers[0].app().files;
            if answer.as_ref() != request.answer(files).as_ref() {
                return Err("an answer differs from what was sent".into());
            }
        }
        let mut forwarded = 0;
        for shard in self.servers.iter_mut().chain([&mut self.client]) {
            if !shard.app().faults.is_empty() {
                return Err(format!("{:?}", shard.app().faults));
            }
            if shard.endpoint().routes() != 0 {
                return Err(format!("{} routes are left", shard.endpoint().routes()));
            }
            forwarded += shard.stats().forwarded;
        }
        let stats = self.network.stats();
        Ok(Outcome {
            took: self.now - start,
            datagrams: stats.sent,
            forwarded,
            moves: self.client.app().moves,
            paths: self.paths.as_ref().map_or(0, |p| p.opened),
            early: self.client.app().early,
        })
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a shard")]
fn shard(
    network: &Network,
    now: Timestamp,
    index: usize,
    codec: Arc<CidCodec>,
    mailbox: Mailbox<()>,
    mut config: EndpointConfig,
    addrs: &[SocketAddr],
    app: FileApp,
) -> Shard<FileApp> {
    config.cids = Box::new(CodecCids(codec.clone()));
    let io = IoConfig::default();
    let hosts: Vec<IpAddr> = addrs.iter().map(SocketAddr::ip).collect();
    let mut backend = SimBackend::new(network, &hosts, &io).expect("a simulated backend");
    let bind = |addr: &SocketAddr| backend.bind(*addr).expect("a free address");
    let sockets: Vec<SocketId> = addrs.iter().map(bind).collect();
    let endpoint = Endpoint::new(config).expect("a valid configuration");
    let backend = Backend::Sim(Box::new(backend));
    let mut shard = Shard::new(
        now,
        index,
        backend,
        endpoint,
        codec,
        mailbox,
        Box::new(|_| {}),
        app,
    );
    for socket in sockets {
        shard.note_socket(socket);
    }
    shard
}

/// TLS of both sides: in some worlds with a session and early data, of which the server takes what
/// its limits still honour.
fn tls(rng: &mut Rng, identity: &Identity) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let mut server = identity.server_config(&[ALPN]);
    let mut client = identity.client_config(&[ALPN]);
    if rng.chance(0.5) {
        return (Arc::new(server), Arc::new(client));
    }
    server.max_early_data_size = u32::MAX;
    client.enable_early_data = true;
    let (server, client) = (Arc::new(server), Arc::new(client));
    let remembered = TransportParameters {
        initial_max_data: 1 + rng.below(30_000),
        initial_max_stream_data_bidi_remote: 1 + rng.below(10_000),
        // No more than any server here permits: what cannot be sent again would end the connection.
        initial_max_streams_bidi: 1,
        initial_source_connection_id: Some(ConnectionId::EMPTY),
        original_destination_connection_id: Some(ConnectionId::EMPTY),
        ..TransportParameters::default()
    };
    let guarded = early::guard(server.clone(), &remembered, rng.array()).expect("it is safe");
    let mut encode = |side| {
        let mut out = Vec::new();
        remembered.encode(side, &mut out, rng);
        out
    };
    let (ours, theirs) = (encode(Side::Client), encode(Side::Server));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut c = Session::client(client.clone(), name, ours).expect("a session");
    let mut s = Session::server(guarded, theirs).expect("a session");
    for _ in 0..4 {
        carry(&mut c, &mut s);
        carry(&mut s, &mut c);
    }
    assert!(!c.is_handshaking() && !s.is_handshaking());
    (server, client)
}

/// Passes on what one side of a TLS handshake has to say.
fn carry(from: &mut Session, to: &mut Session) {
    loop {
        let mut flight = Vec::new();
        let change = from.write_crypto(&mut flight);
        if !flight.is_empty() {
            to.read_crypto(&flight).expect("TLS agrees");
        }
        if change.is_none() && flight.is_empty() {
            return;
        }
    }
}

fn codec(secret: u64, shard: usize, shards: usize) -> Arc<CidCodec> {
    Arc::new(CidCodec::new(secret, CID_LEN, shard as u8, shards as u8, None).expect("a codec"))
}

fn files(rng: &mut Rng) -> Vec<File> {
    (0..1 + rng.below(6))
        .map(|n| {
            let most = [0, 2, 1_000, 20_000, 200_000, 1_000_000][rng.below(6) as usize];
            File::new(format!("f{n}"), rng.below(most + 1) as usize)
        })
        .collect()
}

fn requests(files: &[File]) -> Vec<Vec<u8>> {
    let get = files.iter().map(|f| Request::Get(&f.name).to_bytes());
    let put = files
        .iter()
        .map(|f| Request::Put(&f.name, &f.contents()).to_bytes());
    get.chain(put).collect()
}

fn transport(rng: &mut Rng) -> TransportConfig {
    let mut t = TransportConfig::default();
    t.handshake_deadline = Duration::from_secs(120);
    t.max_idle_timeout = Duration::from_secs(60);
    // A client that only listens is not found again behind a new address without it.
    t.keep_alive_interval = Some(Duration::from_secs(2));
    t.congestion = [Algorithm::Cubic, Algorithm::NewReno, Algorithm::Bbr][rng.below(3) as usize];
    t.pacing = rng.chance(0.7);
    t.ecn = rng.chance(0.7);
    if rng.chance(0.3) {
        t.streams.stream_window = 1 + rng.below(20_000);
        t.streams.connection_window = 1 + rng.below(40_000);
    }
    if rng.chance(0.3) {
        t.streams.max_streams_bidi = 1 + rng.below(4);
    }
    // Version 1 is common to all, so that some version always is.
    t.versions = match rng.below(4) {
        0 => vec![Version::V1],
        1 => vec![Version::V2, Version::V1],
        _ => vec![Version::V1, Version::V2],
    };
    t.preferred_version = match rng.below(3) {
        0 => None,
        1 => Some(Version::V1),
        _ => Some(Version::V2),
    };
    t.grease_quic_bit = rng.chance(0.7);
    t.spin_bit = rng.chance(0.3);
    t.ack_frequency = rng.chance(0.7);
    t.min_ack_delay = rng
        .chance(0.8)
        .then(|| Duration::from_micros(rng.below(30_000)));
    t
}

fn link(rng: &mut Rng) -> LinkConfig {
    let mut maybe = |p: f64, most: f64| {
        let on = rng.chance(p);
        let share = rng.below(1_000) as f64 / 1_000.0;
        if on { share * most } else { 0.0 }
    };
    let (loss, reorder, duplicate) = (maybe(0.6, 0.08), maybe(0.4, 0.1), maybe(0.3, 0.1));
    let (corrupt, gro, burst) = (maybe(0.4, 0.03), maybe(0.7, 1.0), maybe(0.3, 0.02));
    let burst_loss = (burst > 0.0).then_some(BurstLoss {
        enter: burst,
        leave: 0.3,
        loss: 0.8,
    });
    let rate_bps = rng.chance(0.5).then(|| 500_000 + rng.below(100_000_000));
    LinkConfig {
        delay: Duration::from_micros(rng.below(60_000)),
        jitter: Duration::from_micros(rng.below(5_000)),
        rate_bps,
        queue_bytes: 20_000 + rng.below(300_000),
        ecn_mark_bytes: rng.chance(0.5).then(|| 10_000 + rng.below(50_000)),
        loss,
        burst_loss,
        reorder,
        reorder_delay: Duration::from_micros(rng.below(20_000)),
        duplicate,
        corrupt,
        mtu: [1_280, 1_500, 9_000, 65_575][rng.below(4) as usize],
        gro,
    }
}
