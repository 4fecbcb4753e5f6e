//! What the tests of the async face share.

use super::certs::{Identity, SERVER_NAME};
use corelane::api::{Connection, Endpoint, EndpointBuilder, Idle, TransportConfig};
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

pub const ALPN: &[u8] = b"test";

/// Runs a test's future on the small executor, and fails if it gets stuck.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    watch(|| futures_executor::block_on(test()));
}

/// Runs a test's future on tokio with two threads, and fails if it gets stuck.
pub fn run_tokio<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    watch(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).build().unwrap();
        runtime.block_on(test());
    });
}

fn watch(test: impl FnOnce() + Send + 'static) {
    let (done, wait) = channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match wait.recv_timeout(Duration::from_secs(120)) {
        Err(RecvTimeoutError::Timeout) => panic!("stuck"),
        // A panic in the test is passed on.
        _ => thread
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e)),
    }
}

/// A server and a client, and what they trust.
pub struct World {
    pub identity: Identity,
    pub transport: TransportConfig,
    pub shards: usize,
}

impl World {
    pub fn new() -> Self {
        let mut transport = TransportConfig::default();
        // Longer than the watchdog: only what a test asks for times out.
        transport.max_idle_timeout = Duration::from_secs(600);
        transport.handshake_deadline = Duration::from_secs(600);
        Self {
            identity: Identity::generate(),
            transport,
            shards: 1,
        }
    }

    pub fn builder(&self) -> EndpointBuilder {
        Endpoint::builder()
            .transport(self.transport.clone())
            .shards(self.shards)
            // The machine is shared with the other tests.
            .idle(Idle::Park)
    }

    pub fn server(&self) -> Endpoint {
        let tls = Arc::new(self.identity.server_config(&[ALPN]));
        self.builder()
            .server(tls, "127.0.0.1:0".parse().unwrap())
            .build()
            .unwrap()
    }

    pub fn client(&self) -> Endpoint {
        let tls = Arc::new(self.identity.client_config(&[ALPN]));
        self.builder().client(tls).build().unwrap()
    }

    pub fn pair(&self) -> Pair {
        Pair {
            server: self.server(),
            client: self.client(),
        }
    }
}

/// Two running endpoints.
pub struct Pair {
    pub server: Endpoint,
    pub client: Endpoint,
}

impl Pair {
    /// One connection, as the client and as the server sees it.
    pub async fn connect(&self) -> (Connection, Connection) {
        let connecting = self.client.connect(self.server.local_addr(), SERVER_NAME);
        let accepted = self.server.accept().await.unwrap().accept().await.unwrap();
        (connecting.await.unwrap(), accepted)
    }
}

/// Bytes that depend on where they are.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let byte = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..len as u64).map(|i| byte(i + seed)).collect()
}
