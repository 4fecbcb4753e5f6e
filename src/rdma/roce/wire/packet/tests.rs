//! What is written reads back, and no bytes at all bring the parser down.

use super::*;
use crate::rdma::roce::wire::Psn;
use proptest::prelude::*;

fn bth(opcode: Opcode) -> Bth {
    Bth {
        opcode: opcode as u8,
        solicited: false,
        pad: 0,
        version: 0,
        pkey: 0xffff,
        qpn: 0xbeef,
        ack_req: true,
        psn: Psn::new(7),
    }
}

/// Something of the kind that `opcode` brings.
fn ext(opcode: Opcode, n: u64) -> Ext {
    let reth = Reth {
        addr: n,
        rkey: n as u32 ^ 7,
        len: n as u32,
    };
    let aeth = Aeth {
        syndrome: n as u8,
        msn: n as u32 & 0xff_ffff,
    };
    let atomic = AtomicEth {
        addr: n,
        rkey: 3,
        swap_add: !n,
        compare: n.rotate_left(9),
    };
    let all = [
        Ext::None,
        Ext::Imm(n as u32),
        Ext::Reth(reth),
        Ext::RethImm(reth, n as u32),
        Ext::Aeth(aeth),
        Ext::AtomicAck(aeth, n),
        Ext::Atomic(atomic),
    ];
    use Opcode::*;
    all[match opcode {
        SendLastImm | SendOnlyImm | WriteLastImm => 1,
        WriteFirst | WriteOnly | ReadRequest => 2,
        WriteOnlyImm => 3,
        ReadResponseFirst | ReadResponseLast | ReadResponseOnly | Acknowledge => 4,
        AtomicAcknowledge => 5,
        CompareSwap | FetchAdd => 6,
        _ => 0,
    }]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        byte in 0u8..0x15,
        n in any::<u64>(),
        data in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let opcode = Opcode::from_byte(byte).unwrap();
        let data = if opcode.has_payload() { &data[..] } else { &[] };
        let mut out = [0xee; 400];
        let ext = ext(opcode, n);
        let len = write(&mut out, bth(opcode), &ext, data.len(), |d| {
            d.copy_from_slice(data);
            true
        }).unwrap();
        prop_assert_eq!(len, packet_len(&ext, data.len()));
        let packet = Packet::parse(&out[..len]).unwrap();
        prop_assert_eq!((packet.opcode, packet.ext, packet.payload), (opcode, ext, data));
        prop_assert_eq!(Bth { pad: 0, ..packet.bth }, bth(opcode));
        let padding = &out[len - 4 - usize::from(packet.bth.pad)..len - 4];
        prop_assert!(padding.iter().all(|&b| b == 0));
        // It needs every byte: a shorter buffer is refused, and a shorter packet is another one.
        prop_assert_eq!(write(&mut out[..len - 1], bth(opcode), &ext, data.len(), |_| true), None);
        if data.is_empty() && len > 16 {
            prop_assert_eq!(Packet::parse(&out[..len - 4]), Err(Malformed::Length));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(packet) = Packet::parse(&bytes) {
            let len = packet.payload.len();
            // Padding of a length that needed none is no error: the sender says how much.
            let more = usize::from(packet.bth.pad) + len - len.next_multiple_of(4);
            prop_assert_eq!(packet_len(&packet.ext, len), bytes.len() - more);
        }
    }
}

#[test]
fn lengths_versions_and_padding_are_checked() {
    let mut out = [0; 64];
    let len = write(&mut out, bth(Opcode::SendOnly), &Ext::None, 3, |_| true).unwrap();
    assert_eq!(len, 20);
    for short in 0..16 {
        assert_eq!(Packet::parse(&out[..short]), Err(Malformed::Length));
    }
    assert_eq!(Packet::parse(&out[..18]), Err(Malformed::Length));
    // Three zeros claimed of none.
    assert_eq!(Packet::parse(&out[..16]), Err(Malformed::Length));
    out[1] |= 1;
    assert_eq!(Packet::parse(&out[..20]), Err(Malformed::Version));
    let len = write(
        &mut out,
        bth(Opcode::ReadRequest),
        &ext(Opcode::ReadRequest, 1),
        0,
        |_| true,
    );
    assert!(Packet::parse(&out[..len.unwrap()]).is_ok());
    // A READ request with data.
    assert_eq!(
        Packet::parse(&out[..len.unwrap() + 4]),
        Err(Malformed::Length)
    );
    out[0] = 0x81;
    let congestion = Packet::parse(&out[..32]);
    assert!(matches!(
        congestion,
        Err(Malformed::Opcode(Refusal::Congestion, _))
    ));
}

#[test]
fn what_cannot_be_filled_is_not_written() {
    let mut out = [0; 64];
    assert_eq!(
        write(&mut out, bth(Opcode::SendOnly), &Ext::None, 3, |_| false),
        None
    );
}
