//! Just enough JSON for qlog: objects and arrays written straight to bytes, closed when dropped.
//!
//! Whatever goes in, what comes out is valid UTF-8 and valid JSON: keys are ours, strings are
//! escaped, and there are no floating point numbers that could be infinite.

use std::io::Write;
use std::time::Duration;

/// An object under construction.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

/// An array under construction.
pub(super) struct Array<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Writes a key; it must need no escapes.
    fn key(&mut self, key: &'static str) -> &mut Vec<u8> {
        separate(self.out, &mut self.first);
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(super) fn number(&mut self, key: &'static str, value: u64) {
        number(self.key(key), value);
    }

    /// A time in milliseconds, to the nanosecond.
    pub(super) fn millis(&mut self, key: &'static str, value: Duration) {
        let nanos = value.as_nanos();
        // Writing to a Vec cannot fail.
        let _ = write!(
            self.key(key),
            "{}.{:06}",
            nanos / 1_000_000,
            nanos % 1_000_000
        );
    }

    pub(super) fn bool(&mut self, key: &'static str, value: bool) {
        let word: &[u8] = if value { b"true" } else { b"false" };
        self.key(key).extend_from_slice(word);
    }

    pub(super) fn text(&mut self, key: &'static str, value: &str) {
        text(self.key(key), value);
    }

    pub(super) fn hex(&mut self, key: &'static str, value: &[u8]) {
        let out = self.key(key);
        out.push(b'"');
        for byte in value {
            let _ = write!(out, "{byte:02x}");
        }
        out.push(b'"');
    }

    pub(super) fn object(&mut self, key: &'static str) -> Object<'_> {
        Object::begin(self.key(key))
    }

    pub(super) fn array(&mut self, key: &'static str) -> Array<'_> {
        Array::begin(self.key(key))
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        self.out.push(b'}');
    }
}

impl<'a> Array<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'[');
        Self { out, first: true }
    }

    pub(super) fn number(&mut self, value: u64) {
        separate(self.out, &mut self.first);
        number(self.out, value);
    }

    pub(super) fn object(&mut self) -> Object<'_> {
        separate(self.out, &mut self.first);
        Object::begin(self.out)
    }

    pub(super) fn array(&mut self) -> Array<'_> {
        separate(self.out, &mut self.first);
        Array::begin(self.out)
    }

    /// Bytes written to the same buffer so far.
    pub(super) fn written(&self) -> usize {
        self.out.len()
    }
}

impl Drop for Array<'_> {
    fn drop(&mut self) {
        self.out.push(b']');
    }
}

fn separate(out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
}

fn number(out: &mut Vec<u8>, value: u64) {
    let _ = write!(out, "{value}");
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    for c in value.chars() {
        match c {
            '"' | '\\' => {
                let _ = write!(out, "\\{c}");
            }
            // The record separator of JSON-SEQ is among these.
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => {
                let _ = write!(out, "{c}");
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_values_are_separated_and_closed() {
        let mut out = Vec::new();
        {
            let mut o = Object::begin(&mut out);
            o.number("a", u64::MAX);
            o.millis("t", Duration::from_nanos(1_000_001));
            let mut list = o.array("l");
            list.number(1);
            list.array().number(2);
            list.object().bool("x", true);
            drop(list);
            o.object("o").hex("h", &[0, 0xff]);
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"a":18446744073709551615,"t":1.000001,"l":[1,[2],{"x":true}],"o":{"h":"00ff"}}"#
        );
    }

    #[test]
    fn strings_are_escaped() {
        let mut out = Vec::new();
        Object::begin(&mut out).text("s", "a\"b\\c\n\u{1e}\u{7f}é");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"s":"a\"b\\c\u000a\u001e\u007fé"}"#
        );
    }
}
