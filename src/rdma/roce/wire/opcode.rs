//! The opcodes of a reliable connection, and what each says about its packet.

/// What a packet does (BTH opcode, reliable connection).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// SEND, first of several packets.
    SendFirst = 0x00,
    /// SEND, neither first nor last.
    SendMiddle = 0x01,
    /// SEND, last.
    SendLast = 0x02,
    /// SEND, last, with immediate.
    SendLastImm = 0x03,
    /// SEND in one packet.
    SendOnly = 0x04,
    /// SEND in one packet, with immediate.
    SendOnlyImm = 0x05,
    /// RDMA WRITE, first of several packets.
    WriteFirst = 0x06,
    /// RDMA WRITE, neither first nor last.
    WriteMiddle = 0x07,
    /// RDMA WRITE, last.
    WriteLast = 0x08,
    /// RDMA WRITE, last, with immediate.
    WriteLastImm = 0x09,
    /// RDMA WRITE in one packet.
    WriteOnly = 0x0a,
    /// RDMA WRITE in one packet, with immediate.
    WriteOnlyImm = 0x0b,
    /// RDMA READ request.
    ReadRequest = 0x0c,
    /// RDMA READ response, first of several packets.
    ReadResponseFirst = 0x0d,
    /// RDMA READ response, neither first nor last.
    ReadResponseMiddle = 0x0e,
    /// RDMA READ response, last.
    ReadResponseLast = 0x0f,
    /// RDMA READ response in one packet.
    ReadResponseOnly = 0x10,
    /// Acknowledgement, positive or negative.
    Acknowledge = 0x11,
    /// Acknowledgement of an atomic, with its result.
    AtomicAcknowledge = 0x12,
    /// Compare-and-swap.
    CompareSwap = 0x13,
    /// Fetch-and-add.
    FetchAdd = 0x14,
}

/// Why an opcode is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A reliable connection's, but reserved or not offered here: an invalid request.
    Unsupported,
    /// A congestion notification.
    Congestion,
    /// Another transport's.
    Foreign,
}

/// Which operation a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SEND.
    Send,
    /// RDMA WRITE.
    Write,
    /// RDMA READ request.
    ReadRequest,
    /// RDMA READ response.
    ReadResponse,
    /// Acknowledgement.
    Acknowledge,
    /// Acknowledgement of an atomic.
    AtomicAcknowledge,
    /// Either atomic.
    Atomic,
}

/// Where in its message a packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first of several.
    First,
    /// Neither first nor last.
    Middle,
    /// The last of several.
    Last,
    /// The only one.
    Only,
}

impl Place {
    /// The place of packet `n` of `count`.
    #[inline]
    pub const fn of(n: u32, count: u32) -> Self {
        match (n == 0, n + 1 >= count) {
            (true, true) => Self::Only,
            (true, false) => Self::First,
            (false, false) => Self::Middle,
            (false, true) => Self::Last,
        }
    }

    /// Whether a message begins here.
    #[inline]
    pub const fn begins(self) -> bool {
        matches!(self, Self::First | Self::Only)
    }

    /// Whether a message ends here.
    #[inline]
    pub const fn ends(self) -> bool {
        matches!(self, Self::Last | Self::Only)
    }
}

impl Opcode {
    const ALL: [Self; 0x15] = [
        Self::SendFirst,
        Self::SendMiddle,
        Self::SendLast,
        Self::SendLastImm,
        Self::SendOnly,
        Self::SendOnlyImm,
        Self::WriteFirst,
        Self::WriteMiddle,
        Self::WriteLast,
        Self::WriteLastImm,
        Self::WriteOnly,
        Self::WriteOnlyImm,
        Self::ReadRequest,
        Self::ReadResponseFirst,
        Self::ReadResponseMiddle,
        Self::ReadResponseLast,
        Self::ReadResponseOnly,
        Self::Acknowledge,
        Self::AtomicAcknowledge,
        Self::CompareSwap,
        Self::FetchAdd,
    ];

    /// The opcode of a BTH's first byte.
    #[inline]
    pub fn from_byte(byte: u8) -> Result<Self, Refusal> {
        match (Self::ALL.get(usize::from(byte)), byte) {
            (Some(&opcode), _) => Ok(opcode),
            (None, 0x81) => Err(Refusal::Congestion),
            // The three high bits name the transport; 0 is the reliable connection.
            (None, 0x15..0x20) => Err(Refusal::Unsupported),
            (None, _) => Err(Refusal::Foreign),
        }
    }

    /// The packet of a SEND.
    pub const fn send(place: Place, imm: bool) -> Self {
        match (place, imm) {
            (Place::First, _) => Self::SendFirst,
            (Place::Middle, _) => Self::SendMiddle,
            (Place::Last, false) => Self::SendLast,
            (Place::Last, true) => Self::SendLastImm,
            (Place::Only, false) => Self::SendOnly,
            (Place::Only, true) => Self::SendOnlyImm,
        }
    }

    /// The packet of an RDMA WRITE.
    pub const fn write(place: Place, imm: bool) -> Self {
        match (place, imm) {
            (Place::First, _) => Self::WriteFirst,
            (Place::Middle, _) => Self::WriteMiddle,
            (Place::Last, false) => Self::WriteLast,
            (Place::Last, true) => Self::WriteLastImm,
            (Place::Only, false) => Self::WriteOnly,
            (Place::Only, true) => Self::WriteOnlyImm,
        }
    }

    /// The packet of an RDMA READ's response.
    pub const fn read_response(place: Place) -> Self {
        match place {
            Place::First => Self::ReadResponseFirst,
            Place::Middle => Self::ReadResponseMiddle,
            Place::Last => Self::ReadResponseLast,
            Place::Only => Self::ReadResponseOnly,
        }
    }

    /// Which operation it belongs to.
    #[inline]
    pub const fn kind(self) -> Kind {
        match self as u8 {
            0x00..=0x05 => Kind::Send,
            0x06..=0x0b => Kind::Write,
            0x0c => Kind::ReadRequest,
            0x0d..=0x10 => Kind::ReadResponse,
            0x11 => Kind::Acknowledge,
            0x12 => Kind::AtomicAcknowledge,
            _ => Kind::Atomic,
        }
    }

    /// Where in its message it stands.
    #[inline]
    pub const fn place(self) -> Place {
        match self {
            Self::SendFirst | Self::WriteFirst | Self::ReadResponseFirst => Place::First,
            Self::SendMiddle | Self::WriteMiddle | Self::ReadResponseMiddle => Place::Middle,
            Self::SendLast
            | Self::SendLastImm
            | Self::WriteLast
            | Self::WriteLastImm
            | Self::ReadResponseLast => Place::Last,
            _ => Place::Only,
        }
    }

    /// Whether the responder gets it; the requester gets the others.
    #[inline]
    pub const fn is_request(self) -> bool {
        matches!(
            self.kind(),
            Kind::Send | Kind::Write | Kind::ReadRequest | Kind::Atomic
        )
    }

    /// Whether data may follow the headers.
    pub const fn has_payload(self) -> bool {
        matches!(self.kind(), Kind::Send | Kind::Write | Kind::ReadResponse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_an_opcode_or_refused() {
        for byte in 0..=255u8 {
            match Opcode::from_byte(byte) {
                Ok(opcode) => assert_eq!(opcode as u8, byte),
                Err(Refusal::Unsupported) => assert!((0x15..=0x1f).contains(&byte)),
                Err(Refusal::Congestion) => assert_eq!(byte, 0x81),
                Err(Refusal::Foreign) => assert!(byte >= 0x20 && byte != 0x81),
            }
        }
    }

    #[test]
    fn an_opcode_is_its_kind_place_and_immediate() {
        for opcode in Opcode::ALL {
            let place = opcode.place();
            match opcode.kind() {
                Kind::Send => {
                    let both = [false, true].map(|imm| Opcode::send(place, imm));
                    assert!(both.contains(&opcode) && opcode.is_request());
                }
                Kind::Write => {
                    let both = [false, true].map(|imm| Opcode::write(place, imm));
                    assert!(both.contains(&opcode) && opcode.is_request());
                }
                Kind::ReadResponse => {
                    assert_eq!(Opcode::read_response(place), opcode);
                    assert!(!opcode.is_request());
                }
                kind => {
                    assert!(!opcode.has_payload() && place == Place::Only);
                    let answers = matches!(kind, Kind::Acknowledge | Kind::AtomicAcknowledge);
                    assert_eq!(opcode.is_request(), !answers);
                }
            }
        }
        assert_eq!(Place::of(0, 1), Place::Only);
        assert_eq!(
            [0, 1, 2].map(|n| Place::of(n, 3)),
            [Place::First, Place::Middle, Place::Last]
        );
        assert!(Place::Only.begins() && Place::Only.ends() && !Place::Middle.ends());
    }
}
