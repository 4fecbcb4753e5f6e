//! The table of attacks against the tests that show each survived: every test that a row names is
//! there, and every test here is named by a row.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands in backquotes in the table's last column: `file::function`, the file from the
/// repository's root.
fn named() -> Vec<(String, String)> {
    let table = fs::read_to_string(root().join("tests/attacks/README.md")).expect("the table");
    let quoted = table.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|q| q.split_once(".rs::"))
        .map(|(file, name)| (format!("{file}.rs"), name.to_owned()))
        .collect()
}

#[test]
fn every_row_names_tests_that_exist() {
    let named = named();
    assert!(named.len() > 50, "the table is read");
    for (file, name) in named {
        let text = fs::read_to_string(root().join(&file)).unwrap_or_default();
        let is_test = text.contains(&format!("fn {name}("));
        assert!(is_test, "{file} has no {name}");
    }
}

#[test]
fn every_test_here_is_named_by_a_row() {
    let named: BTreeSet<String> = named().into_iter().map(|(_, name)| name).collect();
    for module in [
        "amplification",
        "glitches",
        "handshake",
        "memory",
        "parser",
        "trust",
    ] {
        let file = root().join(format!("tests/attacks/{module}.rs"));
        let text = fs::read_to_string(file).expect("a file of tests");
        let tests = text.split("#[test]\n").skip(1);
        for name in tests.filter_map(|t| t.strip_prefix("fn ")?.split_once('(')) {
            assert!(named.contains(name.0), "{module}: {} has no row", name.0);
        }
    }
}
