//! The connection state machine: two endpoints in memory, virtual time, chosen faults.

#[path = "conn/ack_frequency.rs"]
mod ack_frequency;
#[path = "conn/address.rs"]
mod address;
#[path = "conn/admission.rs"]
mod admission;
#[path = "conn/clauses.rs"]
mod clauses;
#[path = "conn/closing.rs"]
mod closing;
mod common;
#[path = "conn/conformance.rs"]
mod conformance;
#[path = "conn/datagrams.rs"]
mod datagrams;
#[path = "conn/early.rs"]
mod early;
#[path = "conn/extensions.rs"]
mod extensions;
#[path = "conn/floods.rs"]
mod floods;
#[path = "conn/frames.rs"]
mod frames;
#[path = "conn/handshake.rs"]
mod handshake;
#[path = "conn/keys.rs"]
mod keys;
#[path = "conn/migration.rs"]
mod migration;
#[path = "conn/moved.rs"]
mod moved;
#[path = "conn/recovery.rs"]
mod recovery;
#[path = "conn/tokens.rs"]
mod tokens;
#[path = "conn/trains.rs"]
mod trains;
#[path = "conn/version.rs"]
mod version;
#[path = "conn/zero_cid.rs"]
mod zero_cid;

use bytes::Bytes;
use common::pair::{CLIENT, Pair, SERVER, Setup};
use corelane::conn::Event;
use corelane::wire::Dir;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_handshake_completes_and_carries_a_stream() {
    let mut pair = Pair::new(Setup::default());
    let (client, _) = pair.connected();
    let streams = pair.conn(CLIENT, client).streams_mut();
    let id = streams.open(Dir::Bi).expect("a stream");
    assert_eq!(streams.write(id, b"hello"), Ok(5));
    streams.finish(id).expect("open");
    pair.run(SECOND);
    let app = &pair.sides[SERVER].app;
    assert_eq!(
        app.received.values().next().map(Vec::as_slice),
        Some(&b"hello"[..])
    );
    assert_eq!(app.finished.len(), 1);
    assert!(pair.saw(CLIENT, &Event::HandshakeConfirmed));
}

#[test]
fn a_megabyte_goes_each_way() {
    let mut pair = Pair::new(Setup::default());
    let (client, server) = pair.connected();
    let data = Bytes::from((0..1_000_000u32).map(|i| i as u8).collect::<Vec<_>>());
    for (side, conn) in [(CLIENT, client), (SERVER, server)] {
        let streams = pair.conn(side, conn).streams_mut();
        let id = streams.open(Dir::Uni).expect("a stream");
        assert_eq!(streams.write_bytes(id, data.clone()), Ok(data.len()));
        streams.finish(id).expect("open");
    }
    pair.run(10 * SECOND);
    for side in [CLIENT, SERVER] {
        let app = &pair.sides[side].app;
        let got: Vec<&Vec<u8>> = app.received.values().collect();
        assert_eq!(got.len(), 1);
        assert!(*got[0] == data, "what arrived is what was sent");
    }
}

#[test]
fn a_resumed_handshake_goes_by_the_servers_new_parameters() {
    let mut pair = Pair::new(Setup::default());
    let (first, _) = pair.connected();
    let now = pair.now;
    pair.conn(CLIENT, first).close(now, 0, b"");
    pair.run(10 * SECOND);
    let (second, _) = pair.connected();
    assert_eq!(
        pair.conn(CLIENT, second).session().is_resumed(),
        Some(true),
        "the ticket of the first connection was used"
    );
}
