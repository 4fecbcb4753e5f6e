//! How packets leave together: bulk data in long trains, packets of many small messages one by one.

use crate::common::pair::{CLIENT, Pair, Setup};
use corelane::conn::ConnId;
use corelane::recovery::MtuConfig;
use corelane::wire::Dir;
use std::time::Duration;

/// The datagrams of each train that the client has to send now.
fn trains(pair: &mut Pair, client: ConnId) -> Vec<usize> {
    let now = pair.now;
    let mut buf = vec![0; 65_536];
    let next = || pair.conn(CLIENT, client).poll_transmit(now, &mut buf);
    std::iter::from_fn(next)
        .map(|t| t.len.div_ceil(t.segment_size))
        .collect()
}

/// A connection at rest with `sizes` written, each to a stream of its own.
fn written(sizes: &[usize]) -> (Pair, ConnId) {
    let mut setup = Setup::default();
    setup.client.mtu = MtuConfig::fixed(1200);
    setup.client.pacing = false;
    let mut pair = Pair::new(setup);
    let (client, _) = pair.connected();
    pair.run(Duration::from_secs(1));
    let streams = pair.conn(CLIENT, client).streams_mut();
    for size in sizes {
        let id = streams.open(Dir::Bi).expect("a stream");
        assert_eq!(streams.write(id, &vec![7; *size]), Ok(*size));
        streams.finish(id).expect("open");
    }
    (pair, client)
}

#[test]
fn bulk_data_leaves_in_one_train() {
    let (mut pair, client) = written(&[8_000]);
    let sent = trains(&mut pair, client);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0] >= 5, "{sent:?}");
}

/// The peer can answer the first packet's while it still reads the others.
#[test]
fn packets_of_many_messages_leave_one_by_one() {
    let (mut pair, client) = written(&[64; 60]);
    let sent = trains(&mut pair, client);
    assert!(sent.len() >= 3 && sent.iter().all(|n| *n == 1), "{sent:?}");
}
