//! What client and server of a measurement say to each other.
//!
//! The client opens every stream, bidirectional, and begins it with a [`Header`] of 24 bytes, all
//! numbers big-endian: byte 0 is the kind, bytes 1 to 3 are zero, then `a` (4 bytes), `b` and `c`
//! (8 bytes each). The rest of the stream is the kind's:
//!
//! 1. control: each byte (of any value) from the client asks for a [`Snapshot`] of the connection;
//!    questions that arrive together share an answer.
//! 2. bulk: the client sends data until FIN or not at all; `b` is what the server shall send (0
//!    nothing, `u64::MAX` until STOP_SENDING), `a` the size of its writes, `c` its rate in bytes a
//!    second (0 no limit). The server ends its side when both are done.
//! 3. respond: requests of `a` bytes, each answered with `b` bytes; FIN ends both sides.
//!
//! Datagrams need no announcement. ALPN names the version. Nothing here panics on any input.

/// Bytes of a header.
pub const HEADER_LEN: usize = 24;
/// Bytes of a snapshot.
pub const SNAPSHOT_LEN: usize = 40;
/// The largest response that may be asked for, and the largest write, in bytes.
pub const MAX_MESSAGE: u64 = 1 << 20;
/// The error code with which a server resets a stream that it does not understand.
pub const BAD_HEADER: u64 = 1;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Questions and snapshots.
    Control,
    /// Data in one direction or in both.
    Bulk {
        /// Bytes that the server sends; `u64::MAX` is without end.
        send: u64,
        /// Bytes of one write of the server, 1 to [`MAX_MESSAGE`].
        chunk: u32,
        /// Bytes a second that the server sends; 0 is without limit.
        rate: u64,
    },
    /// Requests and responses.
    Respond {
        /// Bytes of a request, 1 to [`MAX_MESSAGE`].
        request: u32,
        /// Bytes of a response, 1 to [`MAX_MESSAGE`].
        response: u32,
    },
}

/// A header that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The kind is none of those above, or the bytes behind it are not zero.
    #[error("no such kind of stream")]
    Kind,
    /// A length is 0 or too large.
    #[error("an impossible length")]
    Length,
}

const CONTROL: u8 = 1;
const BULK: u8 = 2;
const RESPOND: u8 = 3;

impl Header {
    /// The bytes that begin the stream.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let (kind, a, b, c) = match *self {
            Self::Control => (CONTROL, 0, 0, 0),
            Self::Bulk { send, chunk, rate } => (BULK, chunk, send, rate),
            Self::Respond { request, response } => (RESPOND, request, response.into(), 0),
        };
        let mut out = [0; HEADER_LEN];
        out[0] = kind;
        out[4..8].copy_from_slice(&a.to_be_bytes());
        out[8..16].copy_from_slice(&b.to_be_bytes());
        out[16..].copy_from_slice(&c.to_be_bytes());
        out
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        let [kind, 0, 0, 0, a @ ..] = *bytes else {
            return Err(HeaderError::Kind);
        };
        let b = number(&a, 4);
        let c = number(&a, 12);
        let a = u32::from_be_bytes([a[0], a[1], a[2], a[3]]);
        let length = |n: u64| match u32::try_from(n) {
            Ok(short) if (1..=MAX_MESSAGE).contains(&n) => Ok(short),
            _ => Err(HeaderError::Length),
        };
        match kind {
            CONTROL => Ok(Self::Control),
            BULK => Ok(Self::Bulk {
                send: b,
                chunk: length(a.into())?,
                rate: c,
            }),
            RESPOND => Ok(Self::Respond {
                request: length(a.into())?,
                response: length(b)?,
            }),
            _ => Err(HeaderError::Kind),
        }
    }
}

/// What the server knows of a connection and of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Stream bytes received on the connection, headers not counted.
    pub bytes: u64,
    /// Datagrams received on the connection.
    pub datagrams: u64,
    /// Bytes of these.
    pub datagram_bytes: u64,
    /// CPU time of the server's process since it began, in nanoseconds.
    pub cpu_ns: u64,
    /// Time since an arbitrary origin, in nanoseconds.
    pub now_ns: u64,
}

impl Snapshot {
    /// The answer's bytes.
    pub fn encode(&self) -> [u8; SNAPSHOT_LEN] {
        let mut out = [0; SNAPSHOT_LEN];
        let fields = [
            self.bytes,
            self.datagrams,
            self.datagram_bytes,
            self.cpu_ns,
            self.now_ns,
        ];
        for (place, field) in out.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        out
    }

    /// Reads an answer; every pattern of bytes is one.
    pub fn decode(bytes: &[u8; SNAPSHOT_LEN]) -> Self {
        let field = |n: usize| number(bytes, n * 8);
        Self {
            bytes: field(0),
            datagrams: field(1),
            datagram_bytes: field(2),
            cpu_ns: field(3),
            now_ns: field(4),
        }
    }
}

/// The number in the eight bytes at `at`; 0 where there are fewer.
fn number(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>);
    eight.map_or(0, |b| u64::from_be_bytes(*b))
}

/// Collects `N` bytes that may arrive in pieces.
#[derive(Clone, Debug)]
pub struct Gather<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Gather<N> {
    fn default() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }
}

impl<const N: usize> Gather<N> {
    /// Takes bytes from the front of `data`; gives the `N` bytes when they are complete, and then
    /// begins anew.
    pub fn take(&mut self, data: &mut &[u8]) -> Option<[u8; N]> {
        let n = data.len().min(N - self.len);
        let (head, rest) = data.split_at(n);
        self.bytes[self.len..self.len + n].copy_from_slice(head);
        *data = rest;
        self.len += n;
        if self.len < N {
            return None;
        }
        self.len = 0;
        Some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_read_as_they_were_written() {
        for header in [
            Header::Control,
            Header::Bulk {
                send: 0,
                chunk: 1,
                rate: 0,
            },
            Header::Bulk {
                send: u64::MAX,
                chunk: 1 << 20,
                rate: 125_000,
            },
            Header::Respond {
                request: 64,
                response: 1 << 20,
            },
        ] {
            assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn the_layout_is_as_documented() {
        let bytes = Header::Bulk {
            send: 2,
            chunk: 3,
            rate: 4,
        }
        .encode();
        let mut expected = [0; 24];
        (expected[0], expected[7], expected[15], expected[23]) = (2, 3, 2, 4);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn lengths_are_bounded() {
        let respond = |request, response| Header::Respond { request, response }.encode();
        let over = u32::try_from(MAX_MESSAGE).unwrap() + 1;
        for bytes in [
            respond(0, 64),
            respond(64, 0),
            respond(over, 64),
            respond(64, over),
            Header::Bulk {
                send: 1,
                chunk: over,
                rate: 0,
            }
            .encode(),
            Header::Bulk {
                send: 1,
                chunk: 0,
                rate: 0,
            }
            .encode(),
        ] {
            assert_eq!(Header::decode(&bytes), Err(HeaderError::Length));
        }
        let mut long = respond(64, 64);
        long[8] = 0xff;
        assert_eq!(Header::decode(&long), Err(HeaderError::Length));
    }

    #[test]
    fn unknown_kinds_are_refused() {
        let mut bytes = Header::Control.encode();
        for kind in [0, 4, 255] {
            bytes[0] = kind;
            assert_eq!(Header::decode(&bytes), Err(HeaderError::Kind));
        }
        (bytes[0], bytes[2]) = (1, 1);
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Kind));
    }

    #[test]
    fn snapshots_read_as_they_were_written() {
        let snapshot = Snapshot {
            bytes: 1,
            datagrams: 2,
            datagram_bytes: 3,
            cpu_ns: 4,
            now_ns: u64::MAX,
        };
        assert_eq!(Snapshot::decode(&snapshot.encode()), snapshot);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_an_error(bytes: [u8; HEADER_LEN]) {
            if let Ok(header) = Header::decode(&bytes) {
                let again = Header::decode(&header.encode());
                prop_assert_eq!(again, Ok(header));
                if let Header::Respond { request, response } = header {
                    prop_assert!(request > 0 && u64::from(request) <= MAX_MESSAGE);
                    prop_assert!(response > 0 && u64::from(response) <= MAX_MESSAGE);
                }
            }
        }

        #[test]
        fn pieces_make_a_whole(bytes: [u8; 40], cuts in prop::collection::vec(0usize..9, 0..30)) {
            let mut gather = Gather::<8>::default();
            let (mut rest, mut wholes) = (&bytes[..], Vec::new());
            for cut in cuts.into_iter().chain(std::iter::repeat(8)) {
                let (mut piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                while !piece.is_empty() {
                    wholes.extend(gather.take(&mut piece));
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(wholes.concat(), bytes);
        }
    }
}
