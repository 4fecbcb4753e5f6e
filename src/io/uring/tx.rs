//! Sends: one slot a send buffer, from `send` until the kernel has taken the train.
//!
//! The buffer's place in its pool is the slot's index, so a leased buffer always finds its slot
//! free. When a socket's own buffer is full the kernel keeps the operation and completes it when
//! there is room; trains behind it on the same socket may then overtake it, other sockets are not
//! concerned.

use super::super::errno::Class;
use super::super::train::{Message, Progress};
use super::super::{Errno, SocketId, Transmit, TxBuffer};
use super::ring::{Completion, Kind};
use super::{Train, Uring};
use io_uring::{opcode, types};

/// What the kernel reads during one send.
pub(super) struct Slot {
    message: Message,
    /// Present while a send is queued or in the kernel.
    train: Option<Train>,
    socket: SocketId,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            message: Message::new(),
            train: None,
            socket: SocketId(0),
        }
    }
}

impl Uring {
    #[inline]
    pub(in super::super) fn send(&mut self, buffer: TxBuffer, transmit: Transmit) {
        let id = transmit.socket;
        if !self.can_send(id) {
            // Trains that are merely queued leave with a submission; what stays is stuck.
            let _ = self.flush();
            if !self.can_send(id) {
                self.refuse(&transmit);
                return;
            }
        }
        let index = buffer.lease().index();
        let entry = self
            .places
            .get_mut(id.index())
            .and_then(|p| p.entry.as_mut());
        let (Some(entry), Some(slot)) = (entry, self.slots.get_mut(index)) else {
            return;
        };
        debug_assert!(slot.train.is_none(), "a leased buffer's slot is free");
        slot.socket = id;
        slot.train = Train::new(buffer, transmit, &entry.socket, &mut self.stats);
        if slot.train.is_some() {
            entry.sending += 1;
            self.push_send(index);
        }
    }

    #[cold]
    fn refuse(&mut self, transmit: &Transmit) {
        let datagrams = transmit.segments() as u64;
        self.stats.tx_dropped += datagrams;
        match self.local_addr(transmit.socket) {
            Some(_) => self.stats.tx_over_share += datagrams,
            None => self.stats.errors.count(Errno(libc::EBADF)),
        }
    }

    /// Queues the message that the slot's train has come to.
    #[inline]
    fn push_send(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(place) = self.places.get_mut(slot.socket.index()) else {
            return;
        };
        if let (Some(train), Some(entry)) = (&slot.train, &place.entry) {
            let header = slot.message.prepare(train, train.sent(), &entry.socket);
            let send = opcode::SendMsg::new(types::Fixed(slot.socket.0), header)
                .flags(libc::MSG_NOSIGNAL as u32)
                .build();
            // SAFETY: the message lives in the boxed slots and the bytes in the train's buffer;
            // neither moves, is written or is freed before the completion (`on_sent`, `Drop`).
            let pushed = unsafe {
                self.ring
                    .push(send, Kind::Send, index as u32, &mut self.stats)
            };
            if pushed.is_ok() {
                place.operations += 1;
                self.operations += 1;
                return;
            }
        }
        self.finish(index);
    }

    /// A send is over: what next for its train?
    #[inline]
    pub(super) fn on_sent(&mut self, c: Completion) {
        let index = c.index as usize;
        self.operations -= 1;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(place) = self.places.get_mut(slot.socket.index()) else {
            return;
        };
        place.operations -= 1;
        let (Some(train), Some(entry)) = (&mut slot.train, &mut place.entry) else {
            // The socket is gone; its trains go, too.
            return self.finish(index);
        };
        let progress = if c.result >= 0 {
            train.on_sent(&mut entry.socket, &mut self.stats)
        } else {
            let errno = Errno(-c.result);
            match errno.class() {
                Class::Later if !entry.broken => {
                    self.stats.tx_full += 1;
                    Progress::More
                }
                Class::Later | Class::Drop(_) | Class::Broken(_) => {
                    train.on_refused(errno, &mut self.stats)
                }
            }
        };
        match progress {
            Progress::More => self.push_send(index),
            Progress::Done => self.finish(index),
        }
    }

    /// Empties a slot, which returns its buffer; what was not sent counts as dropped.
    #[inline]
    fn finish(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if let Some(mut train) = slot.train.take() {
            train.drop_rest(&mut self.stats);
        }
        let place = self.places.get_mut(slot.socket.index());
        if let Some(entry) = place.and_then(|p| p.entry.as_mut()) {
            entry.sending -= 1;
        }
    }
}
