//! A lane over a queue pair in user space: a server's shard and a client's, each on sockets of its
//! own, turned by one thread. Loopback delivers within the call that sends, so that each turn finds
//! what the turn before has sent.

use super::certs::{Identity, SERVER_NAME};
use corelane::base::{Rng, Timestamp, limits};
use corelane::conn::{Endpoint, EndpointConfig};
use corelane::io::{Backend, Choice, IoConfig, SocketOptions};
use corelane::rdma::AnyDevice;
use corelane::rdma::bootstrap::ALPN;
use corelane::rdma::roce::{Config, Device};
use corelane::shard::lanes::{
    Consume, LaneApp, LaneConfig, LaneId, LaneInfo, LaneShard, Lanes, Target,
};
use corelane::shard::mailbox::Mailbox;
use corelane::shard::steer::CidCodec;
use corelane::shard::{CodecCids, Context, Shard};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Between two turns.
const STEP: Duration = Duration::from_micros(10);
/// Turns in which a lane is open and the connection's handshake over.
const OPENING: usize = 10_000;

/// Either end: a server answers, a client asks again.
#[derive(Default)]
struct App {
    server: bool,
    to: Option<Target>,
    open: bool,
    messages: u64,
}

impl LaneApp<AnyDevice> for App {
    type Command = ();

    fn on_open(&mut self, lanes: &mut Lanes<'_, AnyDevice>, lane: LaneId, info: &LaneInfo) {
        self.open = info.rdma;
        if !self.server {
            let _ = lanes.send(lane, 0, &[7; 64]);
        }
    }

    fn on_message(
        &mut self,
        lanes: &mut Lanes<'_, AnyDevice>,
        lane: LaneId,
        tag: u32,
        data: &[u8],
    ) -> Consume {
        self.messages += u64::from(lanes.send(lane, tag, data).is_ok());
        Consume::Now
    }

    fn on_turn(&mut self, lanes: &mut Lanes<'_, AnyDevice>) -> Option<Timestamp> {
        if let Some(to) = self.to.take() {
            lanes.connect(to).ok()?;
        }
        None
    }
}

type End = Shard<LaneShard<AnyDevice, App>>;

fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket")
}

/// The device in user space, at a socket of its own.
fn device(ctx: &mut Context<'_>, seed: u64) -> Result<Option<AnyDevice>, String> {
    let socket = socket();
    let addr = socket.local_addr().map_err(|e| e.to_string())?;
    let id = ctx.add_own_socket(socket).map_err(|e| e.to_string())?;
    let mut config = Config::new(id, addr);
    config.ack_delay = limits::ROCE_ACK_DELAY;
    let device = Device::new(config, Rng::from_u64(seed)).map_err(|e| e.to_string())?;
    Ok(Some(device.into()))
}

fn end(now: Timestamp, seed: u8, server: Option<&Identity>, app: App) -> (End, SocketAddr) {
    let codec = CidCodec::new(seed.into(), limits::DEFAULT_CID_LEN, 0, 1, None);
    let codec = Arc::new(codec.expect("a codec"));
    let mut config = EndpointConfig::new([seed; 32]);
    config.cids = Box::new(CodecCids(codec.clone()));
    config.server = server.map(|id| Arc::new(id.server_config(&[ALPN])));
    let backend = Backend::open(Choice::Mmsg, &IoConfig::default()).expect("a backend");
    let endpoint = Endpoint::new(config).expect("an endpoint");
    let mailbox = Mailbox::build(1).remove(0);
    let open = move |ctx: &mut Context<'_>| device(ctx, seed.into());
    let app = LaneShard::new(LaneConfig::default(), open, app);
    let wake = Box::new(|_| {});
    let mut shard = Shard::new(now, 0, backend, endpoint, codec, mailbox, wake, app);
    let socket = socket();
    let addr = socket.local_addr().expect("an address");
    let added = shard.add_socket(socket, SocketOptions::default());
    added.expect("a socket of the shard's");
    (shard, addr)
}

/// Both ends of an open lane, a message under way to the server.
pub struct Pair {
    client: End,
    server: End,
    now: Timestamp,
}

impl Pair {
    /// Opens the lane.
    pub fn connect(now: Timestamp) -> Self {
        let identity = Identity::fixed();
        let answers = App {
            server: true,
            ..App::default()
        };
        let (server, addr) = end(now, 1, Some(&identity), answers);
        let asks = App {
            to: Some(Target {
                addr,
                name: SERVER_NAME.try_into().expect("a name"),
                tls: Arc::new(identity.client_config(&[ALPN])),
            }),
            ..App::default()
        };
        let (client, _) = end(now, 2, None, asks);
        let mut pair = Self {
            client,
            server,
            now,
        };
        for _ in 0..OPENING {
            pair.turn(false);
            pair.turn(true);
        }
        let open = |end: &End| end.app().app().open;
        assert!(open(&pair.client) && open(&pair.server), "no queue pair");
        pair
    }

    fn turn(&mut self, server: bool) {
        self.now += STEP;
        let end = if server {
            &mut self.server
        } else {
            &mut self.client
        };
        end.run_once(self.now).expect("a turn");
    }

    /// A message there and back, and a look of the server's at nothing; `mark` is called before
    /// each. Returns how many messages came back so far.
    pub fn round(&mut self, mark: &dyn Fn(usize)) -> u64 {
        mark(0);
        self.turn(false);
        mark(1);
        self.turn(true);
        mark(2);
        self.turn(true);
        self.client.app().app().messages
    }
}
