//! From an RFC's text to its requirements: every sentence with MUST, MUST NOT, SHALL or REQUIRED,
//! numbered within its section.

/// One sentence that requires something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// RFC, section and number within the section: `9000-8.2.1-3`.
    pub id: String,
    /// The sentence.
    pub text: String,
}

impl Requirement {
    /// The RFC's number.
    pub fn rfc(&self) -> &str {
        self.id.split('-').next().unwrap_or_default()
    }

    /// The section, without the sign.
    pub fn section(&self) -> &str {
        self.id.split('-').nth(1).unwrap_or_default()
    }
}

/// The requirements of an RFC's text, in order.
pub fn extract(rfc: &str, text: &str) -> Vec<Requirement> {
    let mut out: Vec<Requirement> = Vec::new();
    let mut section = String::new();
    let (mut paragraph, mut number) = (String::new(), 0);
    let mut flush = |section: &str, paragraph: &mut String, number: &mut u32| {
        for sentence in sentences(paragraph).filter(|_| !section.is_empty()) {
            if requires(&sentence) {
                *number += 1;
                out.push(Requirement {
                    id: format!("{rfc}-{section}-{number}"),
                    text: sentence,
                });
            }
        }
        paragraph.clear();
    };
    for line in text.lines() {
        if let Some(name) = heading(line) {
            flush(&section, &mut paragraph, &mut number);
            (section, number) = (name.to_owned(), 0);
        } else if line.trim().is_empty() {
            flush(&section, &mut paragraph, &mut number);
        } else {
            // A word that is broken at its hyphen stays one word; a dash does not break any.
            let whole = !paragraph.ends_with("- ") || paragraph.ends_with("-- ");
            if !whole {
                paragraph.pop();
            }
            paragraph.push_str(line.trim());
            paragraph.push(' ');
        }
    }
    flush(&section, &mut paragraph, &mut number);
    out
}

/// The number of a section that begins at this line: `8.2.1.  Initiating Path Validation`.
fn heading(line: &str) -> Option<&str> {
    let line = line.strip_prefix("Appendix ").unwrap_or(line);
    let (number, title) = line.split_once(".  ")?;
    let first = number.split('.').next()?;
    let is_part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    let is_letter = first.len() == 1 && first.bytes().all(|b| b.is_ascii_uppercase());
    let rest = number.split('.').skip(1).all(is_part);
    (rest && (is_part(first) || is_letter) && !title.trim().is_empty()).then_some(number)
}

/// A paragraph cut where a sentence, or the words before a list, end.
fn sentences(paragraph: &str) -> impl Iterator<Item = String> {
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    let mut out = vec![String::new()];
    for (n, word) in words.iter().enumerate() {
        let last = out.len() - 1;
        if !out[last].is_empty() {
            out[last].push(' ');
        }
        out[last].push_str(word);
        let ends = word.ends_with(['.', ':']);
        let next = words.get(n + 1).and_then(|w| w.chars().next());
        let begins = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "\"(*".contains(c);
        if ends && next.is_some_and(begins) {
            out.push(String::new());
        }
    }
    out.into_iter()
        .map(|s| s.trim_start_matches("* ").to_owned())
}

/// Whether a sentence uses the words of RFC 2119 that leave no choice, and is not about the words.
fn requires(sentence: &str) -> bool {
    let mut words = sentence.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|w| matches!(w, "MUST" | "SHALL" | "REQUIRED")) && !sentence.contains("\"MUST\"")
}

/// The list as it is kept in the repository: a line each, ID and sentence.
pub fn to_list(requirements: &[Requirement]) -> String {
    let lines = requirements
        .iter()
        .map(|r| format!("{} {}\n", r.id, r.text));
    lines.collect()
}

/// The list read back.
pub fn from_list(text: &str) -> Vec<Requirement> {
    let lines = text.lines().filter_map(|l| l.split_once(' '));
    lines
        .map(|(id, text)| Requirement {
            id: id.to_owned(),
            text: text.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Table of Contents

   8.  Address Validation MUST not be read from here

8.  Address Validation

   One MUST do this.  One may do that.  See
   Section 5.1 for what one
   MUST NOT do.

   *  Neither SHALL one do this (see Section 5.2.1).

8.1.  More

   The key words \"MUST\" are to be read.  It is REQUIRED that:

Appendix A.  Code

   MUSTARD is no requirement.
";

    #[test]
    fn sentences_are_found_and_numbered_by_section() {
        let found = extract("9000", TEXT);
        let ids: Vec<(&str, &str)> = found.iter().map(|r| (&*r.id, &*r.text)).collect();
        assert_eq!(
            ids,
            [
                ("9000-8-1", "One MUST do this."),
                ("9000-8-2", "See Section 5.1 for what one MUST NOT do."),
                ("9000-8-3", "Neither SHALL one do this (see Section 5.2.1)."),
                ("9000-8.1-1", "It is REQUIRED that:"),
            ]
        );
        assert_eq!((found[3].rfc(), found[3].section()), ("9000", "8.1"));
        assert_eq!(from_list(&to_list(&found)), found);
    }
}
