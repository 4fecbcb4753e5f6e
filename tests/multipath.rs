//! Several paths of one connection between two endpoints in memory, in virtual time.

mod common;

#[path = "multipath/abuse.rs"]
mod abuse;
#[path = "multipath/acks.rs"]
mod acks;
#[path = "multipath/addresses.rs"]
mod addresses;
#[path = "multipath/advisories.rs"]
mod advisories;
#[path = "multipath/attacks.rs"]
mod attacks;
#[path = "multipath/basics.rs"]
mod basics;
#[path = "multipath/bounds.rs"]
mod bounds;
#[path = "multipath/chaos.rs"]
mod chaos;
#[path = "multipath/context.rs"]
mod context;
#[path = "multipath/copies.rs"]
mod copies;
#[path = "multipath/coupled.rs"]
mod coupled;
#[path = "multipath/faults.rs"]
mod faults;
#[path = "multipath/gains.rs"]
mod gains;
#[path = "multipath/ledger.rs"]
mod ledger;
#[path = "multipath/links.rs"]
mod links;
#[path = "multipath/noise.rs"]
mod noise;
#[path = "multipath/pins.rs"]
mod pins;
#[path = "multipath/reinjection.rs"]
mod reinjection;
#[path = "multipath/rig.rs"]
mod rig;
#[path = "multipath/rules.rs"]
mod rules;
#[path = "multipath/scripted.rs"]
mod scripted;
#[path = "multipath/seeds.rs"]
mod seeds;
#[path = "multipath/sockets.rs"]
mod sockets;
#[path = "multipath/states.rs"]
mod states;
#[path = "multipath/withheld.rs"]
mod withheld;

use common::counting::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
