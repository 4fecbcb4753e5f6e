//! Vectors from a second computation of the same layout, and what damage is found.

use super::*;
use crate::base::Rng;

/// A SEND ONLY of "hello", without its ICRC.
const SEND: [u8; 20] = [
    0x04, 0x70, 0xff, 0xff, 0x00, 0x00, 0xbe, 0xef, 0x80, 0xff, 0xff, 0xfc, b'h', b'e', b'l', b'l',
    b'o', 0, 0, 0,
];

fn direction(from: &str, to: &str) -> Icrc {
    Icrc::new(from.parse().unwrap(), to.parse().unwrap())
}

fn sealed(icrc: &mut Icrc, body: &[u8], identification: u16) -> Vec<u8> {
    let mut packet = body.to_vec();
    packet.extend([0; 4]);
    icrc.seal(&mut packet, identification);
    assert_eq!(&packet[..body.len()], body, "the packet is as it was");
    packet
}

/// A WRITE FIRST with 1,024 bytes.
fn write_first() -> Vec<u8> {
    let mut body = vec![0x06, 0x40, 0xff, 0xff, 0, 0, 0, 0x12, 0, 0, 0, 1];
    body.extend(0x1122334455667788u64.to_be_bytes());
    body.extend(0xcafeu32.to_be_bytes());
    body.extend(4096u32.to_be_bytes());
    body.extend((0..1024).map(|i| (i * 3) as u8));
    body
}

#[test]
fn vectors() {
    let mut v4 = direction("10.97.0.2:4791", "10.97.0.1:4791");
    let mut v6 = direction("[fd00::2]:4791", "[fd00::1]:4791");
    let crc = |packet: Vec<u8>| packet[packet.len() - 4..].to_vec();
    assert_eq!(crc(sealed(&mut v4, &SEND, 0)), [0xeb, 0xe1, 0xb3, 0xfe]);
    assert_eq!(crc(sealed(&mut v4, &SEND, 5)), [0xbd, 0xca, 0x9e, 0x7e]);
    assert_eq!(crc(sealed(&mut v6, &SEND, 0)), [0x56, 0xe2, 0x10, 0x93]);
    assert_eq!(crc(sealed(&mut v6, &SEND, 9)), [0x56, 0xe2, 0x10, 0x93]);
    assert_eq!(
        crc(sealed(&mut v4, &write_first(), 0)),
        [0x9d, 0x85, 0x5f, 0x21]
    );
    assert_eq!(
        crc(sealed(&mut v6, &write_first(), 0)),
        [0x58, 0xf7, 0x42, 0x9e]
    );
    // Lengths that were seen before, in any order.
    assert_eq!(crc(sealed(&mut v4, &SEND, 0)), [0xeb, 0xe1, 0xb3, 0xfe]);
    assert_eq!(
        crc(sealed(&mut v4, &[0; 32], 0)),
        crc(sealed(&mut v4.clone(), &[0; 32], 0))
    );
    assert_eq!(
        crc(sealed(&mut v4, &write_first(), 0)),
        [0x9d, 0x85, 0x5f, 0x21]
    );
}

#[test]
fn an_unknown_identification_is_worked_out() {
    let mut packet = SEND.to_vec();
    // Identification abcd, without don't-fragment.
    packet.extend([0x67, 0x11, 0xc3, 0x8c]);
    let mut v4 = direction("10.97.0.2:49152", "10.97.0.1:4791");
    assert_eq!(v4.check(&mut packet, 0), Verdict::Identified(0xabcd));
    assert_eq!(v4.check(&mut packet, 3), Verdict::Identified(0xabcd));
    let mut v4 = direction("10.97.0.2:4791", "10.97.0.1:4791");
    for (body, id) in [(SEND.to_vec(), 0), (write_first(), 7), (SEND.to_vec(), 63)] {
        let mut packet = sealed(&mut v4, &body, id);
        assert_eq!(v4.check(&mut packet, id), Verdict::Good);
        assert_eq!(v4.check(&mut packet, 1), Verdict::Identified(id));
        let mut packet = sealed(&mut v4, &body, id | 0x8000);
        assert_eq!(v4.check(&mut packet, id), Verdict::Identified(id | 0x8000));
    }
}

#[test]
fn damage_is_found() {
    let mut rng = Rng::from_u64(1);
    for (from, to) in [
        ("10.0.0.2:9", "10.0.0.1:4791"),
        ("[fd00::2]:9", "[fd00::1]:4791"),
    ] {
        let mut icrc = direction(from, to);
        let good = sealed(&mut icrc, &write_first(), 0);
        let mut missed = 0;
        for _ in 0..20_000 {
            let mut packet = good.clone();
            for _ in 0..1 + rng.below(4) {
                let bit = rng.below(8 * packet.len() as u64) as usize;
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            // BTH's reserved byte is not covered, and bits flipped twice are no damage.
            packet[4] = 0;
            if packet != good {
                missed += u32::from(icrc.check(&mut packet, 0) != Verdict::Bad);
            }
        }
        // IPv4: one in 2^15 is mistaken for another identification.
        assert!(
            missed <= if from.starts_with('1') { 6 } else { 0 },
            "{missed} from {from}"
        );
    }
}

#[test]
fn other_addresses_ports_and_lengths_are_other_checksums() {
    let mut packet = sealed(&mut direction("10.0.0.2:9", "10.0.0.1:4791"), &SEND, 0);
    let mut swapped = direction("10.0.0.1:9", "10.0.0.2:4791");
    // Exchanged addresses differ in bits that no identification explains.
    assert_eq!(swapped.check(&mut packet, 0), Verdict::Bad);
    assert_eq!(
        direction("10.0.0.2:8", "10.0.0.1:4791").check(&mut packet, 0),
        Verdict::Bad
    );
    for len in 0..packet.len() {
        let mut short = packet[..len].to_vec();
        let mut icrc = direction("10.0.0.2:9", "10.0.0.1:4791");
        assert_eq!(icrc.check(&mut short, 0), Verdict::Bad, "{len} bytes");
    }
}

/// What is written and found is the same whether short packets are folded or not.
#[test]
fn folding_is_the_same_checksum() {
    let mut rng = Rng::from_u64(3);
    for (from, to) in [
        ("10.0.0.2:9", "10.0.0.1:4791"),
        ("[fd00::2]:9", "[fd00::1]:4791"),
    ] {
        for len in (12..600).chain([1024, 4096, 4112]) {
            let mut body = vec![0; len];
            rng.fill(&mut body);
            let identification = rng.below(1 << 16) as u16;
            let mut folds = direction(from, to);
            let mut tables = direction(from, to);
            tables.folds = false;
            let mut packet = sealed(&mut tables, &body, identification);
            assert_eq!(
                sealed(&mut folds, &body, identification),
                packet,
                "{len} bytes"
            );
            assert_eq!(folds.check(&mut packet, identification), Verdict::Good);
            packet[4] ^= 0x55;
            assert_eq!(folds.check(&mut packet, identification), Verdict::Good);
            packet[len - 1] ^= 1;
            assert_ne!(folds.check(&mut packet, identification), Verdict::Good);
        }
    }
}
