//! Steering: the codec, its kernel program on real sockets, and what an observer sees.

use super::*;
use crate::base::Rng;
use crate::shard::quic_lb::QuicLbConfig;
use crate::sys::reuseport;
use proptest::prelude::*;
use std::net::UdpSocket;
use std::time::Duration;

fn codec(len: usize, shard: u8, shards: u8) -> CidCodec {
    CidCodec::new(0x0123_4567_89ab_cdef, len, shard, shards, None).unwrap()
}

fn lb(rng: &mut Rng, nonce_len: usize) -> QuicLb {
    let config = QuicLbConfig {
        config_id: 1,
        server_id: vec![1, 2, 3, 4],
        nonce_len,
        key: Some(rng.array()),
        encode_length: false,
    };
    QuicLb::new(config, rng).unwrap()
}

proptest! {
    #[test]
    fn an_issued_id_names_its_shard(
        secret in any::<u64>(),
        seed in any::<u64>(),
        len in 8usize..=20,
        (shard, shards) in (1u8..).prop_flat_map(|n| (0..n, Just(n))),
    ) {
        let mut rng = Rng::from_u64(seed);
        let mut codecs = vec![CidCodec::new(secret, len, shard, shards, None).unwrap()];
        if len >= 10 {
            let lb = lb(&mut rng, len - 6);
            codecs.push(CidCodec::new(secret, len, shard, shards, Some(lb)).unwrap());
        }
        for codec in codecs {
            let cid = codec.issue(&mut rng);
            prop_assert_eq!(cid.len(), len);
            prop_assert_eq!(codec.shard_of(cid.as_slice()), Some(shard));
            prop_assert_eq!(codec.shard_of(&cid.as_slice()[1..]), None);
        }
    }

    /// Whatever bytes arrive as an ID, the answer is a shard that exists, or none.
    #[test]
    fn foreign_ids_fall_to_some_shard(cid in prop::collection::vec(any::<u8>(), 0..40)) {
        for len in [8, 20] {
            let shard = codec(len, 0, 5).shard_of(&cid);
            prop_assert_eq!(shard.is_some(), cid.len() == len);
            prop_assert!(shard.is_none_or(|s| s < 5));
        }
    }

    /// What the kernel would compute, by an interpreter of its own.
    #[test]
    fn the_program_agrees_with_the_codec(
        datagram in prop::collection::vec(any::<u8>(), 1..80),
        long in any::<bool>(),
        len in 8usize..=20,
        right_len in any::<bool>(),
        shards in 1u8..,
    ) {
        let mut datagram = datagram;
        datagram[0] = datagram[0] & 0x7f | u8::from(long) << 7;
        if right_len && datagram.len() > 5 {
            datagram[5] = len as u8;
        }
        let codec = codec(len, 0, shards);
        let cid = if long {
            let found = datagram.get(5).and_then(|&n| datagram.get(6..6 + usize::from(n)));
            found.filter(|_| datagram.len() >= 6 + len)
        } else {
            datagram.get(1..1 + len)
        };
        let expected = cid.and_then(|cid| codec.shard_of(cid)).map_or(NOBODY, u32::from);
        prop_assert_eq!(interpret(&codec.program(), &datagram), expected);
    }
}

/// Runs a classic BPF program of the operations in use.
fn interpret(program: &[sock_filter], packet: &[u8]) -> u32 {
    let (mut a, mut x, mut pc) = (0u32, 0u32, 0usize);
    loop {
        let sock_filter { code, jt, jf, k } = program[pc];
        pc += 1;
        let at = k as usize;
        let branch = |taken: bool| usize::from(if taken { jt } else { jf });
        match code {
            // A load outside of the packet ends the program with 0.
            bpf::LD_WORD => match packet.get(at..at + 4) {
                Some(w) => a = u32::from_be_bytes([w[0], w[1], w[2], w[3]]),
                None => return 0,
            },
            bpf::LD_BYTE => match packet.get(at) {
                Some(&b) => a = b.into(),
                None => return 0,
            },
            bpf::LD_LEN => a = packet.len() as u32,
            bpf::LDX_IMM => x = k,
            bpf::TAX => x = a,
            bpf::TXA => a = x,
            bpf::MUL_K => a = a.wrapping_mul(k),
            bpf::MOD_K => a %= k,
            bpf::AND_K => a &= k,
            bpf::RSH_K => a >>= k,
            bpf::XOR_X => a ^= x,
            bpf::JA => pc += at,
            bpf::JEQ => pc += branch(a == k),
            bpf::JGE => pc += branch(a >= k),
            bpf::JSET => pc += branch(a & k != 0),
            bpf::RET_K => return k,
            bpf::RET_A => return a,
            other => panic!("operation {other:#x}"),
        }
    }
}

#[test]
fn bad_shapes_are_refused() {
    let new = |len, shard, shards, server| CidCodec::new(1, len, shard, shards, server).map(drop);
    assert_eq!(new(7, 0, 1, None), Err(CodecError::Length(7)));
    assert_eq!(new(21, 0, 1, None), Err(CodecError::Length(21)));
    assert_eq!(
        new(8, 0, 0, None),
        Err(CodecError::Shard {
            shard: 0,
            shards: 0
        })
    );
    assert_eq!(
        new(8, 4, 4, None),
        Err(CodecError::Shard {
            shard: 4,
            shards: 4
        })
    );
    let lb = lb(&mut Rng::from_u64(1), 4);
    assert_eq!(
        new(9, 0, 1, Some(lb.clone())),
        Err(CodecError::Body {
            body: 9,
            cid_len: 9
        })
    );
    assert_eq!(new(10, 0, 1, Some(lb)), Ok(()));
}

/// Pearson's chi-squared of counts against a uniform distribution.
fn chi_squared(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    let term = |&n: &u32| (f64::from(n) - expected).powi(2) / expected;
    counts.iter().map(term).sum()
}

/// For 255 degrees of freedom chi-squared exceeds this once in 10^6 uniform samples.
const CHI_255: f64 = 377.0;

#[test]
fn the_last_byte_does_not_show_the_shard() {
    let mut rng = Rng::from_u64(5);
    for len in [8, 11, 20] {
        // 255 shards leave the blur next to nothing: there the mix alone has to hide them.
        for shards in [2, 4, 255] {
            for shard in [0, 1, shards - 1] {
                let codec = codec(len, shard, shards);
                let mut last = [0; 256];
                let mut low_nibbles_with_the_byte_before = [0; 256];
                for _ in 0..50_000 {
                    let cid = codec.issue(&mut rng);
                    let [.., before, byte] = *cid.as_slice() else {
                        unreachable!()
                    };
                    last[usize::from(byte)] += 1;
                    low_nibbles_with_the_byte_before[usize::from(before << 4 | byte & 15)] += 1;
                }
                let what = format!("{len} bytes, shard {shard} of {shards}");
                assert!(chi_squared(&last) < CHI_255, "{what}");
                assert!(
                    chi_squared(&low_nibbles_with_the_byte_before) < CHI_255,
                    "{what}"
                );
            }
        }
    }
}

/// IDs that differ in one bit only are masked independently: the xor of their masks is uniform.
#[test]
fn close_ids_are_masked_differently() {
    let mut rng = Rng::from_u64(6);
    for len in [8usize, 20] {
        let keys = codec(len, 0, 1).keys;
        for bit in 0..(len - 1) * 8 {
            let mut counts = [0; 16];
            for _ in 0..2000 {
                let mut body = vec![0; len - 1];
                rng.fill(&mut body);
                let mask = keys.mix(&body);
                body[bit / 8] ^= 1 << (bit % 8);
                counts[usize::from((mask ^ keys.mix(&body)) & 15)] += 1;
            }
            // 15 degrees of freedom; a mask that ignored the bit would score 30,000.
            assert!(
                chi_squared(&counts) < 200.0,
                "bit {bit} of {len} bytes: {counts:?}"
            );
        }
    }
}

fn group(codec: &CidCodec) -> Vec<UdpSocket> {
    let count = usize::from(codec.shards());
    let sockets = reuseport::bind_group("127.0.0.1:0".parse().unwrap(), count).unwrap();
    reuseport::attach(&sockets[0], &codec.program()).unwrap();
    for socket in &sockets {
        socket.set_nonblocking(true).unwrap();
    }
    sockets
}

/// Which socket gets the one datagram that is under way; waits for it, as a loaded machine may
/// deliver it later than `send` returns.
fn landed(sockets: &[UdpSocket]) -> usize {
    let mut buffer = [0; 2048];
    for _ in 0..5000 {
        let mut got = |s: &UdpSocket| s.recv(&mut buffer).is_ok();
        if let Some(at) = sockets.iter().position(&mut got) {
            assert!(!sockets.iter().any(got), "one datagram on two sockets");
            return at;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the datagram did not arrive");
}

#[test]
fn the_kernel_steers_as_the_codec_says() {
    let mut rng = Rng::from_u64(7);
    for (len, shards) in [(8, 4), (9, 3), (20, 4), (13, 2)] {
        let codec = codec(len, 0, shards);
        let sockets = group(&codec);
        let to = sockets[0].local_addr().unwrap();
        for _ in 0..20 {
            // A client of its own: another port, another hash.
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            for long in [false, true] {
                let mut packet = [0; 60];
                rng.fill(&mut packet);
                packet[0] = packet[0] & 0x7f | u8::from(long) << 7;
                packet[5] = if long { len as u8 } else { packet[5] };
                let at = if long { LONG_DCID } else { SHORT_DCID };
                client.send_to(&packet, to).unwrap();
                let expected = codec.shard_of(&packet[at..at + len]).map(usize::from);
                assert_eq!(Some(landed(&sockets)), expected);
            }
        }
    }
}

#[test]
fn what_has_no_id_of_ours_stays_with_the_kernels_hash() {
    let codec = codec(8, 0, 4);
    let sockets = group(&codec);
    let to = sockets[0].local_addr().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rng = Rng::from_u64(8);
    let mut places = Vec::new();
    for n in 0..40usize {
        let mut packet = [0; 30];
        rng.fill(&mut packet);
        packet[0] = 0xc0;
        // Lengths of DCID other than ours, and datagrams too short to tell.
        packet[5] = [0, 7, 9, 20][n % 4];
        let end = if n % 3 == 0 { 1 + n % 8 } else { 30 };
        client.send_to(&packet[..end], to).unwrap();
        places.push(landed(&sockets));
    }
    places.dedup();
    assert_eq!(places.len(), 1, "one client's four-tuple, one socket");
}
