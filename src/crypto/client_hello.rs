//! A look into a ClientHello before TLS reads it (RFC 8446 §4.1.2): a server that would rather
//! speak another version must know the client's transport parameters before it chooses the
//! session's.
//!
//! What is malformed here is left to TLS, which refuses it with the right alert.

use crate::wire::{Reader, Truncated};

const CLIENT_HELLO: u8 = 1;
/// quic_transport_parameters (RFC 9001 §8.2).
const TRANSPORT_PARAMETERS: u16 = 57;
const EARLY_DATA: u16 = 42;

/// What the bytes so far show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientHello<'a> {
    /// So many bytes make the whole message.
    Needs(usize),
    /// It is no ClientHello, or a broken one.
    Unreadable,
    /// The whole message.
    Whole {
        /// The encoded transport parameters, where it has them.
        params: Option<&'a [u8]>,
        /// Whether the client sends early data.
        early_data: bool,
    },
}

/// Looks at the beginning of a client's CRYPTO stream.
pub fn peek(bytes: &[u8]) -> ClientHello<'_> {
    let mut r = Reader::new(bytes);
    match (r.u8(), r.array::<3>()) {
        (Ok(CLIENT_HELLO) | Err(Truncated), Err(Truncated)) => ClientHello::Needs(4),
        (Ok(CLIENT_HELLO), Ok([a, b, c])) => {
            let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            match r.bytes(len) {
                Ok(body) => parse(body).unwrap_or(ClientHello::Unreadable),
                Err(Truncated) => ClientHello::Needs(4 + len),
            }
        }
        _ => ClientHello::Unreadable,
    }
}

fn parse(body: &[u8]) -> Result<ClientHello<'_>, Truncated> {
    let mut r = Reader::new(body);
    // legacy_version and random, legacy_session_id, cipher_suites, legacy_compression_methods.
    r.bytes(2 + 32)?;
    let session_id = r.u8()?;
    r.bytes(usize::from(session_id))?;
    let suites = r.u16()?;
    r.bytes(usize::from(suites))?;
    let compression = r.u8()?;
    r.bytes(usize::from(compression))?;
    let extensions = r.u16()?;
    let mut r = Reader::new(r.bytes(usize::from(extensions))?);
    let (mut params, mut early_data) = (None, false);
    while !r.is_empty() {
        let (ty, len) = (r.u16()?, r.u16()?);
        let value = r.bytes(usize::from(len))?;
        match ty {
            TRANSPORT_PARAMETERS => params = Some(value),
            EARLY_DATA => early_data = true,
            _ => {}
        }
    }
    Ok(ClientHello::Whole { params, early_data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Session;
    use crate::crypto::testing::{Ca, localhost};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn hello() -> Vec<u8> {
        let tls = Arc::new(Ca::new().client());
        let mut session =
            Session::client(tls, localhost(), b"what it declares".to_vec()).expect("a session");
        let mut out = Vec::new();
        session.write_crypto(&mut out);
        out
    }

    #[test]
    fn parameters_are_found_once_the_message_is_whole() {
        let hello = hello();
        for cut in 0..hello.len() {
            let needs = if cut < 4 { 4 } else { hello.len() };
            assert_eq!(peek(&hello[..cut]), ClientHello::Needs(needs), "{cut}");
        }
        let whole = ClientHello::Whole {
            params: Some(b"what it declares"),
            early_data: false,
        };
        assert_eq!(peek(&hello), whole);
        let more = [&hello[..], &[1, 2]].concat();
        assert_eq!(peek(&more), whole);
    }

    #[test]
    fn broken_lengths_are_unreadable() {
        let hello = hello();
        assert_eq!(peek(&[2]), ClientHello::Unreadable);
        // The session ID's length, and that of the extensions.
        let mut broken = hello.clone();
        broken[4 + 34] = 255;
        assert!(matches!(
            peek(&broken),
            ClientHello::Unreadable | ClientHello::Whole { params: None, .. }
        ));
        let mut short = hello.clone();
        let len = hello.len() - 4 - 1;
        short[1..4].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        assert_eq!(peek(&short), ClientHello::Unreadable);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            peek(&bytes);
            let mut framed = vec![1, 0, 0, bytes.len().min(255) as u8];
            framed.extend_from_slice(&bytes);
            peek(&framed);
        }
    }
}
