//! What the tests with a second party share: certificates, files to exchange, an independent QUIC
//! implementation to exchange them with, and a network that loses packets.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

pub mod attack;
pub mod bulk;
pub mod certs;
pub mod counting;
pub mod datagrams;
pub mod echo;
pub mod file_app;
pub mod files;
pub mod many;
pub mod pair;
pub mod quinn_peer;
pub mod raw_peer;
pub mod relay;
pub mod world;
