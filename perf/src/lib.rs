//! Measures corelane beside other transports on the same work in the same minutes.
//!
//! `compare` runs programs in turn and puts their reports side by side; every program, corelane's
//! own included, prints the JSON of `report`, and peers take the command line of `program`. `quinn`
//! is a peer (others are built in `perf/peers`), `ceiling` what the kernel and the cipher alone
//! allow; both count by `meter`. `profile` says where the time goes. Every program reads `flags`,
//! speaks by `output`, finds others by `places` and starts them by `child`. `perf/README.md` has
//! the method.

pub mod ceiling;
pub mod child;
pub mod clock;
pub mod compare;
pub mod flags;
pub mod meter;
pub mod output;
pub mod places;
pub mod process;
pub mod profile;
pub mod program;
pub mod quinn;
pub mod report;
pub mod tls;
