//! What is written reads back; what lies, is cut or comes from another version is refused.

use super::*;
use proptest::prelude::*;

fn queue(n: u64) -> QueueTerms {
    QueueTerms {
        qpn: 2 + (n % 1000) as u32,
        psn: (n % 0x100_0000) as u32,
        gid: std::net::IpAddr::from([10, 0, 0, n as u8]).into(),
        udp_port: 4791,
        mtu: Mtu::ALL[n as usize % 5],
        rd_atomic: n as u8,
    }
}

fn terms(n: u64, has_queue: bool, has_region: bool) -> Terms {
    let region = RegionTerms {
        addr: n,
        len: n % (1 << 30),
        rkey: n as u32,
        access: access_of(n as u8 & 7).unwrap(),
    };
    Terms {
        slot: 64 + (n % 1000) as u32,
        window: 2 + (n % 1000) as u32,
        operations: (n % 65) as u32,
        queue: has_queue.then(|| queue(n)),
        region: has_region.then_some(region),
        returns: n.is_multiple_of(3),
        splits: n.is_multiple_of(5),
    }
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn messages(n: u64, data: &[u8]) -> Vec<Message<'_>> {
    vec![
        Message::Hello(terms(n >> 8, n & 1 == 1, n & 2 == 2)),
        Message::Welcome(n, terms(n >> 9, n & 2 == 2, n & 1 == 1)),
        Message::Refused(Refusal::ALL[n as usize % 5]),
        Message::Ready(n & 1 == 1),
        Message::Fallback(n),
        Message::Bye(n),
        Message::ByeAck(n),
        Message::StatusRequest,
        Message::Status(data),
        Message::Return(queue(n >> 7)),
        Message::Returned(Some(queue(n >> 6))),
        Message::Returned(None),
        Message::Frame(data),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        n in any::<u64>(),
        data in prop::collection::vec(any::<u8>(), 40..80),
    ) {
        for message in messages(n, &data) {
            let mut bytes = encoded(&message);
            let len = bytes.len();
            for cut in 0..len {
                prop_assert_eq!(Message::decode(&bytes[..cut]), Ok(None));
            }
            bytes.extend([7; 9]);
            prop_assert_eq!(Message::decode(&bytes), Ok(Some((message, len))));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some((message, len))) = Message::decode(&bytes) {
            prop_assert!(len <= bytes.len());
            let again = encoded(&message);
            prop_assert_eq!(Message::decode(&again), Ok(Some((message, again.len()))));
        }
    }
}

#[test]
fn lying_lengths_types_and_versions_are_refused_by_the_header_alone() {
    let good = encoded(&Message::Hello(terms(5, true, true)));
    let header = |edit: fn(&mut [u8])| {
        let mut bytes = good[..HEADER].to_vec();
        edit(&mut bytes);
        Message::decode(&bytes).unwrap_err()
    };
    assert_eq!(header(|b| b[1] = 2), BootstrapError::Version(2));
    assert_eq!(header(|b| b[0] = 77), BootstrapError::Type(77));
    assert_eq!(header(|b| b[7] += 1), BootstrapError::Length(1, 77));
    assert_eq!(header(|b| b[7] -= 1), BootstrapError::Length(1, 75));
    assert!(matches!(
        header(|b| b[4] = 255),
        BootstrapError::Length(1, _)
    ));
    assert!(matches!(header(|b| b[3] = 1), BootstrapError::Value(_)));
}

#[test]
fn values_that_cannot_be_are_named() {
    let good = encoded(&Message::Hello(terms(5, true, true)));
    let edits: [(usize, &[u8], &str); 12] = [
        (4, &[0, 0, 0, 63], "slot"),
        (4, &[0, 1, 0, 1], "slot"),
        (8, &[0, 0, 0, 1], "window"),
        (12, &[0, 0, 0, 65], "operations"),
        (16, &[0, 0, 0, 1], "QPN"),
        (16, &[1, 0, 0, 0], "QPN"),
        (20, &[1, 0, 0, 0], "PSN"),
        (24, &[0xff; 16], "GID"),
        (40, &[0, 0], "UDP port"),
        (42, &[5, 220], "path MTU"),
        (56, &[0, 0, 0, 1], "region's length"),
        (68, &[8], "access"),
    ];
    for (at, bytes, name) in edits {
        let mut message = good.clone();
        message[HEADER + at..HEADER + at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(Message::decode(&message), Err(BootstrapError::Value(name)));
    }
    let mut overflow = good;
    overflow[HEADER + 48..HEADER + 56].fill(0xff);
    let error = Message::decode(&overflow);
    assert_eq!(error, Err(BootstrapError::Value("region's address")));
}
