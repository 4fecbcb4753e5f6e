//! Lanes: messages, and memory that the peer reads and writes, over RDMA where both ends have it
//! and over QUIC where not. Server and client are one shard each, in one process.
//!
//! `cargo run --example lanes`

mod tls;

use corelane::conn::TransportConfig;
use corelane::rdma::AnyDevice;
use corelane::rdma::bootstrap::ALPN;
use corelane::shard::Context;
use corelane::shard::engine::{Bind, Engine, EngineConfig};
use corelane::shard::lanes::{
    Consume, LaneApp, LaneConfig, LaneEnd, LaneId, LaneInfo, LaneShard, Lanes, OpError, Operation,
    PortConfig, Target,
};
use rustls::ServerConfig;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

const TEXT: &[u8] = b"written into the server's region";
const LEN: u32 = TEXT.len() as u32;
/// The text's offset in the server's region, and where it comes back to in the client's.
const REMOTE: u64 = 100;
const BACK: u64 = 1000;

enum Command {
    Connect(Target),
    Shutdown,
}

/// Gives messages back; at the client, where there is somebody to tell, it asks.
struct Demo(Option<Sender<String>>);

impl LaneApp<AnyDevice> for Demo {
    type Command = Command;

    fn on_open(&mut self, lanes: &mut Lanes<'_, AnyDevice>, lane: LaneId, info: &LaneInfo) {
        if let Some(tell) = &self.0 {
            let over = if info.rdma { "RDMA" } else { "QUIC" };
            let _ = tell.send(format!(
                "open over {over}: {} bytes there",
                info.remote_region
            ));
            lanes.send(lane, 1, b"hello").expect("a new lane has room");
        }
    }

    fn on_message(
        &mut self,
        lanes: &mut Lanes<'_, AnyDevice>,
        lane: LaneId,
        tag: u32,
        data: &[u8],
    ) -> Consume {
        let Some(tell) = &self.0 else {
            // A client within its window finds room for its answers.
            let _ = lanes.send(lane, tag, data);
            return Consume::Now;
        };
        let _ = tell.send(format!("back came {:?}", String::from_utf8_lossy(data)));
        // First into the own region, from there to the server's. Its application does nothing.
        lanes.write(lane, 0, TEXT).expect("it fits");
        let (local, remote, len) = (0, REMOTE, LEN);
        let write = Operation::Write { local, remote, len };
        lanes.operate(lane, 1, write).expect("it fits there, too");
        Consume::Now
    }

    fn on_done(
        &mut self,
        lanes: &mut Lanes<'_, AnyDevice>,
        lane: LaneId,
        op: u64,
        result: Result<(), OpError>,
    ) {
        let Some(tell) = &self.0 else { return };
        if op == 1 && result.is_ok() {
            let (local, remote, len) = (BACK, REMOTE, LEN);
            let read = Operation::Read { local, remote, len };
            lanes.operate(lane, 2, read).expect("the same bytes");
            return;
        }
        let mut bytes = [0; TEXT.len()];
        lanes.read(lane, BACK, &mut bytes).expect("it fits");
        let _ = tell.send(format!("{result:?}: {:?}", String::from_utf8_lossy(&bytes)));
        lanes.close(lane);
    }

    fn on_closed(&mut self, _: &mut Lanes<'_, AnyDevice>, _: LaneId, why: &LaneEnd) {
        // Dropping the sender ends the program's waiting.
        if let Some(tell) = self.0.take() {
            let _ = tell.send(format!("the lane is closed: {why}"));
        }
    }

    fn on_command(&mut self, lanes: &mut Lanes<'_, AnyDevice>, command: Command) {
        match command {
            Command::Connect(target) => drop(lanes.connect(target).expect("room for a lane")),
            Command::Shutdown => lanes.shutdown(),
        }
    }
}

type Shards = Engine<LaneShard<AnyDevice, Demo>>;

fn start(
    name: &'static str,
    server: Option<Arc<ServerConfig>>,
    mut tell: Option<Sender<String>>,
) -> Result<Shards, Box<dyn Error>> {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut config = EngineConfig::new(name);
    let mut transport = TransportConfig::default();
    transport.streams.max_streams_bidi = 1;
    config.transport = Arc::new(transport);
    config.bind = Bind::Shared(SocketAddr::new(ip, 0));
    config.server = server;
    // A device of the kernel's that has the address, or RoCE v2 in user space.
    let mut ports = PortConfig::new(ip).ports(1)?.setups.into_iter();
    Ok(Engine::start(&config, |_| {
        let port = ports.next();
        let open = move |ctx: &mut Context<'_>| port.map_or(Ok(None), |p| p.open(ctx));
        LaneShard::new(LaneConfig::default(), open, Demo(tell.take()))
    })?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (server_tls, client_tls) = tls::configs()?;
    let (mut server_tls, mut client_tls) = ((*server_tls).clone(), (*client_tls).clone());
    // Lanes insist on it at both ends.
    server_tls.alpn_protocols = vec![ALPN.to_vec()];
    client_tls.alpn_protocols = vec![ALPN.to_vec()];
    let (tell, told) = channel();
    let server = start("server", Some(Arc::new(server_tls)), None)?;
    let client = start("client", None, Some(tell))?;
    let target = Target {
        addr: *server.local_addrs().first().ok_or("no address")?,
        name: "localhost".try_into()?,
        tls: Arc::new(client_tls),
    };
    for sender in client.senders() {
        let _ = sender.send(Command::Connect(target.clone()));
    }
    told.iter().for_each(|line| println!("{line}"));
    for engine in [client, server] {
        for sender in engine.senders() {
            let _ = sender.send(Command::Shutdown);
        }
        engine.join()?;
    }
    Ok(())
}
