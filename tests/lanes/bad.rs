//! Peers that do not keep to the bootstrap: each is refused or ends its own connection, and the
//! server is as before.

use crate::rig::{Options, Order, Pair};
use corelane::api::{Connection, Endpoint};
use corelane::rdma::bootstrap::{HEADER, Message, QueueTerms, Refusal, RegionTerms, Terms};
use corelane::rdma::lane::{Frame, Kind};
use corelane::rdma::quota::{Amount, Quotas};
use corelane::rdma::{Access, Mtu};
use corelane::shard::lanes::LaneEnd;
use futures_executor::block_on;
use std::net::IpAddr;
use std::time::Duration;

fn terms(queue: bool) -> Terms {
    let one = QueueTerms {
        qpn: 77,
        psn: 5,
        gid: IpAddr::from([127, 0, 0, 1]).into(),
        udp_port: 9,
        mtu: Mtu::Mtu1024,
        rd_atomic: 1,
    };
    Terms {
        slot: 1024,
        window: 4,
        operations: 4,
        queue: queue.then_some(one),
        region: Some(RegionTerms {
            addr: 0x1000,
            len: 4096,
            rkey: 1,
            access: Access::REMOTE_READ,
        }),
        returns: true,
        splits: true,
    }
}

fn bytes(messages: &[Message<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    messages.iter().for_each(|m| m.encode(&mut out));
    out
}

/// A raw client's connection.
fn connect(pair: &Pair) -> (Endpoint, Connection) {
    let builder = Endpoint::builder().client(pair.target.tls.clone());
    let endpoint = builder.build().expect("an endpoint");
    let connection = block_on(async {
        let connecting = endpoint.connect(pair.target.addr, crate::certs::SERVER_NAME);
        connecting.await.expect("connected")
    });
    (endpoint, connection)
}

/// Says `bytes` on the first stream; how the server closes the connection.
fn say(pair: &Pair, bytes: &[u8]) -> String {
    let (_endpoint, connection) = connect(pair);
    block_on(async {
        let (mut send, _recv) = connection.open_bi().await.expect("a stream");
        // It may have been closed over the first of them.
        let _ = send.write_all(bytes).await;
        connection.closed().await.to_string()
    })
}

fn edited(message: &Message<'_>, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = bytes(&[*message]);
    edit(&mut out);
    out
}

#[test]
fn malformed_lying_and_replayed_messages_end_their_own_connection_only() {
    let pair = Pair::new(&Options::new(), &Options::new());
    let (lane, other, _) = pair.connect();
    let hello = Message::Hello(terms(true));
    let plain = Message::Hello(terms(false));
    let one = terms(true).queue.expect("one");
    let frame = |kind, number, ack| {
        Frame {
            kind,
            tag: 0,
            number,
            ack,
        }
        .to_bytes()
    };
    let (gap, lie) = (frame(Kind::Message, 5, 0), frame(Kind::Ack, 0, 9));
    let answer = frame(Kind::Done, 0, 0);
    let attempts: Vec<(&str, Vec<u8>)> = vec![
        ("type", edited(&hello, |b| b[0] = 99)),
        ("length", edited(&hello, |b| b[7] = 1)),
        ("oversized", edited(&hello, |b| b[4] = 0x7f)),
        ("reserved", edited(&hello, |b| b[2] = 1)),
        ("QPN", edited(&hello, |b| b[HEADER + 16] = 1)),
        ("MTU", edited(&hello, |b| b[HEADER + 43] = 1)),
        (
            "GID",
            edited(&hello, |b| b[HEADER + 24..HEADER + 40].fill(0)),
        ),
        ("replayed", bytes(&[plain, plain])),
        (
            "replayed later",
            bytes(&[plain, Message::Ready(false), plain]),
        ),
        ("ready first", bytes(&[Message::Ready(true)])),
        (
            "the server's word",
            bytes(&[Message::Welcome(1, terms(false))]),
        ),
        ("bye first", bytes(&[Message::Bye(0)])),
        (
            "an answer to no question",
            bytes(&[plain, Message::Ready(false), Message::Returned(None)]),
        ),
        ("asking again and again", {
            let mut all = vec![plain, Message::Ready(false)];
            all.resize(40, Message::Return(one));
            bytes(&all)
        }),
        (
            "a gap",
            bytes(&[plain, Message::Ready(false), Message::Frame(&gap)]),
        ),
        (
            "a lie",
            bytes(&[plain, Message::Ready(false), Message::Frame(&lie)]),
        ),
        (
            "an answer",
            bytes(&[plain, Message::Ready(false), Message::Frame(&answer)]),
        ),
        (
            "no frame",
            bytes(&[plain, Message::Ready(false), Message::Frame(&[0; 24])]),
        ),
        (
            "a fallback",
            bytes(&[plain, Message::Ready(false), Message::Fallback(0)]),
        ),
        ("a frame too soon", bytes(&[hello, Message::Frame(&gap)])),
    ];
    for (n, (name, bytes)) in attempts.iter().enumerate() {
        let closed = say(&pair, bytes);
        assert!(closed.contains('1'), "{name}: {closed}");
        let seen = pair.server.count().1.misbehaved;
        assert_eq!(seen, n as u64 + 1, "{name}: {closed}");
    }
    // The lane of before is as it was.
    pair.client
        .order(Order::Send(lane, 3, b"still here".to_vec()));
    assert_eq!(pair.server.message(), (other, 3, b"still here".to_vec()));
    while pair.server.count().0 > 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(pair.server.count().2.map(|o| o.queue_pairs), Some(1));
    pair.client.order(Order::Close(lane));
    assert_eq!(pair.client.closed(), LaneEnd::Finished);
    pair.finish();
}

#[test]
fn a_client_that_says_nothing_or_half_a_word_is_not_waited_for() {
    let mut options = Options::new();
    options.config.patience = Duration::from_millis(200);
    let pair = Pair::new(&options, &Options::new());
    let hello = bytes(&[Message::Hello(terms(true))]);
    for part in [&hello[..1], &hello[..HEADER], &hello[..40]] {
        assert!(say(&pair, part).contains("too long"));
        assert_eq!(pair.server.count().2.map(|o| o.queue_pairs), Some(0));
    }
    // One whose queue pair is made and who is then silent.
    assert!(say(&pair, &hello).contains("too long"));
    pair.server.emptied();
    pair.finish();
}

/// A queue pair would send there what nobody there asked for.
#[test]
fn a_client_that_names_anothers_address_is_refused() {
    let mut options = Options::new();
    options.config.patience = Duration::from_millis(300);
    let pair = Pair::new(&options, &Options::new());
    let mut elsewhere = terms(true);
    if let Some(queue) = &mut elsewhere.queue {
        queue.gid = IpAddr::from([127, 0, 0, 2]).into();
    }
    say(&pair, &bytes(&[Message::Hello(elsewhere)]));
    assert_eq!(pair.server.count().1.refused, 1);
    assert_eq!(pair.server.emptied().map(|o| o.queue_pairs), Some(0));
    pair.finish();
}

#[test]
fn another_version_and_too_much_of_everything_are_refused_before_anything_is_made() {
    let mut options = Options::new();
    let limit = Amount {
        queue_pairs: 2,
        ..Amount::default()
    };
    options.config.quotas = Quotas::new(limit);
    options.config.patience = Duration::from_millis(300);
    let pair = Pair::new(&options, &Options::new());
    say(&pair, &edited(&Message::Hello(terms(true)), |b| b[1] = 9));
    assert_eq!(pair.server.count().1.refused, 1);
    let (first, ..) = pair.connect();
    let (second, ..) = pair.connect();
    pair.client.order(Order::Connect(pair.target.clone()));
    assert_eq!(pair.client.closed(), LaneEnd::Refused(Refusal::Quota));
    assert_eq!(
        pair.server.count().2.map(|o| (o.queue_pairs, o.domains)),
        Some((2, 3))
    );
    pair.client.order(Order::Close(first));
    assert_eq!(pair.client.closed(), LaneEnd::Finished);
    while pair.server.count().2.is_some_and(|o| o.queue_pairs > 1) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (third, ..) = pair.connect();
    for lane in [second, third] {
        pair.client.order(Order::Close(lane));
        assert_eq!(pair.client.closed(), LaneEnd::Finished);
    }
    pair.finish();
}
