//! What is left of a TLS session once it has done its work: what the application may ask for, and
//! nothing else of rustls's state, which is several times as large. A server's has when the
//! handshake is confirmed; a client's when its connection rests.
//!
//! rustls does not give its exporter secret away, so [`tapped`] has it pass by through the key log
//! of a configuration, and the exporter (RFC 8446 §7.5) is computed here.

use super::chains::{self, Chain};
use rustls::crypto::tls13::OkmBlock;
use rustls::quic::Connection;
use rustls::{ClientConfig, HandshakeKind, KeyLog, ServerConfig, SupportedCipherSuite};
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

const LABEL: &str = "EXPORTER_SECRET";

thread_local! {
    /// The secret of the session that this thread is reading for.
    static PASSING: Cell<Option<OkmBlock>> = const { Cell::new(None) };
}

/// A key log that keeps the exporter's secret, in front of another.
struct Exporters(Arc<dyn KeyLog>);

impl KeyLog for Exporters {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if self.0.will_log(label) {
            self.0.log(label, client_random, secret);
        }
        if label == LABEL && secret.len() <= OkmBlock::MAX_LEN {
            PASSING.set(Some(OkmBlock::new(secret)));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == LABEL || self.0.will_log(label)
    }
}

impl fmt::Debug for Exporters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exporters").field(&self.0).finish()
    }
}

/// The same configuration, whose sessions can end as [`Remains`].
pub(crate) fn tapped(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.key_log = Arc::new(Exporters(config.key_log.clone()));
    Arc::new(config)
}

/// Like [`tapped`], for a client: `behind` is its key log, or stands before that.
pub(super) fn tapped_client(config: &ClientConfig, behind: Arc<dyn KeyLog>) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.key_log = Arc::new(Exporters(behind));
    Arc::new(config)
}

/// The exporter's secret, if a session of this thread had it pass by since the last call.
pub(super) fn take_exporter() -> Option<OkmBlock> {
    PASSING.take()
}

/// See the module.
pub(super) struct Remains {
    suite: SupportedCipherSuite,
    kind: Option<HandshakeKind>,
    /// Whether a client's early data was accepted; `None` of a server.
    early_data: Option<bool>,
    exporter: OkmBlock,
    alpn: Option<Box<[u8]>>,
    server_name: Option<Box<str>>,
    certificates: Option<Arc<Chain>>,
}

impl Remains {
    /// What is left of a session that has nothing to write any more.
    pub(super) fn of(tls: &Connection, exporter: OkmBlock) -> Option<Self> {
        let (early_data, server_name) = match tls {
            Connection::Client(client) => (Some(client.is_early_data_accepted()), None),
            Connection::Server(server) => (None, server.server_name()),
        };
        Some(Self {
            suite: tls.negotiated_cipher_suite()?,
            kind: tls.handshake_kind(),
            early_data,
            exporter,
            alpn: tls.alpn_protocol().map(Into::into),
            server_name: server_name.map(Into::into),
            certificates: tls.peer_certificates().map(chains::shared),
        })
    }

    pub(super) fn suite(&self) -> SupportedCipherSuite {
        self.suite
    }

    pub(super) fn kind(&self) -> Option<HandshakeKind> {
        self.kind
    }

    /// Whether a client's early data was accepted.
    pub(super) fn early_data_accepted(&self) -> bool {
        self.early_data == Some(true)
    }

    pub(super) fn is_client(&self) -> bool {
        self.early_data.is_some()
    }

    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    pub(super) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    pub(super) fn certificates(&self) -> Option<&Chain> {
        self.certificates.as_deref()
    }

    /// RFC 8446 §7.5; `None` when something is longer than it can be, or nothing is asked for.
    pub(super) fn export(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: Option<&[u8]>,
    ) -> Option<()> {
        let suite = self.suite.tls13()?;
        let (hkdf, hash) = (suite.hkdf_provider, suite.common.hash_provider);
        let (none, context) = (hash.hash(&[]), hash.hash(context.unwrap_or_default()));
        let expander = hkdf.expander_for_okm(&self.exporter);
        let len = expander.hash_len();
        let secret = expander.expand_block(&Info::new(len, label, none.as_ref())?.parts());
        if out.is_empty() {
            return None;
        }
        let info = Info::new(out.len(), b"exporter", context.as_ref())?;
        let expander = hkdf.expander_for_okm(&secret);
        expander.expand_slice(&info.parts(), out).ok()
    }
}

/// What HKDF-Expand-Label expands with (RFC 8446 §7.1).
struct Info<'a> {
    length: [u8; 2],
    label_length: [u8; 1],
    label: &'a [u8],
    context_length: [u8; 1],
    context: &'a [u8],
}

impl<'a> Info<'a> {
    const PREFIX: &'static [u8] = b"tls13 ";

    fn new(length: usize, label: &'a [u8], context: &'a [u8]) -> Option<Self> {
        let label_length = u8::try_from(Self::PREFIX.len() + label.len()).ok()?;
        Some(Self {
            length: u16::try_from(length).ok()?.to_be_bytes(),
            label_length: [label_length],
            label,
            context_length: [u8::try_from(context.len()).ok()?],
            context,
        })
    }

    fn parts(&self) -> [&[u8]; 6] {
        [
            &self.length,
            &self.label_length,
            Self::PREFIX,
            self.label,
            &self.context_length,
            self.context,
        ]
    }
}
