//! A shard's share of a device: its objects, and what wakes it.

use super::Unavailable;
use super::context::{Claim, Context, Member, Psn};
use super::ffi;
use super::tags::{Recvs, Sends};
use crate::base::{Rng, limits};
use crate::rdma::attr::QpState;
use crate::rdma::bootstrap::QueueTerms;
use crate::rdma::completion::Completion;
use crate::rdma::error::RdmaError;
use crate::rdma::ids::{CompletionQueueId, Gid};
use crate::rdma::port::{Port, Usage, WakeFor};
use crate::rdma::slots::{Key, Slots};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The UDP port of every device of the standard.
pub(super) const UDP_PORT: u16 = 4791;

/// Refuses a peer at another port.
pub(super) fn takes_port(udp_port: u16) -> Result<(), RdmaError> {
    match udp_port {
        UDP_PORT => Ok(()),
        _ => Err(RdmaError::PeerAttribute {
            name: "UDP port",
            value: udp_port.into(),
            allowed: "4791 for a device of verbs",
        }),
    }
}

/// An object of libibverbs, and its part of the device's limit.
#[derive(Debug)]
pub(super) struct Counted<T> {
    pub object: Arc<T>,
    pub _claim: Claim,
}

/// A completion queue.
#[derive(Debug)]
pub(super) struct Completing {
    pub cq: Counted<ffi::Cq>,
    /// Completions that were taken off it to find those of a queue pair that goes.
    pub kept: VecDeque<Completion>,
}

/// A memory region.
#[derive(Debug)]
pub(super) struct Region {
    pub mr: ffi::Mr,
    pub len: usize,
    pub claims: [Claim; 2],
}

/// A shared receive queue.
#[derive(Debug)]
pub(super) struct Shared {
    pub srq: Counted<ffi::Srq>,
    pub pd: Key,
    pub recvs: Recvs,
    pub max_sge: usize,
}

/// A queue pair.
#[derive(Debug)]
pub(super) struct Pair {
    pub qp: ffi::Qp,
    pub _claim: Claim,
    pub _psn: Psn,
    /// The state that it was last put in, or was seen to have fallen to.
    pub state: QpState,
    pub cqs: [Key; 2],
    pub srq: Option<Key>,
    pub sends: Sends,
    pub recvs: Recvs,
    pub max_send_sge: usize,
    pub max_recv_sge: usize,
    pub max_inline: usize,
}

/// A device that this process has opened, for its shards to share.
#[derive(Clone, Debug)]
pub struct Opened(Arc<Context>);

impl Opened {
    /// The device of this name, or the first that has the address `ip`; the first of all that have
    /// an address where `ip` is unspecified.
    pub fn find(name: Option<&str>, ip: IpAddr) -> Result<Self, Unavailable> {
        let serves = |context: &Context| match ip.is_unspecified() {
            true => !context.gids().is_empty(),
            false => context.gid_of(ip.to_canonical()).is_some(),
        };
        if let Some(name) = name {
            let context = Context::open(Some(name))?;
            return match serves(&context) {
                true => Ok(Self(context)),
                false => Err(Unavailable::NoAddress {
                    device: Some(name.to_owned()),
                    ip,
                }),
            };
        }
        let mut refused = None;
        for name in super::devices()? {
            match Context::open(Some(&name)) {
                Ok(context) if serves(&context) => return Ok(Self(context)),
                Ok(_) => {}
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or(Unavailable::NoAddress { device: None, ip }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// One of its addresses: of IPv4 where it has such, and one that other hosts can name.
    pub fn address(&self) -> Result<IpAddr, Unavailable> {
        let rank = |ip: &IpAddr| match ip {
            IpAddr::V4(_) => 0,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => 2,
            IpAddr::V6(_) => 1,
        };
        let all = self.0.gids().into_iter().map(|(_, gid)| gid.ip());
        all.min_by_key(rank).ok_or(Unavailable::NoAddress {
            device: Some(self.0.name.clone()),
            ip: IpAddr::from([0; 4]),
        })
    }

    /// A shard's share; see [`Device::open`].
    pub fn device(&self, rng: Rng) -> Result<Device, Unavailable> {
        Device::on(&self.0, rng)
    }
}

/// One shard's share of a device of verbs. The device itself is opened once for the process.
#[derive(Debug)]
pub struct Device {
    // Queue pairs go first: what they stand on is removed after them.
    pub(super) qps: Slots<Pair>,
    pub(super) srqs: Slots<Shared>,
    pub(super) cqs: Slots<Completing>,
    pub(super) regions: Slots<Region>,
    pub(super) domains: Slots<Counted<ffi::Pd>>,
    pub(super) channel: Arc<ffi::Channel>,
    pub(super) member: Member,
    /// `verbs`, and which device.
    named: String,
    pub(super) qpns: HashMap<u32, Key, foldhash::quality::RandomState>,
    pub(super) registered: usize,
    pub(super) scratch: ffi::Scratch,
    pub(super) rng: Rng,
}

impl Device {
    /// A share of the device of this name, or of the machine's first. `rng` makes addresses of
    /// regions and packet sequence numbers: seed it from the system's generator.
    pub fn open(name: Option<&str>, rng: Rng) -> Result<Self, Unavailable> {
        Opened(Context::open(name)?).device(rng)
    }

    fn on(context: &Arc<Context>, rng: Rng) -> Result<Self, Unavailable> {
        let member = context.join()?;
        let attr = &context.attr;
        Ok(Self {
            qps: Slots::new(attr.max_qp as usize),
            srqs: Slots::new(attr.max_srq as usize),
            cqs: Slots::new(attr.max_cq as usize),
            regions: Slots::new(attr.max_mr as usize),
            domains: Slots::new(attr.max_pd as usize),
            channel: Arc::new(ffi::Channel::new(&context.raw)?),
            named: format!("verbs {}", context.name),
            member,
            qpns: HashMap::default(),
            registered: 0,
            scratch: ffi::Scratch::default(),
            rng,
        })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.context().name
    }

    /// The GID at `index` of the device's table.
    pub fn query_gid(&self, index: u8) -> Result<Gid, RdmaError> {
        self.context().gid(index)
    }

    /// The device's RoCE v2 addresses, with their indices.
    pub fn gids(&self) -> Vec<(u8, Gid)> {
        self.context().gids()
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        self.member.context()
    }

    /// A page of 47 bits, so that what a peer learns tells nothing of the process.
    pub(super) fn draw_addr(&mut self) -> u64 {
        const { assert!(limits::RDMA_REGION_BYTES < 1 << 46) };
        self.rng.next_u64() & 0x3fff_ffff_f000
    }
}

impl Port for Device {
    fn name(&self) -> &str {
        &self.named
    }

    fn moves_itself(&self) -> bool {
        true
    }

    fn prefers_inline(&self) -> bool {
        true
    }

    fn gid_of(&self, ip: IpAddr) -> Option<(u8, Gid, u16)> {
        let (index, gid) = self.context().gid_of(ip)?;
        Some((index, gid, UDP_PORT))
    }

    fn takes(&self, peer: &QueueTerms) -> Result<(), RdmaError> {
        takes_port(peer.udp_port)
    }

    fn not_ready(&self) -> Option<u64> {
        self.context().not_ready()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn usage(&self) -> Vec<Usage> {
        self.context().usage()
    }

    /// The queues' channel, the device's events, those of ours that another shard came upon, and
    /// the device's removal.
    fn wake_fds(&self) -> Vec<(WakeFor, BorrowedFd<'_>)> {
        let mut all = vec![
            (WakeFor::Completions, self.channel.wake_fd()),
            (WakeFor::Events, self.context().raw.wake_fd()),
            (WakeFor::Events, self.member.wake_fd()),
        ];
        let removal = self.context().removal_fd();
        all.extend(removal.map(|fd| (WakeFor::Events, fd)));
        all
    }

    fn req_notify_cq(&mut self, cq: CompletionQueueId) -> Result<(), RdmaError> {
        let queue = self.cqs.get(cq.0);
        let queue = queue.ok_or(RdmaError::Unknown("completion queue"))?;
        queue.cq.object.arm()
    }

    fn ack_cq_events(&mut self) {
        self.channel.take();
    }
}
