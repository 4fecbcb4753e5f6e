//! Standard output for results and standard error for everything else.
//!
//! A reader that went away (`corelane bench | head`) is no failure: what is left to say is dropped.

use super::Failure;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Writes `text` to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::Failed(format!(
            "cannot write to standard output: {e}"
        ))),
        _ => Ok(()),
    }
}

/// Says on standard error why the program fails.
pub fn complain(sentence: &str) {
    // Nobody is left to tell when standard error is gone, too.
    let _ = writeln!(io::stderr(), "corelane: {sentence}");
}

/// Says on standard error what one has to know of a run beside its results.
pub fn tell(sentence: &str) {
    let _ = writeln!(io::stderr(), "{sentence}");
}

/// Lines about how far a run is, for a person who watches: only on a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    on: bool,
}

impl Progress {
    /// Looks at standard error once.
    pub fn new() -> Self {
        Self {
            on: io::stderr().is_terminal(),
        }
    }

    /// One line.
    pub fn line(self, text: &str) {
        if self.on {
            // As with `complain`.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}
