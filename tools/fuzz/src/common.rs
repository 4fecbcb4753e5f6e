//! The scripted peer and the endpoint in memory that the tests of connections use.
#![allow(dead_code, reason = "the tests use more of it than the fuzzers")]

#[path = "../../../tests/common/attack.rs"]
pub mod attack;
#[path = "../../../tests/common/certs.rs"]
pub mod certs;
#[path = "../../../tests/common/pair.rs"]
pub mod pair;
#[path = "../../../tests/common/raw_peer.rs"]
pub mod raw_peer;
#[path = "../../../tests/multipath/scripted.rs"]
pub mod scripted;
