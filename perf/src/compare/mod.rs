//! The comparison: which programs, on which work, in which order, and what the runs together say.
//!
//! `case` names the work and `metric` the numbers taken from it, `peer` knows how each program is
//! asked for it, `row` which of them are there, `noise` who else used the machine meanwhile, `run`
//! starts one program once, `rounds` interleaves them. `stats`, `table`, `targets`, `svg` and
//! `results` sum up. Adding a peer is adding a line to [`peer::PEERS`].

pub mod case;
pub mod machine;
pub mod metric;
pub mod noise;
pub mod peer;
pub mod results;
pub mod rounds;
pub mod row;
pub mod run;
pub mod stats;
pub mod svg;
pub mod table;
pub mod targets;
