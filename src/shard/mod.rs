//! shard

pub mod wheel;
