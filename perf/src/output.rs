//! Standard output for results and standard error for everything else.
//!
//! A reader that went away (`compare | head`) is no failure: what is left to say is dropped.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Writes results to standard output.
///
/// # Errors
/// When they cannot be written although somebody reads: a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e),
        _ => Ok(()),
    }
}

/// Says something on standard error, for a person who watches.
pub fn tell(sentence: &str) {
    // Nobody is left to tell when standard error is gone, too.
    let _ = writeln!(io::stderr(), "{sentence}");
}

/// Writes the last results of a program, and is its end: `code`, unless they cannot be written.
pub fn finish(text: &str, code: ExitCode) -> ExitCode {
    match print(text) {
        Ok(()) => code,
        Err(error) => {
            tell(&format!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}
