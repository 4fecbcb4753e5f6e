//! Header protection over aws-lc-rs (RFC 9001 §5.4), with a small form for connections that rest.

use super::copy;
use crate::crypto::resting::{self, Form};
use aws_lc_rs::aead::quic::{Algorithm, HeaderProtectionKey as MaskKey};
use rustls::Error;
use rustls::crypto::cipher::AeadKey;
use rustls::quic::HeaderProtectionKey;

/// What a header key is made from.
struct Seed {
    algorithm: &'static Algorithm,
    /// As much of it as the cipher takes; wiped when dropped.
    key: AeadKey,
}

impl Seed {
    fn again(&self) -> Option<Self> {
        Some(Self {
            algorithm: self.algorithm,
            key: copy(self.key.as_ref())?,
        })
    }

    fn expand(&self) -> Option<MaskKey> {
        let key = self.key.as_ref().get(..self.algorithm.key_len())?;
        MaskKey::new(self.algorithm, key).ok()
    }
}

/// A header key that is ready.
pub(super) struct Mask {
    key: MaskKey,
    seed: Seed,
}

impl Mask {
    pub(super) fn new(algorithm: &'static Algorithm, key: &AeadKey) -> Option<Self> {
        let key = copy(key.as_ref())?;
        Self::of(Seed { algorithm, key })
    }

    fn of(seed: Seed) -> Option<Self> {
        let key = seed.expand()?;
        Some(Self { key, seed })
    }
}

impl HeaderProtectionKey for Mask {
    fn encrypt_in_place(&self, sample: &[u8], first: &mut u8, pn: &mut [u8]) -> Result<(), Error> {
        // RFC 9001 §5.4.1: the length of the packet number, before it is masked.
        apply(&self.key, sample, first, pn, |first, _| first)
    }

    fn decrypt_in_place(&self, sample: &[u8], first: &mut u8, pn: &mut [u8]) -> Result<(), Error> {
        apply(&self.key, sample, first, pn, |first, mask| first ^ mask)
    }

    fn sample_len(&self) -> usize {
        resting::answer_header(Form::Small, || Some(Box::new(Small(self.seed.again()?))));
        self.seed.algorithm.sample_len()
    }
}

/// A header key at rest.
struct Small(Seed);

impl HeaderProtectionKey for Small {
    fn encrypt_in_place(&self, sample: &[u8], first: &mut u8, pn: &mut [u8]) -> Result<(), Error> {
        let key = self.0.expand().ok_or(Error::EncryptError)?;
        apply(&key, sample, first, pn, |first, _| first)
    }

    fn decrypt_in_place(&self, sample: &[u8], first: &mut u8, pn: &mut [u8]) -> Result<(), Error> {
        let key = self.0.expand().ok_or(Error::DecryptError)?;
        apply(&key, sample, first, pn, |first, mask| first ^ mask)
    }

    fn sample_len(&self) -> usize {
        resting::answer_header(Form::Ready, || {
            let mask = Mask::of(self.0.again()?)?;
            Some(Box::new(mask))
        });
        self.0.algorithm.sample_len()
    }
}

/// Masks or unmasks (RFC 9001 §5.4.1); `plain` gives the first byte without its mask.
#[inline]
fn apply(
    key: &MaskKey,
    sample: &[u8],
    first: &mut u8,
    pn: &mut [u8],
    plain: impl FnOnce(u8, u8) -> u8,
) -> Result<(), Error> {
    let wrong = |what: &str| Error::General(what.into());
    let [mask, pn_mask @ ..] = key
        .new_mask(sample)
        .map_err(|_| wrong("a sample of another length"))?;
    if pn.len() > pn_mask.len() {
        return Err(wrong("a packet number of more than four bytes"));
    }
    // The form bit is not masked: four bits of long headers are, five of short ones.
    let mask = mask & if *first & 0x80 == 0 { 0x1f } else { 0x0f };
    let len = usize::from(plain(*first, mask) & 0x03) + 1;
    *first ^= mask;
    for (byte, mask) in pn.iter_mut().zip(pn_mask).take(len) {
        *byte ^= mask;
    }
    Ok(())
}
