//! The relay on real sockets: what goes through comes out, and what is told happens.

use corelane_relay::{Config, Direction, Fate, Rebind, RebindKind, Relay};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

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

#[test]
fn datagrams_go_both_ways_on_both_families() {
    for ip in ["127.0.0.1", "::1"] {
        let (server, client) = (socket(ip), socket(ip));
        let mut config = Config::new(server.local_addr().unwrap());
        config.capture = true;
        let relay = Relay::start(config).unwrap();
        client.send_to(b"ping", relay.addr()).unwrap();
        let (data, from) = get(&server);
        assert_eq!(data, b"ping");
        assert_ne!(from, client.local_addr().unwrap());
        server.send_to(b"pong", from).unwrap();
        assert_eq!(get(&client), (b"pong".to_vec(), relay.addr()));
        let log = relay.stop();
        assert_eq!((log.up.delivered, log.down.delivered), (1, 1));
        let seen: Vec<_> = log
            .entries
            .iter()
            .map(|e| (e.direction, &e.data[..]))
            .collect();
        assert_eq!(
            seen,
            [(Direction::Up, &b"ping"[..]), (Direction::Down, b"pong")]
        );
    }
}

#[test]
fn selected_datagrams_are_dropped() {
    let (server, client) = (socket("127.0.0.1"), socket("127.0.0.1"));
    let mut config = Config::new(server.local_addr().unwrap());
    config.drop_client = Some(2..=4);
    config.capture = true;
    let relay = Relay::start(config).unwrap();
    for n in 1..=5u8 {
        client.send_to(&[n], relay.addr()).unwrap();
    }
    assert_eq!(get(&server).0, [1]);
    assert_eq!(get(&server).0, [5]);
    let log = relay.stop();
    let fates: Vec<_> = log.entries.iter().map(|e| e.fate).collect();
    use Fate::{Delivered, Selected};
    assert_eq!(fates, [Delivered, Selected, Selected, Selected, Delivered]);
}

#[test]
fn a_rebound_client_comes_from_elsewhere_and_is_reached_there_only() {
    let (server, client) = (socket("127.0.0.1"), socket("127.0.0.1"));
    let mut config = Config::new(server.local_addr().unwrap());
    config.rebind = Some(Rebind {
        every: Duration::from_millis(50),
        kind: RebindKind::Addr,
    });
    let relay = Relay::start(config).unwrap();
    client.send_to(b"1", relay.addr()).unwrap();
    let (_, first) = get(&server);
    let second = loop {
        client.send_to(b"2", relay.addr()).unwrap();
        let (_, from) = get(&server);
        if from != first {
            break from;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_ne!(first.ip(), second.ip());
    server.send_to(b"old", first).unwrap();
    let log = loop {
        // The old address leads nowhere; the present one, whichever it is by now, leads back.
        client.send_to(b"3", relay.addr()).unwrap();
        let (_, from) = get(&server);
        server.send_to(b"new", from).unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut buffer = [0; 10];
        if client.recv(&mut buffer).is_ok() {
            assert_eq!(&buffer[..3], b"new");
            break relay.stop();
        }
    };
    assert!(log.rebindings >= 1);
    assert!(log.stale >= 1);
}

#[test]
fn an_outage_lasts_as_long_as_told() {
    let (server, client) = (socket("127.0.0.1"), socket("127.0.0.1"));
    let mut config = Config::new(server.local_addr().unwrap());
    config.blackhole = Some((Duration::ZERO, Duration::from_secs(3600)));
    let relay = Relay::start(config).unwrap();
    client.send_to(b"1", relay.addr()).unwrap();
    client.send_to(b"2", relay.addr()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let log = relay.stop();
    assert_eq!(log.up.delivered, 0);
    assert_eq!(log.up.dropped, log.up.datagrams);
}
