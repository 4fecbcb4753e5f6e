//! What is known to have brought QUIC stacks down, tried on this one: a test for each row of
//! `attacks/README.md`, which names the advisory or the clause of RFC 9000 §21 and where its test
//! is. The tests here are those that no other file has; [`catalogue`] checks that each row's is
//! there.

#[path = "attacks/amplification.rs"]
mod amplification;
#[path = "attacks/catalogue.rs"]
mod catalogue;
mod common;
#[path = "attacks/glitches.rs"]
mod glitches;
#[path = "attacks/handshake.rs"]
mod handshake;
#[path = "attacks/memory.rs"]
mod memory;
#[path = "attacks/parser.rs"]
mod parser;
#[path = "attacks/trust.rs"]
mod trust;

use common::counting::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
