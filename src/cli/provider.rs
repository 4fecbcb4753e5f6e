//! Whose cryptography TLS runs on: aws-lc-rs's in a build that has it, which is faster, or ring's.
//!
//! TLS, packet protection and Initial keys follow the choice. Tokens, stateless resets and Retry
//! tags are ring's always.

use super::Failure;
use super::args::{Cipher, ProviderArg};
use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, ring};
use std::sync::Arc;

/// The provider with `cipher` first. AES-128-GCM stays on the list: QUIC's Initial packets need it.
pub fn provider(which: ProviderArg, cipher: Cipher) -> Result<Arc<CryptoProvider>, Failure> {
    let mut provider = match which {
        ProviderArg::Ring => ring::default_provider(),
        ProviderArg::AwsLcRs => aws_lc_rs()?,
    };
    let first = match cipher {
        Cipher::Aes128 => CipherSuite::TLS13_AES_128_GCM_SHA256,
        Cipher::Aes256 => CipherSuite::TLS13_AES_256_GCM_SHA384,
        Cipher::Chacha20 => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    };
    provider.cipher_suites.sort_by_key(|s| s.suite() != first);
    Ok(Arc::new(provider))
}

#[cfg(feature = "aws-lc-rs")]
fn aws_lc_rs() -> Result<CryptoProvider, Failure> {
    Ok(corelane::crypto::aws_lc::provider())
}

#[cfg(not(feature = "aws-lc-rs"))]
fn aws_lc_rs() -> Result<CryptoProvider, Failure> {
    Err(Failure::Usage(
        "this build has no aws-lc-rs; build it with `cargo build --release --features aws-lc-rs`, \
         which is the default"
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
        let made = provider(ProviderArg::AwsLcRs, Cipher::Aes256);
        assert_eq!(made.is_ok(), cfg!(feature = "aws-lc-rs"));
        let is_default = ProviderArg::default() == ProviderArg::AwsLcRs;
        assert_eq!(is_default, cfg!(feature = "aws-lc-rs"));
        match made {
            Ok(provider) => {
                let first = provider.cipher_suites[0].suite();
                assert_eq!(first, CipherSuite::TLS13_AES_256_GCM_SHA384);
            }
            Err(e) => assert!(e.to_string().contains("--features aws-lc-rs"), "{e}"),
        }
    }
}
