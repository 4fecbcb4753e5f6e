//! What a server sends a client in CRYPTO frames once the handshake is done: tickets, and by
//! RFC 9001 §6 and §4.4 nothing else. Followed message by message, so that a client knows when it
//! can go on without TLS, and what to answer then.

/// NewSessionTicket (RFC 8446 §4.6.1).
const TICKET: u8 = 4;

/// Where in the stream of messages the last byte was. Small, for every connection has one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct After {
    /// The part of a message's header that has come: its type, and of its length the upper bytes.
    header: [u8; 3],
    headed: u8,
    /// Bytes of the message's body that have not; rustls reads no longer ones, either.
    left: u16,
}

/// Something else than a ticket, or longer than one can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfTurn;

impl After {
    /// Follows `data`, the next bytes of the stream.
    pub(super) fn read(&mut self, data: &[u8]) -> Result<(), OutOfTurn> {
        let mut rest = data;
        while let Some((&byte, behind)) = rest.split_first() {
            if self.left > 0 {
                let skipped = rest.len().min(self.left.into());
                self.left -= skipped as u16;
                rest = rest.get(skipped..).unwrap_or_default();
            } else {
                rest = behind;
                self.head(byte)?;
            }
        }
        Ok(())
    }

    fn head(&mut self, byte: u8) -> Result<(), OutOfTurn> {
        if let Some(room) = self.header.get_mut(usize::from(self.headed)) {
            *room = byte;
            self.headed += 1;
            return Ok(());
        }
        self.headed = 0;
        let [kind, upper, middle] = self.header;
        self.left = u16::from_be_bytes([middle, byte]);
        if kind == TICKET && upper == 0 {
            Ok(())
        } else {
            Err(OutOfTurn)
        }
    }

    /// Whether no message has begun and not ended.
    pub(super) fn is_between(&self) -> bool {
        self.headed == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; 7] = [4, 0, 0, 3, 1, 2, 3];

    #[test]
    fn tickets_pass_however_they_are_cut() {
        let stream = [&ONE[..], &[4, 0, 0, 0], &ONE].concat();
        for cut in 0..=stream.len() {
            let mut after = After::default();
            let (first, second) = stream.split_at(cut);
            after.read(first).unwrap();
            assert_eq!(after.is_between(), matches!(cut, 0 | 7 | 11 | 18), "{cut}");
            after.read(second).unwrap();
            assert!(after.is_between());
        }
    }

    #[test]
    fn anything_else_is_out_of_turn() {
        for kind in (0..=255).filter(|kind| *kind != TICKET) {
            let mut after = After::default();
            after.read(&ONE).unwrap();
            assert_eq!(after.read(&[kind, 0, 0, 1]), Err(OutOfTurn));
        }
        assert_eq!(After::default().read(&[4, 1, 0, 0]), Err(OutOfTurn));
        assert_eq!(After::default().read(&[4, 0, 0xff, 0xff]), Ok(()));
    }
}
