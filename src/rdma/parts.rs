//! The device objects of one client, and those that a shard's clients share: made in order, undone
//! in the reverse order, whether a step failed or the client is gone.
//!
//! Each step's object is kept where [`Parts::tear_down`] finds it before the next step begins, so a
//! failure at any step leaves nothing behind.

use super::access::Access;
use super::attr::{AddressVector, DeviceAttr, InitAttr, Mtu, QpCap, QpInitAttr, RtrAttr, RtsAttr};
use super::bootstrap::{QueueTerms, RegionTerms};
use super::error::{PostError, RdmaError};
use super::ids::{CompletionQueueId, MemoryRegionId, ProtectionDomainId, SharedReceiveQueueId};
use super::port::{Port, Usage};
use super::provider::QueuePair;
use super::quota::Reservation;
use super::registry::{ObjectKind, Owner, Registry, Tracked};
use super::room::{Claimed, Room};
use super::work::{MemoryRegion, RecvRequest, Sge};
use smallvec::SmallVec;
use std::net::IpAddr;

/// Time without an answer before sending again: 4.096 µs · 2^16, a quarter of a second.
const TIMEOUT: u8 = 16;
/// How long a peer without a receive for us is waited for: 0.64 ms at a time, without end, for
/// credits say that it will have one.
const RNR_TIMER: u8 = 12;
const RETRIES: u8 = 7;

/// Requests that are posted with one call, at most.
pub const POSTS: usize = 16;

/// Posts receives of `slot` bytes each, at these places of `mr`, with one call.
///
/// # Errors
/// Those of `post`.
pub fn post_receives(
    mr: &MemoryRegion,
    slot: u32,
    mut places: impl ExactSizeIterator<Item = u64>,
    post: impl FnOnce(&[RecvRequest<'_>]) -> Result<(), PostError>,
) -> Result<(), PostError> {
    let at = |n: u64| (n, mr.sge(n.saturating_mul(slot.into()), slot));
    fn request((wr_id, sge): &(u64, Sge)) -> RecvRequest<'_> {
        RecvRequest {
            wr_id: *wr_id,
            sges: std::slice::from_ref(sge),
        }
    }
    // Most are lists of one, for which none is made.
    if places.len() == 1
        && let Some(one) = places.next().map(at)
    {
        return post(&[request(&one)]);
    }
    let all: SmallVec<[(u64, Sge); POSTS]> = places.map(at).collect();
    post(&all.iter().map(request).collect::<SmallVec<[_; POSTS]>>())
}

/// The places of so many receives, as many at a time as are posted with one call.
fn batches(receives: u32) -> impl Iterator<Item = impl ExactSizeIterator<Item = u64>> {
    let batch = move |at: u32| (at..receives.min(at + POSTS as u32)).map(u64::from);
    (0..receives).step_by(POSTS).map(batch)
}

/// Sizes of a client's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of a message with its header.
    pub slot: u32,
    /// Messages under way.
    pub window: u32,
    /// One-sided operations under way.
    pub operations: u32,
    /// Bytes of the region that is announced; 0 for none.
    pub region: usize,
    /// What the peer may do there.
    pub access: Access,
    /// The largest path MTU to use.
    pub mtu: Mtu,
    /// READs and atomics under way.
    pub rd_atomic: u8,
}

impl Plan {
    /// Requests of the send queue: messages, acknowledgements, operations, and room to look for
    /// completions late.
    pub const fn send_depth(&self) -> u32 {
        self.window * 2 + self.operations + 8
    }

    /// As far as a device can do it.
    #[must_use]
    pub fn within(self, device: &DeviceAttr) -> Self {
        Self {
            mtu: self.mtu.min(device.max_mtu),
            rd_atomic: self.rd_atomic.min(device.max_qp_rd_atom),
            ..self
        }
    }

    /// Receives of a queue pair of its own.
    pub const fn receives(&self) -> u32 {
        self.window * 2 + 4
    }

    /// Registered bytes, with the receives of a queue pair that does not share them.
    pub const fn bytes(&self, own_receives: bool) -> usize {
        let slots = if own_receives { self.receives() } else { 0 } + self.window;
        self.slot as usize * slots as usize + self.region
    }
}

/// What all clients of a shard use.
#[derive(Debug)]
pub struct Shared {
    /// Where everything completes.
    pub cq: CompletionQueueId,
    /// The receives of all, where the provider can share them: the queue and its memory.
    pub receives: Option<(SharedReceiveQueueId, MemoryRegion)>,
    /// Bytes of a receive.
    pub slot: u32,
    room: Room,
    /// What the shared receives take of it.
    claimed: Option<Claimed>,
    pd: Option<ProtectionDomainId>,
    tracked: Vec<Tracked>,
}

/// Entries of a completion queue that one is tried with at last.
const LEAST_ENTRIES: u32 = 1024;

/// A completion queue of `cqe` entries, or of fewer where the device or the machine has less.
fn completion_queue<P: Port + ?Sized>(
    port: &mut P,
    cqe: u32,
) -> Result<(CompletionQueueId, u32), RdmaError> {
    let mut cqe = cqe.min(port.query_device().max_cqe);
    loop {
        match port.create_cq(cqe) {
            Err(RdmaError::System { .. }) if cqe / 2 >= LEAST_ENTRIES => cqe /= 2,
            made => return made.map(|cq| (cq, cqe)),
        }
    }
}

impl Shared {
    /// Makes them: a completion queue of at most `cqe` entries, and `receives` receives of `slot`
    /// bytes.
    ///
    /// # Errors
    /// Those of the provider; nothing is left then.
    pub fn build<P: Port + ?Sized>(
        port: &mut P,
        registry: &Registry,
        owner: Owner,
        (cqe, receives, slot): (u32, u32, u32),
    ) -> Result<Self, RdmaError> {
        let (cq, cqe) = completion_queue(port, cqe)?;
        let mut shared = Self {
            cq,
            receives: None,
            slot,
            room: Room::new(cqe),
            claimed: None,
            pd: None,
            tracked: vec![registry.enter(owner, ObjectKind::CompletionQueue, cqe.into())],
        };
        if port.shares_receives()
            && let Err(error) = shared.share(port, registry, owner, receives)
        {
            shared.tear_down(port);
            return Err(error);
        }
        Ok(shared)
    }

    fn share<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        registry: &Registry,
        owner: Owner,
        receives: u32,
    ) -> Result<(), RdmaError> {
        self.claimed = Some(self.room.claim(receives)?);
        let mut note = |kind, n| self.tracked.push(registry.enter(owner, kind, n));
        let pd = port.alloc_pd()?;
        self.pd = Some(pd);
        note(ObjectKind::Domain, 0);
        let len = receives as usize * self.slot as usize;
        let srq = port.create_srq(pd, receives, 1)?;
        note(ObjectKind::SharedReceiveQueue, receives.into());
        let mr = match port.reg_mr(pd, len, Access::LOCAL_WRITE) {
            Ok(mr) => mr,
            Err(error) => {
                // Not in place yet, so not found by the teardown.
                port.destroy_srq(srq)?;
                return Err(error);
            }
        };
        note(ObjectKind::Region, len as u64);
        self.receives = Some((srq, mr));
        let mut batches = batches(receives);
        let posted = batches
            .try_for_each(|b| post_receives(&mr, self.slot, b, |b| port.post_srq_recv(srq, b)));
        posted.map_err(|e| e.error)
    }

    /// Entries of the completion queue, and how many clients may fill at the worst.
    pub fn usage(&self) -> Usage {
        self.room.usage()
    }

    /// Removes everything, once no client is left.
    pub fn tear_down<P: Port + ?Sized>(mut self, port: &mut P) {
        if let Some((srq, mr)) = self.receives.take() {
            report(port.destroy_srq(srq));
            report(port.dereg_mr(mr.id));
        }
        if let Some(pd) = self.pd.take() {
            report(port.dealloc_pd(pd));
        }
        report(port.destroy_cq(self.cq));
    }
}

/// What a teardown step says is for the log: the next steps are taken all the same.
fn report(step: Result<(), RdmaError>) {
    if let Err(error) = step {
        tracing::error!(%error, "a device object could not be removed");
    }
}

/// The objects of one client.
#[derive(Debug)]
pub struct Parts {
    pd: Option<(ProtectionDomainId, Tracked)>,
    send: Option<(MemoryRegion, Tracked)>,
    region: Option<(MemoryRegion, Tracked)>,
    receives: Option<(MemoryRegion, Tracked)>,
    qp: Option<(QueuePair, Tracked)>,
    room: Option<Claimed>,
    /// Bytes that may be given inline.
    inline: u32,
    plan: Plan,
    reservation: Option<Reservation>,
}

impl Parts {
    /// Makes a client's domain, memory and queue pair, which is in INIT then.
    ///
    /// # Errors
    /// Those of the provider; nothing is left then, the reservation included.
    pub fn build<P: Port + ?Sized>(
        port: &mut P,
        shared: &Shared,
        plan: Plan,
        entry: (&Registry, Owner),
        reservation: Option<Reservation>,
    ) -> Result<Self, RdmaError> {
        let mut parts = Self {
            pd: None,
            send: None,
            region: None,
            receives: None,
            qp: None,
            room: None,
            inline: port.query_device().max_inline_data.min(INLINE),
            plan: plan.within(&port.query_device()),
            reservation,
        };
        match parts.steps(port, shared, entry) {
            Ok(()) => Ok(parts),
            Err(error) => {
                parts.tear_down(port);
                Err(error)
            }
        }
    }

    fn steps<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        shared: &Shared,
        entry: (&Registry, Owner),
    ) -> Result<(), RdmaError> {
        let plan = self.plan;
        let enter = |kind, detail: usize| entry.0.enter(entry.1, kind, detail as u64);
        let pd = port.alloc_pd()?;
        self.pd = Some((pd, enter(ObjectKind::Domain, 0)));
        let len = plan.slot as usize * plan.window as usize;
        let send = port.reg_mr(pd, len, Access::LOCAL_WRITE)?;
        self.send = Some((send, enter(ObjectKind::Region, len)));
        if plan.region > 0 {
            let access = plan.access | Access::LOCAL_WRITE;
            let region = port.reg_mr(pd, plan.region, access)?;
            self.region = Some((region, enter(ObjectKind::Region, plan.region)));
        }
        if shared.receives.is_none() {
            let len = plan.receives() as usize * plan.slot as usize;
            let mr = port.reg_mr(pd, len, Access::LOCAL_WRITE)?;
            self.receives = Some((mr, enter(ObjectKind::Region, len)));
        }
        self.queue(port, shared, entry)
    }

    /// Makes the queue pair, with all its receives posted.
    fn queue<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        shared: &Shared,
        (registry, owner): (&Registry, Owner),
    ) -> Result<(), RdmaError> {
        let plan = self.plan;
        let own = match shared.receives {
            Some(_) => 0,
            None => plan.receives(),
        };
        self.room = Some(shared.room.claim(plan.send_depth() + own)?);
        let attr = QpInitAttr {
            send_cq: shared.cq,
            recv_cq: shared.cq,
            srq: shared.receives.map(|(srq, _)| srq),
            cap: QpCap {
                max_send_wr: plan.send_depth(),
                max_recv_wr: own,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: self.inline,
            },
            sq_sig_all: false,
        };
        let Some((pd, _)) = self.pd else {
            return Err(RdmaError::Unknown("protection domain"));
        };
        let qp = port.create_qp(pd, &attr)?;
        let tracked = registry.enter(owner, ObjectKind::QueuePair, qp.qpn.into());
        self.qp = Some((qp, tracked));
        port.modify_to_init(
            qp.id,
            &InitAttr {
                access: plan.access,
            },
        )?;
        let mut batches = batches(plan.receives());
        let posted = batches.try_for_each(|places| self.post_receives(port, places));
        posted.map_err(|e| e.error)
    }

    /// Makes another queue pair for the same client, in INIT, after [`Parts::drop_queue`].
    ///
    /// # Errors
    /// Those of the provider; the client has what it had before then.
    pub fn renew<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        shared: &Shared,
        entry: (&Registry, Owner),
    ) -> Result<(), RdmaError> {
        if self.qp.is_some() {
            let (what, users) = ("client", 1);
            return Err(RdmaError::Busy { what, users });
        }
        let made = self.queue(port, shared, entry);
        if made.is_err() {
            self.drop_queue(port);
        }
        made
    }

    /// Posts receives of the queue pair's own, where it has such: at most [`POSTS`], with one call.
    ///
    /// # Errors
    /// Those of the provider, and how many were posted.
    pub fn post_receives<P: Port + ?Sized>(
        &self,
        port: &mut P,
        places: impl ExactSizeIterator<Item = u64>,
    ) -> Result<(), PostError> {
        let (Some((mr, _)), Some((qp, _))) = (&self.receives, &self.qp) else {
            return Ok(());
        };
        post_receives(mr, self.plan.slot, places, |b| port.post_recv(qp.id, b))
    }

    /// Takes the queue pair to RTS, connected to the peer's; with `splits` both write packet by
    /// packet.
    ///
    /// # Errors
    /// Those of the provider.
    pub fn connect<P: Port + ?Sized>(
        &self,
        port: &mut P,
        local: IpAddr,
        peer: &QueueTerms,
        splits: bool,
    ) -> Result<(), RdmaError> {
        let (qp, _) = self.qp.as_ref().ok_or(RdmaError::Unknown("queue pair"))?;
        let (sgid_index, ..) = port.gid_of(local).ok_or(RdmaError::NoGid { index: 0 })?;
        let rd_atomic = self.plan.rd_atomic;
        let rtr = RtrAttr {
            av: AddressVector {
                sgid_index,
                dgid: peer.gid,
                udp_port: peer.udp_port,
            },
            path_mtu: peer.mtu.min(self.plan.mtu),
            dest_qpn: peer.qpn,
            rq_psn: peer.psn,
            max_dest_rd_atomic: rd_atomic,
            min_rnr_timer: RNR_TIMER,
        };
        port.modify_to_rtr(qp.id, &rtr)?;
        let rts = RtsAttr {
            sq_psn: qp.psn,
            timeout: TIMEOUT,
            retry_cnt: RETRIES,
            rnr_retry: 7,
            max_rd_atomic: rd_atomic.min(peer.rd_atomic),
        };
        port.modify_to_rts(qp.id, &rts)?;
        if splits {
            port.split_writes(qp.id)?;
        }
        Ok(())
    }

    /// What to tell the peer of the queue pair; `None` without one, or without an address.
    pub fn queue_terms<P: Port + ?Sized>(&self, port: &P, local: IpAddr) -> Option<QueueTerms> {
        let (qp, _) = self.qp.as_ref()?;
        let (_, gid, udp_port) = port.gid_of(local)?;
        Some(QueueTerms {
            qpn: qp.qpn,
            psn: qp.psn,
            gid,
            udp_port,
            mtu: self.plan.mtu,
            rd_atomic: self.plan.rd_atomic,
        })
    }

    /// What to tell the peer of the region.
    pub fn region_terms(&self) -> Option<RegionTerms> {
        let (mr, _) = self.region.as_ref()?;
        Some(RegionTerms {
            addr: mr.addr,
            len: mr.len as u64,
            rkey: mr.rkey,
            access: self.plan.access,
        })
    }

    /// The queue pair.
    pub fn qp(&self) -> Option<QueuePair> {
        self.qp.as_ref().map(|(qp, _)| *qp)
    }

    /// Bytes that may be given inline, at most [`INLINE`].
    pub const fn inline(&self) -> usize {
        self.inline as usize
    }

    /// The memory that messages are sent from.
    pub fn send(&self) -> Option<MemoryRegion> {
        self.send.as_ref().map(|(mr, _)| *mr)
    }

    /// The memory that is announced.
    pub fn region(&self) -> Option<MemoryRegion> {
        self.region.as_ref().map(|(mr, _)| *mr)
    }

    /// The memory of a receive of its own: the region, and where in it.
    pub fn receive(&self, n: u64) -> Option<(MemoryRegionId, u64)> {
        let (mr, _) = self.receives.as_ref()?;
        Some((mr.id, self.place(n)))
    }

    const fn place(&self, n: u64) -> u64 {
        n.saturating_mul(self.plan.slot as u64)
    }

    /// Removes the queue pair alone: what it had under way must have been flushed and polled.
    pub fn drop_queue<P: Port + ?Sized>(&mut self, port: &mut P) {
        if let Some((qp, tracked)) = self.qp.take() {
            report(port.destroy_qp(qp.id));
            drop(tracked);
        }
        self.room = None;
    }

    /// The reservation, for who keeps something else for the client.
    pub fn take_reservation(&mut self) -> Option<Reservation> {
        self.reservation.take()
    }

    /// Removes everything: queue pair, memory, domain.
    pub fn tear_down<P: Port + ?Sized>(mut self, port: &mut P) {
        self.drop_queue(port);
        for (mr, tracked) in [self.receives.take(), self.region.take(), self.send.take()]
            .into_iter()
            .flatten()
        {
            report(port.dereg_mr(mr.id));
            drop(tracked);
        }
        if let Some((pd, tracked)) = self.pd.take() {
            report(port.dealloc_pd(pd));
            drop(tracked);
        }
    }
}

/// Bytes of messages that are copied when posted, at most.
pub const INLINE: u32 = 256;
