//! aws-lc-rs as rustls offers it, with packet keys of our own over the same AEADs.
//!
//! Ours seal stream data from the application's buffer into the packet, which rustls's interface
//! has no place for (see `fused`); for the rest they are what rustls makes of aws-lc-rs: cipher
//! suites, header protection, limits and nonces are the same. Give [`provider`] to rustls's
//! `builder_with_provider`; any other provider works as well, and copies.

use super::TAG_LEN;
use super::fused::{self, Fused};
use aws_lc_rs::aead::{self, Aad, LessSafeKey, UnboundKey};
use rustls::crypto::aws_lc_rs as theirs;
use rustls::crypto::cipher::{AeadKey, Iv, Nonce};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey, Tag};
use rustls::{CipherSuite, Error, SupportedCipherSuite, Tls13CipherSuite};
use std::sync::{Arc, LazyLock};

/// rustls's aws-lc-rs provider, whose keys for QUIC copy nothing that they encrypt.
pub fn provider() -> CryptoProvider {
    let mut provider = theirs::default_provider();
    for suite in &mut provider.cipher_suites {
        let ours = SUITES.iter().find(|own| own.common.suite == suite.suite());
        if let Some(ours) = ours {
            *suite = SupportedCipherSuite::Tls13(ours);
        }
    }
    provider
}

static ALGORITHMS: LazyLock<Vec<KeyMaker>> = LazyLock::new(|| {
    theirs::ALL_CIPHER_SUITES
        .iter()
        .filter_map(|suite| KeyMaker::of(suite.tls13()?))
        .collect()
});

static SUITES: LazyLock<Vec<Tls13CipherSuite>> =
    LazyLock::new(|| ALGORITHMS.iter().map(KeyMaker::suite).collect());

/// Makes the keys of one cipher suite.
struct KeyMaker {
    theirs: &'static Tls13CipherSuite,
    quic: &'static dyn Algorithm,
    aead: &'static aead::Algorithm,
    /// RFC 9001 §6.6.
    confidentiality_limit: u64,
    /// RFC 9001 §6.6.
    integrity_limit: u64,
}

impl KeyMaker {
    fn of(theirs: &'static Tls13CipherSuite) -> Option<Self> {
        let (aead, confidentiality_limit, integrity_limit) = match theirs.common.suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => (&aead::AES_128_GCM, 1 << 23, 1 << 52),
            CipherSuite::TLS13_AES_256_GCM_SHA384 => (&aead::AES_256_GCM, 1 << 23, 1 << 52),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => {
                (&aead::CHACHA20_POLY1305, u64::MAX, 1 << 36)
            }
            _ => return None,
        };
        Some(Self {
            theirs,
            quic: theirs.quic?,
            aead,
            confidentiality_limit,
            integrity_limit,
        })
    }

    fn suite(&'static self) -> Tls13CipherSuite {
        let common = &self.theirs.common;
        Tls13CipherSuite {
            common: CipherSuiteCommon {
                suite: common.suite,
                hash_provider: common.hash_provider,
                confidentiality_limit: common.confidentiality_limit,
            },
            hkdf_provider: self.theirs.hkdf_provider,
            aead_alg: self.theirs.aead_alg,
            quic: Some(self),
        }
    }
}

impl Algorithm for KeyMaker {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        match UnboundKey::new(self.aead, key.as_ref()) {
            Ok(unbound) => Box::new(Handle(Arc::new(AeadPacketKey {
                key: LessSafeKey::new(unbound),
                iv,
                confidentiality_limit: self.confidentiality_limit,
                integrity_limit: self.integrity_limit,
            }))),
            Err(_) => self.quic.packet_key(key, iv),
        }
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        self.quic.header_protection_key(key)
    }

    fn aead_key_len(&self) -> usize {
        self.quic.aead_key_len()
    }

    fn fips(&self) -> bool {
        self.quic.fips()
    }
}

struct AeadPacketKey {
    key: LessSafeKey,
    iv: Iv,
    confidentiality_limit: u64,
    integrity_limit: u64,
}

impl AeadPacketKey {
    #[inline]
    fn nonce(&self, path_id: u32, pn: u64) -> aead::Nonce {
        aead::Nonce::assume_unique_for_key(Nonce::for_path(path_id, &self.iv, pn).0)
    }
}

impl Fused for AeadPacketKey {
    #[inline]
    fn seal(
        &self,
        path_id: u32,
        pn: u64,
        header: &[u8],
        head: &mut [u8],
        tail: &[u8],
        end: &mut [u8],
    ) -> Option<()> {
        let nonce = self.nonce(path_id, pn);
        let aad = Aad::from(header);
        self.key
            .seal_in_place_scatter(nonce, aad, head, tail, end)
            .ok()
    }
}

/// What rustls holds of a key.
struct Handle(Arc<AeadPacketKey>);

impl PacketKey for Handle {
    fn encrypt_in_place(&self, pn: u64, header: &[u8], payload: &mut [u8]) -> Result<Tag, Error> {
        self.encrypt_in_place_for_path(0, pn, header, payload)
    }

    fn encrypt_in_place_for_path(
        &self,
        path_id: u32,
        pn: u64,
        header: &[u8],
        payload: &mut [u8],
    ) -> Result<Tag, Error> {
        let mut tag = [0; TAG_LEN];
        self.0
            .seal(path_id, pn, header, payload, &[], &mut tag)
            .ok_or(Error::EncryptError)?;
        Ok(Tag::from(&tag[..]))
    }

    fn decrypt_in_place<'a>(
        &self,
        pn: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        self.decrypt_in_place_for_path(0, pn, header, payload)
    }

    fn decrypt_in_place_for_path<'a>(
        &self,
        path_id: u32,
        pn: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        let nonce = self.0.nonce(path_id, pn);
        let opened = self.0.key.open_in_place(nonce, Aad::from(header), payload);
        opened.map(|text| &*text).map_err(|_| Error::DecryptError)
    }

    fn tag_len(&self) -> usize {
        fused::answer(|| self.0.clone());
        TAG_LEN
    }

    fn confidentiality_limit(&self) -> u64 {
        self.0.confidentiality_limit
    }

    fn integrity_limit(&self) -> u64 {
        self.0.integrity_limit
    }
}

#[cfg(test)]
mod tests;
