//! shard

pub mod mailbox;
pub mod quic_lb;
pub mod steer;
pub mod wheel;
