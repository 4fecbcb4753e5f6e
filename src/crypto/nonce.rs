//! The AEAD nonce of a packet as a pure function: RFC 9001 §5.3 for path 0, with the path
//! identifier in its first 32 bits for the other paths of multipath QUIC.
//!
//! The engine seals through the provider, which computes the same; this is the independent
//! statement that tests hold it to, and what a tool that decrypts captures needs.

/// The nonce under `iv`: `path_id` as 32 bits, two zero bits and the 62-bit packet number, XORed
/// into the IV.
pub fn nonce(iv: [u8; 12], path_id: u32, pn: u64) -> [u8; 12] {
    let mut nonce = iv;
    let input = path_id.to_be_bytes().into_iter().chain(pn.to_be_bytes());
    for (byte, input) in nonce.iter_mut().zip(input) {
        *byte ^= input;
    }
    nonce
}

/// Holds, in builds with debug assertions, each packet that is sealed against those before: packet
/// numbers of a path only rise, whatever became of the path and of the keys, so that no nonce is
/// ever used twice with one key.
#[derive(Debug, Default)]
pub(crate) struct NonceGuard(#[cfg(debug_assertions)] Vec<(u32, u64)>);

impl NonceGuard {
    /// A packet is about to be sealed.
    #[inline]
    pub(crate) fn on_seal(&mut self, path_id: u32, pn: u64) {
        #[cfg(debug_assertions)]
        match self.0.iter_mut().find(|(path, _)| *path == path_id) {
            None => self.0.push((path_id, pn)),
            Some((_, last)) => {
                assert!(pn > *last, "path {path_id}: packet {pn} after {last}");
                *last = pn;
            }
        }
        let _ = (path_id, pn);
    }
}

#[cfg(test)]
mod tests;
