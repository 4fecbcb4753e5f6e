//! The messages by which two ends of a QUIC connection make a lane: codec only.
//!
//! Each has a header of 8 bytes (type, version, two zeros, length of the rest) and a body whose
//! length follows from its type. Numbers are big-endian. Whatever a peer announces is checked here
//! against what can be used at all; what is right for this lane is its owner's to say.
//!
//! TLS protects these messages. It does not protect what queue pairs send afterwards.

use super::access::Access;
use super::attr::Mtu;
use super::ids::Gid;
use crate::base::limits;

/// The version of everything here. Another one is refused, with this one named.
pub const VERSION: u8 = 1;
/// The protocol's name in TLS (ALPN).
pub const ALPN: &[u8] = b"corelane-rdma/1";
/// Bytes of a message's header.
pub const HEADER: usize = 8;

const TERMS: usize = 76;
const HAS_QUEUE: u32 = 1;
const HAS_REGION: u32 = 2;
/// The peer takes the lane back to a queue pair. Who does not know this flag passes over it, and
/// hears no word of the kind.
const RETURNS: u32 = 4;
/// The peer's writes may come packet by packet, and this end would send its own so.
const SPLITS: u32 = 8;
/// Bytes of a queue pair's terms, and where they stand among all.
const QUEUE: usize = 29;
const QUEUE_AT: usize = 16;

/// How to reach a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueTerms {
    /// Its number, 24 bits.
    pub qpn: u32,
    /// Its first packet sequence number, 24 bits.
    pub psn: u32,
    /// Its address.
    pub gid: Gid,
    /// The UDP port that it hears.
    pub udp_port: u16,
    /// The largest path MTU that it takes.
    pub mtu: Mtu,
    /// READs and atomics that it serves at once.
    pub rd_atomic: u8,
}

/// Memory that the peer may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionTerms {
    /// Its first byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Its key.
    pub rkey: u32,
    /// What the peer may do there: remote flags only.
    pub access: Access,
}

/// What one end offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bytes of one message with its header.
    pub slot: u32,
    /// Messages under way in one direction.
    pub window: u32,
    /// One-sided operations of the peer under way.
    pub operations: u32,
    /// A queue pair; without one the lane runs over QUIC.
    pub queue: Option<QueueTerms>,
    /// A region; without one nothing is reached.
    pub region: Option<RegionTerms>,
    /// Whether a lane that left its queue pair may get another.
    pub returns: bool,
    /// Whether both write packet by packet, where the other says so, too.
    pub splits: bool,
}

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The versions differ.
    Version,
    /// The identity has as much as it may have.
    Quota,
    /// The device or the machine has no more.
    Resources,
    /// The terms cannot be met.
    Terms,
    /// The server is ending.
    Closing,
}

impl Refusal {
    const ALL: [Self; 5] = [
        Self::Version,
        Self::Quota,
        Self::Resources,
        Self::Terms,
        Self::Closing,
    ];
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Version => "the server speaks another version",
            Self::Quota => "this identity has as much as it may have",
            Self::Resources => "the server has no room for another client",
            Self::Terms => "the server does not take these terms",
            Self::Closing => "the server is ending",
        })
    }
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The client's offer, once and first.
    Hello(Terms),
    /// The server's, with the client's number.
    Welcome(u64, Terms),
    /// The server's refusal.
    Refused(Refusal),
    /// The client's queue pair is ready, or it goes without: the server may send. Of another queue
    /// pair the server says it, too.
    Ready(bool),
    /// The queue pair is left for the stream; so many messages of the peer have come.
    Fallback(u64),
    /// No message follows after so many; tell when you have them.
    Bye(u64),
    /// All of them have come; of ours there are so many.
    ByeAck(u64),
    /// What does the server have? In place of a hello.
    StatusRequest,
    /// It has this, as JSON.
    Status(&'a [u8]),
    /// The client has another queue pair for a lane that left its own.
    Return(QueueTerms),
    /// The server has one as well, or none. No message of its own follows by the stream until the
    /// client says whether it is [`Message::Ready`]; what the server then says likewise lets the
    /// client use it.
    Returned(Option<QueueTerms>),
    /// A lane's frame; see [`super::lane::Frame`].
    Frame(&'a [u8]),
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// Of another version than [`VERSION`].
    #[error("version {0} of the bootstrap: this is version {VERSION}")]
    Version(u8),
    /// No such message.
    #[error("a message of unknown type {0}")]
    Type(u8),
    /// Its length is not its type's.
    #[error("a message of type {0} with {1} bytes")]
    Length(u8, u32),
    /// A value that cannot be.
    #[error("{0} cannot be what the peer announced")]
    Value(&'static str),
}

fn array<const N: usize>(body: &[u8], at: usize) -> Option<[u8; N]> {
    body.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn ok(condition: bool, name: &'static str) -> Result<(), BootstrapError> {
    condition.then_some(()).ok_or(BootstrapError::Value(name))
}

impl QueueTerms {
    fn encode(&self) -> [u8; QUEUE] {
        let mut out = [0; QUEUE];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = out.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, &self.qpn.to_be_bytes());
        put(4, &self.psn.to_be_bytes());
        put(8, &self.gid.0);
        put(24, &self.udp_port.to_be_bytes());
        put(26, &(self.mtu.bytes() as u16).to_be_bytes());
        put(28, &[self.rd_atomic]);
        out
    }

    fn decode(body: &[u8]) -> Result<Self, BootstrapError> {
        let short = BootstrapError::Value("length");
        let u32_at = |at| array(body, at).map(u32::from_be_bytes).ok_or(short);
        let u16_at = |at| array(body, at).map(u16::from_be_bytes).ok_or(short);
        let gid = Gid(array(body, 8).ok_or(short)?);
        let mtu = Mtu::from_bytes(u16_at(26)?.into());
        let queue = Self {
            qpn: u32_at(0)?,
            psn: u32_at(4)?,
            gid,
            udp_port: u16_at(24)?,
            mtu: mtu.ok_or(BootstrapError::Value("path MTU"))?,
            rd_atomic: body.get(28).copied().ok_or(short)?,
        };
        ok((2..0xff_ffff).contains(&queue.qpn), "QPN")?;
        ok(queue.psn <= 0xff_ffff, "PSN")?;
        let ip = gid.ip();
        ok(!ip.is_unspecified() && !ip.is_multicast(), "GID")?;
        ok(queue.udp_port != 0, "UDP port")?;
        Ok(queue)
    }
}

impl Terms {
    fn encode(&self) -> [u8; TERMS] {
        let mut out = [0; TERMS];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = out.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        let has = |yes: bool, bit| if yes { bit } else { 0 };
        let flags = has(self.queue.is_some(), HAS_QUEUE)
            | has(self.region.is_some(), HAS_REGION)
            | has(self.returns, RETURNS)
            | has(self.splits, SPLITS);
        put(0, &flags.to_be_bytes());
        put(4, &self.slot.to_be_bytes());
        put(8, &self.window.to_be_bytes());
        put(12, &self.operations.to_be_bytes());
        if let Some(q) = &self.queue {
            put(QUEUE_AT, &q.encode());
        }
        if let Some(r) = &self.region {
            put(48, &r.addr.to_be_bytes());
            put(56, &r.len.to_be_bytes());
            put(64, &r.rkey.to_be_bytes());
            put(68, &[access_bits(r.access)]);
        }
        out
    }

    fn decode(body: &[u8]) -> Result<Self, BootstrapError> {
        let short = BootstrapError::Value("length");
        let u32_at = |at| array(body, at).map(u32::from_be_bytes).ok_or(short);
        let u64_at = |at| array(body, at).map(u64::from_be_bytes).ok_or(short);
        let byte = |at: usize| body.get(at).copied().ok_or(short);
        let flags = u32_at(0)?;
        let terms = Self {
            slot: u32_at(4)?,
            window: u32_at(8)?,
            operations: u32_at(12)?,
            queue: None,
            region: None,
            returns: flags & RETURNS != 0,
            splits: flags & SPLITS != 0,
        };
        let within = |n: u32, (low, high): (usize, usize)| (low..=high).contains(&(n as usize));
        ok(within(terms.slot, limits::LANE_SLOT), "slot")?;
        ok(within(terms.window, limits::LANE_WINDOW), "window")?;
        ok(
            within(terms.operations, (0, limits::LANE_OPERATIONS)),
            "operations",
        )?;
        let queue = (flags & HAS_QUEUE != 0)
            .then(|| QueueTerms::decode(body.get(QUEUE_AT..).unwrap_or_default()))
            .transpose()?;
        let region = if flags & HAS_REGION != 0 {
            let region = RegionTerms {
                addr: u64_at(48)?,
                len: u64_at(56)?,
                rkey: u32_at(64)?,
                access: access_of(byte(68)?).ok_or(BootstrapError::Value("access"))?,
            };
            ok(region.len <= limits::LANE_REGION as u64, "region's length")?;
            ok(
                region.addr.checked_add(region.len).is_some(),
                "region's address",
            )?;
            Some(region)
        } else {
            None
        };
        Ok(Self {
            queue,
            region,
            ..terms
        })
    }
}

const FLAGS: [Access; 3] = [
    Access::REMOTE_WRITE,
    Access::REMOTE_READ,
    Access::REMOTE_ATOMIC,
];

fn access_bits(access: Access) -> u8 {
    let bit = |(n, flag): (usize, &Access)| u8::from(access.has(*flag)) << n;
    FLAGS.iter().enumerate().map(bit).sum()
}

fn access_of(bits: u8) -> Option<Access> {
    let set = |n: usize| bits & 1 << n != 0;
    let flags = FLAGS.iter().enumerate().filter(|(n, _)| set(*n));
    let access = flags.fold(Access::NONE, |all, (_, flag)| all | *flag);
    (bits >> FLAGS.len() == 0).then_some(access)
}

impl<'a> Message<'a> {
    const fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome(..) => 2,
            Self::Refused(_) => 3,
            Self::Ready(_) => 4,
            Self::Fallback(_) => 5,
            Self::Bye(_) => 6,
            Self::ByeAck(_) => 7,
            Self::StatusRequest => 8,
            Self::Status(_) => 9,
            Self::Return(_) => 10,
            Self::Returned(_) => 11,
            Self::Frame(_) => 16,
        }
    }

    /// Appends it to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend([self.kind(), VERSION, 0, 0, 0, 0, 0, 0]);
        match self {
            Self::Hello(terms) => out.extend(terms.encode()),
            Self::Welcome(number, terms) => {
                out.extend(number.to_be_bytes());
                out.extend(terms.encode());
            }
            Self::Refused(why) => out.push(*why as u8),
            Self::Ready(queue) => out.push(u8::from(*queue)),
            Self::Fallback(n) | Self::Bye(n) | Self::ByeAck(n) => out.extend(n.to_be_bytes()),
            Self::Return(queue) | Self::Returned(Some(queue)) => out.extend(queue.encode()),
            Self::StatusRequest | Self::Returned(None) => {}
            Self::Status(bytes) | Self::Frame(bytes) => out.extend_from_slice(bytes),
        }
        let len = (out.len() - begin - HEADER) as u32;
        if let Some(place) = out.get_mut(begin + 4..begin + HEADER) {
            place.copy_from_slice(&len.to_be_bytes());
        }
    }

    /// The message at the beginning of `bytes` and its length; `None` while it is not all there.
    ///
    /// # Errors
    /// [`BootstrapError`]; as soon as the header tells, so that nothing is waited for in vain.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, BootstrapError> {
        let Some([kind, version, zero @ .., a, b, c, d]) = array::<HEADER>(bytes, 0) else {
            return Ok(None);
        };
        if version != VERSION {
            return Err(BootstrapError::Version(version));
        }
        ok(zero == [0, 0], "a reserved field")?;
        let len = u32::from_be_bytes([a, b, c, d]);
        let (least, most) = match kind {
            1 => (TERMS, TERMS),
            2 => (8 + TERMS, 8 + TERMS),
            3 | 4 => (1, 1),
            5..=7 => (8, 8),
            8 => (0, 0),
            9 => (0, limits::LANE_BACKLOG),
            10 => (QUEUE, QUEUE),
            11 => (if len == 0 { 0 } else { QUEUE }, QUEUE),
            16 => (
                super::lane::HEADER,
                limits::LANE_SLOT.1 + super::lane::HEADER,
            ),
            _ => return Err(BootstrapError::Type(kind)),
        };
        if !(least..=most).contains(&(len as usize)) {
            return Err(BootstrapError::Length(kind, len));
        }
        let end = HEADER + len as usize;
        let Some(body) = bytes.get(HEADER..end) else {
            return Ok(None);
        };
        let short = BootstrapError::Length(kind, len);
        let number = || array(body, 0).map(u64::from_be_bytes).ok_or(short);
        let byte = body.first().copied().unwrap_or_default();
        let message = match kind {
            1 => Self::Hello(Terms::decode(body)?),
            2 => Self::Welcome(number()?, Terms::decode(body.get(8..).ok_or(short)?)?),
            3 => {
                let why = Refusal::ALL.get(usize::from(byte));
                Self::Refused(*why.ok_or(BootstrapError::Value("refusal"))?)
            }
            4 => {
                ok(byte <= 1, "readiness")?;
                Self::Ready(byte == 1)
            }
            5 => Self::Fallback(number()?),
            6 => Self::Bye(number()?),
            7 => Self::ByeAck(number()?),
            8 => Self::StatusRequest,
            9 => Self::Status(body),
            10 => Self::Return(QueueTerms::decode(body)?),
            11 if body.is_empty() => Self::Returned(None),
            11 => Self::Returned(Some(QueueTerms::decode(body)?)),
            _ => Self::Frame(body),
        };
        Ok(Some((message, end)))
    }
}

#[cfg(test)]
mod tests;
