//! Several paths through one relay: each shaped apart, changed underway, told apart by address.

use corelane_relay::{Change, Config, Direction, Event, Fate, Knob, LinkConfig, PathConfig, Relay};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const LOST: LinkConfig = LinkConfig {
    delay: Duration::ZERO,
    rate: None,
    queue: 1000,
    queue_bytes: None,
    queue_time: None,
    mtu: 65_527,
    loss: 1.0,
    corrupt: 0.0,
    burst: 0,
    bursts: None,
    duplicate: 0.0,
    reorder: 0.0,
    reorder_by: Duration::ZERO,
};

fn socket(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn get(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2000];
    let (n, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..n].to_vec(), from)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn path(to: &UdpSocket) -> PathConfig {
    PathConfig::new(
        SocketAddr::new(ip("127.0.0.1"), 0),
        to.local_addr().unwrap(),
    )
}

/// One client socket, two paths to one server: two peers to the server, and each path leads back
/// by itself.
#[test]
fn one_client_on_two_paths_is_two_peers() {
    let (server, client) = (socket("127.0.0.1"), socket("127.0.0.1"));
    let mut second = path(&server);
    second.from = Some(ip("127.0.0.9"));
    let relay = Relay::start(Config::of_paths(vec![path(&server), second])).unwrap();
    let [first, second] = *relay.addrs() else {
        panic!("two paths");
    };
    client.send_to(b"a", first).unwrap();
    let (data, peer) = get(&server);
    assert_eq!((&data[..], peer.ip()), (&b"a"[..], ip("127.0.0.1")));
    client.send_to(b"b", second).unwrap();
    let (data, other) = get(&server);
    assert_eq!((&data[..], other.ip()), (&b"b"[..], ip("127.0.0.9")));
    server.send_to(b"to b", other).unwrap();
    assert_eq!(get(&client), (b"to b".to_vec(), second));
    server.send_to(b"to a", peer).unwrap();
    assert_eq!(get(&client), (b"to a".to_vec(), first));
    let log = relay.stop();
    let counts = log.fronts.iter().map(|(u, d)| (u.delivered, d.delivered));
    assert_eq!(counts.collect::<Vec<_>>(), [(1, 1), (1, 1)]);
}

#[test]
fn each_path_and_each_direction_has_its_own_link() {
    let (server, client) = (socket("127.0.0.1"), socket("127.0.0.1"));
    let mut down = path(&server);
    down.down = LOST;
    let paths = vec![path(&server).with_link(LOST), down];
    let relay = Relay::start(Config::of_paths(paths)).unwrap();
    client.send_to(b"a", relay.addrs()[0]).unwrap();
    client.send_to(b"b", relay.addrs()[1]).unwrap();
    let (data, peer) = get(&server);
    assert_eq!(data, b"b");
    assert!(relay.change(1, Change::Set(Some(Direction::Down), Knob::Loss(0.0))));
    server.send_to(b"c", peer).unwrap();
    assert_eq!(get(&client).0, b"c");
    assert!(!relay.change(2, Change::Restore), "there are two");
    let (up, _) = relay.stop().fronts[0];
    assert_eq!((up.datagrams, up.delivered), (up.dropped, 0));
}

#[test]
fn a_path_goes_dark_and_comes_back_while_the_other_carries_on() {
    let (server, client) = (socket("127.0.0.1"), socket("127.0.0.1"));
    let mut config = Config::of_paths(vec![path(&server), path(&server)]);
    config.capture = true;
    let relay = Relay::start(config).unwrap();
    let [first, second] = *relay.addrs() else {
        panic!("two paths");
    };
    let pass = |data: &[u8], to| {
        client.send_to(data, to).unwrap();
        assert_eq!(get(&server).0, data);
    };
    pass(b"1", second);
    assert!(relay.change(1, Change::Blackhole(None)));
    client.send_to(b"lost", second).unwrap();
    pass(b"2", first);
    while relay.counts()[1].0.dropped == 0 {
        std::thread::yield_now();
    }
    assert!(relay.change(1, Change::Restore));
    pass(b"3", second);
    let log = relay.stop();
    let fates = |front| {
        let of = log.entries.iter().filter(move |e| e.front == front);
        of.map(|e| (e.data.clone(), e.fate)).collect::<Vec<_>>()
    };
    use Fate::{Blackholed, Delivered};
    assert_eq!(fates(0), [(b"2".to_vec(), Delivered)]);
    let expected = [
        (b"1".to_vec(), Delivered),
        (b"lost".to_vec(), Blackholed),
        (b"3".to_vec(), Delivered),
    ];
    assert_eq!(fates(1), expected);
}

#[test]
fn clients_at_one_address_take_the_path_of_theirs() {
    let server = socket("127.0.0.1");
    let (a, b, stranger) = (
        socket("127.0.0.2"),
        socket("127.0.0.3"),
        socket("127.0.0.4"),
    );
    let of = |client: &str| PathConfig {
        client: Some(ip(client)),
        ..path(&server)
    };
    let paths = vec![of("127.0.0.2"), of("127.0.0.3").with_link(LOST)];
    let relay = Relay::start(Config::of_paths(paths)).unwrap();
    let [to, same] = *relay.addrs() else {
        panic!("two paths");
    };
    assert_eq!(to, same);
    b.send_to(b"lost", to).unwrap();
    stranger.send_to(b"whose", to).unwrap();
    // One socket of the relay: what was sent earlier was met earlier.
    a.send_to(b"a", to).unwrap();
    assert_eq!(get(&server).0, b"a");
    let log = relay.stop();
    assert_eq!((log.strangers, log.fronts[1].0.dropped), (1, 1));
}

#[test]
fn a_path_is_rebound_alone() {
    let (server, client) = (socket("127.0.0.1"), socket("127.0.0.1"));
    let paths = vec![path(&server), path(&server)];
    let relay = Relay::start(Config::of_paths(paths)).unwrap();
    let peers = || {
        let each = relay.addrs().iter().map(|to| {
            client.send_to(b"x", to).unwrap();
            get(&server).1
        });
        each.collect::<Vec<_>>()
    };
    let before = peers();
    assert!(relay.change(1, Change::Rebind));
    let after = peers();
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    server.send_to(b"back", after[1]).unwrap();
    assert_eq!(get(&client), (b"back".to_vec(), relay.addrs()[1]));
}

#[test]
fn a_schedule_is_kept_in_order() {
    let (server, client) = (socket("127.0.0.1"), socket("127.0.0.1"));
    let mut config = Config::of_paths(vec![path(&server), path(&server)]);
    for text in [
        "3600s path1 blackhole",
        "0s path0 blackhole",
        "0s path1 blackhole",
        "0s path1 restore",
    ] {
        config.schedule.extend(Event::parse(text).unwrap());
    }
    let relay = Relay::start(config.clone()).unwrap();
    client.send_to(b"lost", relay.addrs()[0]).unwrap();
    client.send_to(b"b", relay.addrs()[1]).unwrap();
    assert_eq!(get(&server).0, b"b");
    let (up, _) = relay.stop().fronts[0];
    assert_eq!(up.delivered, 0);
    config
        .schedule
        .extend(Event::parse("1s path2 restore").unwrap());
    assert!(Relay::start(config).is_err(), "there is no path 2");
}

#[test]
fn the_program_says_in_words_what_is_wrong() {
    let program = env!("CARGO_BIN_EXE_corelane-relay");
    let one = "listen=127.0.0.1:0,to=127.0.0.1:9";
    for (at, code, why) in [
        ("1s path7 blackhole", 1, "error: there is no path 7\n"),
        ("1s path0 explode", 2, "`explode` is not KEY=VALUE"),
    ] {
        let mut command = std::process::Command::new(program);
        let out = command.args(["--path", one, "--at", at]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{said}");
        assert!(said.contains(why), "{said}");
    }
}
