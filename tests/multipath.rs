//! Several paths of one connection between two endpoints in memory, in virtual time.

mod common;

#[path = "multipath/basics.rs"]
mod basics;
#[path = "multipath/faults.rs"]
mod faults;
#[path = "multipath/rig.rs"]
mod rig;
#[path = "multipath/rules.rs"]
mod rules;
#[path = "multipath/seeds.rs"]
mod seeds;
