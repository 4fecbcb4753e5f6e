//! Packet keys from traffic secrets, for a client whose QUIC version changes after its ClientHello
//! has left (RFC 9368 §2.3, RFC 9369 §4.1).
//!
//! The versions share the TLS handshake and differ in the labels with which keys come from its
//! secrets (RFC 9369 §3.3.2). rustls takes the version once, at the start, so a [`Tap`] keeps the
//! secrets as they pass rustls's key log, and the keys are derived here: the labels and the AEAD
//! stay rustls's, which believes that it derives Initial keys. Nothing of it runs unless the
//! version changes.

use super::keys::Keys;
use crate::wire::{Side, Version};
use rustls::crypto::ring::cipher_suite;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use rustls::crypto::{CipherSuiteCommon, hash::HashAlgorithm, hmac};
use rustls::quic::{self, Algorithm, PacketKeySet, Suite};
use rustls::{KeyLog, SupportedCipherSuite, Tls13CipherSuite};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Both directions' secrets of one level; they wipe themselves.
pub(super) struct Secrets {
    client: OkmBlock,
    server: OkmBlock,
}

/// Secrets of Handshake and 1-RTT, client's and server's.
type Seen = [Option<OkmBlock>; 4];

const LABELS: [&str; 4] = [
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
];

/// A key log that keeps the traffic secrets until they are taken, in front of another.
pub(super) struct Tap {
    behind: Arc<dyn KeyLog>,
    /// `None` once closed.
    seen: Mutex<Option<Box<Seen>>>,
}

impl Tap {
    pub(super) fn new(behind: Arc<dyn KeyLog>) -> Self {
        Self {
            behind,
            seen: Mutex::new(Some(Box::default())),
        }
    }

    /// Keeps nothing from now on.
    pub(super) fn close(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The secrets of the Handshake level, or of 1-RTT, once.
    pub(super) fn take(&self, one_rtt: bool) -> Option<Secrets> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let [client, server, client_0, server_0] = seen.as_deref_mut()?;
        let (client, server) = if one_rtt {
            (client_0, server_0)
        } else {
            (client, server)
        };
        Some(Secrets {
            client: client.take()?,
            server: server.take()?,
        })
    }
}

impl KeyLog for Tap {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if self.behind.will_log(label) {
            self.behind.log(label, client_random, secret);
        }
        let at = LABELS.iter().position(|l| *l == label);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secrets) = seen.as_deref_mut()
            && let Some(slot) = at.and_then(|at| secrets.get_mut(at))
            && secret.len() <= OkmBlock::MAX_LEN
        {
            *slot = Some(OkmBlock::new(secret));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        LABELS.contains(&label) || self.behind.will_log(label)
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("behind", &self.behind).finish()
    }
}

/// Derives keys of `version` from secrets of the cipher suite that TLS agreed on.
pub(super) struct Derivation {
    suite: Suite,
    version: Version,
    side: Side,
    secrets: Secrets,
}

impl Derivation {
    /// `None` for a suite whose hash is neither SHA-256 nor SHA-384, which TLS 1.3 does not have.
    pub(super) fn new(
        negotiated: SupportedCipherSuite,
        version: Version,
        side: Side,
        secrets: Secrets,
    ) -> Option<Self> {
        let negotiated = negotiated.tls13()?;
        let [sha256, sha384] = SUITES.as_ref()?;
        let suite = match negotiated.common.hash_provider.algorithm() {
            HashAlgorithm::SHA256 => sha256,
            HashAlgorithm::SHA384 => sha384,
            _ => return None,
        };
        let quic: &'static dyn Algorithm = negotiated.quic?;
        Some(Self {
            suite: Suite { suite, quic },
            version,
            side,
            secrets,
        })
    }

    fn derive(&self) -> quic::Keys {
        let both = [self.secrets.client.as_ref(), self.secrets.server.as_ref()].concat();
        self.suite.keys(
            &both,
            super::keys::rustls_side(self.side),
            super::keys::rustls_version(self.version),
        )
    }

    /// The keys of the present generation.
    pub(super) fn keys(&self) -> Keys {
        self.derive().into()
    }

    /// Moves to the next generation (RFC 9001 §6.1).
    pub(super) fn update(&mut self) {
        let label: &[u8] = match self.version {
            Version::V1 => b"quic ku",
            Version::V2 => b"quicv2 ku",
        };
        let hkdf = self.suite.suite.hkdf_provider;
        for secret in [&mut self.secrets.client, &mut self.secrets.server] {
            *secret = expand_label(&*hkdf.expander_for_okm(secret), label);
        }
    }

    /// The packet keys of the present generation; moves to the next.
    pub(super) fn next_packet_keys(&mut self) -> PacketKeySet {
        let keys = self.packet_keys();
        self.update();
        keys
    }

    /// The packet keys of the present generation.
    pub(super) fn packet_keys(&self) -> PacketKeySet {
        let keys = self.derive();
        PacketKeySet {
            local: keys.local.packet,
            remote: keys.remote.packet,
        }
    }
}

/// HKDF-Expand-Label without a context (RFC 8446 §7.1), one block long.
fn expand_label(expander: &dyn HkdfExpander, label: &[u8]) -> OkmBlock {
    const PREFIX: &[u8] = b"tls13 ";
    let length = (expander.hash_len() as u16).to_be_bytes();
    let label_length = [(PREFIX.len() + label.len()) as u8];
    expander.expand_block(&[&length, &label_length, PREFIX, label, &[0]])
}

/// An HKDF whose extraction gives back what goes in: the client's secret and the server's, one
/// behind the other, where Initial keys are asked for. The rest is ring's.
struct Given(&'static SupportedCipherSuite);

static SHA256: Given = Given(&cipher_suite::TLS13_AES_128_GCM_SHA256);
static SHA384: Given = Given(&cipher_suite::TLS13_AES_256_GCM_SHA384);

static SUITES: LazyLock<Option<[Tls13CipherSuite; 2]>> =
    LazyLock::new(|| Some([SHA256.suite()?, SHA384.suite()?]));

impl Given {
    fn suite(&'static self) -> Option<Tls13CipherSuite> {
        let ring = self.0.tls13()?;
        Some(Tls13CipherSuite {
            common: CipherSuiteCommon {
                suite: ring.common.suite,
                hash_provider: ring.common.hash_provider,
                confidentiality_limit: ring.common.confidentiality_limit,
            },
            hkdf_provider: self,
            aead_alg: ring.aead_alg,
            quic: ring.quic,
        })
    }

    fn ring(&self) -> &'static dyn Hkdf {
        // A suite of another kind did not get this far: `suite` has it not.
        self.0.tls13().map_or(&SHA256, |suite| suite.hkdf_provider)
    }
}

impl Hkdf for Given {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        self.ring().extract_from_zero_ikm(salt)
    }

    fn extract_from_secret(&self, _: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        let (client, server) = secret.split_at(secret.len() / 2);
        Box::new(Pair {
            client: OkmBlock::new(client.get(..OkmBlock::MAX_LEN).unwrap_or(client)),
            server: OkmBlock::new(server.get(..OkmBlock::MAX_LEN).unwrap_or(server)),
        })
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        self.ring().expander_for_okm(okm)
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> hmac::Tag {
        self.ring().hmac_sign(key, message)
    }
}

struct Pair {
    client: OkmBlock,
    server: OkmBlock,
}

impl HkdfExpander for Pair {
    fn expand_slice(&self, _: &[&[u8]], _: &mut [u8]) -> Result<(), OutputLengthError> {
        Err(OutputLengthError)
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        if info.contains(&&b"server in"[..]) {
            self.server.clone()
        } else {
            self.client.clone()
        }
    }

    fn hash_len(&self) -> usize {
        self.client.as_ref().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::testing::hex;
    use crate::crypto::{open, unprotect};

    fn chacha(version: Version) -> Derivation {
        let secret = hex("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b");
        Derivation::new(
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            version,
            Side::Client,
            Secrets {
                client: OkmBlock::new(&[7; 32]),
                server: OkmBlock::new(&secret),
            },
        )
        .expect("a suite")
    }

    /// RFC 9001 §A.5 and RFC 9369 §A.5: keys from a traffic secret, and the packet they protect.
    #[test]
    fn the_rfcs_short_header_packets_open() {
        for (version, packet) in [
            (Version::V1, "4cfe4189655e5cd55c41f69080575d7999c25a5bfb"),
            (Version::V2, "5558b1c60ae7b6b932bc27d786f4bc2bb20f2162ba"),
        ] {
            let keys = chacha(version).keys();
            let mut packet = hex(packet);
            let head = unprotect(&*keys.remote.header, &mut packet, 1).expect("a sample");
            assert_eq!((head.first, head.pn, head.pn_len), (0x42, 0x00bff4, 3));
            let len = open(&*keys.remote.packet, 0, 654_360_564, &mut packet, 4);
            assert_eq!((len, packet[4]), (Ok(1), 1));
        }
    }

    /// The same vectors' "ku" secrets.
    #[test]
    fn the_rfcs_next_secrets_follow() {
        for (version, next) in [
            (
                Version::V1,
                "1223504755036d556342ee9361d253421a826c9ecdf3c7148684b36b714881f9",
            ),
            (
                Version::V2,
                "c69374c49e3d2a9466fa689e49d476db5d0dfbc87d32ceeaa6343fd0ae4c7d88",
            ),
        ] {
            let mut derivation = chacha(version);
            derivation.update();
            assert_eq!(derivation.secrets.server.as_ref(), hex(next));
        }
    }
}
