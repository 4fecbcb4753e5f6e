//! Connection IDs (RFC 9000 §5.1): up to 20 opaque bytes, held in place.

use crate::base::limits::{DEFAULT_CID_LEN, MAX_CID_LEN};
use std::fmt;
use std::hash::{Hash, Hasher};

/// A connection ID of 0 to 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionId {
    len: u8,
    // Bytes past `len` are zero, so that equality and hashing may look at all of them.
    bytes: [u8; MAX_CID_LEN],
}

impl ConnectionId {
    /// The zero-length connection ID.
    pub const EMPTY: Self = Self {
        len: 0,
        bytes: [0; MAX_CID_LEN],
    };

    /// A connection ID of these bytes; `None` when there are more than 20.
    /// Keeps RFC 9000 §17.2.
    #[inline]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut out = Self::EMPTY;
        if let Ok(own) = <&[u8; DEFAULT_CID_LEN]>::try_from(bytes) {
            // The length of the connection IDs of our own: one move instead of a call.
            out.bytes[..DEFAULT_CID_LEN].copy_from_slice(own);
        } else {
            out.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        }
        out.len = bytes.len() as u8;
        Some(out)
    }

    /// Its length in bytes.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it is the zero-length connection ID.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether these are its bytes.
    #[inline]
    pub fn is(&self, bytes: &[u8]) -> bool {
        match <&[u8; DEFAULT_CID_LEN]>::try_from(bytes) {
            // As above.
            Ok(own) => self.len() == DEFAULT_CID_LEN && self.bytes.first_chunk() == Some(own),
            Err(_) => self.as_slice() == bytes,
        }
    }

    /// Its bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len as usize).unwrap_or_default()
    }
}

impl Hash for ConnectionId {
    /// Three whole words, whatever its length.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c] = [0, 8, 16].map(|at| {
            let mut word = [0; 8];
            let bytes = self.bytes.get(at..MAX_CID_LEN.min(at + 8));
            for (to, from) in word.iter_mut().zip(bytes.unwrap_or_default()) {
                *to = *from;
            }
            u64::from_ne_bytes(word)
        });
        state.write_u64(a);
        state.write_u64(b);
        state.write_u64(c << 8 | u64::from(self.len));
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice()
            .iter()
            .try_for_each(|b| write!(f, "{b:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_keeps_its_bytes() {
        let bytes: [u8; 20] = std::array::from_fn(|i| i as u8 + 1);
        for len in 0..=20 {
            let cid = ConnectionId::new(&bytes[..len]).unwrap_or_default();
            assert_eq!(cid.as_slice(), &bytes[..len]);
            assert_eq!((cid.len(), cid.is_empty()), (len, len == 0));
        }
    }

    #[test]
    fn at_most_twenty_bytes() {
        assert_eq!(ConnectionId::new(&[7; 20]).map(|c| c.len()), Some(20));
        assert_eq!(ConnectionId::new(&[7; 21]), None);
        assert_eq!(
            ConnectionId::new(&[0xab, 1]).map(|c| c.to_string()),
            Some("ab01".into())
        );
    }
}
