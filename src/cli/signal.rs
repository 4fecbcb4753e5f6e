//! Ctrl-C and SIGTERM: the first asks the program to end what it does, the second ends it.

use super::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes the signals from now on.
pub fn catch() -> Result<(), Failure> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first finds the flag unset.
        flag::register_conditional_default(signal, asked.clone())
            .and_then(|_| flag::register(signal, asked.clone()))
            .map_err(|e| Failure::Failed(format!("cannot take signals: {e}")))?;
    }
    Ok(())
}

/// Leaves Ctrl-C, which a terminal sends to every process, to the process that started this one.
pub fn leave_to_parent() -> Result<(), Failure> {
    flag::register(SIGINT, Arc::default())
        .map(|_| ())
        .map_err(|e| Failure::Failed(format!("cannot take signals: {e}")))
}

/// Whether one came.
pub fn came() -> bool {
    ASKED
        .get()
        .is_some_and(|asked| asked.load(Ordering::Relaxed))
}
