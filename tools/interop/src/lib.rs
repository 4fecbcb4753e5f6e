//! Interoperation: corelane as an endpoint that others can be tested with, and a runner of such tests.
//!
//! [`endpoint`] is the server and the client behind `corelane-interop`. [`matrix`] plays the cases of
//! quic-interop-runner, HTTP/3 apart, between corelane and other implementations through
//! `corelane-relay`; [`trace`] decrypts what went through it, so that the judgement rests on the
//! packets and not on what either side says of itself.

pub mod endpoint;
pub mod matrix;
pub mod trace;
