//! Lanes as handles: futures that wait for what callbacks tell, over both carriers.

use crate::certs::{Identity, SERVER_NAME};
use crate::place::place;
use crate::rig::Options;
use corelane::api::lanes::{FIRST_RESERVED_TAG, Lane, LaneEndpoint, LaneFailure};
use corelane::conn::TransportConfig;
use corelane::rdma::bootstrap::ALPN;
use corelane::shard::engine::{Bind, EngineConfig};
use corelane::shard::lanes::{LaneEnd, LaneError, Operation, Target};
use futures_executor::block_on;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

struct Ends {
    server: LaneEndpoint,
    client: LaneEndpoint,
    target: Target,
    /// The server's, and the client's.
    options: [Options; 2],
}

impl Ends {
    fn new(rdma: bool) -> Self {
        let identity = Identity::generate();
        let options = [Options::new(), Options::new()];
        let start = |server: bool| {
            let options = &options[usize::from(!server)];
            let place = place(server);
            let mut config = EngineConfig::new("handles");
            let mut transport = TransportConfig::default();
            transport.max_idle_timeout = options.quic_idle;
            transport.handshake_deadline = options.config.patience;
            transport.streams.max_streams_bidi = 1;
            config.transport = Arc::new(transport);
            config.idle = options.idle;
            config.bind = Bind::Shared(SocketAddr::new(place.ip(false), 0));
            config.server = server.then(|| Arc::new(identity.server_config(&[ALPN])));
            let port = rdma.then(|| place.port(false));
            place.within(|| {
                let lanes = options.config.clone();
                LaneEndpoint::start(&config, lanes, port.as_ref()).expect("started")
            })
        };
        let (server, client) = (start(true), start(false));
        let target = Target {
            addr: server.local_addrs()[0],
            name: SERVER_NAME.try_into().expect("a name"),
            tls: Arc::new(identity.client_config(&[ALPN])),
        };
        Self {
            server,
            client,
            target,
            options,
        }
    }

    async fn connect(&self) -> (Lane, Lane) {
        let lane = self.client.connect(self.target.clone()).await;
        let other = self.server.accept().await;
        (lane.expect("a lane"), other.expect("the same"))
    }

    /// Ends both, and sees that nothing is left.
    async fn finish(self) {
        self.client.shutdown().await;
        self.server.shutdown().await;
        assert!(self.server.accept().await.is_none());
        for options in self.options {
            assert_eq!(options.config.registry.objects(), []);
        }
        let late = self.client.connect(self.target).await;
        assert!(matches!(late, Err(LaneEnd::Lost(_))), "{late:?}");
    }
}

/// Answers requests with their bytes turned round, and counts other messages, until the end.
fn serve(lane: Lane) -> thread::JoinHandle<(usize, LaneEnd)> {
    thread::spawn(move || {
        block_on(async {
            let mut messages = 0;
            loop {
                match lane.recv().await {
                    Ok(message) if message.is_request() => {
                        let turned: Vec<u8> = message.data.iter().rev().copied().collect();
                        message.answer(turned).await.expect("answered");
                    }
                    Ok(_) => messages += 1,
                    Err(end) => return (messages, end),
                }
            }
        })
    })
}

fn everything(rdma: bool) {
    block_on(async {
        let ends = Ends::new(rdma);
        let (lane, other) = ends.connect().await;
        assert_eq!((lane.info().rdma, other.info().rdma), (rdma, rdma));
        let server = serve(other.clone());
        // More than a window holds: who sends waits for room.
        for n in 0..100u32 {
            lane.send(n, n.to_be_bytes().to_vec()).await.expect("sent");
            if n % 10 == 0 {
                let answer = lane.request(n.to_be_bytes().to_vec()).await;
                assert_eq!(answer.expect("answered"), n.to_le_bytes().to_vec());
            }
        }
        // Several at once.
        let (a, b) = (lane.request(&b"ab"[..]), lane.request(&b"cd"[..]));
        let both = (b.await.expect("answered"), a.await.expect("answered"));
        assert_eq!(both, (b"dc"[..].into(), b"ba"[..].into()));
        lane.fill(8, &b"twelve bytes"[..]).await.expect("filled");
        let (local, remote, len) = (8, 24, 12);
        let write = Operation::Write { local, remote, len };
        lane.operate(write).await.expect("written");
        assert_eq!(other.look(24, 12).await.expect("seen"), b"twelve bytes"[..]);
        let add = Operation::FetchAdd {
            local: 0,
            remote: 0,
            add: 5,
        };
        for _ in 0..2 {
            lane.operate(add).await.expect("added");
        }
        let found = lane.look(0, 8).await.expect("seen");
        assert_eq!(found, 5u64.to_ne_bytes()[..]);
        wrong(&lane).await;
        let json = ends.client.status(ends.target.clone()).await;
        assert!(json.expect("told").contains("\"lanes\":1,"));
        assert_eq!(lane.close().await, LaneEnd::Finished);
        let late = lane.send(1, &b"late"[..]).await;
        assert_eq!(late, Err(LaneFailure::Ended(LaneEnd::Finished)));
        let served = server.join().expect("no panic");
        assert_eq!(served, (100, LaneEnd::Finished));
        drop(other);
        ends.finish().await;
    });
}

/// What a lane refuses, it refuses alone.
async fn wrong(lane: &Lane) {
    let most = lane.info().max_message;
    let long = lane.send(1, vec![0; most + 1]).await;
    assert_eq!(long, Err(LaneError::TooLong(most).into()));
    let tag = FIRST_RESERVED_TAG;
    let reserved = lane.send(tag, &b"no"[..]).await;
    assert_eq!(reserved, Err(LaneFailure::Tag(tag)));
    let far = Operation::Read {
        local: 0,
        remote: u64::MAX,
        len: 1,
    };
    let far = lane.operate(far).await;
    assert!(
        matches!(far, Err(LaneFailure::Refused(LaneError::Range { .. }))),
        "{far:?}"
    );
}

#[test]
fn handles_do_everything_over_queue_pairs() {
    everything(true);
}

#[test]
fn handles_do_everything_over_streams() {
    everything(false);
}

/// The last handle ends its lane; futures that are dropped take nothing with them.
#[test]
fn a_lane_ends_with_its_last_handle() {
    block_on(async {
        let ends = Ends::new(true);
        let (lane, other) = ends.connect().await;
        let clone = lane.clone();
        drop(lane);
        clone.send(3, &b"still"[..]).await.expect("sent");
        let message = other.recv().await.expect("it came");
        assert_eq!((message.tag, &message.data[..]), (3, &b"still"[..]));
        drop(other.recv());
        clone.send(4, &b"last"[..]).await.expect("sent");
        drop(clone);
        assert_eq!(other.recv().await.expect("it came").tag, 4);
        assert_eq!(other.ended().await, LaneEnd::Finished);
        assert!(other.recv().await.is_err());
        drop(other);
        ends.finish().await;
    });
}
