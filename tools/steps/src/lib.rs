//! To which layer of the engine an instruction belongs, and how many of them a piece of work takes.
//!
//! Counting is exact: a child process is single-stepped between two marks, so that it needs no
//! hardware counter and no other program, and a noisy machine changes nothing. Which layer an
//! address is of comes from the debug information ([`symbols`], [`layer`]), since inlining leaves
//! few functions standing. The work that is counted and the ceilings belong to the program `steps`.

pub mod count;
pub mod layer;
pub mod symbols;
pub mod table;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod trace;
