//! Holds the source tree to the architecture and keeps it from growing.
//!
//! The picture of layers (DESIGN: `cli > api > shard > conn > path, stream > recovery, crypto >
//! wire > base`, beside it `io > mem > base` and `sys`) stands below as a table; `tidy/rules.rs`
//! reads every file against it. Length tables only shrink: a file or function above its cap is
//! listed with its present length, and each change must leave it no longer.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/samples.rs"]
mod samples;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use rules::{Tables, Tree};

/// Who may import whom, written out transitively. Siblings do not import each other.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("mem", &["base"]),
    ("sys", &["base"]),
    ("io", &["mem", "sys", "base"]),
    ("rdma", &["mem", "base"]),
    ("wire", &["base"]),
    ("crypto", &["wire", "mem", "base"]),
    ("recovery", &["wire", "mem", "base"]),
    ("stream", &["recovery", "crypto", "wire", "mem", "base"]),
    ("path", &["recovery", "crypto", "wire", "mem", "base"]),
    (
        "conn",
        &[
            "path", "stream", "recovery", "crypto", "wire", "mem", "base",
        ],
    ),
    (
        "shard",
        &[
            "conn", "path", "stream", "recovery", "crypto", "wire", "io", "rdma", "mem", "sys",
            "base",
        ],
    ),
    (
        "api",
        &[
            "shard", "conn", "path", "stream", "recovery", "crypto", "wire", "io", "rdma", "mem",
            "sys", "base",
        ],
    ),
    // The program is an embedder: whatever the library makes public.
    (
        "cli",
        &[
            "api", "shard", "conn", "path", "stream", "recovery", "crypto", "wire", "io", "rdma",
            "mem", "sys", "base",
        ],
    ),
];

/// Where `unsafe` may stand: memory, the kernel's rings and socket options, verbs.
const UNSAFE_LAYERS: &[&str] = &["mem", "io", "sys", "rdma"];

/// Where a peer's bytes decide what runs next: no `.unwrap()`, no `.expect()` outside tests.
const NO_UNWRAP_LAYERS: &[&str] = &[
    "wire", "conn", "path", "stream", "recovery", "crypto", "rdma",
];

/// Files above the cap with their lines of code. Shrink or remove; never add or raise.
const LONG_FILES: &[(&str, usize)] = &[];

/// Functions above the cap, as `path::name`, with their lines of code. The same holds.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

const TABLES: Tables = Tables {
    layers: LAYERS,
    unsafe_layers: UNSAFE_LAYERS,
    no_unwrap_layers: NO_UNWRAP_LAYERS,
    long_files: LONG_FILES,
    long_functions: LONG_FUNCTIONS,
};

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["src", "tests", "benches", "examples", "tools", "perf"] {
        collect(root, Path::new(directory), &mut files);
    }
    assert!(
        files.iter().any(|(path, _)| path == "src/lib.rs"),
        "found no sources to check"
    );
    let tree = Tree::new(
        files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str())),
    );
    let violations = tree.violations(&TABLES);
    assert!(
        violations.is_empty(),
        "{} violations:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

/// Each row may import what its imports may: the table is closed, and no layer reaches itself.
#[test]
fn the_table_of_layers_points_downward_only() {
    for (n, (layer, imports)) in LAYERS.iter().enumerate() {
        for import in *imports {
            let at = LAYERS.iter().position(|(name, _)| name == import);
            let at = at.unwrap_or_else(|| panic!("{layer} imports {import}, which has no row"));
            assert!(at < n, "{layer} imports {import}, which stands above it");
            let missing: Vec<_> = LAYERS[at]
                .1
                .iter()
                .filter(|i| !imports.contains(i))
                .collect();
            assert!(
                missing.is_empty() || *layer == "cli",
                "{layer} lacks {missing:?}"
            );
        }
    }
}

/// Paths that belong to one machine have no place in scripts and documents either.
#[test]
fn scripts_and_documents_name_no_machine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in [
        "README.md",
        "ARCHITECTURE.md",
        "Cargo.toml",
        ".ci/run",
        "perf/README.md",
    ] {
        let text = fs::read_to_string(root.join(path)).unwrap_or_default();
        assert!(
            rules::machine_paths(&text).is_empty(),
            "{path} names a path of one machine"
        );
    }
}

/// Rust files below `directory`, with paths relative to `root`; build output is skipped.
fn collect(root: &Path, directory: &Path, files: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(root.join(directory)) else {
        return; // not every repository has every directory
    };
    for entry in entries {
        let entry = entry.expect("a readable directory");
        let path = directory.join(entry.file_name());
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, files);
            }
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("a readable source file");
            files.push((path.to_string_lossy().replace('\\', "/"), text));
        }
    }
}
