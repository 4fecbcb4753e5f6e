//! What the sources say: where an item is, and which sections its comments cite.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A file of sources.
pub struct Source {
    lines: Vec<String>,
}

/// An item in it: its comments, its attributes and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first line, of the comments before it.
    pub start: usize,
    /// The line that names it.
    pub name: usize,
    /// The line behind its last.
    pub end: usize,
}

const KINDS: [&str; 8] = [
    "fn", "const", "static", "struct", "enum", "type", "trait", "mod",
];

impl Source {
    /// Reads a file; `None` when it is not there.
    pub fn read(path: &Path) -> Option<Self> {
        fs::read_to_string(path).ok().map(|text| Self::of(&text))
    }

    /// The same of a text.
    pub fn of(text: &str) -> Self {
        Self {
            lines: text.lines().map(str::to_owned).collect(),
        }
    }

    /// Every item of this name.
    pub fn items(&self, name: &str) -> Vec<Span> {
        let defines = |line: &String| {
            let words: Vec<&str> = line
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .collect();
            !line.trim_start().starts_with("//")
                && words
                    .windows(2)
                    .any(|w| KINDS.contains(&w[0]) && w[1] == name)
        };
        let at = self.lines.iter().enumerate().filter(|(_, l)| defines(l));
        at.map(|(n, _)| self.span(n)).collect()
    }

    /// Sources are formatted: an item ends at the first line that closes at its own depth.
    fn span(&self, name: usize) -> Span {
        let depth = indent(&self.lines[name]);
        let is_before = |l: &String| {
            let l = l.trim_start();
            l.starts_with("//") && !l.starts_with("//!") || l.starts_with("#[")
        };
        let before = self.lines[..name].iter().rev();
        let start = name - before.take_while(|l| is_before(l)).count();
        let closes = |l: &String| {
            indent(l) == depth
                && l.trim_start().starts_with(['}', ']', ')'])
                && l.ends_with(['}', ';'])
        };
        let one_line = self.lines[name].ends_with([';', '}']);
        let rest = self.lines[name + 1..].iter().position(closes);
        let end = match (one_line, rest) {
            (false, Some(n)) => name + n + 2,
            _ => name + 1,
        };
        Span { start, name, end }
    }

    /// Whether an item is a test.
    pub fn is_test(&self, span: Span) -> bool {
        let attributes = &self.lines[span.start..span.name];
        attributes
            .iter()
            .any(|l| l.trim_start().starts_with("#[test]"))
    }

    /// What an item's comments cite, and the file's header, as `9000-8.2.1`. A section sign means
    /// the RFC that was named last.
    pub fn cited(&self, span: Span) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        let mut rfc = String::new();
        for (n, line) in self.lines.iter().enumerate() {
            let Some((_, comment)) = line.split_once("//") else {
                continue;
            };
            let counts = comment.starts_with('!') || (span.start..span.end).contains(&n);
            for word in comment.split_whitespace().collect::<Vec<_>>().windows(2) {
                cite(word[0], Some(word[1]), &mut rfc, counts, &mut out);
            }
            if let Some(last) = comment.split_whitespace().last() {
                cite(last, None, &mut rfc, counts, &mut out);
            }
        }
        out
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Notes what a word says: a section, or an RFC together with the word behind it.
fn cite(
    word: &str,
    next: Option<&str>,
    rfc: &mut String,
    counts: bool,
    out: &mut BTreeSet<String>,
) {
    let number = |w: &str| {
        let digits: String = w.chars().take_while(char::is_ascii_digit).collect();
        (digits.len() >= 4).then_some(digits)
    };
    // RFC 10069 goes by its subject here.
    if word
        .trim_start_matches('(')
        .eq_ignore_ascii_case("multipath")
    {
        "10069".clone_into(rfc);
    }
    if word.trim_start_matches('(').ends_with("RFC")
        && let Some(n) = next.and_then(number)
    {
        *rfc = n;
    }
    for section in word.split('§').skip(1).filter(|_| counts) {
        let section: String = section
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '.')
            .collect();
        out.insert(format!("{rfc}-{}", section.trim_end_matches('.')));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
//! A header (RFC 9000 §1.2).

/// Keeps RFC 9000 §8.1, §8.2.1.
#[inline]
pub fn first(
    a: u8,
) -> u8 {
    // And RFC 9002 §6.2.
    a
}

/// Says nothing, RFC 9001 or not.
const SECOND: [u8; 2] = [
    1, 2,
];

#[test]
fn third() {}
";

    #[test]
    fn items_have_spans_and_citations() {
        let source = Source::of(TEXT);
        let [first] = source.items("first")[..] else {
            panic!("one item");
        };
        assert_eq!(
            first,
            Span {
                start: 2,
                name: 4,
                end: 10
            }
        );
        let cited: Vec<String> = source.cited(first).into_iter().collect();
        assert_eq!(cited, ["9000-1.2", "9000-8.1", "9000-8.2.1", "9002-6.2"]);
        let [second] = source.items("SECOND")[..] else {
            panic!("one item");
        };
        assert_eq!(
            second,
            Span {
                start: 11,
                name: 12,
                end: 15
            }
        );
        assert_eq!(source.cited(second).len(), 1, "the header's alone");
        assert!(source.items("fourth").is_empty());
        let third = source.items("third")[0];
        assert!(source.is_test(third) && !source.is_test(first));
    }
}
