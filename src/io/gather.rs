//! A train in pieces: what is in its buffer, and what stands elsewhere and comes between.

/// Puts the pieces into the buffer, which then has all `len` bytes of the train. False when they
/// do not fit together; the buffer is then as it was.
pub(super) fn fill_in(buffer: &mut [u8], len: usize, pieces: &[(usize, &[u8])]) -> bool {
    let Some(held) = held(buffer, len, pieces) else {
        return false;
    };
    // From the end, so that nothing is written over what is still to be moved.
    let (mut from, mut to) = (held, len);
    for &(at, bytes) in pieces.iter().rev() {
        to -= from - at;
        buffer.copy_within(at..from, to);
        let end = to;
        to -= bytes.len();
        if let Some(out) = buffer.get_mut(to..end) {
            out.copy_from_slice(bytes);
        }
        from = at;
    }
    true
}

/// Shows all bytes of the train in order. False when they do not fit together; then none was shown.
#[inline]
pub(super) fn for_each_part(
    buffer: &[u8],
    len: usize,
    pieces: &[(usize, &[u8])],
    mut show: impl FnMut(&[u8]),
) -> bool {
    let Some(held) = held(buffer, len, pieces) else {
        return false;
    };
    let mut from = 0;
    for &(at, bytes) in pieces.iter().chain([&(held, [].as_slice())]) {
        for part in [buffer.get(from..at).unwrap_or_default(), bytes] {
            if !part.is_empty() {
                show(part);
            }
        }
        from = at;
    }
    true
}

/// Bytes of the train that are in the buffer, if everything fits together.
#[inline]
fn held(buffer: &[u8], len: usize, pieces: &[(usize, &[u8])]) -> Option<usize> {
    let outside = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
    let held = len.checked_sub(outside)?;
    let ordered = pieces.is_sorted_by_key(|(at, _)| *at);
    let inside = pieces.last().is_none_or(|(at, _)| *at <= held);
    (len <= buffer.len() && ordered && inside).then_some(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(buffer: &[u8], len: usize, pieces: &[(usize, &[u8])]) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        let fits = for_each_part(buffer, len, pieces, |part| all.extend_from_slice(part));
        assert!(fits || all.is_empty());
        fits.then_some(all)
    }

    #[test]
    fn pieces_come_where_they_belong() {
        for (held, pieces, train) in [
            ("abcd", &[][..], "abcd"),
            ("abcd", &[(2, &b"XYZ"[..])], "abXYZcd"),
            ("abcd", &[(0, &b"X"[..]), (4, b"YZ")], "XabcdYZ"),
            (
                "abcd",
                &[(1, &b"X"[..]), (1, b""), (1, b"YZ"), (3, b"W")],
                "aXYZbcWd",
            ),
            ("", &[(0, &b"X"[..])], "X"),
        ] {
            let mut buffer = [b'-'; 12];
            buffer[..held.len()].copy_from_slice(held.as_bytes());
            let len = train.len();
            assert_eq!(shown(&buffer, len, pieces).unwrap(), train.as_bytes());
            assert!(fill_in(&mut buffer, len, pieces));
            assert_eq!(&buffer[..len], train.as_bytes());
            assert!(buffer[len..].iter().all(|b| *b == b'-'));
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (len, pieces) in [
            (5, &[][..]),
            (1, &[(0, &b"XY"[..])]),
            (4, &[(3, &b"XY"[..])]),
            (4, &[(2, &b"X"[..]), (1, b"Y")]),
        ] {
            let mut buffer = *b"abcd";
            assert_eq!(shown(&buffer, len, pieces), None);
            assert!(!fill_in(&mut buffer, len, pieces));
            assert_eq!(&buffer, b"abcd");
        }
    }
}
