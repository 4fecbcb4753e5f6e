//! Streams (RFC 9000 §2 to §4), their flow control, and datagrams (RFC 9221).

mod assembler;
mod range_set;

pub use assembler::{Assembler, TooManyGaps};
pub use range_set::RangeSet;
