//! What an application of lanes is: callbacks on the shard's thread, run to completion.

use super::handle::Lanes;
use super::session::LaneId;
use crate::base::Timestamp;
use crate::rdma::bootstrap::Refusal;
use crate::rdma::{AsyncEvent, Port};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;

/// Whether the application is done with a message when its callback returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consume {
    /// It is: the peer may send another.
    Now,
    /// [`Lanes::consume`] will say when.
    Later,
}

/// An application of lanes on one shard. No method may block.
///
/// Each end of a lane has a region, [`Plan::region`](crate::rdma::parts::Plan::region) zeros at
/// first (64 KiB by default): its own, which it reads and fills with [`Lanes::read`] and
/// [`Lanes::write`], and which the peer's [`Operation`]s reach without a callback here. All offsets
/// count from a region's begin. Atomics change the 8 bytes at an offset that is a multiple of 8, as
/// a `u64` in the byte order of the machine that has them. A message has at most
/// [`LaneInfo::max_message`] bytes, 4072 by default: `Plan::slot` without the lane's header.
///
/// Both sides' TLS configurations need [`ALPN`](crate::rdma::bootstrap::ALPN); a connection without
/// is closed. `examples/lanes.rs` has both sides; this one counts what clients say:
///
/// ```
/// use corelane::rdma::AnyDevice;
/// use corelane::shard::lanes::{Consume, LaneApp, LaneConfig, LaneId, LaneShard, Lanes};
///
/// struct Count(u64);
///
/// impl LaneApp<AnyDevice> for Count {
///     type Command = ();
///
///     fn on_message(
///         &mut self,
///         lanes: &mut Lanes<'_, AnyDevice>,
///         lane: LaneId,
///         tag: u32,
///         data: &[u8],
///     ) -> Consume {
///         self.0 += data.len() as u64;
///         // Where clients read it from.
///         let _ = lanes.write(lane, 0, &self.0.to_be_bytes());
///         let _ = lanes.send(lane, tag, b"counted");
///         Consume::Now
///     }
/// }
///
/// // For `Engine::start`; without a port, lanes run over QUIC.
/// let shard = LaneShard::new(LaneConfig::default(), |_| Ok(None), Count(0));
/// # drop(shard);
/// ```
pub trait LaneApp<P: Port> {
    /// What handles on other threads send to this application.
    type Command: Send + 'static;

    /// A lane can be used: one that was asked for, or at a server one of a new client.
    fn on_open(&mut self, lanes: &mut Lanes<'_, P>, lane: LaneId, info: &LaneInfo) {
        let _ = (lanes, lane, info);
    }

    /// A message came, once and in order.
    fn on_message(
        &mut self,
        lanes: &mut Lanes<'_, P>,
        lane: LaneId,
        tag: u32,
        data: &[u8],
    ) -> Consume;

    /// A one-sided operation is done: what it fetched lies in the own region.
    fn on_done(
        &mut self,
        lanes: &mut Lanes<'_, P>,
        lane: LaneId,
        op: u64,
        result: Result<(), OpError>,
    ) {
        let _ = (lanes, lane, op, result);
    }

    /// A lane that was full takes messages or operations again.
    fn on_room(&mut self, lanes: &mut Lanes<'_, P>, lane: LaneId) {
        let _ = (lanes, lane);
    }

    /// A lane has left its queue pair and goes on over its stream.
    fn on_fallback(&mut self, lanes: &mut Lanes<'_, P>, lane: LaneId) {
        let _ = (lanes, lane);
    }

    /// A lane that had left its queue pair has another, and goes on over that.
    fn on_return(&mut self, lanes: &mut Lanes<'_, P>, lane: LaneId) {
        let _ = (lanes, lane);
    }

    /// A server answered [`Lanes::status`].
    fn on_status(&mut self, lanes: &mut Lanes<'_, P>, lane: LaneId, json: &str) {
        let _ = (lanes, lane, json);
    }

    /// A lane is over, or never opened. Its name is not used again.
    fn on_closed(&mut self, lanes: &mut Lanes<'_, P>, lane: LaneId, why: &LaneEnd) {
        let _ = (lanes, lane, why);
    }

    /// The device told of something that no request tells. Lanes that it concerns have left their
    /// queue pairs already; new ones get none while the port is down or the device has failed.
    /// That a queue pair which was stopped here has seen its last receive is not told.
    fn on_device_event(&mut self, lanes: &mut Lanes<'_, P>, event: AsyncEvent) {
        let _ = (lanes, event);
    }

    /// A handle's command arrived.
    fn on_command(&mut self, lanes: &mut Lanes<'_, P>, command: Self::Command) {
        let _ = (lanes, command);
    }

    /// Whether the application has to look for something in every [`LaneApp::on_turn`]. Where it
    /// has not, a shard that never sleeps and has nothing to do looks at its sockets more often.
    fn polls(&self) -> bool {
        true
    }

    /// Once a turn. Returns when to be called again at the latest.
    fn on_turn(&mut self, lanes: &mut Lanes<'_, P>) -> Option<Timestamp> {
        let _ = lanes;
        None
    }
}

/// Whom to connect to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub addr: SocketAddr,
    /// The name that its certificate must have.
    pub name: ServerName<'static>,
    /// TLS, with [`crate::rdma::bootstrap::ALPN`] and without early data.
    pub tls: Arc<rustls::ClientConfig>,
}

/// What a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneInfo {
    /// The client's number at the server.
    pub client: u64,
    /// The peer.
    pub peer: SocketAddr,
    /// Whether it runs over a queue pair.
    pub rdma: bool,
    /// Our queue pair's number and first PSN, and the peer's; zeros over a stream.
    pub numbers: [u32; 4],
    /// Bytes of the peer's region.
    pub remote_region: u64,
    /// Bytes of one message, at most.
    pub max_message: usize,
    /// How often it left a queue pair and came back to another.
    pub returns: u32,
}

/// What to do with the peer's region. Offsets count in the regions, lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// From the own region at `local` to the peer's at `remote`.
    Write {
        /// Where from.
        local: u64,
        /// Where to.
        remote: u64,
        /// How much.
        len: u32,
    },
    /// From the peer's region at `remote` to the own at `local`.
    Read {
        /// Where to.
        local: u64,
        /// Where from.
        remote: u64,
        /// How much.
        len: u32,
    },
    /// Puts `swap` at `remote` where `compare` is; the 8 bytes before come to `local`.
    CompareSwap {
        /// Where what was found comes to.
        local: u64,
        /// Where, a multiple of 8.
        remote: u64,
        /// What has to be there.
        compare: u64,
        /// What will be there.
        swap: u64,
    },
    /// Adds at `remote`, wrapping; the 8 bytes before come to `local`.
    FetchAdd {
        /// Where what was found comes to.
        local: u64,
        /// Where, a multiple of 8.
        remote: u64,
        /// How much.
        add: u64,
    },
}

impl Operation {
    /// The own region's offset, the peer's, and how many bytes of each.
    pub const fn span(&self) -> (u64, u64, u32) {
        match *self {
            Self::Write { local, remote, len } | Self::Read { local, remote, len } => {
                (local, remote, len)
            }
            Self::CompareSwap { local, remote, .. } | Self::FetchAdd { local, remote, .. } => {
                (local, remote, 8)
            }
        }
    }

    /// Whether doing it twice is another thing than doing it once.
    pub const fn is_atomic(&self) -> bool {
        matches!(self, Self::CompareSwap { .. } | Self::FetchAdd { .. })
    }
}

/// Why an operation was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The peer's memory is not there or not for this.
    #[error("the peer does not allow it")]
    Refused,
    /// The queue pair failed under an atomic: whether it was done is not known, so it is not
    /// repeated.
    #[error("whether it was done is not known")]
    Unknown,
}

/// Why a call on a lane did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// There is no such lane, or not yet, or it takes no more.
    #[error("the lane is not open")]
    Closed,
    /// As much as the peer allows is under way; [`LaneApp::on_room`] follows.
    #[error("the lane is full")]
    Full,
    /// The message is too long.
    #[error("a message of this lane has at most {0} bytes")]
    TooLong(usize),
    /// The bytes are not all in a region.
    #[error("{len} bytes at offset {at} are not all in {whose} region of {region} bytes")]
    Range {
        /// Of the two regions the one.
        whose: &'static str,
        /// The offset.
        at: u64,
        /// How many there were to be.
        len: u64,
        /// How many the region has.
        region: u64,
    },
    /// An atomic's offset in the peer's region is no multiple of 8.
    #[error("atomics are at offsets that are multiples of 8; {0} is none")]
    Alignment(u64),
    /// The peer's region is not for this.
    #[error("the peer does not allow it")]
    Access,
    /// This shard has as many lanes as it can have.
    #[error("no room for another lane")]
    TooMany,
}

/// How a lane ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneEnd {
    /// Both sides agreed, and every accepted message was received.
    #[error("it was ended by agreement")]
    Finished,
    /// The server refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The peer did not keep to the bootstrap, or did not answer in time.
    #[error("{0}")]
    Failed(String),
    /// The connection ended.
    #[error("{0}")]
    Lost(String),
}
