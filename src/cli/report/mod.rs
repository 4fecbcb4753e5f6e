//! What a run measured, and every form in which it is shown.
//!
//! `hist` records latencies, `meter` CPU time and memory, `machine` what the run ran on; `json`
//! collects them in one versioned document. `table` and `plot` are for people, `hgrm`, `hlog` and
//! `svg` are files for other tools. All of them turn values into text and read no clock; opening
//! files and deciding what to print is the commands' part.

pub mod hgrm;
pub mod hist;
pub mod hlog;
pub mod json;
pub mod machine;
pub mod meter;
pub mod paths;
pub mod plot;
pub mod svg;
pub mod table;
pub mod units;
