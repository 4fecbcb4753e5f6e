//! Attributes of devices and queue pairs, and the states that a queue pair passes through.
//!
//! Every value is checked where it enters, against what the wire can carry and the device can do.
//! What a peer announced has an error of its own, so that nobody looks for it in a configuration.

use super::access::Access;
use super::error::RdmaError;
use super::ids::{CompletionQueueId, Gid, SharedReceiveQueueId};

/// The state of a queue pair (`ibv_qp_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QpState {
    /// As created: nothing is possible.
    Reset,
    /// Receives can be posted.
    Init,
    /// Ready to receive: the peer's requests are served.
    Rtr,
    /// Ready to send, too.
    Rts,
    /// Everything posted is flushed; only a reset leads out.
    Err,
}

impl QpState {
    /// Whether a queue pair may go from here to `next`. To [`Err`](Self::Err) and
    /// [`Reset`](Self::Reset) it always may.
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (_, Self::Err | Self::Reset)
                | (Self::Reset, Self::Init)
                | (Self::Init, Self::Rtr)
                | (Self::Rtr, Self::Rts)
        )
    }
}

/// Payload bytes of a full packet (`ibv_mtu`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mtu {
    /// 256 bytes.
    Mtu256 = 256,
    /// 512 bytes.
    Mtu512 = 512,
    /// 1,024 bytes.
    Mtu1024 = 1024,
    /// 2,048 bytes.
    Mtu2048 = 2048,
    /// 4,096 bytes.
    Mtu4096 = 4096,
}

impl Mtu {
    /// Every value, ascending.
    pub const ALL: [Self; 5] = [
        Self::Mtu256,
        Self::Mtu512,
        Self::Mtu1024,
        Self::Mtu2048,
        Self::Mtu4096,
    ];

    /// In bytes.
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// The MTU of exactly so many bytes.
    pub fn from_bytes(bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.bytes() == bytes)
    }
}

/// What a device can do (`ibv_device_attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAttr {
    /// Queue pairs.
    pub max_qp: u32,
    /// Work requests in one queue.
    pub max_qp_wr: u32,
    /// SGEs of one request.
    pub max_sge: u32,
    /// Bytes of inline data.
    pub max_inline_data: u32,
    /// Completion queues.
    pub max_cq: u32,
    /// Entries of one.
    pub max_cqe: u32,
    /// Memory regions.
    pub max_mr: u32,
    /// Bytes of one.
    pub max_mr_size: u64,
    /// Bytes of all.
    pub max_registered: u64,
    /// Protection domains.
    pub max_pd: u32,
    /// Shared receive queues.
    pub max_srq: u32,
    /// READs and atomics of one queue pair under way, as responder and as requester.
    pub max_qp_rd_atom: u8,
    /// Bytes of one message.
    pub max_msg_sz: u32,
    /// The largest MTU.
    pub max_mtu: Mtu,
}

/// Lengths of a queue pair's queues (`ibv_qp_cap`). Zero requests make a queue of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QpCap {
    /// Requests in the send queue.
    pub max_send_wr: u32,
    /// Requests in the receive queue; not used with a shared one.
    pub max_recv_wr: u32,
    /// SGEs of a send request.
    pub max_send_sge: u32,
    /// SGEs of a receive request.
    pub max_recv_sge: u32,
    /// Bytes of inline data.
    pub max_inline_data: u32,
}

impl QpCap {
    /// Checks the lengths against the device's.
    pub fn check(&self, device: &DeviceAttr) -> Result<(), RdmaError> {
        let at_most = "at most what the device can";
        for (name, value, max) in [
            ("max_send_wr", self.max_send_wr, device.max_qp_wr),
            ("max_recv_wr", self.max_recv_wr, device.max_qp_wr),
            ("max_send_sge", self.max_send_sge, device.max_sge),
            ("max_recv_sge", self.max_recv_sge, device.max_sge),
            (
                "max_inline_data",
                self.max_inline_data,
                device.max_inline_data,
            ),
        ] {
            ours(name, value.into(), value <= max, at_most)?;
        }
        Ok(())
    }
}

/// What a queue pair is made with (`ibv_qp_init_attr`).
#[derive(Clone, Copy, Debug)]
pub struct QpInitAttr {
    /// Where completions of the send queue go.
    pub send_cq: CompletionQueueId,
    /// Where completions of receives go.
    pub recv_cq: CompletionQueueId,
    /// Receive from a shared queue instead of one's own.
    pub srq: Option<SharedReceiveQueueId>,
    /// Lengths.
    pub cap: QpCap,
    /// Treat every request as signalled.
    pub sq_sig_all: bool,
}

/// What RESET → INIT needs.
#[derive(Clone, Copy, Debug)]
pub struct InitAttr {
    /// What the peer may do through this queue pair.
    pub access: Access,
}

/// Where the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressVector {
    /// Which of the device's own GIDs to send from.
    pub sgid_index: u8,
    /// The peer's GID.
    pub dgid: Gid,
    /// The peer's UDP port: 4791 for every device of the standard.
    pub udp_port: u16,
}

/// What INIT → RTR needs.
#[derive(Clone, Copy, Debug)]
pub struct RtrAttr {
    /// Where the peer is.
    pub av: AddressVector,
    /// Payload of a full packet, the same on both sides.
    pub path_mtu: Mtu,
    /// The peer's queue pair number, 24 bits.
    pub dest_qpn: u32,
    /// The peer's first packet sequence number, 24 bits.
    pub rq_psn: u32,
    /// READs and atomics of the peer that may be under way at once.
    pub max_dest_rd_atomic: u8,
    /// How long to ask the peer to wait when no receive is posted: the 5-bit code of the standard,
    /// 1 for 10 µs to 31 for 491.52 ms, 0 for 655.36 ms.
    pub min_rnr_timer: u8,
}

impl RtrAttr {
    /// Checks what can be checked without knowing the device's addresses.
    pub fn check(&self, device: &DeviceAttr) -> Result<(), RdmaError> {
        theirs(
            "QPN",
            self.dest_qpn,
            (2..0xff_ffff).contains(&self.dest_qpn),
        )?;
        theirs("PSN", self.rq_psn, self.rq_psn <= 0xff_ffff)?;
        let ip = self.av.dgid.ip();
        theirs("GID", 0, !ip.is_unspecified() && !ip.is_multicast())?;
        theirs("UDP port", self.av.udp_port.into(), self.av.udp_port != 0)?;
        let mtu = self.path_mtu;
        ours(
            "path_mtu",
            mtu.bytes() as u64,
            mtu <= device.max_mtu,
            "at most the device's",
        )?;
        let n = self.max_dest_rd_atomic;
        let allowed = "at most what the device can";
        ours(
            "max_dest_rd_atomic",
            n.into(),
            n <= device.max_qp_rd_atom,
            allowed,
        )?;
        let timer = self.min_rnr_timer;
        ours("min_rnr_timer", timer.into(), timer < 32, "0 to 31")
    }
}

/// What RTR → RTS needs.
#[derive(Clone, Copy, Debug)]
pub struct RtsAttr {
    /// Our first packet sequence number, 24 bits; the peer's `rq_psn`.
    pub sq_psn: u32,
    /// Time without an answer after which is sent again: 4.096 µs · 2^`timeout`, 0 for never.
    pub timeout: u8,
    /// How often to send again without progress, 0 to 7.
    pub retry_cnt: u8,
    /// How often to wait for a receive of the peer, 0 to 6; 7 is without end.
    pub rnr_retry: u8,
    /// Our READs and atomics that may be under way at once; at most the peer's
    /// `max_dest_rd_atomic`.
    pub max_rd_atomic: u8,
}

impl RtsAttr {
    /// Checks the ranges.
    pub fn check(&self, device: &DeviceAttr) -> Result<(), RdmaError> {
        ours(
            "sq_psn",
            self.sq_psn.into(),
            self.sq_psn <= 0xff_ffff,
            "24 bits",
        )?;
        ours("timeout", self.timeout.into(), self.timeout < 32, "0 to 31")?;
        ours(
            "retry_cnt",
            self.retry_cnt.into(),
            self.retry_cnt < 8,
            "0 to 7",
        )?;
        ours(
            "rnr_retry",
            self.rnr_retry.into(),
            self.rnr_retry < 8,
            "0 to 7",
        )?;
        let n = self.max_rd_atomic;
        let allowed = "at most what the device can";
        ours(
            "max_rd_atomic",
            n.into(),
            n <= device.max_qp_rd_atom,
            allowed,
        )
    }
}

/// The time that `timeout` of [`RtsAttr`] stands for, in nanoseconds; `None` is never.
pub const fn timeout_nanos(timeout: u8) -> Option<u64> {
    match timeout & 31 {
        0 => None,
        t => Some(4096 << t),
    }
}

/// The time that a receiver-not-ready code stands for, in nanoseconds.
pub const fn rnr_nanos(code: u8) -> u64 {
    // In units of 10 µs, as the standard lists them.
    const TENS: [u64; 32] = [
        65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024,
        1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
    ];
    TENS[(code & 31) as usize] * 10_000
}

fn ours(name: &'static str, value: u64, ok: bool, allowed: &'static str) -> Result<(), RdmaError> {
    let error = RdmaError::Attribute {
        name,
        value,
        allowed,
    };
    if ok { Ok(()) } else { Err(error) }
}

fn theirs(name: &'static str, value: u32, ok: bool) -> Result<(), RdmaError> {
    let error = RdmaError::PeerAttribute {
        name,
        value: value.into(),
        allowed: "not what can be sent to",
    };
    if ok { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdma::error::Blame;
    use std::net::{IpAddr, Ipv4Addr};

    const DEVICE: DeviceAttr = crate::rdma::roce::DEVICE_ATTR;

    #[test]
    fn states_follow_the_picture() {
        use QpState::*;
        let all = [Reset, Init, Rtr, Rts, Err];
        for from in all {
            for to in all {
                let expected = matches!(to, Err | Reset)
                    || matches!((from, to), (Reset, Init) | (Init, Rtr) | (Rtr, Rts));
                assert_eq!(from.may_become(to), expected, "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn timers_are_the_standards() {
        assert_eq!(timeout_nanos(0), None);
        assert_eq!(timeout_nanos(14), Some(67_108_864));
        assert_eq!(timeout_nanos(31), Some(4096 << 31));
        assert_eq!(rnr_nanos(0), 655_360_000);
        assert_eq!(rnr_nanos(1), 10_000);
        assert_eq!(rnr_nanos(12), 640_000);
        assert_eq!(rnr_nanos(31), 491_520_000);
    }

    #[test]
    fn the_path_mtu_has_five_values() {
        assert_eq!(Mtu::from_bytes(4096), Some(Mtu::Mtu4096));
        assert_eq!(Mtu::from_bytes(1500), None);
        assert!(Mtu::ALL.is_sorted());
    }

    fn rtr() -> RtrAttr {
        RtrAttr {
            av: AddressVector {
                sgid_index: 0,
                dgid: IpAddr::V4(Ipv4Addr::LOCALHOST).into(),
                udp_port: 4791,
            },
            path_mtu: Mtu::Mtu1024,
            dest_qpn: 17,
            rq_psn: 0xff_ffff,
            max_dest_rd_atomic: 4,
            min_rnr_timer: 12,
        }
    }

    #[test]
    fn attributes_out_of_range_are_named_with_whose_they_are() {
        assert_eq!(rtr().check(&DEVICE), Ok(()));
        type Edit = fn(&mut RtrAttr);
        let edits: [(Edit, &str, Blame); 8] = [
            (|a| a.dest_qpn = 1, "QPN", Blame::Peer),
            (|a| a.dest_qpn = 0x100_0000, "QPN", Blame::Peer),
            (|a| a.rq_psn = 0x100_0000, "PSN", Blame::Peer),
            (|a| a.av.dgid = Gid([0; 16]), "GID", Blame::Peer),
            (|a| a.av.dgid = Gid([0xff; 16]), "GID", Blame::Peer),
            (|a| a.av.udp_port = 0, "UDP port", Blame::Peer),
            (
                |a| a.max_dest_rd_atomic = 200,
                "max_dest_rd_atomic",
                Blame::Configuration,
            ),
            (
                |a| a.min_rnr_timer = 32,
                "min_rnr_timer",
                Blame::Configuration,
            ),
        ];
        for (edit, name, blame) in edits {
            let mut attr = rtr();
            edit(&mut attr);
            let error = attr.check(&DEVICE).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(error.blame(), blame, "{error}");
        }
        let rts = RtsAttr {
            sq_psn: 1,
            timeout: 14,
            retry_cnt: 7,
            rnr_retry: 7,
            max_rd_atomic: 1,
        };
        assert_eq!(rts.check(&DEVICE), Ok(()));
        assert!(
            RtsAttr {
                retry_cnt: 8,
                ..rts
            }
            .check(&DEVICE)
            .is_err()
        );
        assert!(RtsAttr { timeout: 32, ..rts }.check(&DEVICE).is_err());
        let sq_psn = 1 << 24;
        assert!(RtsAttr { sq_psn, ..rts }.check(&DEVICE).is_err());
    }
}
