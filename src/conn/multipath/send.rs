//! Which path the next train leaves by, and the frames about paths that go by any of them.
//!
//! What belongs to a path goes there: challenges and their answers (multipath §3.1), probes after a
//! timeout, probes of the datagram size, and acknowledgements of what came over it. Everything else
//! goes by the path that [`Connection::select_path`] chooses, train by train; trains, pacing and
//! windows are each path's own. After a probe timeout the in-flight data of a path goes to those
//! that work.

use super::super::fill::write_path_ack;
use super::super::space::SentFrame;
use super::super::train::MIN_PACKET;
use super::super::{Connection, Load};
use super::Multipath;
use super::reinjection::is_movable;
use crate::base::{Timestamp, Transmit};
use crate::path::schedule::PathIds;
use crate::path::{Path, PathId, PathSet, PathState};
use crate::stream::Aim;
use crate::wire::Writer;
use crate::wire::frame::{self, NewConnectionId, PathFrame};
use std::ops::ControlFlow;

/// How a path is preferred: the smaller, the better.
fn rank(path: &Path<SentFrame>) -> (bool, bool, bool) {
    (
        path.state != PathState::Open,
        path.is_suspect(),
        path.status.is_backup(),
    )
}

impl Connection {
    /// The next train of a connection that may have several paths.
    pub(in super::super) fn poll_paths(
        &mut self,
        now: Timestamp,
        buf: &mut [u8],
    ) -> Option<Transmit> {
        self.settle_paths(now);
        self.settle_acks();
        self.reinject(now);
        if let Some(transmit) = self.poll_copies(now, buf) {
            return Some(transmit);
        }
        let carrier = self.carrier(now);
        if let Some(transmit) = self.poll_own(now, buf, carrier) {
            return Some(transmit);
        }
        if self.has_pins() {
            let transmit = self.poll_pinned(now, buf, carrier.is_some());
            if transmit.is_some() {
                return transmit;
            }
            self.streams.aim(Aim::Loose);
        }
        let Some(carrier) = carrier else {
            self.streams.aim(Aim::Every);
            self.note_flow_blocked(now);
            return None;
        };
        if !self.paths.select(carrier) {
            return None;
        }
        if self.paths.current().state != PathState::Open {
            self.load = Load::Control;
        }
        let transmit = self.poll_one_of_paths(now, buf);
        self.load = Load::All;
        self.streams.aim(Aim::Every);
        if let Some(m) = self.multipath.as_deref_mut() {
            m.choice.copies = PathIds::default();
        }
        transmit
    }

    /// The next train of what belongs to one path alone, of those that do not carry the rest: path
    /// by path.
    fn poll_own(
        &mut self,
        now: Timestamp,
        buf: &mut [u8],
        carrier: Option<PathId>,
    ) -> Option<Transmit> {
        let idle = !self.streams.wants_to_send() && !self.datagrams.wants_to_send();
        let mut asked = None;
        loop {
            let ready = |p: &&Path<SentFrame>| {
                Some(p.id) > asked && Some(p.id) != carrier && self.may_send_own(now, p)
            };
            let ready = self.paths.iter().filter(ready);
            let Some(id) = ready.map(|p| p.id).min() else {
                break;
            };
            asked = Some(id);
            self.paths.select(id);
            self.load = Load::Own;
            let transmit = self.poll_one_of_paths(now, buf);
            self.load = Load::All;
            if transmit.is_some() {
                return transmit;
            }
        }
        let others = self.paths.iter_mut().filter(|p| Some(p.id) != carrier);
        for path in others.filter(|p| idle && p.can_send()) {
            path.cc.on_out_of_data(now);
            path.window_limited = false;
        }
        None
    }

    /// Whether a path may have something of its own to send.
    #[inline]
    fn may_send_own(&self, now: Timestamp, path: &Path<SentFrame>) -> bool {
        path.can_send()
            && (self.path_wants_to_send(path)
                || path.mtu.may_probe(now)
                || self.initial.is_some()
                || self.handshake.is_some())
    }

    /// The next train of the path in hand, and what is to be told of it.
    pub(super) fn poll_one_of_paths(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        let before = self.paths.current().bytes_in_flight;
        let again = self.streams.bytes_again();
        self.chooses_path = false;
        let transmit = self.poll_transmit(now, buf);
        self.chooses_path = true;
        let transmit = transmit?;
        let again = self.streams.bytes_again().saturating_sub(again);
        self.paths.current_mut().counters.bytes_retransmitted += again;
        self.note_train(now, before);
        Some(transmit)
    }

    /// A train left on the path in hand, which had so many bytes in flight `before`.
    pub(super) fn note_train(&mut self, now: Timestamp, before: u64) {
        let path = self.paths.current_mut();
        if path.sent.ack_eliciting_in_flight() > 0
            && let Some(detector) = path.failure.as_deref_mut()
        {
            detector.on_sent(now);
        }
        let bytes = path.bytes_in_flight.saturating_sub(before);
        if bytes > 0
            && let Some(m) = self.multipath.as_deref_mut()
        {
            m.choice.selector.on_sent(now, path.id, bytes);
            if let Some(hook) = m.hook() {
                hook.packet_sent(now, path.id, bytes);
            }
        }
    }

    /// The path that the next train of what belongs to none leaves by.
    fn carrier(&mut self, now: Timestamp) -> Option<PathId> {
        self.streams.aim(Aim::Loose);
        let chosen = match self.connection_wants_to_send() {
            true => self.select_path(now),
            false => None,
        };
        self.streams.aim(Aim::Every);
        if chosen.is_some() {
            return chosen;
        }
        // Acknowledgements wait for no window, and what a path that is new is told of others for
        // none that is old.
        self.path_control_waits()
            .then(|| self.best_path())
            .flatten()
    }

    /// The best path, whatever its window says.
    pub(super) fn best_path(&self) -> Option<PathId> {
        let usable = |p: &&Path<SentFrame>| p.can_send() && p.allowance() >= MIN_PACKET;
        let best = self.paths.iter().filter(usable);
        best.min_by_key(|p| (rank(p), p.rtt.smoothed(), p.id))
            .map(|p| p.id)
    }

    /// The path that the next train is likely to leave by.
    pub(in super::super) fn next_path(&self) -> &Path<SentFrame> {
        let hand = self.paths.current();
        if self.paths.is_single() {
            return hand;
        }
        let mut own = self.paths.iter().filter(|p| p.can_send());
        let own = own.find(|p| self.path_wants_to_send(p));
        let best = || self.best_path().and_then(|id| self.paths.get(id));
        own.or_else(best).unwrap_or(hand)
    }

    /// Takes up the path that a goodbye goes by.
    pub(in super::super) fn take_best_path(&mut self) {
        if !self.paths.is_single() {
            let id = self.best_path().unwrap_or(self.main_path().id);
            self.paths.select(id);
        }
    }

    /// Decides which paths' acknowledgements go over others: those of paths that are abandoned,
    /// cannot be sent to, or may have failed while others work.
    ///
    /// One probe timeout is not enough: who mostly receives has few round-trip samples and is wrong
    /// about a queue that grows, and each way there and back leaves the sender without
    /// acknowledgements for as long as the delays of the two paths differ.
    fn settle_acks(&mut self) {
        let works =
            |p: &Path<SentFrame>| p.can_send() && !p.is_suspect() && p.state == PathState::Open;
        let others = self.paths.iter().filter(|p| works(p)).count();
        for path in self.paths.iter_mut() {
            let own = works(path);
            path.acks_away = !path.can_send() || (path.has_failed() && others > usize::from(own));
        }
    }

    /// Whether something waits that concerns paths and goes by any.
    #[inline]
    pub(in super::super) fn path_control_waits(&self) -> bool {
        let m = self.multipath.as_deref();
        m.is_some_and(|m| self.path_control_waits_in(m))
    }

    fn path_control_waits_in(&self, m: &Multipath) -> bool {
        let acks = |p: &Path<SentFrame>| p.acks_away && p.acks.should_ack_now();
        m.wants_to_send(&self.paths) || self.paths.iter().any(acks)
    }

    /// Whether some path has something of its own to send.
    pub(in super::super) fn some_path_wants_to_send(&self) -> bool {
        let can = |p: &&Path<SentFrame>| p.can_send();
        let mut paths = self.paths.iter().filter(can);
        self.pinned_datagrams_wait()
            || self.copies_wait()
            || paths.any(|p| self.path_wants_to_send(p))
    }

    /// An acknowledgement took bytes of the path in hand out of flight; it `answers` if the path
    /// was silent for a probe timeout.
    pub(in super::super) fn note_acked(&mut self, now: Timestamp, bytes: u64, answers: bool) {
        let id = self.paths.current().id;
        if let Some(m) = self.multipath.as_deref_mut() {
            m.choice.selector.on_acked(now, id, bytes);
            if let Some(hook) = m.hook() {
                hook.packet_acked(now, id, bytes);
            }
        }
        self.note_alive(now, answers);
        self.hook_state(now);
    }

    /// Bytes of the path in hand were declared lost.
    pub(in super::super) fn note_lost(&mut self, now: Timestamp, bytes: u64) {
        let path = self.paths.current_mut();
        if path.sent.ack_eliciting_in_flight() == 0
            && let Some(detector) = path.failure.as_deref_mut()
        {
            detector.nothing_outstanding();
        }
        if let Some(m) = self.multipath.as_deref_mut() {
            m.choice.selector.on_lost(now, path.id, bytes);
            if let Some(hook) = m.hook() {
                hook.packet_lost(now, path.id, bytes);
            }
        }
    }

    /// A probe timeout of the path in hand: while another path works, all that is in flight goes
    /// there, once; the path is asked by PINGs. False when there is no other.
    pub(in super::super) fn move_in_flight(&mut self) -> bool {
        let works =
            |p: &Path<SentFrame>| p.state == PathState::Open && p.can_send() && !p.is_suspect();
        if self.multipath.is_none() || !self.paths.others().any(works) {
            return false;
        }
        let mut again = std::mem::take(&mut self.scratch);
        again.clear();
        let path = self.paths.current_mut();
        let from = path.moved_below;
        path.moved_below = path.sent.next_packet_number();
        let mut moved = Vec::new();
        path.sent.for_each_outstanding(|pn, packet, frames| {
            if pn >= from && packet.ack_eliciting && !packet.spare {
                again.extend_from_slice(frames);
                if is_movable(frames) {
                    moved.push(pn);
                }
            }
            ControlFlow::Continue(())
        });
        for pn in moved {
            path.sent.set_spare(pn);
        }
        self.send_all_again(&mut again);
        self.scratch = again;
        let path = self.paths.current_mut();
        // One that has not answered yet gets challenges alone, in their own time.
        path.owed_probes = match path.state {
            PathState::Validating => 0,
            _ => 2,
        };
        true
    }

    /// Takes all that the path in hand, which was abandoned, has in flight for lost (multipath
    /// §3.4.3).
    pub(in super::super) fn resend_in_flight(&mut self, now: Timestamp) {
        let mut again = std::mem::take(&mut self.scratch);
        again.clear();
        let path = self.paths.current_mut();
        let (first_pn, counters) = (path.first_pn, &mut path.counters);
        let before = counters.packets_lost;
        path.sent.discard(|pn, packet, frames| {
            if packet.in_flight && !packet.mtu_probe && pn >= first_pn {
                counters.packets_lost += 1;
                counters.bytes_lost += u64::from(packet.size);
            }
            if !packet.spare {
                again.extend_from_slice(frames);
            }
        });
        self.stats.packets_lost += counters.packets_lost - before;
        let (id, bytes) = (path.id, std::mem::take(&mut path.bytes_in_flight));
        // Its peer may never let it be forgotten.
        path.sent.rest();
        let hook = self.multipath.as_deref_mut().and_then(Multipath::hook);
        if let Some(hook) = hook.filter(|_| bytes > 0) {
            hook.packet_lost(now, id, bytes);
        }
        for frame in again.drain(..) {
            self.send_again(frame);
        }
        self.scratch = again;
    }

    /// Queues a frame about paths anew, where it still matters.
    pub(in super::super) fn send_path_frame_again(&mut self, frame: SentFrame) {
        let Some(m) = self.multipath.as_deref_mut() else {
            return;
        };
        match frame {
            SentFrame::PathAbandon { path, error } => m.repeat_abandon(path, error),
            SentFrame::MaxPathId { max } => m.limits.on_lost(max),
            SentFrame::AddAddress { .. } | SentFrame::Paths | SentFrame::ClosePath { .. } => {
                if let Some(a) = m.addresses.as_deref_mut() {
                    a.on_lost(frame);
                }
            }
            SentFrame::PathStatus { path, seq } => {
                if let Some(p) = self.paths.get_mut(path) {
                    p.status.on_lost(seq);
                }
            }
            SentFrame::PathNewConnectionId { path, seq } => {
                if let Some(p) = self.paths.get_mut(path) {
                    if !p.is_abandoned() {
                        p.local_cids.on_lost(seq);
                    }
                } else if let Some(a) = m.ahead(path) {
                    a.local_cids.on_lost(seq);
                }
            }
            SentFrame::PathRetireConnectionId { path, seq } => {
                if let Some(p) = self.paths.get_mut(path) {
                    if !p.is_abandoned() {
                        p.remote_cids.on_retire_lost(seq);
                    }
                } else if let Some(a) = m.ahead(path) {
                    a.remote_cids.on_retire_lost(seq);
                }
            }
            _ => {}
        }
    }

    /// The frames in `scratch` were acknowledged.
    #[cold]
    pub(in super::super) fn on_path_frames_acked(&mut self) {
        let mut frames = std::mem::take(&mut self.scratch);
        for frame in frames.drain(..) {
            self.on_path_frame_acked(frame);
        }
        self.scratch = frames;
    }

    /// A frame about another path than the one that carried it was acknowledged.
    fn on_path_frame_acked(&mut self, frame: SentFrame) {
        match frame {
            SentFrame::PathAck { path, largest } => {
                if let Some(p) = self.paths.get_mut(path) {
                    p.acks.on_ack_of_ack(largest);
                }
            }
            SentFrame::PathRetireConnectionId { path, .. } => {
                if let Some(p) = self.paths.get_mut(path) {
                    p.remote_cids.on_retire_acked();
                } else if let Some(a) = self.multipath.as_deref_mut().and_then(|m| m.ahead(path)) {
                    a.remote_cids.on_retire_acked();
                }
            }
            _ => {}
        }
    }
}

impl Multipath {
    /// Whether a frame about paths waits.
    fn wants_to_send(&self, paths: &PathSet<SentFrame>) -> bool {
        !self.abandons.is_empty()
            || self.limits.wants_to_send()
            || self.paths_blocked
            || self.cids_blocked.is_some()
            || self.addresses.as_deref().is_some_and(|a| a.wants_to_send())
            || paths.iter().any(|p| {
                !p.is_abandoned()
                    && (p.local_cids.wants_to_send()
                        || p.remote_cids.wants_to_send()
                        || p.status.wants_to_send())
            })
            || self
                .ahead
                .iter()
                .any(|a| a.local_cids.wants_to_send() || a.remote_cids.wants_to_send())
    }

    /// Writes the frames about paths that wait, as far as there is room.
    pub(in super::super) fn write(
        &mut self,
        paths: &mut PathSet<SentFrame>,
        w: &mut Writer<'_>,
        scratch: &mut Vec<SentFrame>,
    ) {
        if !self.wants_to_send(paths) {
            return;
        }
        while w.remaining() >= frame::multipath::PATH_ABANDON_SIZE
            && let Some((path, error)) = self.abandons.pop()
        {
            frame::multipath::write_path_abandon(w, path, error);
            scratch.push(SentFrame::PathAbandon { path, error });
        }
        for p in paths.iter_mut().filter(|p| !p.is_abandoned()) {
            if w.remaining() >= frame::multipath::PATH_STATUS_SIZE
                && let Some((status, seq)) = p.status.poll()
            {
                frame::multipath::write_path_status(w, p.id, status, seq);
                scratch.push(SentFrame::PathStatus { path: p.id, seq });
            }
        }
        if w.remaining() >= frame::multipath::MAX_PATH_ID_SIZE
            && let Some(max) = self.limits.poll()
        {
            frame::multipath::write_max_path_id(w, max);
            scratch.push(SentFrame::MaxPathId { max });
        }
        if let Some(a) = self.addresses.as_deref_mut().filter(|a| a.wants_to_send()) {
            a.write(w, scratch);
        }
        self.write_cids(paths, w, scratch);
        self.write_blocked(w, scratch);
    }

    /// Writes PATH_RETIRE_CONNECTION_ID and PATH_NEW_CONNECTION_ID frames.
    fn write_cids(
        &mut self,
        paths: &mut PathSet<SentFrame>,
        w: &mut Writer<'_>,
        scratch: &mut Vec<SentFrame>,
    ) {
        let open = paths.iter_mut().filter(|p| !p.is_abandoned());
        let open = open.map(|p| (p.id, &mut p.local_cids, &mut p.remote_cids));
        let ahead = self.ahead.iter_mut();
        let ahead = ahead.map(|a| (a.id, &mut a.local_cids, &mut a.remote_cids));
        for (path, local, remote) in open.chain(ahead) {
            while w.remaining() >= frame::multipath::PATH_RETIRE_CONNECTION_ID_SIZE
                && let Some(seq) = remote.poll_retire()
            {
                frame::multipath::write_path_retire_connection_id(w, path, seq);
                scratch.push(SentFrame::PathRetireConnectionId { path, seq });
            }
            while w.remaining() >= frame::multipath::PATH_NEW_CONNECTION_ID_SIZE
                && let Some(a) = local.poll_announcement()
            {
                let new = NewConnectionId {
                    seq: a.seq,
                    retire_prior_to: 0,
                    cid: a.cid,
                    reset_token: a.token,
                };
                frame::multipath::write_path_new_connection_id(w, path, &new);
                let seq = a.seq;
                scratch.push(SentFrame::PathNewConnectionId { path, seq });
            }
        }
    }

    /// Writes PATHS_BLOCKED and PATH_CIDS_BLOCKED frames: hints, which are not repeated.
    fn write_blocked(&mut self, w: &mut Writer<'_>, scratch: &mut Vec<SentFrame>) {
        let max = self.limits.peer_max();
        let paths = self.paths_blocked.then_some(PathFrame::PathsBlocked(max));
        let next_seq = |a: &super::Ahead| a.remote_cids.next_seq();
        let cids = self.cids_blocked.map(|path| PathFrame::CidsBlocked {
            path,
            next_seq: self.ahead.iter().find(|a| a.id == path).map_or(0, next_seq),
        });
        for hint in [paths, cids].into_iter().flatten() {
            if w.remaining() < hint.write_size() {
                return;
            }
            hint.write(w);
            scratch.push(SentFrame::Unreliable);
        }
        self.paths_blocked = false;
        self.cids_blocked = None;
    }
}

/// Writes the acknowledgements of other paths than the one in hand that go over this one.
pub(in super::super) fn write_acks_away(
    now: Timestamp,
    paths: &mut PathSet<SentFrame>,
    w: &mut Writer<'_>,
    scratch: &mut Vec<SentFrame>,
    (count, exponent): (&mut u64, u8),
) {
    let hand = paths.current().id;
    for p in paths.iter_mut().filter(|p| p.acks_away && p.id != hand) {
        let acks = &mut p.acks;
        if !acks.should_ack_now() && acks.deadline().is_none() {
            continue;
        }
        let Some(largest) = acks.largest() else {
            continue;
        };
        let delay = (acks.ack_delay(now).as_micros() as u64) >> exponent;
        if write_path_ack(w, p.id, acks, delay) > 0 {
            acks.on_ack_sent();
            let path = p.id;
            scratch.push(SentFrame::PathAck { path, largest });
            *count += 1;
        }
    }
}
