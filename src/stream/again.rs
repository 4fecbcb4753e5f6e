//! Frames that were sent are sent once more: copies on another path, beside the first that is still
//! under way, or what was lost on a path that the caller chose.
//!
//! A copy changes nothing here: whichever is acknowledged first counts, and what is acknowledged
//! already is left out. Control frames say what is newest.

use super::output::{SentFrame, stream_bit, write_one};
use super::send::Again;
use super::set::Streams;
use crate::wire::frame;
use crate::wire::{StreamId, Writer};

impl Streams {
    /// Appends what `frame` said, as far as it still matters, and reports what was written to
    /// `sent`. With `lost` only of what is to be sent again anyway, which counts as done then.
    /// Returns what does not fit.
    pub fn write_again(
        &mut self,
        w: &mut Writer<'_>,
        frame: SentFrame,
        lost: bool,
        sent: &mut impl FnMut(SentFrame),
    ) -> Option<SentFrame> {
        let SentFrame::Stream {
            id,
            offset,
            len,
            fin,
        } = frame
        else {
            // A control frame that was lost is queued, and repeated with what is newest.
            return (!lost).then(|| self.write_control_again(w, frame, sent))?;
        };
        let slot = self.find(id)?;
        let to = offset.saturating_add(u64::from(len));
        let mut from = offset;
        let (mut again, mut left) = (0, None);
        loop {
            let send = self.slots.get_mut(slot as usize)?.send.as_mut()?;
            match send.emit_again(w, id, (from, to), fin, lost) {
                Again::Wrote { offset, len, fin } => {
                    sent(SentFrame::Stream {
                        id,
                        offset,
                        len,
                        fin,
                    });
                    again += u64::from(len);
                    from = offset.saturating_add(u64::from(len));
                    if fin {
                        break;
                    }
                }
                Again::NoRoom(offset) => {
                    let len = to.saturating_sub(offset) as u32;
                    left = Some(SentFrame::Stream {
                        id,
                        offset,
                        len,
                        fin,
                    });
                    break;
                }
                Again::Nothing => break,
            }
        }
        if lost {
            self.stats.tx_bytes_again += again;
            self.update_send(slot);
        }
        left
    }

    fn write_control_again(
        &mut self,
        w: &mut Writer<'_>,
        frame: SentFrame,
        sent: &mut impl FnMut(SentFrame),
    ) -> Option<SentFrame> {
        if w.remaining() < frame::RESET_STREAM_SIZE {
            return Some(frame);
        }
        match frame {
            SentFrame::Stream { .. } => return None,
            SentFrame::ResetStream(id) => self.write_one_again(w, id, stream_bit::RESET)?,
            SentFrame::StopSending(id) => self.write_one_again(w, id, stream_bit::STOP)?,
            SentFrame::MaxStreamData(id) => self.write_one_again(w, id, stream_bit::MAX_DATA)?,
            SentFrame::StreamDataBlocked(id) => {
                self.write_one_again(w, id, stream_bit::BLOCKED)?;
            }
            SentFrame::MaxData => frame::write_max_data(w, self.flow.window.limit()),
            SentFrame::DataBlocked => frame::write_data_blocked(w, self.flow.peer_limit),
            SentFrame::MaxStreams(dir) => {
                let max = self.peer.get_mut(dir as usize)?.raise();
                frame::write_max_streams(w, dir, max);
            }
            SentFrame::StreamsBlocked(dir) => {
                let limit = self.local.get(dir as usize)?.limit;
                frame::write_streams_blocked(w, dir, limit);
            }
        }
        sent(frame);
        None
    }

    fn write_one_again(&mut self, w: &mut Writer<'_>, id: StreamId, which: u8) -> Option<()> {
        let slot = self.find(id)?;
        let slot = self.slots.get_mut(slot as usize)?;
        write_one(slot, which, w).map(|_| ())
    }

    /// Whether anything of a stream may still have to be sent or acknowledged.
    pub fn is_sending(&self, id: StreamId) -> bool {
        let slot = self.find(id).map(|slot| slot as usize);
        slot.is_some_and(|slot| self.slots.get(slot).is_some_and(|s| s.send.is_some()))
    }
}

#[cfg(test)]
mod tests;
