//! The provider to give to rustls where any will do.

use rustls::crypto::CryptoProvider;

/// The fastest provider of this build: aws-lc-rs with keys that seal without a copy (`aws_lc`), or
/// ring where the feature `aws-lc-rs` is off. Configurations may have any other.
pub fn default_provider() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return super::aws_lc::provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    return rustls::crypto::ring::default_provider();
}
