//! Lanes over loopback sockets: bootstrap, messages and operations over queue pairs and streams,
//! many clients at once, and what is left of them when they go.

#[path = "lanes/bad.rs"]
mod bad;
#[path = "lanes/basics.rs"]
mod basics;
#[path = "common/certs.rs"]
#[allow(dead_code, reason = "every test binary uses its own part of this")]
mod certs;
#[path = "lanes/faulty.rs"]
mod faulty;
#[path = "lanes/handles.rs"]
mod handles;
#[path = "lanes/limits.rs"]
mod limits;
#[path = "lanes/place.rs"]
mod place;
#[path = "lanes/posts.rs"]
mod posts;
#[path = "lanes/removal.rs"]
mod removal;
#[path = "lanes/returns.rs"]
mod returns;
#[path = "lanes/rig.rs"]
mod rig;
#[path = "lanes/scenarios.rs"]
mod scenarios;
#[path = "lanes/splits.rs"]
mod splits;
#[path = "lanes/undo.rs"]
mod undo;
