//! Streams (RFC 9000 §2 to §4), their flow control, and datagrams (RFC 9221).
//!
//! [`Streams`] holds all streams of one connection. Frames go in through `on_*`, frames come out
//! through [`Streams::write_control`] and [`Streams::write_data`] as packets have room, and the
//! fate of each comes back as a [`SentFrame`] through [`Streams::on_acked`] and
//! [`Streams::on_lost`]. When a packet is built, sent or lost is not known here; paths, recovery
//! and keys live elsewhere.

mod acked;
mod again;
mod app;
mod assembler;
mod datagram;
mod early;
mod event;
mod flow;
mod ids;
mod index;
mod input;
mod lanes;
mod list;
mod outlook;
mod output;
mod range_set;
mod recv;
mod schedule;
mod send;
mod send_buffer;
mod set;
mod slots;
mod tail;

pub use acked::AckedRun;
pub use assembler::{Assembler, TooManyGaps};
pub use datagram::{DatagramError, DatagramStats, Datagrams};
pub use event::{
    BufferAll, OpenError, ReadChunk, ReadError, ReadOutcome, StreamEvent, StreamSink, Taken,
    WriteError,
};
pub(crate) use lanes::{Aim, Lane, LaneError};
pub use outlook::Outlook;
pub use output::SentFrame;
pub use range_set::RangeSet;
pub use recv::RecvState;
pub use send::SendState;
pub use set::{StreamConfig, StreamStats, Streams};
