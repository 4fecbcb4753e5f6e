//! Why the program ends without having done what it was asked: one sentence and an exit code.

use corelane::shard::engine::EngineError;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

/// The exit code of a wrong command line.
pub const USAGE: u8 = 2;
/// The exit code of everything else that fails.
const FAILED: u8 = 1;

/// The exit code when a signal ended the run: what shells say of Ctrl-C.
const STOPPED: u8 = 130;

/// A failure; displays as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// A signal asked the program to end.
    #[error("stopped by a signal; results are those until then")]
    Stopped,
    /// The engine did not start or broke.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Failure {
    /// A file that could not be used.
    pub fn file(what: &str, path: &Path, why: impl std::fmt::Display) -> Self {
        Self::Failed(format!("cannot {what} {}: {why}", path.display()))
    }

    /// An engine that did not start at an address that was asked for by `flag`.
    pub fn start(error: EngineError, flag: &str) -> Self {
        match &error {
            EngineError::Bind { source, .. } if source.kind() == ErrorKind::AddrInUse => {
                Self::Failed(format!(
                    "{error}; choose another port with {flag}, or see who has it: ss -lunp"
                ))
            }
            _ => Self::Engine(error),
        }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => USAGE,
            Self::Failed(_) | Self::Engine(_) => FAILED,
            Self::Stopped => STOPPED,
        })
    }
}
