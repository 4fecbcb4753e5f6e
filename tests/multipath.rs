//! Several paths of one connection between two endpoints in memory, in virtual time.

mod common;

#[path = "multipath/basics.rs"]
mod basics;
#[path = "multipath/copies.rs"]
mod copies;
#[path = "multipath/faults.rs"]
mod faults;
#[path = "multipath/gains.rs"]
mod gains;
#[path = "multipath/links.rs"]
mod links;
#[path = "multipath/reinjection.rs"]
mod reinjection;
#[path = "multipath/rig.rs"]
mod rig;
#[path = "multipath/rules.rs"]
mod rules;
#[path = "multipath/seeds.rs"]
mod seeds;
#[path = "multipath/sockets.rs"]
mod sockets;
