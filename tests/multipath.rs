//! Several paths of one connection between two endpoints in memory, in virtual time.

mod common;

#[path = "multipath/basics.rs"]
mod basics;
#[path = "multipath/rig.rs"]
mod rig;
