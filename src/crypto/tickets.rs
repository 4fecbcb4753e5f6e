//! Session tickets that are good in the QUIC version they were issued in and in no other
//! (RFC 9369 §5): a server's TLS configuration, once for each version.

use crate::wire::Version;
use rustls::ServerConfig;
use rustls::server::{ProducesTickets, StoresServerSessions};
use std::sync::Arc;

/// `config`, whose tickets and stored sessions are then `version`'s own.
pub fn for_version(config: &ServerConfig, version: Version) -> Arc<ServerConfig> {
    let mut config = config.clone();
    let mark = match version {
        Version::V1 => 1,
        Version::V2 => 2,
    };
    config.ticketer = Arc::new(Marked {
        mark,
        inner: config.ticketer.clone(),
    });
    config.session_storage = Arc::new(Marked {
        mark,
        inner: config.session_storage.clone(),
    });
    Arc::new(config)
}

/// Puts a byte in front of what is sealed or stored, and takes back only what has it.
#[derive(Debug)]
struct Marked<T: ?Sized> {
    mark: u8,
    inner: Arc<T>,
}

impl<T: ?Sized> Marked<T> {
    fn mark(&self, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + content.len());
        out.push(self.mark);
        out.extend_from_slice(content);
        out
    }

    fn unmark(&self, mut content: Vec<u8>) -> Option<Vec<u8>> {
        (content.first() == Some(&self.mark)).then(|| content.split_off(1))
    }
}

impl ProducesTickets for Marked<dyn ProducesTickets> {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&self.mark(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.unmark(self.inner.decrypt(cipher)?)
    }
}

impl StoresServerSessions for Marked<dyn StoresServerSessions> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner.put(key, self.mark(&value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.unmark(self.inner.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.unmark(self.inner.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}
