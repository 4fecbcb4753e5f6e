//! Rust source as the tidy checks see it: text, code without comments and literals, live code.
//!
//! No parser: a lexer that is exact about comments, strings and character literals, and bracket
//! matching over what is left. Offsets into `text`, `code` and `live` agree byte for byte.

use std::ops::Range;

/// One file and its three views.
pub struct Source {
    /// Path relative to the repository, with `/`.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// `text` with comments as spaces and the contents of literals as `~`.
    pub code: String,
    /// `code` with everything that only tests compile as spaces.
    pub live: String,
}

/// A `mod name` found in a file.
pub struct Module {
    pub name: String,
    pub offset: usize,
    /// The braces of an inline module; `None` for `mod name;`.
    pub body: Option<Range<usize>>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code = without_comments(text);
        let live = without_tests(&code);
        Self {
            path: path.into(),
            text: text.into(),
            code,
            live,
        }
    }

    /// Marks the whole file as test code: its parent declares it under `#[cfg(test)]`.
    pub fn make_test(&mut self) {
        let whole = 0..self.live.len();
        self.live = blanked(&self.live, std::slice::from_ref(&whole));
    }

    /// `path:line` of an offset, for messages.
    pub fn at(&self, offset: usize) -> String {
        let line = self.text.as_bytes()[..offset]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        format!("{}:{line}", self.path)
    }

    /// Every `mod name` of the file, inline or not.
    pub fn modules(&self) -> Vec<Module> {
        let code = self.code.as_str();
        let mut found = Vec::new();
        for offset in words(code, "mod") {
            let (name, after) = ident(code, skip_space(code, offset + 3));
            let after = skip_space(code, after);
            let body = match code.as_bytes().get(after) {
                Some(b';') => None,
                Some(b'{') => Some(after..matching(code, after)),
                _ => continue,
            };
            if !name.is_empty() {
                found.push(Module {
                    name: name.into(),
                    offset,
                    body,
                });
            }
        }
        found
    }

    /// The names of the inline modules around `offset`, outermost first.
    pub fn inline_path(&self, offset: usize) -> Vec<String> {
        self.modules()
            .into_iter()
            .filter(|m| m.body.as_ref().is_some_and(|b| b.contains(&offset)))
            .map(|m| m.name)
            .collect()
    }

    /// The attributes of the file: the offset and the text between the brackets.
    pub fn attributes(&self) -> Vec<(usize, &str)> {
        attributes(&self.code)
            .into_iter()
            .map(|(start, inner, _)| (start, &self.code[inner]))
            .collect()
    }

    /// Functions with a body in live code: name, offset, and lines of code from `fn` to `}`.
    pub fn functions(&self) -> Vec<(String, usize, usize)> {
        let code = self.live.as_str();
        let mut found = Vec::new();
        for offset in words(code, "fn") {
            let (name, after) = ident(code, skip_space(code, offset + 2));
            if name.is_empty() {
                continue;
            }
            let open = item_body(code, after);
            if code.as_bytes().get(open) == Some(&b'{') {
                let lines = code_lines(&code[offset..=matching(code, open).min(code.len() - 1)]);
                found.push((name.into(), offset, lines));
            }
        }
        found
    }
}

/// Lines that hold more than white space.
pub fn code_lines(code: &str) -> usize {
    code.lines().filter(|l| !l.trim().is_empty()).count()
}

/// Offsets at which `word` stands alone, not as part of a longer identifier.
pub fn words(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| {
            let before = at.checked_sub(1).map(|i| bytes[i]);
            let after = bytes.get(at + word.len()).copied();
            !before.is_some_and(is_ident) && !after.is_some_and(is_ident)
        })
        .collect()
}

/// The identifier at `at` (may be empty) and the offset behind it.
pub fn ident(code: &str, at: usize) -> (&str, usize) {
    let end = code.as_bytes()[at..].iter().position(|b| !is_ident(*b));
    let end = end.map_or(code.len(), |n| at + n);
    (&code[at..end], end)
}

pub fn skip_space(code: &str, at: usize) -> usize {
    let rest = &code.as_bytes()[at..];
    at + rest.iter().take_while(|b| b.is_ascii_whitespace()).count()
}

/// The offset of the bracket that closes the one at `open`, or the end of the code.
pub fn matching(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (i, b) in code.bytes().enumerate().skip(open) {
        match b {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return i;
        }
    }
    code.len()
}

fn is_ident(b: u8) -> bool {
    b == b'_' || b.is_ascii_alphanumeric()
}

/// The first `{` or `;` behind `at` that stands outside parentheses and square brackets.
fn item_body(code: &str, at: usize) -> usize {
    let bytes = code.as_bytes();
    let mut i = at;
    while i < bytes.len() {
        match bytes[i] {
            b'{' | b';' => return i,
            b'(' | b'[' => i = matching(code, i),
            _ => {}
        }
        i += 1;
    }
    code.len()
}

/// The attributes of a piece of code: start, inside of the brackets, end.
fn attributes(code: &str) -> Vec<(usize, Range<usize>, usize)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices('#') {
        let open = start + 1 + usize::from(code[start + 1..].starts_with('!'));
        if code.as_bytes().get(open) == Some(&b'[') {
            let close = matching(code, open);
            found.push((start, open + 1..close, (close + 1).min(code.len())));
        }
    }
    found
}

/// Whether an attribute compiles its item only for tests.
fn is_test_only(attribute: &str) -> bool {
    let attribute: String = attribute.chars().filter(|c| !c.is_whitespace()).collect();
    if attribute == "test" {
        return true;
    }
    let cfg = attribute.starts_with("cfg(") && !attribute.starts_with("cfg(any(");
    cfg && !attribute.contains("not(test") && !words(&attribute, "test").is_empty()
}

fn without_tests(code: &str) -> String {
    let mut cut = Vec::new();
    for (start, inner, end) in attributes(code) {
        if is_test_only(&code[inner]) {
            let whole_file = code[start..].starts_with("#!");
            cut.push(if whole_file {
                0..code.len()
            } else {
                start..item_end(code, end)
            });
        }
    }
    blanked(code, &cut)
}

/// The end of the item, field or statement that starts behind an attribute that ends at `at`.
fn item_end(code: &str, at: usize) -> usize {
    const ITEMS: [&str; 13] = [
        "mod",
        "fn",
        "use",
        "impl",
        "struct",
        "enum",
        "const",
        "static",
        "trait",
        "type",
        "unsafe",
        "async",
        "macro_rules",
    ];
    let bytes = code.as_bytes();
    let mut at = skip_space(code, at);
    while bytes.get(at) == Some(&b'#') {
        at = skip_space(code, (matching(code, at + 1) + 1).min(code.len()));
    }
    let (mut word, mut after) = ident(code, at);
    if word == "pub" {
        after = skip_space(code, after);
        if bytes.get(after) == Some(&b'(') {
            after = skip_space(code, matching(code, after) + 1);
        }
        (word, after) = ident(code, after);
    }
    if ITEMS.contains(&word) {
        let end = item_body(code, after);
        let brace = bytes.get(end) == Some(&b'{');
        let end = if brace { matching(code, end) } else { end };
        return (end + 1).min(code.len());
    }
    while at < bytes.len() {
        match bytes[at] {
            b',' | b';' => return at + 1,
            b'}' | b')' | b']' => return at,
            b'(' | b'[' | b'{' => at = matching(code, at),
            _ => {}
        }
        at += 1;
    }
    code.len()
}

fn blanked(code: &str, cut: &[Range<usize>]) -> String {
    let keep = |i: usize| !cut.iter().any(|r| r.contains(&i));
    code.bytes()
        .enumerate()
        .map(|(i, b)| {
            if b == b'\n' || keep(i) {
                char::from(b)
            } else {
                ' '
            }
        })
        .collect()
}

/// Replaces comments by spaces and the contents of literals by `~`; keeps line ends and offsets.
pub fn without_comments(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let rest = &bytes[i..];
        let (len, fill) = if rest.starts_with(b"//") {
            (
                rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
                b' ',
            )
        } else if rest.starts_with(b"/*") {
            (block_comment(rest), b' ')
        } else if rest[0] == b'"' {
            (string(rest), b'~')
        } else if let Some(len) = raw_string(bytes, i) {
            (len, b'~')
        } else if rest[0] == b'\'' {
            (char_literal(&text[i..]), b'~')
        } else {
            // Code is ASCII apart from identifiers that nobody here uses.
            out.push(if rest[0].is_ascii() { rest[0] } else { b'?' });
            i += 1;
            continue;
        };
        for (n, b) in rest[..len].iter().enumerate() {
            let quote = fill == b'~' && (n == 0 || n + 1 == len);
            out.push(if *b == b'\n' || (quote && b.is_ascii()) {
                *b
            } else {
                fill
            });
        }
        i += len;
    }
    String::from_utf8(out).expect("every byte written is ASCII")
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut i) = (0usize, 0);
    while i < rest.len() {
        if rest[i..].starts_with(b"/*") {
            (depth, i) = (depth + 1, i + 2);
        } else if rest[i..].starts_with(b"*/") {
            (depth, i) = (depth - 1, i + 2);
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    rest.len()
}

fn string(rest: &[u8]) -> usize {
    let mut i = 1;
    while i < rest.len() {
        match rest[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    rest.len()
}

/// The length of the raw string at `at`, if `r`, hashes and a quote start there.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let before = |n: usize| at.checked_sub(n).map(|i| bytes[i]);
    let prefixed = matches!(before(1), Some(b'b' | b'c')) && !before(2).is_some_and(is_ident);
    if bytes[at] != b'r' || (before(1).is_some_and(is_ident) && !prefixed) {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = &bytes[open + 1..];
    let end = body
        .windows(close.len())
        .position(|w| w == close)
        .unwrap_or(body.len());
    Some((open + 1 + end + close.len()).min(bytes.len()) - at)
}

/// The length of the character literal that starts here; 1 when the quote opens a lifetime.
fn char_literal(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            let escaped = chars.next().map_or(rest.len(), |(i, c)| i + c.len_utf8());
            rest[escaped..]
                .find('\'')
                .map_or(rest.len(), |n| escaped + n + 1)
        }
        Some(_) => match chars.next() {
            Some((i, '\'')) => i + 1,
            _ => 1,
        },
        None => 1,
    }
}
