//! Addresses that sides tell each other, what a liar gets from them, and paths that open by
//! themselves.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, SERVER, Setup};
use crate::common::raw_peer::payload;
use crate::rig::*;
use corelane::base::{FourTuple, LocalAddress, SocketId, limits};
use corelane::conn::{AddressConfig, AdvertiseError, LocalSocket, OpenPathError, PathEvent};
use corelane::conn::{Event, TransportConfig};
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::frame::{AddAddress, AddressFrame, NewConnectionId, PathFrame};
use corelane::wire::{Code, ConnectionId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

fn loopback() -> AddressConfig {
    AddressConfig {
        allow: vec![("127.0.0.0".parse().unwrap(), 8)],
    }
}

fn telling() -> Setup {
    let mut s = setup(4);
    for config in [&mut s.client, &mut s.server] {
        config.multipath.addresses = Some(loopback());
    }
    s
}

fn local(socket: u32, of: ([u8; 4], u16)) -> LocalSocket {
    LocalSocket {
        socket: SocketId(socket),
        port: of.1,
        address: LocalAddress {
            ip: at(of).ip(),
            interface: socket + 1,
            state: Default::default(),
        },
    }
}

#[test]
fn a_side_is_told_where_the_other_is_too() {
    let mut rig = Rig::with(telling());
    let ids = rig.ids();
    for (side, addr) in [(SERVER, at(SERVER_1)), (CLIENT, at(CLIENT_1))] {
        let conn = rig.pair.conn(side, ids[side]);
        assert!(conn.advertises_addresses());
        assert_eq!(conn.advertise_address(addr), Ok(()));
        assert_eq!(conn.advertise_address(addr), Ok(()), "once is enough");
    }
    rig.run_ms(100);
    for (side, addr) in [(CLIENT, at(SERVER_1)), (SERVER, at(CLIENT_1))] {
        assert!(rig.saw(side, PathEvent::PeerAddress { id: 0, addr }));
        let conn = rig.pair.conn(side, ids[side]);
        assert_eq!(conn.peer_addresses().collect::<Vec<_>>(), [addr]);
        assert_eq!(conn.paths().count(), 1, "a hint opens nothing");
    }
    let tuple = FourTuple::new(at(CLIENT_1), at(SERVER_1));
    let id = rig.open_over(1, tuple, PathStatus::Available).unwrap();
    rig.run_ms(300);
    rig.expect_open(id);
    let (available, active) = (4, 2);
    assert!(rig.saw(CLIENT, PathEvent::PeerPaths { available, active }));
    rig.expect_alive();
}

#[test]
fn what_is_lost_is_told_again() {
    let mut rig = Rig::with(telling());
    rig.darken(at(SERVER_0));
    let server = rig.server;
    let conn = rig.pair.conn(SERVER, server);
    conn.advertise_address(at(SERVER_1)).unwrap();
    rig.run_ms(60);
    rig.lighten();
    rig.run_ms(2000);
    let addr = at(SERVER_1);
    assert!(rig.saw(CLIENT, PathEvent::PeerAddress { id: 0, addr }));
}

#[test]
fn only_what_is_allowed_is_told() {
    let mut rig = Rig::with(telling());
    let server = rig.server;
    let conn = rig.pair.conn(SERVER, server);
    let outside: SocketAddr = "192.0.2.1:443".parse().unwrap();
    let refused = conn.advertise_address(outside);
    assert_eq!(refused, Err(AdvertiseError::NotAllowed(outside)));
    for nowhere in ["127.0.0.1:0", "0.0.0.0:443", "224.0.0.1:443"] {
        let nowhere = nowhere.parse().unwrap();
        let refused = conn.advertise_address(nowhere);
        assert_eq!(refused, Err(AdvertiseError::NoHost(nowhere)));
    }
    for n in 0..limits::PEER_ADDRESSES {
        let addr = SocketAddr::from(([127, 0, 1, n as u8], 443));
        assert_eq!(conn.advertise_address(addr), Ok(()));
    }
    let refused = conn.advertise_address("127.0.2.1:443".parse().unwrap());
    assert_eq!(refused, Err(AdvertiseError::TooMany));
    rig.run_ms(200);
    let client = rig.client;
    let named = rig.pair.conn(CLIENT, client).peer_addresses().count();
    assert_eq!(named, limits::PEER_ADDRESSES);
    // One side alone, or none: nothing is told.
    let mut s = telling();
    s.client.multipath.addresses = None;
    for s in [s, setup(4)] {
        let mut rig = Rig::with(s);
        let server = rig.server;
        let conn = rig.pair.conn(SERVER, server);
        assert!(!conn.advertises_addresses());
        let refused = conn.advertise_address(at(SERVER_1));
        assert_eq!(refused, Err(AdvertiseError::NotNegotiated));
        assert!(!conn.ask_to_close(PathId(0), Code::NO_ERROR));
    }
}

#[test]
fn the_peer_closes_a_path_when_asked_but_not_the_last() {
    let mut rig = Rig::with(telling()).and_second();
    let server = rig.server;
    let error = Code::APPLICATION_ABANDON_PATH;
    assert!(rig.pair.conn(SERVER, server).ask_to_close(PathId(1), error));
    rig.run_ms(200);
    let id = PathId(1);
    assert!(rig.saw(CLIENT, PathEvent::CloseAsked { id, error }));
    let by_peer = true;
    assert!(rig.saw(SERVER, PathEvent::Abandoned { id, error, by_peer }));
    assert!(rig.pair.conn(SERVER, server).ask_to_close(PathId(0), error));
    rig.run_ms(200);
    rig.deliver(CLIENT, 10_000, 500);
    rig.expect_alive();
}

pub fn add(id: u64, seq: u64, addr: SocketAddr) -> Vec<u8> {
    payload(|w| AddressFrame::AddAddress(AddAddress { id, seq, addr }).write(w))
}

pub fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.transport.max_paths = 4;
    plan.transport.multipath.addresses = Some(AddressConfig::default());
    plan.params.initial_max_path_id = Some(PathId(3));
    plan.params.advertise_addresses = true;
    plan
}

/// A client far from its host, whose server is the scripted peer and admits paths.
pub fn client(plan: Plan) -> Attack {
    let mut a = Attack::on_client(plan);
    a.peer_addr = "203.0.113.5:443".parse().unwrap();
    a.addr = "198.51.100.7:1000".parse().unwrap();
    a.begin_client();
    a.collect();
    a.start_server(|_| {});
    a.handshake();
    a.one_rtt(&[0x1e]);
    for path in 1..4 {
        issue(&mut a, path);
    }
    a.run(Duration::from_millis(100));
    a.ack_all();
    a.datagrams.clear();
    a.events.clear();
    a
}

/// Datagrams that went to others than the server; where the first attempt to connect went, which
/// [`client`] left behind, does not count.
pub fn elsewhere(a: &Attack) -> impl Iterator<Item = &(SocketAddr, Vec<u8>)> {
    let first = SocketAddr::from(([127, 0, 0, 1], 1000));
    let others = a.datagrams.iter();
    others.filter(move |(to, _)| *to != a.peer_addr && *to != first)
}

/// Issues a connection ID for a path.
fn issue(a: &mut Attack, path: u32) {
    let new = NewConnectionId {
        seq: 0,
        retire_prior_to: 0,
        cid: ConnectionId::new(&u64::from(path + 1).to_be_bytes()).unwrap(),
        reset_token: [path as u8; 16],
    };
    let path = PathId(path);
    let frame = PathFrame::NewConnectionId { path, new };
    a.one_rtt(&payload(|w| frame.write(w)));
}

/// RFC 9000 §12.4: what was not negotiated by both is unknown.
#[test]
fn frames_that_were_not_negotiated_are_unknown() {
    let addr = "198.51.100.9:443".parse().unwrap();
    let close = AddressFrame::ClosePath {
        path: PathId(0),
        error: Code::NO_ERROR,
        reason: b"",
    };
    let paths = AddressFrame::Paths {
        available: 1,
        active: 1,
    };
    let frames = [
        add(0, 0, addr),
        payload(|w| close.write(w)),
        payload(|w| paths.write(w)),
    ];
    for (ours, theirs, several) in [(false, true, 4), (true, false, 4), (true, true, 0)] {
        for frame in &frames {
            let mut plan = plan();
            plan.transport.max_paths = several;
            plan.transport.multipath.addresses = ours.then(AddressConfig::default);
            plan.params.advertise_addresses = theirs;
            let mut a = Attack::server_with(plan);
            a.one_rtt(frame);
            a.expect_error(Code::FRAME_ENCODING_ERROR, "not negotiated");
        }
    }
    let mut a = Attack::server_with(plan());
    let beyond = AddressFrame::ClosePath {
        path: PathId(77),
        error: Code::NO_ERROR,
        reason: b"",
    };
    a.one_rtt(&payload(|w| beyond.write(w)));
    a.expect_error(Code::PROTOCOL_VIOLATION, "a path above the limit");
}

/// RFC 9000 §21.5: nobody is led inside, to services, or to no host.
#[test]
fn addresses_that_are_nobodys_business_are_passed_over() {
    let mut plan = plan();
    plan.transport.multipath.auto_paths = Some(4);
    let mut a = client(plan);
    let (now, addr) = (a.now, a.addr);
    let socket = LocalSocket {
        socket: SocketId(0),
        port: addr.port(),
        address: LocalAddress {
            ip: addr.ip(),
            interface: 1,
            state: Default::default(),
        },
    };
    assert!(a.connection().set_local_addresses(now, &[socket]));
    for (n, to) in [
        "127.0.0.1:443",
        "10.0.0.1:443",
        "192.168.7.7:443",
        "100.64.0.1:443",
        "169.254.169.254:8000",
        "224.0.0.251:4433",
        "255.255.255.255:4433",
        "0.0.0.0:443",
        "198.51.100.1:53",
        "198.51.100.1:123",
        "[::1]:443",
        "[::ffff:127.0.0.1]:443",
        "[fe80::1]:443",
        "[fd00::1]:443",
        "[ff02::1]:443",
    ]
    .iter()
    .enumerate()
    {
        a.one_rtt(&add(n as u64, n as u64, to.parse().unwrap()));
        a.run_acking(Duration::from_secs(3), Duration::from_millis(20));
    }
    assert_eq!(a.connection().peer_addresses().count(), 0);
    let told = |e: &Event| matches!(e, Event::Path(PathEvent::PeerAddress { .. }));
    assert!(!a.events.iter().any(told));
    assert_eq!(elsewhere(&a).count(), 0);
}

/// A server that names a thousand victims has its client send each a few challenges at most, and
/// few of them anything at all.
#[test]
fn a_liar_reflects_next_to_nothing() {
    let mut plan = plan();
    plan.transport.multipath.auto_paths = Some(4);
    let mut a = client(plan);
    let (now, addr) = (a.now, a.addr);
    let socket = LocalSocket {
        socket: SocketId(0),
        port: addr.port(),
        address: LocalAddress {
            ip: addr.ip(),
            interface: 1,
            state: Default::default(),
        },
    };
    assert!(a.connection().set_local_addresses(now, &[socket]));
    let victim = |n: u32| SocketAddr::from(([198, 18, (n >> 8) as u8, n as u8], 4433));
    let mut next_path = 4;
    for n in 0..1000u32 {
        a.one_rtt(&add(u64::from(n % 40), u64::from(n), victim(n)));
        if n % 50 == 0 {
            issue(&mut a, next_path.min(3));
            next_path += 1;
        }
        a.run_acking(Duration::from_millis(60), Duration::from_millis(20));
        assert!(a.closed().is_none(), "{:?}", a.closed());
    }
    assert!(a.connection().peer_addresses().count() <= limits::PEER_ADDRESSES);
    let mut hit: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
    for (to, bytes) in elsewhere(&a) {
        hit.entry(*to).or_default().push(bytes.len());
    }
    // A minute: so many at once, and one every two seconds, for which there are three paths.
    assert!(!hit.is_empty(), "nothing was tried");
    let tries = limits::ADDRESS_TRIES as usize + 30;
    assert!(hit.len() <= tries, "{} victims", hit.len());
    for (victim, sizes) in &hit {
        assert!(sizes.len() <= 5, "{victim}: {sizes:?}");
        assert!(sizes.iter().all(|n| *n <= 1200), "{victim}: {sizes:?}");
    }
}

/// What an application opens itself is limited as well.
#[test]
fn tries_of_an_application_are_limited() {
    let mut rig = Rig::with(telling());
    let (client, server) = (rig.client, rig.server);
    let conn = rig.pair.conn(SERVER, server);
    conn.advertise_address("127.0.0.200:9000".parse().unwrap())
        .unwrap();
    rig.run_ms(100);
    let tuple = FourTuple::new(at(CLIENT_1), "127.0.0.200:9000".parse().unwrap());
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..200 {
        match rig.open_over(1, tuple, PathStatus::Available) {
            Ok(id) => {
                opened += 1;
                let (now, code) = (rig.pair.now, Code::NO_ERROR);
                rig.run_ms(20);
                rig.pair
                    .conn(CLIENT, client)
                    .close_path(now, id, code)
                    .unwrap();
            }
            Err(OpenPathError::TooSoon(to)) => {
                assert_eq!(to, tuple.remote);
                refused += 1;
            }
            Err(OpenPathError::NoPathId | OpenPathError::NoConnectionId) => {}
            Err(e) => panic!("{e}"),
        }
        rig.run_ms(50);
    }
    // More than ten seconds of trying.
    assert!(
        (5..=12).contains(&opened) && refused > 50,
        "{opened} {refused}"
    );
    rig.expect_alive();
}

fn auto(max: u32) -> Setup {
    let mut s = telling();
    s.client.multipath.auto_paths = Some(max);
    s
}

fn open_tuples(rig: &mut Rig) -> BTreeSet<(SocketAddr, SocketAddr)> {
    let client = rig.client;
    let paths = rig.pair.conn(CLIENT, client).paths();
    let open = paths.filter(|p| p.state == PathState::Open);
    open.map(|p| (p.tuple.local, p.tuple.remote)).collect()
}

fn set_locals(rig: &mut Rig, locals: &[LocalSocket]) {
    let (now, client) = (rig.pair.now, rig.client);
    assert!(
        rig.pair
            .conn(CLIENT, client)
            .set_local_addresses(now, locals)
    );
}

#[test]
fn paths_open_by_themselves_and_go_with_their_address() {
    let mut rig = Rig::with(auto(4));
    let (first, second) = (local(0, CLIENT_0), local(1, CLIENT_1));
    rig.run_ms(100);
    assert_eq!(open_tuples(&mut rig).len(), 1, "no addresses, no paths");
    set_locals(&mut rig, &[first, second]);
    rig.run_ms(500);
    let two = BTreeSet::from([CLIENT_0, CLIENT_1].map(|c| (at(c), at(SERVER_0))));
    assert_eq!(open_tuples(&mut rig), two);
    // The server's second address brings two more.
    let server = rig.server;
    let conn = rig.pair.conn(SERVER, server);
    conn.advertise_address(at(SERVER_1)).unwrap();
    rig.run_ms(1000);
    assert_eq!(open_tuples(&mut rig).len(), 4);
    rig.deliver(CLIENT, 500_000, 3000);
    // The first address goes, in the middle of a transfer, and comes back.
    let stream = rig.send(SERVER, 1_000_000);
    rig.run_ms(20);
    set_locals(&mut rig, &[second]);
    rig.run_ms(5000);
    assert!(rig.has(SERVER, stream, 1_000_000));
    let left = open_tuples(&mut rig);
    assert!(
        left.iter().all(|t| t.0 == at(CLIENT_1)) && left.len() == 2,
        "{left:?}"
    );
    set_locals(&mut rig, &[first, second]);
    rig.run_ms(5000);
    assert_eq!(open_tuples(&mut rig).len(), 4);
    rig.deliver(CLIENT, 100_000, 1000);
    rig.expect_alive();
}

#[test]
fn no_more_paths_than_wanted() {
    let mut rig = Rig::with(auto(2));
    set_locals(&mut rig, &[local(0, CLIENT_0), local(1, CLIENT_1)]);
    let server = rig.server;
    let conn = rig.pair.conn(SERVER, server);
    conn.advertise_address(at(SERVER_1)).unwrap();
    rig.run_ms(3000);
    assert_eq!(open_tuples(&mut rig).len(), 2);
    assert!(rig.saw(CLIENT, PathEvent::Opened(PathId(1))));
    assert!(!rig.saw(CLIENT, PathEvent::Opened(PathId(2))));
    rig.expect_alive();
}

/// What does not answer is tried again, less and less often.
#[test]
fn silent_pairs_wait_longer_and_longer() {
    let mut s = auto(3);
    s.client.keep_alive_interval = Some(Duration::from_secs(5));
    let mut rig = Rig::with(s);
    rig.darken(at(CLIENT_1));
    set_locals(&mut rig, &[local(0, CLIENT_0), local(1, CLIENT_1)]);
    let tries = |rig: &Rig| {
        let events = rig.pair.sides[CLIENT].events.iter();
        let opened = |e: &&(_, Event)| matches!(e.1, Event::Path(PathEvent::Opened(_)));
        events.filter(opened).count()
    };
    let mut counts = Vec::new();
    for _ in 0..4 {
        rig.run_ms(25_000);
        counts.push(tries(&rig));
    }
    assert!(counts[0] >= 2 && counts[3] <= 8, "{counts:?}");
    rig.lighten();
    rig.run_ms(200_000);
    assert_eq!(open_tuples(&mut rig).len(), 2);
    rig.expect_alive();
}

#[test]
fn nothing_is_automatic_unless_it_is_asked_for() {
    let mut rig = Rig::with(telling());
    let (now, client) = (rig.pair.now, rig.client);
    let locals = [local(0, CLIENT_0), local(1, CLIENT_1)];
    let conn = rig.pair.conn(CLIENT, client);
    assert!(!conn.set_local_addresses(now, &locals));
    rig.run_ms(1000);
    assert_eq!(open_tuples(&mut rig).len(), 1);
    let default = TransportConfig::default().multipath;
    assert!(default.addresses.is_none() && default.auto_paths.is_none());
    assert!(default.duplication.is_none() && default.reinjection.is_none());
}
