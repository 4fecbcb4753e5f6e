//! Interoperation: corelane as an endpoint to test others with, and a runner of such tests.
//!
//! [`endpoint`] is the server and the client behind `corelane-interop`. [`matrix`] plays the cases
//! of quic-interop-runner, HTTP/3 apart, between corelane and other implementations through
//! `corelane-relay`; [`trace`] decrypts what went through it, so that the judgement rests on the
//! packets and not on what either side says of itself.

mod clock;
pub mod endpoint;
pub mod matrix;
pub mod trace;
