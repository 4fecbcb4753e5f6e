//! Control messages of sent and received datagrams: segment size, ECN, addresses.
//!
//! Reading takes what the kernel wrote and tolerates everything: a message that is cut short or
//! unknown is skipped. Writing builds at most what [`Control`] has room for, checked at compile
//! time.

use crate::base::Ecn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `cmsghdr`: a length and two integers.
const HEADER: usize = size_of::<usize>() + 8;
const ALIGN: usize = size_of::<usize>();

const fn align(len: usize) -> usize {
    (len + ALIGN - 1) & !(ALIGN - 1)
}

const fn space(payload: usize) -> usize {
    align(HEADER + payload)
}

/// Room for one UDP_SEGMENT, one TOS or traffic class, one packet info.
const SEND_LEN: usize = space(size_of::<u16>()) + space(size_of::<i32>()) + space(20);

/// Room that a receive needs: packet info and TOS of both families (a dual-stack socket may give
/// both for one datagram), the GRO size, and one message to spare.
pub(super) const RECV_LEN: usize = 192;

const _: () = assert!(
    space(12) + space(20) + 3 * space(size_of::<i32>()) + space(size_of::<i32>()) <= RECV_LEN
);
const _: () = assert!(RECV_LEN.is_multiple_of(16));

/// The control data of one message to send.
#[derive(Clone, Debug)]
#[repr(C, align(8))]
pub(super) struct Control {
    bytes: [u8; SEND_LEN],
    len: usize,
}

impl Control {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; SEND_LEN],
            len: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// The kernel cuts the message into datagrams of `size` bytes.
    pub(super) fn push_segment_size(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, size.to_ne_bytes());
    }

    /// The type of service of an IPv4 datagram, or the traffic class of an IPv6 one.
    pub(super) fn push_tos(&mut self, tos: u8, v4: bool) {
        let (level, ty) = if v4 {
            (libc::IPPROTO_IP, libc::IP_TOS)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
        };
        self.push(level, ty, i32::from(tos).to_ne_bytes());
    }

    /// The address that the datagram leaves from. `in_pktinfo` takes it in its second field,
    /// `in6_pktinfo` in its first; interface 0 lets the kernel route.
    pub(super) fn push_source(&mut self, source: IpAddr) {
        match source {
            IpAddr::V4(v4) => {
                let mut info = [0u8; 12];
                info[4..8].copy_from_slice(&v4.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(v6) => {
                let mut info = [0u8; 20];
                info[..16].copy_from_slice(&v6.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }

    fn push<const N: usize>(&mut self, level: i32, ty: i32, payload: [u8; N]) {
        let Some(room) = self.bytes.get_mut(self.len..self.len + space(N)) else {
            debug_assert!(false, "each kind of message is pushed at most once");
            return;
        };
        room[..ALIGN].copy_from_slice(&(HEADER + N).to_ne_bytes());
        room[ALIGN..ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
        room[ALIGN + 4..HEADER].copy_from_slice(&ty.to_ne_bytes());
        room[HEADER..HEADER + N].copy_from_slice(&payload);
        self.len += space(N);
    }
}

/// What the control data of a received datagram or train said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// The address it was sent to, IPv4-mapped ones as IPv4.
    pub(super) local: Option<IpAddr>,
    /// Its ECN field; one for a whole train.
    pub(super) ecn: Ecn,
    /// Bytes of each datagram of a train; a single datagram carries none.
    pub(super) segment_size: Option<usize>,
}

/// Reads the control data of one receive.
#[inline]
pub(super) fn parse(mut control: &[u8]) -> Received {
    let mut received = Received::default();
    while let Some((len, rest)) = control.split_first_chunk::<ALIGN>() {
        let len = usize::from_ne_bytes(*len);
        let (Some(level), Some(ty)) = (int(rest, 0), int(rest, 4)) else {
            break;
        };
        if len < HEADER {
            break;
        }
        let Some(payload) = control.get(HEADER..len) else {
            break;
        };
        received.take(level, ty, payload);
        control = control.get(align(len)..).unwrap_or(&[]);
    }
    received
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    Some(i32::from_ne_bytes(*four))
}

impl Received {
    #[inline]
    fn take(&mut self, level: i32, ty: i32, payload: &[u8]) {
        match (level, ty) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                self.segment_size = int(payload, 0).and_then(|n| usize::try_from(n).ok());
            }
            // A byte for IPv4, an integer for IPv6.
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                self.ecn = payload.first().map_or(self.ecn, |&b| Ecn::from_tos(b));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                self.ecn = int(payload, 0).map_or(self.ecn, |n| Ecn::from_tos(n as u8));
            }
            // `in_pktinfo` ends with the address of the IP header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                if let Some(a) = payload.get(8..).and_then(|p| p.first_chunk::<4>()) {
                    self.local = Some(IpAddr::V4(Ipv4Addr::from(*a)));
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(a) = payload.first_chunk::<16>() {
                    let v6 = Ipv6Addr::from(*a);
                    self.local = Some(IpAddr::V6(v6).to_canonical());
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(c: &Control) -> &[u8] {
        &c.bytes[..c.len]
    }

    #[test]
    fn what_is_written_is_laid_out_as_the_kernel_reads_it() {
        let mut c = Control::new();
        c.push_segment_size(1200);
        c.push_tos(Ecn::Ect0 as u8, false);
        c.push_source("2001:db8::1".parse().unwrap());
        assert_eq!(c.len(), SEND_LEN);
        // The layout is checked against the C library's own accessors.
        // SAFETY: the header is a plain C structure; all zeroes is valid.
        let mut h: libc::msghdr = unsafe { std::mem::zeroed() };
        h.msg_control = c.as_mut_ptr().cast();
        h.msg_controllen = c.len() as _;
        let mut seen = Vec::new();
        // SAFETY: the header refers to `c`'s initialised control bytes.
        unsafe {
            let mut m = libc::CMSG_FIRSTHDR(&h);
            while !m.is_null() {
                seen.push(((*m).cmsg_level, (*m).cmsg_type, *libc::CMSG_DATA(m)));
                m = libc::CMSG_NXTHDR(&h, m);
            }
        }
        assert_eq!(
            seen,
            [
                (libc::SOL_UDP, libc::UDP_SEGMENT, 1200u16.to_ne_bytes()[0]),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 2),
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 0x20),
            ]
        );
    }

    #[test]
    fn received_messages_are_understood() {
        let mut c = Control::new();
        c.push(libc::SOL_UDP, libc::UDP_GRO, 1452i32.to_ne_bytes());
        c.push(libc::IPPROTO_IP, libc::IP_TOS, [3u8]);
        let mut info = [0u8; 12];
        info[8..].copy_from_slice(&[127, 0, 0, 2]);
        c.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        let got = parse(bytes(&c));
        assert_eq!(got.segment_size, Some(1452));
        assert_eq!(got.ecn, Ecn::Ce);
        assert_eq!(got.local, Some("127.0.0.2".parse().unwrap()));
    }

    #[test]
    fn a_mapped_address_reads_as_ipv4() {
        let mut c = Control::new();
        c.push_source("::ffff:10.0.0.7".parse().unwrap());
        assert_eq!(parse(bytes(&c)).local, Some("10.0.0.7".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(b in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&b);
        }

        #[test]
        fn plausible_lengths_parse_without_panic(
            parts in proptest::collection::vec((0usize..60, 0i32..60, 0i32..110), 0..6)
        ) {
            let mut b = Vec::new();
            for (len, level, ty) in parts {
                b.extend(len.to_ne_bytes());
                b.extend(level.to_ne_bytes());
                b.extend(ty.to_ne_bytes());
                b.resize(b.len() + len.saturating_sub(HEADER), 0xff);
            }
            parse(&b);
        }
    }
}
