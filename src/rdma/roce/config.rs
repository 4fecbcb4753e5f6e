//! What a device of this provider is made with.

use super::DEVICE_ATTR;
use crate::base::{SocketId, limits};
use crate::rdma::attr::DeviceAttr;
use crate::rdma::error::RdmaError;
use std::net::SocketAddr;
use std::time::Duration;

/// The UDP port of RoCE v2.
pub const PORT: u16 = 4791;

/// One address of the device: an entry of its GID table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The socket that it sends by.
    pub socket: SocketId,
    /// The socket's address. Its IP must be specified, for the ICRC covers it.
    pub addr: SocketAddr,
}

/// What identification IPv4 gives the datagrams of a train, which the ICRC covers and a socket does
/// not choose. Either way the socket must be unconnected and send don't-fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identification {
    /// 0, 1, 2, … within each train: the kernel cuts them (UDP_SEGMENT).
    #[default]
    Ascending,
    /// Always 0: they are sent one by one, or the network card cuts them so.
    Zero,
}

/// A device's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The GID table; `sgid_index` of an address vector counts in it.
    pub addresses: Vec<LocalAddress>,
    /// What the device offers, at most [`DEVICE_ATTR`].
    pub attr: DeviceAttr,
    /// Bytes of SENDs and WRITEs that one queue pair has under way.
    pub window: usize,
    /// How IPv4 numbers what we send.
    pub identification: Identification,
    /// How long the acknowledgement of a short SEND may wait for others, or for a packet that the
    /// application sends in answer; zero tells at once. Whoever waits for the completion of a SEND
    /// waits that much longer.
    pub ack_delay: Duration,
    /// Low bits of every queue pair number that are `shard`, so that others can be told where a
    /// packet belongs by its header. At most 8.
    pub shard_bits: u8,
    /// The value of these bits.
    pub shard: u8,
}

impl Config {
    /// The defaults, with one address.
    pub fn new(socket: SocketId, addr: SocketAddr) -> Self {
        Self {
            addresses: vec![LocalAddress { socket, addr }],
            attr: DEVICE_ATTR,
            window: limits::ROCE_WINDOW,
            identification: Identification::default(),
            ack_delay: Duration::ZERO,
            shard_bits: 0,
            shard: 0,
        }
    }

    pub(super) fn check(&self) -> Result<(), RdmaError> {
        let ok = |name, value, ok, allowed| {
            let error = RdmaError::Attribute {
                name,
                value,
                allowed,
            };
            if ok { Ok(()) } else { Err(error) }
        };
        let n = self.addresses.len() as u64;
        ok("number of addresses", n, n > 0 && n <= 256, "1 to 256")?;
        let unspecified = |a: &LocalAddress| a.addr.ip().is_unspecified();
        let first = self.addresses.iter().position(unspecified);
        let at = first.unwrap_or(0) as u64;
        ok(
            "GID index",
            at,
            first.is_none(),
            "an address with a specified IP",
        )?;
        let bits = self.shard_bits;
        ok("shard_bits", bits.into(), bits <= 8, "0 to 8")?;
        let fits = u32::from(self.shard) < 1 << bits;
        ok("shard", self.shard.into(), fits, "what shard_bits can hold")?;
        let (a, max) = (&self.attr, &DEVICE_ATTR);
        let at_most = "at most what the provider can";
        for (name, value, max) in [
            ("max_qp", a.max_qp.into(), max.max_qp.into()),
            ("max_qp_wr", a.max_qp_wr.into(), max.max_qp_wr.into()),
            ("max_sge", a.max_sge.into(), max.max_sge.into()),
            (
                "max_inline_data",
                a.max_inline_data.into(),
                max.max_inline_data.into(),
            ),
            ("max_cq", a.max_cq.into(), max.max_cq.into()),
            ("max_cqe", a.max_cqe.into(), max.max_cqe.into()),
            ("max_mr", a.max_mr.into(), max.max_mr.into()),
            ("max_mr_size", a.max_mr_size, max.max_mr_size),
            ("max_pd", a.max_pd.into(), max.max_pd.into()),
            ("max_srq", a.max_srq.into(), max.max_srq.into()),
            (
                "max_qp_rd_atom",
                a.max_qp_rd_atom.into(),
                max.max_qp_rd_atom.into(),
            ),
            ("max_msg_sz", a.max_msg_sz.into(), max.max_msg_sz.into()),
        ] {
            ok(name, value, value <= max, at_most)?;
        }
        Ok(())
    }
}
