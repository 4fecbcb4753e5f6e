//! What makes a server's early data safe to offer: sessions that are good once, and for the limits
//! that they were made under.
//!
//! The anti-replay rule (RFC 8446 §8.1, RFC 9001 §9.2): a session is taken out of the storage by
//! the first ClientHello that names it, so a copy of a client's first flight resumes nothing and
//! its early data is never opened. A configuration that cannot keep the rule is refused. The rule
//! reaches as far as the storage does: to all shards of a process that share one configuration, and
//! to other processes only if they share the storage and its `take` is atomic.

use super::tls::ConfigError;
use crate::wire::TransportParameters;
use rustls::ServerConfig;
use rustls::server::StoresServerSessions;
use std::fmt;
use std::sync::Arc;

/// Limits that a client may rely on with early data (RFC 9000 §7.4.1, RFC 9221 §3).
const LIMITS: usize = 8;
/// Their encoding in front of a stored session.
const HEADER: usize = LIMITS * 8;

/// The values that must not fall while sessions made under them are accepted with early data.
/// Keeps RFC 9000 §7.4.1.
fn limits(p: &TransportParameters) -> [u64; LIMITS] {
    [
        p.active_connection_id_limit,
        p.initial_max_data,
        p.initial_max_stream_data_bidi_local,
        p.initial_max_stream_data_bidi_remote,
        p.initial_max_stream_data_uni,
        p.initial_max_streams_bidi,
        p.initial_max_streams_uni,
        p.max_datagram_frame_size,
    ]
}

/// Whether a server lowered a limit that its client may have relied on with early data.
pub fn is_reduced(remembered: &TransportParameters, now: &TransportParameters) -> bool {
    let pairs = limits(remembered).into_iter().zip(limits(now));
    pairs.into_iter().any(|(old, new)| new < old)
}

/// Whether the configuration lets clients send early data.
pub fn is_enabled(config: &ServerConfig) -> bool {
    config.max_early_data_size != 0
}

/// Checks that early data, where `config` offers it, cannot be replayed without end.
///
/// # Errors
/// [`ConfigError`] for a size that QUIC does not know and for sessions that are good more than
/// once.
pub fn check(config: &ServerConfig) -> Result<(), ConfigError> {
    match config.max_early_data_size {
        0 => return Ok(()),
        // RFC 9001 §4.6.1: a server that accepts early data says 0xffffffff.
        u32::MAX => {}
        size => return Err(ConfigError::EarlyDataSize(size)),
    }
    if config.ticketer.enabled() {
        return Err(ConfigError::EarlyDataTicketer);
    }
    if !config.session_storage.can_cache() {
        return Err(ConfigError::EarlyDataStorage);
    }
    Ok(())
}

/// Prepares a server's configuration for connections with the transport parameters `params`: one
/// that offers early data gets a storage that gives back only sessions which `params` still honour.
/// Keeps RFC 9000 §7.4.1.
///
/// `probe` names a session that does not exist; it is stored and taken to see whether it is gone.
///
/// # Errors
/// [`check`]'s, and [`ConfigError::EarlyDataReusable`] for a storage whose `take` leaves a session
/// behind.
pub fn guard(
    config: Arc<ServerConfig>,
    params: &TransportParameters,
    probe: [u8; 32],
) -> Result<Arc<ServerConfig>, ConfigError> {
    check(&config)?;
    if !is_enabled(&config) {
        return Ok(config);
    }
    let storage = &config.session_storage;
    // A storage that is full, or elsewhere and slow, tells nothing; one that gives twice tells all.
    if storage.put(probe.to_vec(), Vec::new()) && storage.take(&probe).is_some() {
        let again = storage.take(&probe).is_some();
        if again {
            return Err(ConfigError::EarlyDataReusable);
        }
    }
    let mut guarded = ServerConfig::clone(&config);
    guarded.session_storage = Arc::new(Honoured {
        inner: storage.clone(),
        limits: limits(params),
    });
    Ok(Arc::new(guarded))
}

/// A storage whose sessions come with the limits that they were made under. RFC 9000 §7.4.1: early
/// data is not accepted under lower ones.
struct Honoured {
    inner: Arc<dyn StoresServerSessions>,
    limits: [u64; LIMITS],
}

impl Honoured {
    /// The session without its limits, if ours are no lower.
    /// Keeps RFC 9000 §7.4.1.
    fn strip(&self, stored: &[u8]) -> Option<Vec<u8>> {
        let (header, session) = stored.split_at_checked(HEADER)?;
        let mut old = header.chunks_exact(8).map(|c| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(c);
            u64::from_be_bytes(bytes)
        });
        let honoured = self.limits.iter().all(|new| old.next() <= Some(*new));
        honoured.then(|| session.to_vec())
    }
}

impl StoresServerSessions for Honoured {
    fn put(&self, key: Vec<u8>, session: Vec<u8>) -> bool {
        let mut stored = Vec::with_capacity(HEADER + session.len());
        for limit in self.limits {
            stored.extend_from_slice(&limit.to_be_bytes());
        }
        stored.extend_from_slice(&session);
        self.inner.put(key, stored)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.get(key).and_then(|s| self.strip(&s))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.take(key).and_then(|s| self.strip(&s))
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}

impl fmt::Debug for Honoured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Honoured").field(&self.inner).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::testing;
    use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache};

    fn config() -> ServerConfig {
        let mut config = testing::Ca::new().server(|_| {});
        config.max_early_data_size = u32::MAX;
        config
    }

    fn params(max_data: u64) -> TransportParameters {
        TransportParameters {
            initial_max_data: max_data,
            ..TransportParameters::default()
        }
    }

    #[derive(Debug)]
    struct Stateless;

    impl ProducesTickets for Stateless {
        fn enabled(&self) -> bool {
            true
        }
        fn lifetime(&self) -> u32 {
            3600
        }
        fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
            Some(plain.to_vec())
        }
        fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
            Some(cipher.to_vec())
        }
    }

    /// Keeps what is taken.
    #[derive(Debug)]
    struct Sticky(Arc<ServerSessionMemoryCache>);

    impl StoresServerSessions for Sticky {
        fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
            self.0.put(key, value)
        }
        fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
            self.0.get(key)
        }
        fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
            self.0.get(key)
        }
        fn can_cache(&self) -> bool {
            true
        }
    }

    #[test]
    fn sessions_that_are_good_more_than_once_are_refused_with_early_data() {
        let guard = |config: ServerConfig| guard(Arc::new(config), &params(1), [7; 32]);
        assert!(guard(config()).is_ok());
        let mut stateless = config();
        stateless.ticketer = Arc::new(Stateless);
        assert_eq!(
            guard(stateless.clone()).err(),
            Some(ConfigError::EarlyDataTicketer)
        );
        let mut sticky = config();
        sticky.session_storage = Arc::new(Sticky(ServerSessionMemoryCache::new(16)));
        assert_eq!(
            guard(sticky.clone()).err(),
            Some(ConfigError::EarlyDataReusable)
        );
        let mut none = config();
        none.session_storage = Arc::new(NoServerSessionStorage {});
        assert_eq!(guard(none).err(), Some(ConfigError::EarlyDataStorage));
        let mut some = config();
        some.max_early_data_size = 1000;
        assert_eq!(guard(some).err(), Some(ConfigError::EarlyDataSize(1000)));
        // Resumption alone is nobody's risk.
        for mut harmless in [stateless, sticky] {
            harmless.max_early_data_size = 0;
            assert!(guard(harmless).is_ok());
        }
    }

    #[test]
    fn a_session_is_good_once_and_only_under_limits_that_did_not_fall() {
        let shared = Arc::new(config());
        let of = |max_data| guard(shared.clone(), &params(max_data), [7; 32]).unwrap();
        let (small, large) = (of(10), of(20));
        let key = || b"session".to_vec();
        small.session_storage.put(key(), b"secret".to_vec());
        assert_eq!(
            large.session_storage.take(&key()).as_deref(),
            Some(&b"secret"[..])
        );
        assert_eq!(large.session_storage.take(&key()), None, "once");
        large.session_storage.put(key(), b"secret".to_vec());
        assert_eq!(small.session_storage.get(&key()), None);
        assert_eq!(small.session_storage.take(&key()), None, "20 became 10");
    }

    #[test]
    fn every_limit_that_early_data_may_rely_on_counts() {
        let old = TransportParameters::default();
        let lower = |change: fn(&mut TransportParameters, u64)| {
            let (mut old, mut new) = (old.clone(), old.clone());
            change(&mut old, 10);
            change(&mut new, 9);
            (old, new)
        };
        let changes: [fn(&mut TransportParameters, u64); LIMITS] = [
            |p, n| p.active_connection_id_limit = n,
            |p, n| p.initial_max_data = n,
            |p, n| p.initial_max_stream_data_bidi_local = n,
            |p, n| p.initial_max_stream_data_bidi_remote = n,
            |p, n| p.initial_max_stream_data_uni = n,
            |p, n| p.initial_max_streams_bidi = n,
            |p, n| p.initial_max_streams_uni = n,
            |p, n| p.max_datagram_frame_size = n,
        ];
        for change in changes {
            let (old, new) = lower(change);
            assert!(is_reduced(&old, &new));
            assert!(!is_reduced(&new, &old) && !is_reduced(&old, &old));
        }
    }
}
