//! The `corelane` program's own module tree; it uses the library as any embedder does.

#[allow(
    dead_code,
    reason = "the commands that print these reports are wired in mod by mod"
)]
pub mod report;
