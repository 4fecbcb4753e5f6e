//! Measures corelane beside other transports on the same work in the same minutes.
//!
//! `compare` runs programs in turn and puts their reports side by side; every program, corelane's
//! own included, prints the JSON of `report`. `quinn` is a peer, `ceiling` what the kernel and the
//! cipher alone allow; both count by `meter`. `profile` says where the time goes. `perf/README.md`
//! has the method.

pub mod ceiling;
pub mod clock;
pub mod compare;
pub mod meter;
pub mod profile;
pub mod quinn;
pub mod report;
pub mod tls;
