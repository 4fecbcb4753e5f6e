//! Whose cryptography TLS runs on: ring's, or aws-lc-rs's in a build that has it.
//!
//! TLS, packet protection and Initial keys follow the choice. Tokens, stateless resets and Retry
//! tags are ring's always. A mixture has the faster of both for each step of a handshake.

use super::Failure;
use super::args::{Cipher, ProviderArg};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, ring};
use rustls::{CipherSuite, SupportedCipherSuite, Tls13CipherSuite};
use std::sync::{Arc, OnceLock};

/// The provider with `cipher` first. AES-128-GCM stays on the list: QUIC's Initial packets need it.
pub fn provider(which: ProviderArg, cipher: Cipher) -> Result<Arc<CryptoProvider>, Failure> {
    let mut provider = match which {
        ProviderArg::Ring => ring::default_provider(),
        ProviderArg::AwsLcRs => aws_lc_rs()?,
        ProviderArg::Mixed => mixed()?,
    };
    let first = match cipher {
        Cipher::Aes128 => CipherSuite::TLS13_AES_128_GCM_SHA256,
        Cipher::Aes256 => CipherSuite::TLS13_AES_256_GCM_SHA384,
        Cipher::Chacha20 => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    };
    provider.cipher_suites.sort_by_key(|s| s.suite() != first);
    Ok(Arc::new(provider))
}

/// Key exchange, signatures and packet protection of aws-lc-rs; the many small hashes of the key
/// schedule by ring, whose calls cost less.
fn mixed() -> Result<CryptoProvider, Failure> {
    let mut provider = aws_lc_rs()?;
    let packets = std::mem::take(&mut provider.cipher_suites);
    let suites = MIXED.get_or_init(|| packets.iter().filter_map(|s| mix(*s)).collect());
    provider.cipher_suites = suites.iter().map(SupportedCipherSuite::Tls13).collect();
    Ok(provider)
}

/// Cipher suites live as long as the process.
static MIXED: OnceLock<Vec<Tls13CipherSuite>> = OnceLock::new();

fn mix(packets: SupportedCipherSuite) -> Option<Tls13CipherSuite> {
    let schedule = ring::ALL_CIPHER_SUITES
        .iter()
        .find(|s| s.suite() == packets.suite())?
        .tls13()?;
    Some(Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: schedule.common.suite,
            hash_provider: schedule.common.hash_provider,
            confidentiality_limit: schedule.common.confidentiality_limit,
        },
        hkdf_provider: schedule.hkdf_provider,
        aead_alg: schedule.aead_alg,
        quic: packets.tls13()?.quic,
    })
}

#[cfg(feature = "aws-lc-rs")]
fn aws_lc_rs() -> Result<CryptoProvider, Failure> {
    Ok(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(not(feature = "aws-lc-rs"))]
fn aws_lc_rs() -> Result<CryptoProvider, Failure> {
    Err(Failure::Usage(
        "this build has no aws-lc-rs; build it with `cargo build --release --features aws-lc-rs`"
            .into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_cipher_comes_first_and_the_initial_one_stays() {
        let suites = |cipher| -> Vec<CipherSuite> {
            let provider = provider(ProviderArg::Ring, cipher).unwrap();
            provider.cipher_suites.iter().map(|s| s.suite()).collect()
        };
        let chacha = suites(Cipher::Chacha20);
        assert_eq!(chacha[0], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        assert!(chacha.contains(&CipherSuite::TLS13_AES_128_GCM_SHA256));
        assert_eq!(
            suites(Cipher::Aes256)[0],
            CipherSuite::TLS13_AES_256_GCM_SHA384
        );
    }

    #[test]
    fn a_build_has_aws_lc_rs_or_says_how_to_get_it() {
        for which in [ProviderArg::AwsLcRs, ProviderArg::Mixed] {
            match provider(which, Cipher::Aes256) {
                Ok(provider) => {
                    assert!(cfg!(feature = "aws-lc-rs"));
                    let suites = &provider.cipher_suites;
                    assert_eq!(suites.len(), 3);
                    assert_eq!(suites[0].suite(), CipherSuite::TLS13_AES_256_GCM_SHA384);
                }
                Err(e) => {
                    assert!(cfg!(not(feature = "aws-lc-rs")));
                    assert!(e.to_string().contains("--features aws-lc-rs"), "{e}");
                }
            }
        }
    }

    /// Every suite that ring has keeps its number, its hash and its packet protection.
    #[test]
    fn a_mixed_suite_is_the_suite_that_it_is_made_from() {
        for suite in ring::ALL_CIPHER_SUITES {
            let mixed = mix(*suite).expect("a suite of TLS 1.3");
            let own = suite.tls13().expect("a suite of TLS 1.3");
            assert_eq!(mixed.common.suite, suite.suite());
            let hash = |s: &Tls13CipherSuite| s.common.hash_provider.algorithm();
            assert_eq!(hash(&mixed), hash(own));
            assert!(mixed.quic.is_some());
        }
    }
}
