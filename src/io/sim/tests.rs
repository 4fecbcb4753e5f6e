//! The simulated network: every effect of a link, and that a seed repeats it.

use super::*;
use crate::io::{Errno, IoConfig, RecvMeta, SocketId, Transmit};
use proptest::prelude::*;
use std::time::Duration;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn ms(n: u64) -> Timestamp {
    Timestamp::from_nanos(n * 1_000_000)
}

fn backend(network: &Network, hosts: &[IpAddr]) -> SimBackend {
    SimBackend::new(network, hosts, &IoConfig::default()).unwrap()
}

struct Pair {
    network: Network,
    a: SimBackend,
    b: SimBackend,
    at: SocketId,
    bt: SocketId,
}

impl Pair {
    fn new(seed: u64, config: LinkConfig) -> Self {
        let network = Network::new(seed);
        network.default_link(config);
        let (mut a, mut b) = (backend(&network, &[A]), backend(&network, &[B]));
        let at = a.bind(SocketAddr::new(A, 1000)).unwrap();
        let bt = b.bind(SocketAddr::new(B, 2000)).unwrap();
        Self {
            network,
            a,
            b,
            at,
            bt,
        }
    }

    fn send(&mut self, bytes: &[u8], segment_size: usize, ecn: Ecn) {
        let to = self.b.local_addr(self.bt).unwrap();
        let from = self.a.local_addr(self.at).unwrap();
        let path = FourTuple::new(from, to);
        send(&mut self.a, self.at, path, bytes, segment_size, ecn);
    }

    /// Sends numbered datagrams of `len` bytes, one a millisecond.
    fn send_numbered(&mut self, count: u32, len: usize) {
        for n in 0..count {
            let mut bytes = vec![0; len];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            self.send(&bytes, len, Ecn::NotEct);
            self.network
                .advance_to(self.network.now() + Duration::from_millis(1));
        }
    }

    fn received(&mut self) -> Vec<(RecvMeta, Vec<u8>)> {
        receive(&mut self.b)
    }

    /// The numbers that arrive within an hour.
    fn numbers(&mut self) -> Vec<u32> {
        self.network
            .advance_to(self.network.now() + Duration::from_secs(3600));
        let number = |(_, b): (RecvMeta, Vec<u8>)| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        self.received().into_iter().map(number).collect()
    }
}

fn send(
    backend: &mut SimBackend,
    socket: SocketId,
    path: FourTuple,
    bytes: &[u8],
    segment_size: usize,
    ecn: Ecn,
) {
    let mut buffer = backend.tx_buffer().unwrap();
    buffer[..bytes.len()].copy_from_slice(bytes);
    let transmit = Transmit {
        socket,
        path,
        ecn,
        segment_size,
        len: bytes.len(),
    };
    backend.send(buffer, transmit);
    backend.flush().unwrap();
}

fn receive(backend: &mut SimBackend) -> Vec<(RecvMeta, Vec<u8>)> {
    let mut got = Vec::new();
    while backend
        .recv(&mut |meta, bytes| got.push((*meta, bytes.to_vec())))
        .unwrap()
        > 0
    {}
    got
}

#[test]
fn segments_arrive_one_by_one_or_as_a_train() {
    for (gro, expected) in [(0.0, vec![100, 100, 50]), (1.0, vec![250])] {
        let config = LinkConfig {
            gro,
            ..LinkConfig::default()
        };
        let mut pair = Pair::new(1, config);
        let bytes: Vec<u8> = (0..250).map(|i| i as u8).collect();
        pair.send(&bytes, 100, Ecn::Ect0);
        assert!(!pair.network.has_unread());
        assert_eq!(pair.network.next_event(), Some(ms(1)));
        pair.network.advance_to(ms(1));
        assert!(pair.b.readable() && pair.b.waker().take_pending());
        let got = pair.received();
        let lens: Vec<usize> = got.iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lens, expected);
        let joined: Vec<u8> = got.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        assert_eq!(joined, bytes);
        let meta = got[0].0;
        assert_eq!(
            (meta.segment_size, meta.ecn, meta.socket),
            (100, Ecn::Ect0, pair.bt)
        );
        assert_eq!(meta.path.remote, SocketAddr::new(A, 1000));
        assert_eq!(meta.path.local, SocketAddr::new(B, 2000));
        assert_eq!(pair.b.stats().rx_datagrams, 3);
        assert_eq!(pair.network.stats().delivered, 3);
    }
}

#[test]
fn a_rate_spaces_datagrams_and_a_full_queue_drops_the_last() {
    let mut pair = Pair::new(
        1,
        LinkConfig {
            delay: Duration::ZERO,
            // 1000 bytes with headers take a millisecond.
            rate_bps: Some(8_000_000),
            queue_bytes: 4000,
            ecn_mark_bytes: Some(1500),
            ..LinkConfig::default()
        },
    );
    pair.send(&[7; 972 * 6], 972, Ecn::Ect0);
    let mut times = Vec::new();
    let mut marks = Vec::new();
    while let Some(next) = pair.network.next_event() {
        pair.network.advance_to(next);
        for (meta, _) in pair.received() {
            times.push(pair.network.now());
            marks.push(meta.ecn);
        }
    }
    assert_eq!(times, [ms(1), ms(2), ms(3), ms(4)]);
    assert_eq!(marks, [Ecn::Ect0, Ecn::Ect0, Ecn::Ce, Ecn::Ce]);
    let stats = pair.network.stats();
    assert_eq!((stats.queue_dropped, stats.marked), (2, 2));
}

#[test]
fn losses_come_near_their_probability_and_bursts_in_rows() {
    let lossy = LinkConfig {
        loss: 0.1,
        ..LinkConfig::default()
    };
    let mut pair = Pair::new(3, lossy);
    pair.send_numbered(5000, 50);
    let lost = 5000 - pair.numbers().len();
    assert!((400..600).contains(&lost), "{lost} of 5000 at 10 %");
    assert_eq!(pair.network.stats().lost, lost as u64);

    let mut pair = Pair::new(
        3,
        LinkConfig {
            burst_loss: Some(BurstLoss {
                enter: 0.01,
                leave: 0.1,
                loss: 1.0,
            }),
            ..LinkConfig::default()
        },
    );
    pair.send_numbered(5000, 50);
    let arrived = pair.numbers();
    let gaps = arrived.windows(2).filter(|w| w[1] != w[0] + 1).count();
    let lost = 5000 - arrived.len();
    // Ten datagrams a burst on average.
    assert!(lost > 5 * gaps && gaps > 10, "{lost} lost in {gaps} bursts");
}

#[test]
fn jitter_keeps_order_and_reordering_does_not() {
    let jittery = LinkConfig {
        jitter: Duration::from_millis(20),
        ..LinkConfig::default()
    };
    let mut pair = Pair::new(4, jittery);
    pair.send_numbered(500, 50);
    assert_eq!(pair.numbers(), (0..500).collect::<Vec<_>>());

    let mut pair = Pair::new(
        4,
        LinkConfig {
            reorder: 0.1,
            ..jittery
        },
    );
    pair.send_numbered(500, 50);
    let mut got = pair.numbers();
    assert!(!got.is_sorted());
    got.sort_unstable();
    assert_eq!(got, (0..500).collect::<Vec<_>>());
    assert!((20..100).contains(&pair.network.stats().reordered));
}

#[test]
fn duplicates_and_flipped_bits_are_counted() {
    let mut pair = Pair::new(
        5,
        LinkConfig {
            duplicate: 1.0,
            corrupt: 1.0,
            ..LinkConfig::default()
        },
    );
    pair.send(&[0; 300], 100, Ecn::NotEct);
    pair.network.advance_to(ms(100));
    let got = pair.received();
    assert_eq!(got.len(), 6);
    for (_, bytes) in got {
        assert_eq!(bytes.iter().map(|b| b.count_ones()).sum::<u32>(), 1);
    }
    let stats = pair.network.stats();
    assert_eq!(
        (stats.duplicated, stats.corrupted, stats.delivered),
        (3, 3, 6)
    );
}

#[test]
fn a_link_swallows_what_exceeds_its_mtu() {
    let mut pair = Pair::new(
        6,
        LinkConfig {
            mtu: 1500,
            ..LinkConfig::default()
        },
    );
    pair.send(&[0; 1472], 1472, Ecn::NotEct);
    pair.send(&[0; 1473], 1473, Ecn::NotEct);
    pair.network.advance_to(ms(10));
    assert_eq!(pair.received().len(), 1);
    assert_eq!(pair.network.stats().too_large, 1);
}

#[test]
fn the_local_interface_refuses_what_ip_cannot_carry() {
    let mut pair = Pair::new(6, LinkConfig::default());
    pair.send(&[0; 65_507], 65_507, Ecn::NotEct);
    pair.send(&[0; 65_508], 65_508, Ecn::NotEct);
    let stats = pair.a.stats();
    assert_eq!((stats.tx_datagrams, stats.tx_dropped), (1, 1));
    assert_eq!(stats.errors.of(Errno(libc::EMSGSIZE)), 1);
}

#[test]
fn a_blackhole_has_a_direction_and_an_end() {
    let mut pair = Pair::new(7, LinkConfig::default());
    pair.network.blackhole(Some(A), Some(B), ms(10)..ms(20));
    pair.network.blackhole(Some(B), None, ms(0)..ms(1000));
    pair.send_numbered(30, 10);
    let expected: Vec<u32> = (0..10).chain(20..30).collect();
    assert_eq!(pair.numbers(), expected);
    assert_eq!(pair.network.stats().blackholed, 10);
}

#[test]
fn a_rebinding_changes_the_source_and_forgets_the_old_address() {
    let mut pair = Pair::new(8, LinkConfig::default());
    let inside = SocketAddr::new(A, 1000);
    let first = SocketAddr::new("192.0.2.1".parse().unwrap(), 4000);
    let second = SocketAddr::new("192.0.2.1".parse().unwrap(), 4001);
    pair.network.rebind(inside, first, ms(0));
    pair.network.rebind(inside, second, ms(50));
    assert_eq!(exchange(&mut pair, first, first), Some(inside));
    assert_eq!(exchange(&mut pair, first, inside), None);
    pair.network.advance_to(ms(50));
    assert_eq!(exchange(&mut pair, second, second), Some(inside));
    assert_eq!(exchange(&mut pair, second, first), None);
    assert_eq!(pair.network.stats().nat_dropped, 2);
}

/// A sends to B and is seen as `seen`; B answers to `reply_to`, which arrives at what is returned.
fn exchange(pair: &mut Pair, seen: SocketAddr, reply_to: SocketAddr) -> Option<SocketAddr> {
    pair.send(b"up", 2, Ecn::NotEct);
    let later = pair.network.now() + Duration::from_millis(5);
    pair.network.advance_to(later);
    assert_eq!(receive(&mut pair.b)[0].0.path.remote, seen);
    let path = FourTuple::new(SocketAddr::new(B, 2000), reply_to);
    send(&mut pair.b, pair.bt, path, b"down", 4, Ecn::NotEct);
    pair.network.advance_to(later + Duration::from_millis(5));
    receive(&mut pair.a)
        .first()
        .map(|(meta, _)| meta.path.local)
}

#[test]
fn sockets_on_one_address_are_steered_like_a_reuseport_group() {
    let network = Network::new(9);
    let address = SocketAddr::new(B, 443);
    let mut shards: Vec<SimBackend> = (0..4).map(|_| backend(&network, &[B])).collect();
    for shard in &mut shards {
        shard.bind(address).unwrap();
    }
    network.steer(address, |datagram| {
        datagram
            .first()
            .map(|&b| if b < 128 { usize::from(b) } else { usize::MAX })
    });
    let from = SocketAddr::new(A, 1);
    for n in 0..4 {
        network.inject(from, address, Ecn::NotEct, &[n]);
        network.advance_to(network.now() + Duration::from_secs(1));
        let got: Vec<usize> = shards.iter_mut().map(|s| receive(s).len()).collect();
        let expected: Vec<usize> = (0..4).map(|i| usize::from(i == usize::from(n))).collect();
        assert_eq!(got, expected);
    }
    // What the program does not place, a hash does, the same way every time.
    for _ in 0..10 {
        network.inject(from, address, Ecn::NotEct, &[200]);
    }
    network.advance_to(network.now() + Duration::from_secs(1));
    let got: Vec<usize> = shards.iter_mut().map(|s| receive(s).len()).collect();
    assert_eq!(got.iter().max(), Some(&10));
    // The last socket takes the place of one that leaves.
    shards.swap_remove(1);
    network.inject(from, address, Ecn::NotEct, &[1]);
    network.advance_to(network.now() + Duration::from_secs(1));
    assert_eq!(receive(&mut shards[1]).len(), 1);
}

#[test]
fn a_wildcard_socket_has_every_address_of_its_hosts() {
    let network = Network::new(10);
    let second: IpAddr = "10.0.0.3".parse().unwrap();
    let v6: IpAddr = "fd00::1".parse().unwrap();
    let mut b = backend(&network, &[B, second, v6]);
    let id = b.bind("[::]:443".parse().unwrap()).unwrap();
    for ip in [B, second, v6] {
        let to = SocketAddr::new(ip, 443);
        network.inject(SocketAddr::new(A, 1), to, Ecn::Ce, b"x");
        network.advance_to(network.now() + Duration::from_secs(1));
        assert_eq!(receive(&mut b)[0].0.path.local, to);
    }
    let mut a = backend(&network, &[A]);
    a.bind(SocketAddr::new(A, 1)).unwrap();
    let to = SocketAddr::new(A, 1);
    for (local, seen) in [("10.0.0.3:0", second), ("0.0.0.0:0", B)] {
        let path = FourTuple::new(local.parse().unwrap(), to);
        send(&mut b, id, path, b"y", 1, Ecn::NotEct);
        network.advance_to(network.now() + Duration::from_secs(1));
        assert_eq!(receive(&mut a)[0].0.path.remote, SocketAddr::new(seen, 443));
    }
    let foreign = FourTuple::new("10.9.9.9:0".parse().unwrap(), to);
    send(&mut b, id, foreign, b"z", 1, Ecn::NotEct);
    assert_eq!(b.stats().errors.of(Errno(libc::EADDRNOTAVAIL)), 1);
}

#[test]
fn bad_binds_are_errors_and_port_zero_finds_a_free_one() {
    let network = Network::new(11);
    let mut a = backend(&network, &[A]);
    assert!(a.bind(SocketAddr::new(B, 1)).is_err());
    let ids: Vec<SocketId> = (0..3)
        .map(|_| a.bind(SocketAddr::new(A, 0)).unwrap())
        .collect();
    let ports: Vec<u16> = ids
        .iter()
        .map(|&id| a.local_addr(id).unwrap().port())
        .collect();
    assert_eq!(ports, [49_152, 49_153, 49_154]);
    a.remove_socket(ids[1]);
    assert_eq!(a.local_addr(ids[1]), None);
    network.inject(
        SocketAddr::new(B, 1),
        SocketAddr::new(A, 49_153),
        Ecn::NotEct,
        b"x",
    );
    network.advance_to(ms(1000));
    assert_eq!(network.stats().unreachable, 1);
    assert_eq!(a.bind(SocketAddr::new(A, 0)).unwrap(), ids[1]);
}

#[test]
fn send_buffers_are_limited_until_the_flush() {
    let mut pair = Pair::new(12, LinkConfig::default());
    let mut held: Vec<_> = std::iter::from_fn(|| pair.a.tx_buffer()).collect();
    assert_eq!(held.len(), IoConfig::default().tx_buffers);
    let path = FourTuple::new(SocketAddr::new(A, 1000), SocketAddr::new(B, 2000));
    let (socket, ecn) = (pair.at, Ecn::NotEct);
    let transmit = Transmit {
        socket,
        path,
        ecn,
        segment_size: 1,
        len: 1,
    };
    pair.a.send(held.pop().unwrap(), transmit);
    assert!(pair.a.tx_buffer().is_none());
    pair.a.wait(None).unwrap();
    assert!(pair.a.tx_buffer().is_some());
}

#[test]
fn a_socket_that_nobody_reads_drops_and_counts() {
    let mut pair = Pair::new(13, LinkConfig::default());
    for _ in 0..129 {
        pair.send(&[0; 65_507], 65_507, Ecn::NotEct);
    }
    pair.network.advance_to(ms(10));
    assert_eq!(pair.network.stats().receive_dropped, 1);
    assert_eq!(pair.received().len(), 128);
}

#[test]
fn hooks_see_every_datagram_and_may_take_it() {
    let mut pair = Pair::new(14, LinkConfig::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    pair.network.filter(|d| d.bytes[3] % 2 == 0);
    pair.network
        .tap(move |d, fate| log.lock().unwrap().push((d.now, d.bytes[3], fate.is_ok())));
    pair.send_numbered(4, 10);
    assert_eq!(pair.numbers(), [0, 2]);
    let expected = [
        (ms(0), 0, true),
        (ms(1), 1, false),
        (ms(2), 2, true),
        (ms(3), 3, false),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// Everything that arrives at B, with times, for a seed and a config.
fn history(seed: u64, config: LinkConfig) -> Vec<(Timestamp, Vec<u8>)> {
    let mut pair = Pair::new(seed, config);
    for n in 0..20u8 {
        pair.send(&vec![n; 5000], 1200, Ecn::Ect0);
    }
    let mut all = Vec::new();
    while let Some(next) = pair.network.next_event() {
        pair.network.advance_to(next);
        let now = pair.network.now();
        all.extend(pair.received().into_iter().map(|(_, bytes)| (now, bytes)));
    }
    all
}

proptest! {
    /// A seed replays exactly, and every datagram is accounted for.
    #[test]
    fn a_seed_replays_and_the_counts_add_up(
        seed in any::<u64>(),
        loss in 0.0..0.5f64,
        reorder in 0.0..0.5f64,
        duplicate in 0.0..0.5f64,
        gro in 0.0..1.0f64,
        rate in prop::option::of(1_000_000..1_000_000_000u64),
    ) {
        let config = LinkConfig {
            jitter: Duration::from_millis(3),
            rate_bps: rate,
            queue_bytes: 50_000,
            ecn_mark_bytes: Some(20_000),
            loss, reorder, duplicate, gro, corrupt: 0.1,
            burst_loss: Some(BurstLoss { enter: 0.05, leave: 0.3, loss: 0.8 }),
            ..LinkConfig::default()
        };
        prop_assert_eq!(history(seed, config), history(seed, config));
        let mut pair = Pair::new(seed, config);
        for n in 0..20u8 {
            pair.send(&vec![n; 5000], 1200, Ecn::Ect0);
        }
        pair.network.advance_to(ms(100_000));
        let bytes: usize = pair.received().iter().map(|(_, b)| b.len()).sum();
        let s = pair.network.stats();
        prop_assert_eq!(s.sent, 100);
        prop_assert_eq!(s.delivered, s.sent + s.duplicated - s.lost - s.queue_dropped);
        prop_assert!(bytes <= 20 * 5000 + s.duplicated as usize * 1200);
    }
}
