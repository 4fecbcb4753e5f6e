//! The parties of the interoperation tests against each other: an independent client, a lossy
//! relay and an independent server. What fails here is the test equipment.

mod common;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use common::certs::{Identity, SERVER_NAME};
use common::files::{File, REQUEST_MAX, Request};
use common::quinn_peer::{self, Server};
use common::relay::{CLIENTS_MAX, Counts, Faults, Lane, Relay, Shared};
use corelane::base::Rng;

fn files() -> Vec<File> {
    let sizes = [0, 1, 1199, 65_536, 300_000, 1_000_000];
    let numbered = sizes.into_iter().enumerate();
    numbered
        .map(|(n, size)| File::new(format!("file-{n}"), size))
        .collect()
}

/// Fetches and puts every file by way of `via`.
fn round_trip(via: SocketAddr, identity: &Identity) {
    let files = files();
    let hashes: Vec<_> = files.iter().map(File::hash).collect();
    let names: Vec<_> = files.iter().map(|f| f.name.as_str()).collect();
    let fetched = quinn_peer::fetch_all(via, SERVER_NAME, &identity.ca, &names).unwrap();
    assert_eq!(fetched, hashes);
    let put = quinn_peer::put_all(via, SERVER_NAME, &identity.ca, &files).unwrap();
    assert_eq!(put, hashes);
}

#[test]
fn files_arrive_through_a_relay_that_loses_two_percent() {
    let identity = Identity::generate();
    let server = Server::start(&identity, &files()).unwrap();
    let faults = Faults::loss(0.02);
    let relay = Relay::start(server.addr(), 1, faults, faults).unwrap();
    round_trip(relay.addr(), &identity);
    for counts in [relay.up(), relay.down()] {
        assert!(counts.forwarded > 500 && counts.lost > 0, "{counts:?}");
    }
}

#[test]
fn files_arrive_through_a_relay_with_every_fault() {
    let identity = Identity::generate();
    let server = Server::start(&identity, &files()).unwrap();
    let faults = Faults {
        loss: 0.01,
        burst: 0.002,
        burst_len: 5,
        duplicate: 0.02,
        reorder: 0.05,
    };
    let relay = Relay::start(server.addr(), 2, faults, faults).unwrap();
    round_trip(relay.addr(), &identity);
    let (up, down) = (relay.up(), relay.down());
    assert!(up.duplicated + down.duplicated > 0, "{up:?} {down:?}");
    assert!(up.reordered + down.reordered > 0, "{up:?} {down:?}");
}

#[test]
fn what_does_not_exist_and_who_is_not_trusted_is_an_error() {
    let identity = Identity::generate();
    let server = Server::start(&identity, &files()).unwrap();
    let fetch = |ca, name| quinn_peer::fetch_all(server.addr(), SERVER_NAME, ca, &[name]);
    assert!(fetch(&identity.ca, "file-2").is_ok());
    assert!(fetch(&identity.ca, "nothing").is_err());
    let stranger = Identity::generate();
    assert!(fetch(&stranger.ca, "file-2").is_err());
}

#[test]
fn requests_read_back_and_others_are_refused() {
    for request in [Request::Get("a b"), Request::Put("c", b"line\nline")] {
        assert_eq!(Request::parse(&request.to_bytes()), Some(request.clone()));
    }
    let endless = [b'x'; REQUEST_MAX + 1];
    for bad in [&b""[..], b"GET", b"GET a", b"GET a\nb", b"LIST\n", &endless] {
        assert_eq!(Request::parse(bad), None);
    }
}

#[test]
fn name_and_size_determine_a_file() {
    let file = File::new("a", 1000);
    assert_eq!(file.contents(), File::new("a", 1000).contents());
    assert_ne!(file.contents(), File::new("b", 1000).contents());
    assert_ne!(
        file.contents()[..999],
        File::new("a", 999).contents()[..],
        "not a prefix either"
    );
}

/// Sends `count` numbers down a lane. Returns what came out, in order.
fn numbers(seed: u64, faults: Faults, count: u8) -> (Vec<u8>, Counts) {
    let counts = Arc::new(Shared::default());
    let mut lane = Lane::new(faults, Rng::from_u64(seed), counts.clone());
    let mut out = Vec::new();
    let mut send = |datagram: &[u8]| {
        out.push(datagram[0]);
        Ok(datagram.len())
    };
    for n in 0..count {
        lane.pass(&[n], &mut send);
    }
    lane.flush(&mut send);
    (out, counts.snapshot())
}

#[test]
fn a_lane_without_faults_changes_nothing() {
    let (out, counts) = numbers(1, Faults::default(), 100);
    assert_eq!(out, (0..100).collect::<Vec<_>>());
    let expected = Counts {
        received: 100,
        forwarded: 100,
        ..Counts::default()
    };
    assert_eq!(counts, expected);
}

#[test]
fn the_seed_decides_what_is_lost() {
    let faults = Faults {
        burst: 0.03,
        burst_len: 4,
        ..Faults::loss(0.1)
    };
    let (first, counts) = numbers(7, faults, 250);
    assert_eq!(numbers(7, faults, 250), (first.clone(), counts));
    assert_ne!(numbers(8, faults, 250).0, first);
    assert_eq!(first.len() as u64, counts.received - counts.lost);
    assert!(counts.lost_in_bursts >= 4 && counts.lost > counts.lost_in_bursts);
}

#[test]
fn reordering_swaps_neighbours_and_copies_follow_at_once() {
    let reorder = Faults {
        reorder: 1.0,
        ..Faults::default()
    };
    // The last one has no successor and is not held for ever.
    let (out, counts) = numbers(1, reorder, 5);
    assert_eq!((out, counts.reordered), (vec![1, 0, 3, 2, 4], 2));

    let duplicate = Faults {
        duplicate: 1.0,
        ..Faults::default()
    };
    let (out, counts) = numbers(1, duplicate, 3);
    assert_eq!((out, counts.duplicated), (vec![0, 0, 1, 1, 2, 2], 3));
}

#[test]
fn what_a_socket_refuses_is_counted() {
    let counts = Arc::new(Shared::default());
    let mut lane = Lane::new(Faults::default(), Rng::from_u64(1), counts.clone());
    lane.pass(b"1", &mut |_| Err(ErrorKind::ConnectionRefused.into()));
    let counts = counts.snapshot();
    assert_eq!((counts.forwarded, counts.errors), (0, 1));
}

#[test]
fn clients_beyond_the_cap_are_refused_and_the_others_keep_their_way() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let none = Faults::default();
    let relay = Relay::start(server.local_addr().unwrap(), 1, none, none).unwrap();
    let mut clients = Vec::new();
    for n in 0..=CLIENTS_MAX as u64 {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.send_to(b"hello", relay.addr()).unwrap();
        while relay.up().received + relay.up().refused <= n {
            std::thread::yield_now();
        }
        clients.push(client);
    }
    assert_eq!(
        (relay.up().received, relay.up().refused),
        (CLIENTS_MAX as u64, 1)
    );

    // An answer finds its client.
    let mut buffer = [0; 8];
    let (_, first) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"answer", first).unwrap();
    clients[0]
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(clients[0].recv(&mut buffer).unwrap(), 6);
}
