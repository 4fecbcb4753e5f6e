//! Tells release builds of the program which commit they are of: `corelane --version` says it, and
//! results carry it. Other builds have no such stamp, so that a commit is no reason to build them
//! again.

use std::env;
use std::path::Path;
use std::process::Command;

/// What the program is built of.
const SOURCES: [&str; 5] = ["Cargo.lock", "Cargo.toml", "build.rs", "src", "tools/relay"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if !is_release || env::var_os("CARGO_FEATURE_CLI").is_none() {
        return;
    }
    // A commit alone is no reason to build again: what was built before it keeps its `+`.
    for path in SOURCES {
        println!("cargo::rerun-if-changed={path}");
    }
    if let (Some(commit), Ok(version)) = (commit(), env::var("CARGO_PKG_VERSION")) {
        println!("cargo::rustc-env=CORELANE_VERSION={version} ({commit})");
    }
}

/// The last commit that changed the sources; `+` where they differ from it.
fn commit() -> Option<String> {
    // A copy of the sources within another repository is not of that one's commit.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = env::var_os("CARGO_MANIFEST_DIR")?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    let mut log = vec!["log", "-1", "--abbrev=10", "--format=%h", "--"];
    log.extend(SOURCES);
    let commit = git(&log).filter(|commit| !commit.is_empty())?;
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(SOURCES);
    let changes = git(&status)?;
    Some(commit + if changes.is_empty() { "" } else { "+" })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}
