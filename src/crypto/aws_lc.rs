//! aws-lc-rs as rustls offers it, with packet keys of our own over the same AEADs.
//!
//! Ours seal stream data from the application's buffer into the packet, which rustls's interface
//! has no place for (see `fused`), and have a small form for connections that rest (see `resting`).
//! For the rest they are what rustls makes of aws-lc-rs: cipher suites, limits and nonces are the
//! same. Give [`provider`] to rustls's
//! `builder_with_provider`; any other provider works as well, and copies.

use super::TAG_LEN;
use super::fused::{self, Fused};
use super::resting::{self, Form};
use aws_lc_rs::aead::{self, Aad, LessSafeKey, UnboundKey};
use rustls::crypto::aws_lc_rs as theirs;
use rustls::crypto::cipher::{AeadKey, Iv, Nonce};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey, Tag};
use rustls::{CipherSuite, Error, SupportedCipherSuite, Tls13CipherSuite};
use std::sync::{Arc, LazyLock};

mod mask;

use mask::Mask;

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
    mask: &'static aead::quic::Algorithm,
    /// RFC 9001 §6.6.
    confidentiality_limit: u64,
    /// RFC 9001 §6.6.
    integrity_limit: u64,
}

impl KeyMaker {
    fn of(theirs: &'static Tls13CipherSuite) -> Option<Self> {
        const AES: (u64, u64) = (1 << 23, 1 << 52);
        let (aead, mask, limits) = match theirs.common.suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => {
                (&aead::AES_128_GCM, &aead::quic::AES_128, AES)
            }
            CipherSuite::TLS13_AES_256_GCM_SHA384 => {
                (&aead::AES_256_GCM, &aead::quic::AES_256, AES)
            }
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => {
                let limits = (u64::MAX, 1 << 36);
                (&aead::CHACHA20_POLY1305, &aead::quic::CHACHA20, limits)
            }
            _ => return None,
        };
        Some(Self {
            theirs,
            quic: theirs.quic?,
            aead,
            mask,
            confidentiality_limit: limits.0,
            integrity_limit: limits.1,
        })
    }

    /// This one among those that live for ever.
    fn own(&self) -> Option<&'static Self> {
        let suite = self.theirs.common.suite;
        ALGORITHMS
            .iter()
            .find(|maker| maker.theirs.common.suite == suite)
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
        let seed = self.own().and_then(|maker| Seed::new(maker, &key, &iv));
        match seed.and_then(Seed::expand) {
            Some(expanded) => Box::new(Handle(Arc::new(expanded))),
            None => self.quic.packet_key(key, iv),
        }
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        match Mask::new(self.mask, &key) {
            Some(mask) => Box::new(mask),
            None => self.quic.header_protection_key(key),
        }
    }

    fn aead_key_len(&self) -> usize {
        self.quic.aead_key_len()
    }

    fn fips(&self) -> bool {
        self.quic.fips()
    }
}

/// What a packet key is made from.
struct Seed {
    maker: &'static KeyMaker,
    /// As much of it as the cipher takes; wiped when dropped.
    key: AeadKey,
    iv: Iv,
}

impl Seed {
    fn new(maker: &'static KeyMaker, key: &AeadKey, iv: &Iv) -> Option<Self> {
        Some(Self {
            maker,
            key: copy(key.as_ref())?,
            iv: Iv::from(<[u8; 12]>::try_from(iv.as_ref()).ok()?),
        })
    }

    fn again(&self) -> Option<Self> {
        Self::new(self.maker, &self.key, &self.iv)
    }

    fn expand(self) -> Option<AeadPacketKey> {
        let aead = self.maker.aead;
        let key = self.key.as_ref().get(..aead.key_len())?;
        let unbound = UnboundKey::new(aead, key).ok()?;
        Some(AeadPacketKey {
            key: LessSafeKey::new(unbound),
            seed: self,
        })
    }
}

/// The same key, at the start of the room for the longest.
fn copy(key: &[u8]) -> Option<AeadKey> {
    let mut room = [0; 32];
    room.get_mut(..key.len())?.copy_from_slice(key);
    Some(AeadKey::from(room))
}

struct AeadPacketKey {
    key: LessSafeKey,
    seed: Seed,
}

impl AeadPacketKey {
    #[inline]
    fn nonce(&self, path_id: u32, pn: u64) -> aead::Nonce {
        aead::Nonce::assume_unique_for_key(Nonce::for_path(path_id, &self.seed.iv, pn).0)
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
        resting::answer_packet(Form::Small, || Some(Box::new(Small(self.0.seed.again()?))));
        TAG_LEN
    }

    fn confidentiality_limit(&self) -> u64 {
        self.0.seed.maker.confidentiality_limit
    }

    fn integrity_limit(&self) -> u64 {
        self.0.seed.maker.integrity_limit
    }
}

/// A packet key at rest.
struct Small(Seed);

impl Small {
    fn expand(&self) -> Option<Handle> {
        self.0.again()?.expand().map(|key| Handle(Arc::new(key)))
    }
}

impl PacketKey for Small {
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
        let key = self.expand().ok_or(Error::EncryptError)?;
        key.encrypt_in_place_for_path(path_id, pn, header, payload)
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
        let key = self.expand().ok_or(Error::DecryptError)?;
        key.decrypt_in_place_for_path(path_id, pn, header, payload)
    }

    fn tag_len(&self) -> usize {
        resting::answer_packet(Form::Ready, || Some(Box::new(self.expand()?)));
        TAG_LEN
    }

    fn confidentiality_limit(&self) -> u64 {
        self.0.maker.confidentiality_limit
    }

    fn integrity_limit(&self) -> u64 {
        self.0.maker.integrity_limit
    }
}

#[cfg(test)]
mod tests;
