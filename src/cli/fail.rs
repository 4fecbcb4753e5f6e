//! Why the program ends without having done what it was asked: one sentence and an exit code.

use corelane::shard::engine::EngineError;
use std::path::Path;
use std::process::ExitCode;

/// The exit code of a wrong command line.
pub const USAGE: u8 = 2;
/// The exit code of everything else that fails.
const FAILED: u8 = 1;

/// A failure; displays as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// The engine did not start or broke.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Failure {
    /// A file that could not be used.
    pub fn file(what: &str, path: &Path, why: impl std::fmt::Display) -> Self {
        Self::Failed(format!("cannot {what} {}: {why}", path.display()))
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => USAGE,
            Self::Failed(_) | Self::Engine(_) => FAILED,
        })
    }
}
