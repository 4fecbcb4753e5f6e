//! What the lists' places are checked against: files, the items and tests in them, the sections
//! that they cite.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The tree's files, read once each.
pub(crate) struct Tree {
    root: PathBuf,
    files: HashMap<String, Option<String>>,
}

impl Tree {
    /// The tree under `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            files: HashMap::new(),
        }
    }

    /// A file's text; `None` when there is no such file.
    pub(crate) fn text(&mut self, file: &str) -> Option<&str> {
        let path = self.root.join(file);
        self.files
            .entry(file.into())
            .or_insert_with(|| std::fs::read_to_string(path).ok())
            .as_deref()
    }
}

/// Whether the text defines an item of that name: the last part of `Type::method`.
pub(crate) fn defines(text: &str, item: &str) -> bool {
    let name = item.rsplit("::").next().unwrap_or(item);
    let words = [
        "fn ",
        "struct ",
        "enum ",
        "const ",
        "trait ",
        "type ",
        "mod ",
        "static ",
        "macro_rules! ",
    ];
    let whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    words.iter().any(|word| {
        let wanted = format!("{word}{name}");
        text.match_indices(&wanted)
            .any(|(at, _)| whole(&text[at + wanted.len()..]))
    })
}

/// Whether the text has a test function of that name, in a macro of property tests or on its own.
pub(crate) fn tests(text: &str, name: &str) -> bool {
    let wanted = format!("fn {name}(");
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().enumerate().any(|(n, line)| {
        line.contains(&wanted)
            && lines[..n]
                .iter()
                .rev()
                .map(|l| l.trim())
                .take_while(|l| l.starts_with("#[") || l.starts_with("//") || l.is_empty())
                .any(|l| l.starts_with("#[test]") || l.starts_with("#[tokio::test"))
    })
}

/// Whether a comment of the text cites the section, or one within it unless it is a whole chapter.
/// In `RFC 9000 §8.1 and §9.3` the document holds until another is named.
pub(crate) fn cites(text: &str, rfc: u32, section: &str) -> bool {
    let mut current = 0;
    let mut rest = text;
    loop {
        let (rfc_at, section_at) = (rest.find("RFC "), rest.find('§'));
        match (rfc_at, section_at) {
            (Some(r), s) if s.is_none_or(|s| r < s) => {
                rest = &rest[r + 4..];
                let digits =
                    rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                current = rest[..digits].parse().unwrap_or(0);
            }
            (_, Some(s)) => {
                rest = &rest[s + '§'.len_utf8()..];
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
                    .unwrap_or(rest.len());
                let cited = rest[..end].trim_end_matches('.');
                let within = cited.strip_prefix(section).is_some_and(|more| {
                    more.is_empty() || (more.starts_with('.') && section.contains('.'))
                });
                if current == rfc && within {
                    return true;
                }
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn items_are_whole_names() {
        let text = "impl A {\n    pub(super) fn allow(&self) {}\n}\nconst LIMIT: u8 = 1;";
        assert!(defines(text, "A::allow") && defines(text, "LIMIT"));
        assert!(!defines(text, "A::all") && !defines(text, "allowance"));
    }

    #[test]
    fn tests_have_their_attribute() {
        let text = "#[test]\n#[cfg(unix)]\nfn shows() {}\nfn helper() {}\n";
        assert!(tests(text, "shows"));
        assert!(!tests(text, "helper") && !tests(text, "show"));
    }

    #[test]
    fn citations_belong_to_the_document_named_last() {
        let text = "// RFC 9000 §8.1 and §9.3.1; RFC 9002 §6.2.";
        assert!(cites(text, 9000, "8.1") && cites(text, 9000, "9.3"));
        assert!(cites(text, 9002, "6.2"));
        assert!(!cites(text, 9000, "6.2") && !cites(text, 9002, "8.1"));
        assert!(!cites(text, 9000, "8"), "a chapter is not a section");
    }
}
