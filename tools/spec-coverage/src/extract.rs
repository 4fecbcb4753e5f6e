//! From an RFC's text to the sentences that require something.
//!
//! A sentence counts when it has one of the key words in capitals (RFC 2119). An item of a list is
//! a sentence of its own. The paragraph that defines the key words is left out.

use super::list::Requirement;

/// The words that bind; SHOULD and MAY leave a choice.
const WORDS: [&str; 3] = ["MUST", "SHALL", "REQUIRED"];

/// Every requirement of an RFC's text, in order.
pub(crate) fn requirements(rfc: u32, text: &str) -> Vec<Requirement> {
    let mut out: Vec<Requirement> = Vec::new();
    let mut section = String::new();
    for block in blocks(text) {
        if let Some(number) = heading(&block) {
            section = number.to_owned();
            continue;
        }
        if section.is_empty() || block.contains("\"MUST NOT\"") {
            continue;
        }
        for sentence in sentences(&block) {
            if !binds(&sentence) {
                continue;
            }
            let number = 1 + out.iter().filter(|r| r.section == section).count() as u32;
            out.push(Requirement {
                rfc,
                section: section.clone(),
                number,
                text: sentence,
                code: Vec::new(),
                test: Vec::new(),
                none: None,
            });
        }
    }
    out
}

/// Carries what is known of each requirement over to a fresh extract; fails where that would lose a
/// citation.
pub(crate) fn merge(
    mut fresh: Vec<Requirement>,
    known: Vec<Requirement>,
) -> Result<Vec<Requirement>, String> {
    for old in known {
        let cited = !old.code.is_empty() || !old.test.is_empty() || old.none.is_some();
        let same = |r: &&mut Requirement| r.section == old.section && r.text == old.text;
        match fresh.iter_mut().find(same) {
            Some(r) => {
                r.code = old.code;
                r.test = old.test;
                r.none = old.none;
            }
            None if cited => {
                let name = old.name();
                return Err(format!("{name} is cited but not in the text: {}", old.text));
            }
            None => {}
        }
    }
    Ok(fresh)
}

/// Paragraphs, items and headings, each in one line.
fn blocks(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut block = String::new();
    for line in text.lines().chain([""]) {
        let line = line.trim_start_matches('\u{feff}');
        let words = line.trim();
        let item = words.starts_with("*  ") || words.starts_with("o  ");
        if (words.is_empty() || item) && !block.is_empty() {
            out.push(std::mem::take(&mut block));
        }
        if words.is_empty() {
            continue;
        }
        // What starts in the first column is a heading; text is indented.
        if block.is_empty() && !line.starts_with(' ') {
            block.push('\u{1}');
        } else if block.ends_with('-') {
            // A word broken at its own hyphen.
        } else if !block.is_empty() {
            block.push(' ');
        }
        block += &words.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    out
}

/// The number of a section's heading.
fn heading(block: &str) -> Option<&str> {
    let line = block.strip_prefix('\u{1}')?;
    let line = line.strip_prefix("Appendix ").unwrap_or(line);
    let number = line.split_whitespace().next()?.strip_suffix('.')?;
    let is_number = number.split('.').all(|part| {
        part.bytes().all(|b| b.is_ascii_digit())
            || (part.len() == 1 && part.as_bytes()[0].is_ascii_uppercase())
    });
    (is_number && !number.is_empty()).then_some(number)
}

/// The sentences of a paragraph.
fn sentences(block: &str) -> Vec<String> {
    let block = block.trim_start_matches("* ").trim_start_matches('\u{1}');
    let mut out = Vec::new();
    let mut rest = block;
    let mut from = 0;
    while let Some(at) = rest
        .get(from..)
        .and_then(|r| r.find(". "))
        .map(|at| from + at)
    {
        let next = rest[at + 2..].chars().next();
        let abbreviated = ["e.g", "i.e", "etc", "vs"]
            .iter()
            .any(|a| rest[..at].ends_with(a));
        let begins = next.is_some_and(|c| c.is_uppercase() || c == '"');
        if begins && !abbreviated {
            out.push(rest[..=at].to_owned());
            rest = &rest[at + 2..];
            from = 0;
        } else {
            from = at + 2;
        }
    }
    out.push(rest.to_owned());
    out
}

fn binds(sentence: &str) -> bool {
    sentence
        .split(|c: char| !c.is_ascii_alphabetic())
        .any(|word| WORDS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\u{feff}
1.  Introduction

   The key words \"MUST\", \"MUST NOT\" are.

2.1.  Sending

   A sender MUST wait, e.g. Rarely.  It MAY sleep.  It
   MUST NOT send an ack-
   eliciting packet.

   *  MUST one.

   *  two

A.1.  More

   It is REQUIRED.
";

    #[test]
    fn sentences_that_bind_are_found_with_their_section() {
        let all = requirements(9002, TEXT);
        let names: Vec<_> = all.iter().map(|r| (r.name(), r.text.as_str())).collect();
        let expected = [
            (
                "RFC 9002 §2.1-1".to_owned(),
                "A sender MUST wait, e.g. Rarely.",
            ),
            (
                "RFC 9002 §2.1-2".to_owned(),
                "It MUST NOT send an ack-eliciting packet.",
            ),
            ("RFC 9002 §2.1-3".to_owned(), "MUST one."),
            ("RFC 9002 §A.1-1".to_owned(), "It is REQUIRED."),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn citations_survive_a_new_extract_and_are_never_lost_silently() {
        let mut known = requirements(9002, TEXT);
        known[2].none = Some("binds nobody".into());
        let merged = merge(requirements(9002, TEXT), known.clone()).expect("the same text");
        assert_eq!(merged, known);
        known[2].text.push_str(" Changed.");
        assert!(merge(requirements(9002, TEXT), known).is_err());
    }
}
