//! The rules themselves: each looks at one crate of sources and names what breaks it, and where.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source::{Module, Source, code_lines, ident, matching, skip_space, words};

/// What the rules measure against; the real values stand at the top of `tidy.rs`.
pub struct Tables<'a> {
    /// Layer, and the layers that it may import.
    pub layers: &'a [(&'a str, &'a [&'a str])],
    /// Layers that may contain `unsafe`.
    pub unsafe_layers: &'a [&'a str],
    /// Layers in which nothing unwraps.
    pub no_unwrap_layers: &'a [&'a str],
    /// Files above the cap, and the length that they may not exceed.
    pub long_files: &'a [(&'a str, usize)],
    /// Functions (`path::name`) above the cap, and the length that they may not exceed.
    pub long_functions: &'a [(&'a str, usize)],
}

/// Lines of code in a file, tests apart.
pub const FILE_CAP: usize = 500;
/// Lines of code in a function.
pub const FUNCTION_CAP: usize = 70;
/// Columns of any line that can be broken.
pub const COLUMNS: usize = 100;
/// Lines of prose in a file's header.
pub const HEADER_CAP: usize = 15;

/// A set of files that are checked together.
pub struct Tree {
    pub files: BTreeMap<String, Source>,
    dead: Vec<String>,
}

impl Tree {
    /// Takes paths with their texts; finds out which files of `src` only tests compile and which
    /// nothing declares.
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let sources = files
            .into_iter()
            .map(|(p, t)| (p.to_string(), Source::new(p, t)));
        let mut tree = Self {
            files: sources.collect(),
            dead: Vec::new(),
        };
        let mut live = tree.reach(true);
        let all = tree.reach(false);
        live.retain(|p| all.contains(p));
        for (path, source) in &mut tree.files {
            if !path.starts_with("src/") {
                continue;
            }
            if !all.contains(path) {
                tree.dead
                    .push(format!("{path}: dead file: no `mod` declares it"));
            } else if !live.contains(path) {
                source.make_test();
            }
        }
        tree
    }

    /// The files of `src` that the crate's roots declare, with or without test code.
    fn reach(&self, without_tests: bool) -> BTreeSet<String> {
        let roots = self.files.keys().filter(|p| is_root(p)).cloned();
        let mut queue: VecDeque<String> = roots.collect();
        let mut reached: BTreeSet<String> = queue.iter().cloned().collect();
        while let Some(path) = queue.pop_front() {
            let source = &self.files[&path];
            for module in source.modules() {
                let is_live = !source.live[module.offset..].starts_with(' ');
                if module.body.is_some() || (without_tests && !is_live) {
                    continue;
                }
                for child in children(source, &module) {
                    if self.files.contains_key(&child) && reached.insert(child.clone()) {
                        queue.push_back(child);
                    }
                }
            }
        }
        reached
    }

    /// Everything that breaks a rule, one line each.
    pub fn violations(&self, tables: &Tables) -> Vec<String> {
        let mut found = self.dead.clone();
        for source in self.files.values() {
            hygiene(source, &mut found);
            if source.path.starts_with("src/") {
                imports(source, tables, &mut found);
                unsafety(source, tables, &mut found);
                panics(source, tables, &mut found);
                output(source, &mut found);
            }
        }
        self.lengths(tables, &mut found);
        found
    }

    fn lengths(&self, tables: &Tables, found: &mut Vec<String>) {
        let mut files = BTreeMap::new();
        let mut functions: BTreeMap<String, usize> = BTreeMap::new();
        for source in self.files.values().filter(|s| s.path.starts_with("src/")) {
            files.insert(source.path.clone(), code_lines(&source.live));
            for (name, _, lines) in source.functions() {
                let longest = functions
                    .entry(format!("{}::{name}", source.path))
                    .or_default();
                *longest = lines.max(*longest);
            }
        }
        ratchet("file", &files, FILE_CAP, tables.long_files, found);
        ratchet(
            "function",
            &functions,
            FUNCTION_CAP,
            tables.long_functions,
            found,
        );
    }
}

/// Nothing new above the cap; what the table lists may only shrink, and leaves it at the cap.
fn ratchet(
    kind: &str,
    actual: &BTreeMap<String, usize>,
    cap: usize,
    table: &[(&str, usize)],
    found: &mut Vec<String>,
) {
    let listed: BTreeMap<&str, usize> = table.iter().copied().collect();
    for (name, &lines) in actual {
        match listed.get(name.as_str()) {
            None if lines > cap => {
                found.push(format!(
                    "{name}: {kind} of {lines} lines of code: split it (cap {cap})"
                ));
            }
            Some(max) if lines > *max => {
                found.push(format!(
                    "{name}: {kind} grew from {max} to {lines} lines of code"
                ));
            }
            Some(max) if lines < *max => found.push(format!(
                "{name}: {kind} shrank to {lines}: lower its entry from {max}, or drop it at {cap}"
            )),
            Some(_) if lines <= cap => {
                found.push(format!("{name}: {kind} is within {cap}: drop its entry"));
            }
            _ => {}
        }
    }
    for name in listed.keys().filter(|n| !actual.contains_key(**n)) {
        found.push(format!("{name}: {kind} is gone: drop its entry"));
    }
}

fn is_root(path: &str) -> bool {
    path == "src/lib.rs" || path == "src/main.rs" || path.starts_with("src/bin/")
}

/// The two places where the file of `mod name;` may be.
fn children(source: &Source, module: &Module) -> [String; 2] {
    let (dir, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let mut base = dir.to_string();
    if !is_root(&source.path) && file != "mod.rs" {
        base = format!("{dir}/{}", file.trim_end_matches(".rs"));
    }
    for inline in source.inline_path(module.offset) {
        base = format!("{base}/{inline}");
    }
    [
        format!("{base}/{}.rs", module.name),
        format!("{base}/{}/mod.rs", module.name),
    ]
}

/// The first module of a path in `src`; `lib` and `main` for the roots.
fn layer(path: &str) -> &str {
    let rest = path.trim_start_matches("src/").trim_end_matches(".rs");
    rest.split('/').next().unwrap_or(rest)
}

/// Imports go down the table. `crate::x` names a layer in the library; in the program, which is a
/// crate of its own, `corelane::x` does.
fn imports(source: &Source, tables: &Tables, found: &mut Vec<String>) {
    let from = match layer(&source.path) {
        "lib" => return,
        "main" => "cli",
        other => other,
    };
    let Some((_, allowed)) = tables.layers.iter().find(|(name, _)| *name == from) else {
        found.push(format!(
            "{}: `{from}` is in no layer of the table",
            source.path
        ));
        return;
    };
    let root = if from == "cli" { "corelane" } else { "crate" };
    for (offset, target) in paths_of(&source.live, root) {
        let facade = from == "cli" && target.starts_with(char::is_uppercase);
        if target != from && !facade && !allowed.contains(&target.as_str()) {
            let at = source.at(offset);
            found.push(format!("{at}: `{from}` may not import `{root}::{target}`"));
        }
    }
    for offset in climbs(source) {
        let at = source.at(offset);
        found.push(format!("{at}: `super` leaves the layer: write `crate::`"));
    }
}

/// The first segments behind `root::`, groups opened: `root::{a::b, c}` gives `a` and `c`.
fn paths_of(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for offset in words(code, root) {
        let after = skip_space(code, offset + root.len());
        if !code[after..].starts_with("::") {
            continue;
        }
        let at = skip_space(code, after + 2);
        if code.as_bytes().get(at) != Some(&b'{') {
            let (name, end) = ident(code, at);
            let is_macro = code[end..].starts_with('!') && !code[end..].starts_with("!=");
            if !is_macro {
                found.push((
                    offset,
                    if name.is_empty() {
                        "*".into()
                    } else {
                        name.into()
                    },
                ));
            }
            continue;
        }
        let (close, mut i) = (matching(code, at), at + 1);
        while i < close {
            i = skip_space(code, i);
            let (name, end) = ident(code, i);
            if i < close {
                found.push((
                    offset,
                    if name.is_empty() {
                        "*".into()
                    } else {
                        name.into()
                    },
                ));
            }
            i = end;
            while i < close && code.as_bytes()[i] != b',' {
                let open = code.as_bytes()[i] == b'{';
                i = if open { matching(code, i) } else { i } + 1;
            }
            i += 1;
        }
    }
    found
}

/// Chains of `super` that end at the crate's root.
fn climbs(source: &Source) -> Vec<usize> {
    let code = source.live.as_str();
    let path = source
        .path
        .trim_start_matches("src/")
        .trim_end_matches(".rs");
    let depth = path.trim_end_matches("/mod").split('/').count();
    let is_root = is_root(&source.path);
    let mut found = Vec::new();
    let mut behind = 0;
    for offset in words(code, "super").into_iter().filter(|_| !is_root) {
        if offset < behind {
            continue;
        }
        let (mut count, mut at) = (0, offset);
        while ident(code, at).0 == "super" {
            count += 1;
            at = skip_space(code, at + "super".len());
            if code[at..].starts_with("::") {
                at = skip_space(code, at + 2);
            }
        }
        behind = at;
        if count >= depth + source.inline_path(offset).len() {
            found.push(offset);
        }
    }
    found
}

fn unsafety(source: &Source, tables: &Tables, found: &mut Vec<String>) {
    if !tables.unsafe_layers.contains(&layer(&source.path)) {
        for offset in words(&source.code, "unsafe") {
            found.push(format!(
                "{}: `unsafe` outside {:?}",
                source.at(offset),
                tables.unsafe_layers
            ));
        }
    }
}

fn panics(source: &Source, tables: &Tables, found: &mut Vec<String>) {
    if !tables.no_unwrap_layers.contains(&layer(&source.path)) {
        return;
    }
    for (what, call) in [("unwrap", "()"), ("expect", "(")] {
        for offset in words(&source.live, what) {
            let dotted = source.live[..offset].trim_end().ends_with('.');
            if dotted && source.live[offset + what.len()..].starts_with(call) {
                let at = source.at(offset);
                found.push(format!(
                    "{at}: `.{what}{call}`: a peer must not be able to panic us"
                ));
            }
        }
    }
}

/// The library speaks through `tracing` and errors; only the program prints.
fn output(source: &Source, found: &mut Vec<String>) {
    if matches!(layer(&source.path), "cli" | "main") {
        return;
    }
    for name in ["println", "eprintln", "print", "eprint"] {
        for offset in macro_calls(&source.live, name) {
            found.push(format!("{}: `{name}!` in the library", source.at(offset)));
        }
    }
}

fn macro_calls(code: &str, name: &str) -> Vec<usize> {
    let is_call = |at: &usize| {
        let rest = &code[at + name.len()..];
        rest.starts_with('!') && !rest.starts_with("!=")
    };
    words(code, name).into_iter().filter(is_call).collect()
}

/// What holds for every Rust file of the repository, tests included.
fn hygiene(source: &Source, found: &mut Vec<String>) {
    header(source, found);
    for name in ["todo", "unimplemented", "dbg"] {
        for offset in macro_calls(&source.code, name) {
            found.push(format!("{}: `{name}!`", source.at(offset)));
        }
    }
    for (offset, attribute) in source.attributes() {
        let is_lint = ["allow", "expect"].iter().any(|level| {
            let mut uses = words(attribute, level).into_iter();
            uses.any(|at| attribute[at + level.len()..].trim_start().starts_with('('))
        });
        if is_lint && words(attribute, "reason").is_empty() {
            found.push(format!(
                "{}: lint silenced without a reason",
                source.at(offset)
            ));
        }
        if !words(attribute, "ignore").is_empty() {
            found.push(format!("{}: ignored test", source.at(offset)));
        }
    }
    for (n, line) in source.text.lines().enumerate() {
        let breakable = line.trim().contains(char::is_whitespace) && !line.contains("://");
        let columns = line.chars().count();
        if breakable && columns > COLUMNS {
            found.push(format!("{}:{}: {columns} columns", source.path, n + 1));
        }
    }
    for offset in machine_paths(&source.text) {
        found.push(format!(
            "{}: a path of somebody's machine",
            source.at(offset)
        ));
    }
}

fn header(source: &Source, found: &mut Vec<String>) {
    let lines = source.text.lines().map_while(|l| l.strip_prefix("//!"));
    let (mut prose, mut any, mut example) = (0, false, false);
    for line in lines {
        any = true;
        if line.trim_start().starts_with("```") {
            example = !example;
        } else if !example && !line.trim().is_empty() {
            prose += 1;
        }
    }
    if !any {
        found.push(format!(
            "{}: does not open with a `//!` header",
            source.path
        ));
    }
    // The crate's own page may say more.
    if prose > HEADER_CAP && source.path != "src/lib.rs" {
        found.push(format!(
            "{}: a header of {prose} lines (cap {HEADER_CAP})",
            source.path
        ));
    }
}

/// Offsets of absolute paths below directories that exist on one machine only.
pub fn machine_paths(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for directory in [
        concat!("/", "work"),
        concat!("/", "root"),
        concat!("/", "home"),
    ] {
        for (at, _) in text.match_indices(directory) {
            let before = text[..at].chars().next_back();
            let after = text[at + directory.len()..].chars().next();
            let starts = !before.is_some_and(|c| c.is_alphanumeric() || "._-}>)*]".contains(c));
            if starts && after == Some('/') {
                found.push(at);
            }
        }
    }
    found
}
