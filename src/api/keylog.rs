//! TLS secrets for Wireshark and its like, in the format that SSLKEYLOGFILE names.
//!
//! Who has the file can read the traffic. Nothing is written unless an embedder puts the result
//! into `key_log` of its TLS configuration.

use rustls::KeyLog;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The environment variable that names the file.
pub const SSLKEYLOGFILE: &str = "SSLKEYLOGFILE";

/// A log in the file that [`SSLKEYLOGFILE`] names; `None` where it names none.
///
/// ```no_run
/// # fn demo(mut tls: rustls::ClientConfig) -> std::io::Result<()> {
/// if let Some(log) = corelane::api::keylog::from_env()? {
///     tls.key_log = log;
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// The file cannot be opened.
pub fn from_env() -> io::Result<Option<Arc<dyn KeyLog>>> {
    match std::env::var_os(SSLKEYLOGFILE).filter(|file| !file.is_empty()) {
        Some(file) => to_file(Path::new(&file)).map(Some),
        None => Ok(None),
    }
}

/// A log that is appended to `file`, which only its owner may read if it is made here.
///
/// # Errors
/// The file cannot be opened.
pub fn to_file(file: &Path) -> io::Result<Arc<dyn KeyLog>> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(file)?;
    Ok(Arc::new(KeyLogTo(Mutex::new(file))))
}

#[derive(Debug)]
struct KeyLogTo(Mutex<File>);

impl KeyLog for KeyLogTo {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "a TLS secret could not be logged");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn lines_are_appended_to_a_file_of_ones_own() {
        let path = std::env::temp_dir().join(format!("corelane-keys-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        for secret in [1, 0xff] {
            let log = to_file(&path).unwrap();
            log.log("CLIENT_TRAFFIC_SECRET_0", &[0xab], &[secret]);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            text,
            "CLIENT_TRAFFIC_SECRET_0 ab 01\nCLIENT_TRAFFIC_SECRET_0 ab ff\n"
        );
        assert_eq!(mode & 0o777, 0o600);
    }
}
