//! Where programs and results are: beside this program, and in this package.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What builds the programs of the workspace.
pub const BUILD: &str = "cargo build --release --workspace";
/// What builds those of the other peers.
pub const BUILD_PEERS: &str = "perf/peers/setup";

/// The directory of this program, where the others of its build are.
///
/// # Errors
/// When the system does not tell.
pub fn beside() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let directory = this.parent().ok_or("this program is in no directory")?;
    Ok(directory.into())
}

/// This package's directory: cargo says it, else it is looked for from the working directory.
pub fn package() -> PathBuf {
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(package) => package.into(),
        None => "perf".into(),
    }
}

/// The directory of the other peers' programs.
pub fn peers() -> PathBuf {
    package().join("peers/target/release")
}

/// `path`, if it is a program.
///
/// # Errors
/// A sentence that says what makes it.
pub fn program(path: PathBuf, remedy: &str) -> Result<PathBuf, String> {
    let shown = path.display();
    match path.metadata() {
        Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => Ok(path),
        Ok(_) => Err(format!("{shown} is no program: run `{remedy}`")),
        Err(_) => Err(format!("{shown} is missing: run `{remedy}`")),
    }
}

/// The program `name` in `directory`.
///
/// # Errors
/// As [`program`].
pub fn locate(directory: &Path, name: &str, remedy: &str) -> Result<PathBuf, String> {
    program(directory.join(name), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_said_to_be_none() {
        let this = std::env::current_exe().unwrap();
        let name = this.file_name().unwrap().to_str().unwrap();
        assert_eq!(locate(&beside().unwrap(), name, BUILD), Ok(this.clone()));
        let error = program(this.with_extension("none"), BUILD).unwrap_err();
        assert!(error.contains("is missing: run `cargo build"), "{error}");
        for none in [beside().unwrap(), "Cargo.toml".into()] {
            let error = program(none, BUILD_PEERS).unwrap_err();
            assert!(error.contains("is no program: run `perf/"), "{error}");
        }
    }
}
