//! The library's only draw on the operating system's randomness: a seed.
//!
//! Everything else that is random comes from [`crate::base::Rng`], which this seeds once per shard
//! in a real process and a number seeds in a simulation.

use ring::rand::{SecureRandom, SystemRandom};

/// The operating system gave no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random source failed (getrandom and /dev/urandom)")]
pub struct RandomError;

/// 32 bytes from the operating system, to seed generators and secret keys with.
///
/// # Errors
/// [`RandomError`] when the system's source cannot be read; there is no substitute.
pub fn seed() -> Result<[u8; 32], RandomError> {
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| RandomError)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ() {
        let (a, b) = (seed().unwrap(), seed().unwrap());
        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }
}
