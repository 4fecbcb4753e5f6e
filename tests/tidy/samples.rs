//! The checker checked: small sources that break one rule each, and some that only look like it.

use super::TABLES;
use super::rules::{FILE_CAP, FUNCTION_CAP, Tables, Tree};
use super::source::{Source, without_comments};

/// What breaks when `body` is the file `path` of an otherwise tidy crate.
fn violations(path: &str, body: &str) -> Vec<String> {
    violations_of(&TABLES, path, body)
}

fn violations_of(tables: &Tables, path: &str, body: &str) -> Vec<String> {
    let text = format!("//! A sample.\n{body}");
    let top = path
        .trim_start_matches("src/")
        .split('/')
        .next()
        .unwrap_or_default();
    let lib = format!("//! A crate.\nmod {};\n", top.trim_end_matches(".rs"));
    Tree::new([("src/lib.rs", lib.as_str()), (path, &text)]).violations(tables)
}

#[track_caller]
fn breaks(path: &str, body: &str, expected: &str) {
    let found = violations(path, body);
    assert_eq!(found.len(), 1, "{body}: {found:?}");
    assert!(found[0].contains(expected), "{body}: {found:?}");
}

#[track_caller]
fn holds(path: &str, body: &str) {
    assert_eq!(violations(path, body), [""; 0], "{body}");
}

#[test]
fn comments_and_literals_are_not_code() {
    let code =
        without_comments("a /* b /* c */ d */ e // f\n\"g\\\"h\" 'i' '\\'' &'j r#\"k\"l\"# m");
    assert_eq!(
        code,
        "a                   e     \n\"~~~~\" '~' '~~' &'j r~~~~~~# m"
    );
    assert_eq!(
        without_comments("'\u{e9}' b'x' br\"\\\" x"),
        "'~~' b'~' br~~\" x"
    );
}

#[test]
fn imports_point_downward() {
    holds(
        "src/wire/mod.rs",
        "use crate::base::{Rng, limits};\nuse crate::wire::x;",
    );
    breaks(
        "src/wire/mod.rs",
        "use crate::conn::Connection;",
        "may not import `crate::conn`",
    );
    breaks(
        "src/path/mod.rs",
        "use crate::{base::Rng, stream::{A, B}};",
        "`crate::stream`",
    );
    breaks(
        "src/crypto/mod.rs",
        "fn f(r: crate::recovery::Rtt) {}",
        "`crate::recovery`",
    );
    breaks(
        "src/io/mod.rs",
        "use crate::{\n    sys, wire as w,\n};",
        "src/io/mod.rs:2",
    );
    breaks("src/base/mod.rs", "use crate::*;", "`crate::*`");
    breaks(
        "src/mem/mod.rs",
        "use super::sys::x;",
        "`super` leaves the layer",
    );
    breaks("src/other/mod.rs", "", "in no layer");
    holds(
        "src/wire/mod.rs",
        "mod a { use super::B; }\n// crate::api\nstruct B(&'static str);",
    );
    holds(
        "src/wire/mod.rs",
        "#[cfg(test)]\nmod tests { use crate::api::X; }",
    );
    holds("src/wire/mod.rs", "fn f() { crate::table!(1); }");
}

#[test]
fn super_is_counted_from_the_file() {
    let files = |body: &'static str| {
        Tree::new([
            ("src/lib.rs", "//! A.\nmod wire;\n"),
            ("src/wire/mod.rs", "//! B.\nmod frame;\n"),
            ("src/wire/frame/mod.rs", "//! C.\nmod ack;\n"),
            ("src/wire/frame/ack.rs", body),
        ])
        .violations(&TABLES)
    };
    assert_eq!(files("//! D.\nuse super::super::Varint;\n"), [""; 0]);
    assert_eq!(
        files("//! D.\nmod x { use super::super::super::Varint; }\n"),
        [""; 0]
    );
    assert_eq!(files("//! D.\nuse super::super::super::conn;\n").len(), 1);
}

#[test]
fn the_program_imports_what_is_public() {
    let cli = |body: &str| {
        let body = format!("//! C.\n{body}");
        Tree::new([
            ("src/main.rs", "//! M.\nmod cli;\n"),
            ("src/cli/mod.rs", body.as_str()),
        ])
        .violations(&TABLES)
    };
    assert_eq!(
        cli("use crate::cli::x;\nuse corelane::{api::Endpoint, base};"),
        [""; 0]
    );
    assert_eq!(
        cli("use corelane::Endpoint;\nfn f() { println!(); }"),
        [""; 0]
    );
}

#[test]
fn unsafe_stays_in_its_layers() {
    holds("src/mem/mod.rs", "unsafe impl Send for X {}");
    holds(
        "src/wire/mod.rs",
        "#![forbid(unsafe_code)]\n// unsafe\nconst A: &str = \"unsafe\";",
    );
    breaks(
        "src/wire/mod.rs",
        "fn f() { unsafe { g() } }",
        "`unsafe` outside",
    );
    breaks(
        "src/wire/mod.rs",
        "#[cfg(test)]\nmod t { unsafe fn f() {} }",
        "`unsafe` outside",
    );
}

#[test]
fn peer_driven_layers_do_not_unwrap() {
    breaks(
        "src/conn/mod.rs",
        "fn f(x: X) { x\n    .unwrap(); }",
        "src/conn/mod.rs:3: `.unwrap()`",
    );
    breaks(
        "src/wire/mod.rs",
        "fn f(x: X) { x.expect(\"y\"); }",
        "`.expect(`",
    );
    holds(
        "src/wire/mod.rs",
        "fn f(x: X) { x.unwrap_or(1); y.unwrap_or_default(); }",
    );
    holds(
        "src/wire/mod.rs",
        "#[test]\nfn f() { x.unwrap(); }\n/// `x.unwrap()`\nfn g() {}",
    );
    holds("src/io/mod.rs", "fn f(x: X) { x.unwrap(); }");
}

#[test]
fn test_only_items_end_where_they_end() {
    for item in [
        "mod t { fn f() { x.unwrap() } }",
        "#[rustfmt::skip]\npub(crate) fn f<A, B>(a: [A; 2]) -> [B; 2] { x.unwrap() }",
        "use a::{b, c};",
        "const A: X = x.unwrap();",
    ] {
        holds(
            "src/wire/mod.rs",
            &format!("#[cfg(test)]\n{item}\nfn g() {{}}"),
        );
        let after = format!("#[cfg(test)]\n{item}\nfn g() {{ y.unwrap() }}");
        breaks("src/wire/mod.rs", &after, "`.unwrap()`");
        let always = format!("#[cfg(not(test))]\n{item}\nfn g() {{ y.unwrap() }}");
        assert!(!violations("src/wire/mod.rs", &always).is_empty());
    }
    let field = "struct S {\n    #[cfg(test)]\n    a: u8,\n}\nfn f() { x.unwrap() }";
    breaks("src/wire/mod.rs", field, "`.unwrap()`");
}

#[test]
fn files_and_functions_are_bounded() {
    let lines = |n: usize| "const A: u8 = 1; // one\n\n// and no more\n".repeat(n);
    holds("src/base/mod.rs", &lines(FILE_CAP));
    breaks("src/base/mod.rs", &lines(FILE_CAP + 1), "file of 501 lines");
    let function = |n: usize| format!("fn f() -> [u8; 2] {{\n{}}}", "    a(\"}\");\n".repeat(n));
    holds("src/base/mod.rs", &function(FUNCTION_CAP - 2));
    breaks(
        "src/base/mod.rs",
        &function(FUNCTION_CAP - 1),
        "function of 71 lines",
    );
    holds(
        "src/base/mod.rs",
        &format!("#[cfg(test)]\nmod t {{ {} }}", function(FUNCTION_CAP)),
    );
}

#[test]
fn the_ratchet_only_turns_one_way() {
    let body = format!("fn f() {{\n{}}}", "    a();\n".repeat(78));
    let with = |max: usize| {
        let long = [("src/base/mod.rs::f", max)];
        violations_of(
            &Tables {
                long_functions: &long,
                ..TABLES
            },
            "src/base/mod.rs",
            &body,
        )
    };
    assert_eq!(with(80), [""; 0]);
    assert!(with(79)[0].contains("grew from 79 to 80"));
    assert!(with(81)[0].contains("shrank to 80"));
    let gone = Tables {
        long_files: &[("src/base/gone.rs", 600)],
        ..TABLES
    };
    assert!(violations_of(&gone, "src/base/mod.rs", "")[0].contains("is gone"));
}

#[test]
fn dead_files_are_found() {
    let tree = Tree::new([
        ("src/lib.rs", "//! A.\nmod wire;\n"),
        (
            "src/wire.rs",
            "//! B.\nmod a;\n// mod c;\n#[cfg(test)]\nmod tests;\n",
        ),
        ("src/wire/a.rs", "//! C.\n"),
        ("src/wire/c.rs", "//! D.\n"),
        (
            "src/wire/tests.rs",
            "//! E.\nmod deep;\nfn f() { x.unwrap() }\n",
        ),
        ("src/wire/tests/deep.rs", "//! F.\nfn f() { x.unwrap() }\n"),
    ]);
    let found = tree.violations(&TABLES);
    assert_eq!(found, ["src/wire/c.rs: dead file: no `mod` declares it"]);
}

#[test]
fn every_file_is_clean() {
    breaks(
        "src/base/mod.rs",
        "#[allow(dead_code)]\nfn f() {}",
        "without a reason",
    );
    breaks(
        "src/base/mod.rs",
        "#![cfg_attr(test, allow(dead_code))]",
        "without a reason",
    );
    holds(
        "src/base/mod.rs",
        "#[expect(\n    dead_code,\n    reason = \"x\"\n)]\nfn f() {}",
    );
    breaks(
        "src/base/mod.rs",
        "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
        "ignored test",
    );
    breaks("src/base/mod.rs", "fn f() { todo!() }", "`todo!`");
    breaks(
        "src/base/mod.rs",
        "#[cfg(test)]\nmod t { fn f() { dbg!(1); } }",
        "`dbg!`",
    );
    breaks(
        "src/base/mod.rs",
        "fn f() { println!(); }",
        "`println!` in the library",
    );
    breaks(
        "src/base/mod.rs",
        &format!("// {}", "word ".repeat(20)),
        "103 columns",
    );
    holds(
        "src/base/mod.rs",
        &format!("// {} https://example.org", "x ".repeat(60)),
    );
    holds("src/base/mod.rs", &format!("    \"{}\",", "0f".repeat(60)));
    let path = concat!("const A: &str = \"/", "work/x\";");
    breaks("src/base/mod.rs", path, "somebody's machine");
    holds("src/base/mod.rs", "// path/work/x and https://a.org/work/y");
    let long = "//! more\n".repeat(15);
    breaks("src/base/mod.rs", &long, "header of 16 lines");
    let bare = Tree::new([("src/lib.rs", "mod base;\n"), ("src/base.rs", "//! B.\n")]);
    assert_eq!(
        bare.violations(&TABLES),
        ["src/lib.rs: does not open with a `//!` header"]
    );
}

#[test]
fn functions_are_measured_with_their_signature() {
    let source = Source::new(
        "a.rs",
        "trait T { fn a(); }\nfn b(\n    f: fn(u8),\n) {\n}\n",
    );
    let functions = source.functions();
    assert_eq!(functions.len(), 1);
    assert_eq!((functions[0].0.as_str(), functions[0].2), ("b", 4));
}
