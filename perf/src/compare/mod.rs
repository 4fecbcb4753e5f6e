//! The comparison: which programs, on which work, in which order, and what the runs together say.
//!
//! `case` names the work and the numbers taken from it, `peer` how each program is asked for it,
//! `noise` who else used the machine meanwhile, `run` starts one program once, `rounds` interleaves
//! them, `stats` and `table` sum up. Adding a peer is adding a row to [`peer::PEERS`].

pub mod case;
pub mod machine;
pub mod noise;
pub mod peer;
pub mod rounds;
pub mod run;
pub mod stats;
pub mod table;
