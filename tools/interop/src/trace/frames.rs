//! Frames, TLS handshake messages and transport parameters, as far as the assertions need them.

/// Reads from a slice; `None` past its end.
#[derive(Clone, Copy)]
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    /// A big-endian number of `n` bytes.
    pub fn uint(&mut self, n: usize) -> Option<u64> {
        let bytes = self.take(n)?;
        Some(bytes.iter().fold(0, |all, b| all << 8 | u64::from(*b)))
    }

    /// A variable-length integer (RFC 9000 §16).
    pub fn varint(&mut self) -> Option<u64> {
        let first = *self.0.first()?;
        let len = 1usize << (first >> 6);
        let value = self.uint(len)?;
        Some(value & (u64::MAX >> (66 - 8 * len)))
    }

    /// The bytes behind a length of `n` bytes.
    pub fn vector(&mut self, n: usize) -> Option<&'a [u8]> {
        let len = self.uint(n)?;
        self.take(usize::try_from(len).ok()?)
    }

    fn varint_vector(&mut self) -> Option<&'a [u8]> {
        let len = self.varint()?;
        self.take(usize::try_from(len).ok()?)
    }
}

/// A frame, as far as anybody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// ACK: the largest number, and the counts of ECT(0), ECT(1) and CE if it has them.
    Ack {
        /// The largest packet number acknowledged.
        largest: u64,
        /// ECN counts.
        ecn: Option<[u64; 3]>,
    },
    /// CRYPTO.
    Crypto {
        /// Where the data starts.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// STREAM, without its data.
    Stream {
        /// The stream.
        id: u64,
        /// Where the data starts.
        offset: u64,
        /// Bytes of data.
        len: u64,
    },
    /// MAX_DATA or MAX_STREAM_DATA: the new limit.
    Credit(u64),
    /// NEW_CONNECTION_ID.
    NewConnectionId(Vec<u8>),
    /// PATH_CHALLENGE.
    PathChallenge([u8; 8]),
    /// PATH_RESPONSE.
    PathResponse([u8; 8]),
    /// CONNECTION_CLOSE: whether the application closed, the code, the reason.
    Close(bool, u64, String),
    /// Any other, by its type.
    Other(u64),
}

/// The frames of a payload; stops at what it does not know.
pub fn frames(payload: &[u8]) -> Vec<Frame> {
    let mut cursor = Cursor(payload);
    let mut all = Vec::new();
    while !cursor.0.is_empty() {
        match frame(&mut cursor) {
            Some(frame) => all.push(frame),
            None => break,
        }
    }
    all
}

fn frame(c: &mut Cursor<'_>) -> Option<Frame> {
    let ty = c.varint()?;
    Some(match ty {
        0x02 | 0x03 => ack(c, ty == 3)?,
        0x06 => {
            let offset = c.varint()?;
            let data = c.varint_vector()?.to_vec();
            Frame::Crypto { offset, data }
        }
        0x08..=0x0f => {
            let id = c.varint()?;
            let offset = if ty & 4 != 0 { c.varint()? } else { 0 };
            let data = if ty & 2 != 0 {
                c.varint_vector()?
            } else {
                c.take(c.0.len())?
            };
            let len = data.len() as u64;
            Frame::Stream { id, offset, len }
        }
        0x10 => Frame::Credit(c.varint()?),
        0x11 => {
            c.varint()?;
            Frame::Credit(c.varint()?)
        }
        0x18 => {
            c.varint()?;
            c.varint()?;
            let id = c.vector(1)?.to_vec();
            c.take(16)?;
            Frame::NewConnectionId(id)
        }
        0x1a => Frame::PathChallenge(c.take(8)?.try_into().ok()?),
        0x1b => Frame::PathResponse(c.take(8)?.try_into().ok()?),
        0x1c | 0x1d => {
            let code = c.varint()?;
            if ty == 0x1c {
                c.varint()?;
            }
            let reason = String::from_utf8_lossy(c.varint_vector()?).into_owned();
            Frame::Close(ty == 0x1d, code, reason)
        }
        // 0x1f and 0xaf are those of the ACK frequency extension.
        0x00 | 0x01 | 0x1e | 0x1f => Frame::Other(ty),
        0xaf => skip(c, 4, Frame::Other(ty))?,
        0x07 => {
            c.varint_vector()?;
            Frame::Other(ty)
        }
        0x12 | 0x13 | 0x14 | 0x16 | 0x17 | 0x19 => skip(c, 1, Frame::Other(ty))?,
        0x05 | 0x15 => skip(c, 2, Frame::Other(ty))?,
        0x04 => skip(c, 3, Frame::Other(ty))?,
        0x31 => {
            c.varint_vector()?;
            Frame::Other(ty)
        }
        // 0x30 ends the packet; what is unknown may be anything.
        _ => {
            c.0 = &[];
            Frame::Other(ty)
        }
    })
}

fn skip(c: &mut Cursor<'_>, varints: usize, frame: Frame) -> Option<Frame> {
    for _ in 0..varints {
        c.varint()?;
    }
    Some(frame)
}

fn ack(c: &mut Cursor<'_>, with_ecn: bool) -> Option<Frame> {
    let largest = c.varint()?;
    c.varint()?;
    let ranges = c.varint()?;
    c.varint()?;
    for _ in 0..ranges {
        c.varint()?;
        c.varint()?;
    }
    let ecn = if with_ecn {
        Some([c.varint()?, c.varint()?, c.varint()?])
    } else {
        None
    };
    Some(Frame::Ack { largest, ecn })
}

/// A TLS handshake message: its type and its body.
pub fn messages(mut data: &[u8]) -> Vec<(u8, &[u8])> {
    let mut all = Vec::new();
    while data.len() >= 4 {
        let mut c = Cursor(&data[1..]);
        let ty = data[0];
        let Some(body) = c.vector(3) else { break };
        all.push((ty, body));
        data = c.0;
    }
    all
}

/// What a ClientHello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// Names the handshake in a key log.
    pub random: Vec<u8>,
    /// The cipher suites offered, GREASE (RFC 8701) apart.
    pub suites: Vec<u16>,
    /// The client's transport parameters by number.
    pub parameters: Vec<(u64, Vec<u8>)>,
}

/// Reads the body of a ClientHello.
pub fn client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut c = Cursor(body);
    c.take(2)?;
    let random = c.take(32)?.to_vec();
    c.vector(1)?;
    let suites = c.vector(2)?.chunks_exact(2);
    let suites = suites.map(|s| u16::from_be_bytes([s[0], s[1]]));
    let suites = suites.filter(|s| s & 0x0f0f != 0x0a0a || s >> 8 != s & 0xff);
    let parameters = c.vector(1).and_then(|_| parameters(c.0));
    Some(ClientHello {
        random,
        suites: suites.collect(),
        parameters: parameters.unwrap_or_default(),
    })
}

/// The cipher suite of a ServerHello's body.
pub fn server_suite(body: &[u8]) -> Option<u16> {
    let mut c = Cursor(body);
    c.take(34)?;
    c.vector(1)?;
    c.uint(2).map(|s| s as u16)
}

/// The transport parameters in a list of extensions, as a ClientHello or EncryptedExtensions ends
/// in one, by their numbers.
pub fn parameters(body: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let mut extensions = Cursor(Cursor(body).vector(2)?);
    while let Some(ty) = extensions.uint(2) {
        let data = extensions.vector(2)?;
        if ty == 0x39 {
            let mut c = Cursor(data);
            let mut all = Vec::new();
            while !c.0.is_empty() {
                all.push((c.varint()?, c.varint_vector()?.to_vec()));
            }
            return Some(all);
        }
    }
    None
}

/// The connection ID in a preferred address (RFC 9000 §18.2).
pub fn preferred_id(value: &[u8]) -> Option<Vec<u8>> {
    let mut c = Cursor(value);
    c.take(4 + 2 + 16 + 2)?;
    c.vector(1).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_to_the_end() {
        let payload = [
            0x00, 0x01, 0x03, 0x05, 0x00, 0x00, 0x05, 0x01, 0x00, 0x02, 0x06, 0x40, 0x10, 0x01,
            0xaa, 0x1a, 1, 2, 3, 4, 5, 6, 7, 8, 0x0b, 0x04, 0x02, 0xbb, 0xcc, 0x08, 0x08, 0xdd,
        ];
        let [challenge, ecn] = [[1, 2, 3, 4, 5, 6, 7, 8].as_slice(), &[1, 0, 2]];
        let want = [
            Frame::Other(0),
            Frame::Other(1),
            Frame::Ack {
                largest: 5,
                ecn: Some(
                    ecn.iter()
                        .map(|n| *n as u64)
                        .collect::<Vec<_>>()
                        .try_into()
                        .unwrap(),
                ),
            },
            Frame::Crypto {
                offset: 16,
                data: vec![0xaa],
            },
            Frame::PathChallenge(challenge.try_into().unwrap()),
            Frame::Stream {
                id: 4,
                offset: 0,
                len: 2,
            },
            Frame::Stream {
                id: 8,
                offset: 0,
                len: 1,
            },
        ];
        assert_eq!(frames(&payload), want);
    }

    #[test]
    fn a_truncated_payload_gives_what_it_has() {
        assert_eq!(frames(&[0x01, 0x06, 0x00, 0x05, 0x01]), [Frame::Other(1)]);
    }

    #[test]
    fn a_preferred_address_has_a_connection_id() {
        let mut value = vec![0; 24];
        value.extend([2, 7, 8]);
        value.extend([0; 16]);
        assert_eq!(preferred_id(&value), Some(vec![7, 8]));
        assert_eq!(preferred_id(&value[..25]), None);
    }

    #[test]
    fn grease_is_no_suite() {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 6, 0x1a, 0x1a, 0x13, 0x03, 0x13, 0x01]);
        let hello = client_hello(&body).unwrap();
        assert_eq!(hello.suites, [0x1303, 0x1301]);
        assert_eq!(hello.random, [7; 32]);
        assert_eq!(hello.parameters, []);
    }

    #[test]
    fn a_client_hello_has_transport_parameters() {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend([0, 15, 0, 5, 0, 1, 9, 0, 0x39, 0, 6, 0x3e, 1, 3, 0x0c, 1, 0]);
        let parameters = client_hello(&body).unwrap().parameters;
        assert_eq!(parameters, [(0x3e, vec![3]), (0x0c, vec![0])]);
    }
}
