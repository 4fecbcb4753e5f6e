//! A client with two addresses, a server with two, and what the tests of paths ask of them.

use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use corelane::base::{Ecn, FourTuple, Rng, SocketId};
use corelane::conn::{ConnId, Event, OpenPathError, PathEvent, PathInfo, TransportConfig};
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::{Dir, StreamId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// The client's first and second address, and the server's.
pub const CLIENT_0: ([u8; 4], u16) = ([127, 0, 0, 1], 1000);
pub const CLIENT_1: ([u8; 4], u16) = ([127, 0, 0, 2], 1001);
pub const SERVER_0: ([u8; 4], u16) = ([127, 0, 0, 1], 2000);
pub const SERVER_1: ([u8; 4], u16) = ([127, 0, 0, 3], 2001);

pub fn at(of: ([u8; 4], u16)) -> SocketAddr {
    SocketAddr::from(of)
}

/// Bytes that went from each source address, and whether it is dark.
#[derive(Default)]
pub struct Traffic {
    pub bytes: BTreeMap<SocketAddr, usize>,
    /// Datagrams from or to these addresses vanish.
    pub dark: Vec<SocketAddr>,
    /// Datagrams to these addresses vanish.
    pub deaf: Vec<SocketAddr>,
    /// Bytes that went to each address.
    pub bytes_to: BTreeMap<SocketAddr, usize>,
    /// What a NAT makes of the first address, for as long as it does.
    pub nat: Option<(SocketAddr, SocketAddr)>,
    /// Datagrams that left with an ECN mark, by source.
    pub marked: BTreeMap<SocketAddr, usize>,
    /// One datagram in so many is lost, and as many come late.
    pub trouble: u64,
    /// Of a hundred datagrams from an address so many are lost.
    pub lossy: Option<(SocketAddr, u64)>,
    /// Datagrams from an address are so many milliseconds longer under way.
    pub late: Option<(SocketAddr, u64)>,
    /// Longer datagrams from an address vanish.
    pub narrow: Option<(SocketAddr, usize)>,
}

/// See the module.
pub struct Rig {
    pub pair: Pair,
    pub client: ConnId,
    pub server: ConnId,
    pub traffic: Arc<Mutex<Traffic>>,
}

/// What streams carry, as far as it goes: no two stretches of it are alike.
fn content() -> &'static [u8] {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    CONTENT.get_or_init(|| {
        let mut rng = Rng::from_u64(1);
        (0..500_000).flat_map(|_| rng.array::<8>()).collect()
    })
}

pub fn config(max_paths: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config.max_paths = max_paths;
    config.mtu.max = 1452;
    config
}

pub fn setup(max_paths: u32) -> Setup {
    Setup {
        client: config(max_paths),
        server: config(max_paths),
        seed: 7,
    }
}

impl Rig {
    /// A connection whose sides take so many paths, with one open.
    pub fn new(max_paths: u32) -> Self {
        Self::with(setup(max_paths))
    }

    pub fn with(setup: Setup) -> Self {
        Self::from_pair(Pair::new(setup))
    }

    pub fn from_pair(mut pair: Pair) -> Self {
        let (client, server) = pair.connected();
        Self::around(pair, client, server)
    }

    /// A connection that is there already.
    pub fn around(mut pair: Pair, client: ConnId, server: ConnId) -> Self {
        pair.sides[CLIENT].more.push(at(CLIENT_1));
        pair.sides[SERVER].more.push(at(SERVER_1));
        let traffic = Arc::new(Mutex::new(Traffic::default()));
        let seen = traffic.clone();
        let mut rng = Rng::from_u64(99);
        pair.filter = Box::new(move |mut p| {
            let mut t = seen.lock().expect("no panic");
            *t.bytes.entry(p.source).or_default() += p.bytes.len();
            *t.marked.entry(p.source).or_default() += usize::from(p.ecn == Ecn::Ect0);
            *t.bytes_to.entry(p.to).or_default() += p.bytes.len();
            if t.dark.contains(&p.source) || t.dark.contains(&p.to) || t.deaf.contains(&p.to) {
                return vec![];
            }
            if t.trouble > 0 && rng.below(t.trouble) == 0 {
                return vec![];
            }
            let lossy = t.lossy.filter(|(from, _)| *from == p.source);
            if lossy.is_some_and(|(_, percent)| rng.below(100) < percent) {
                return vec![];
            }
            if let Some((_, ms)) = t.late.filter(|(from, _)| *from == p.source) {
                p.now += Duration::from_millis(ms);
            }
            let narrow = t.narrow.filter(|(from, _)| *from == p.source);
            if narrow.is_some_and(|(_, most)| p.bytes.len() > most) {
                return vec![];
            }
            if t.trouble > 0 && rng.below(t.trouble) == 0 {
                p.now += Duration::from_millis(1 + rng.below(15));
            }
            if let Some((inside, outside)) = t.nat {
                if p.source == inside {
                    p.source = outside;
                } else if p.to == outside {
                    p.to = inside;
                }
            }
            vec![p]
        });
        Self {
            pair,
            client,
            server,
            traffic,
        }
    }

    pub fn ids(&self) -> [ConnId; 2] {
        [self.client, self.server]
    }

    pub fn run_ms(&mut self, ms: u64) {
        self.pair.run(Duration::from_millis(ms));
    }

    /// Opens a path from the client's second address to the server's first.
    pub fn open(&mut self, status: PathStatus) -> Result<PathId, OpenPathError> {
        let tuple = FourTuple::new(at(CLIENT_1), at(SERVER_0));
        self.open_over(1, tuple, status)
    }

    pub fn open_over(
        &mut self,
        socket: u32,
        tuple: FourTuple,
        status: PathStatus,
    ) -> Result<PathId, OpenPathError> {
        let (now, id) = (self.pair.now, self.client);
        self.pair
            .conn(CLIENT, id)
            .open_path(now, SocketId(socket), tuple, status)
    }

    /// A connection with two open paths.
    pub fn two_paths() -> Self {
        Self::new(4).and_second()
    }

    /// The same connection, with its second path open.
    pub fn and_second(mut self) -> Self {
        let rig = &mut self;
        let id = rig.open(PathStatus::Available).expect("opens");
        rig.run_ms(200);
        rig.expect_open(id);
        self
    }

    #[track_caller]
    pub fn expect_open(&mut self, id: PathId) {
        for side in [CLIENT, SERVER] {
            let state = self.info(side, id).map(|i| i.state);
            assert_eq!(state, Some(PathState::Open), "{id} at side {side}");
        }
        assert!(self.saw(CLIENT, PathEvent::Validated(id)) || id == PathId(0));
        assert!(self.saw(SERVER, PathEvent::Validated(id)) || id == PathId(0));
    }

    pub fn info(&mut self, side: usize, id: PathId) -> Option<PathInfo> {
        let conn = self.ids()[side];
        self.pair.conn(side, conn).path_info(id)
    }

    pub fn saw(&self, side: usize, event: PathEvent) -> bool {
        self.pair.saw(side, &Event::Path(event))
    }

    /// Writes on a new stream and ends it; returns its number.
    pub fn send(&mut self, side: usize, bytes: usize) -> StreamId {
        let conn = self.ids()[side];
        let streams = self.pair.conn(side, conn).streams_mut();
        let id = streams.open(Dir::Uni).expect("a stream");
        let written = streams.write(id, &content()[..bytes]).expect("written");
        assert_eq!(written, bytes, "the buffer holds it");
        streams.finish(id).expect("finished");
        id
    }

    /// Whether the other side has all of a stream.
    pub fn has(&self, side: usize, id: StreamId, bytes: usize) -> bool {
        self.received(side, id).is_some_and(|r| r.len() == bytes)
    }

    /// Whether the other side has all of a stream that [`Rig::send`] wrote, byte for byte.
    pub fn has_exactly(&self, side: usize, id: StreamId, bytes: usize) -> bool {
        let content = content().get(..bytes);
        content.is_some() && self.received(side, id) == content
    }

    /// What the other side has of a stream that is over.
    fn received(&self, side: usize, id: StreamId) -> Option<&[u8]> {
        let to = 1 - side;
        let key = (self.ids()[to].index(), id.0);
        let app = &self.pair.sides[to].app;
        let received = app.received.get(&key).map_or(&[][..], |r| r);
        app.finished.contains(&key).then_some(received)
    }

    #[track_caller]
    pub fn deliver(&mut self, side: usize, bytes: usize, within_ms: u64) {
        let id = self.send(side, bytes);
        self.run_ms(within_ms);
        assert!(self.has_exactly(side, id, bytes), "side {side}: {id:?}");
    }

    pub fn bytes_from(&self, source: SocketAddr) -> usize {
        let t = self.traffic.lock().expect("no panic");
        t.bytes.get(&source).copied().unwrap_or(0)
    }

    pub fn forget_traffic(&self) {
        self.traffic.lock().expect("no panic").bytes.clear();
    }

    pub fn trouble(&self, one_in: u64) {
        self.traffic.lock().expect("no panic").trouble = one_in;
    }

    /// Loses so many datagrams of a hundred that leave an address.
    pub fn lose(&self, from: SocketAddr, percent: u64) {
        self.traffic.lock().expect("no panic").lossy = Some((from, percent));
    }

    /// Datagrams from an address take so many milliseconds longer from now on.
    pub fn delay(&self, from: SocketAddr, ms: u64) {
        self.traffic.lock().expect("no panic").late = Some((from, ms));
    }

    pub fn client_stream_stats(&mut self) -> corelane::stream::StreamStats {
        let client = self.client;
        self.pair.conn(CLIENT, client).streams().stats()
    }

    /// Longer datagrams from an address vanish from now on.
    pub fn shrink(&self, from: SocketAddr, most: usize) {
        self.traffic.lock().expect("no panic").narrow = Some((from, most));
    }

    /// A NAT gives the client's address another port from now on.
    pub fn rebind(&self, inside: SocketAddr, port: u16) {
        let outside = SocketAddr::new(inside.ip(), port);
        self.traffic.lock().expect("no panic").nat = Some((inside, outside));
    }

    pub fn darken(&self, addr: SocketAddr) {
        self.traffic.lock().expect("no panic").dark.push(addr);
    }

    pub fn lighten(&self) {
        self.traffic.lock().expect("no panic").dark.clear();
    }

    #[track_caller]
    pub fn expect_alive(&self) {
        assert_eq!(self.pair.closed(CLIENT), None);
        assert_eq!(self.pair.closed(SERVER), None);
    }
}
