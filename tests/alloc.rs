//! Bulk transfer allocates nothing per packet, datagrams and messages of lanes nothing each: an
//! allocator that counts says so.

mod common;

use common::bulk::Bulk;
use common::datagrams::{Datagrams, Taking};
use corelane::rdma::AnyDevice;
use corelane::rdma::bootstrap::ALPN;
use corelane::shard::Context;
use corelane::shard::engine::{Bind, Engine, EngineConfig};
use corelane::shard::lanes::{
    Consume, LaneApp, LaneConfig, LaneError, LaneId, LaneInfo, LaneShard, Lanes, PortConfig,
    ProviderChoice, Target,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; `ptr` came from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`; `ptr` came from `System`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The counter is everybody's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn bulk_transfer_allocates_nothing_per_packet() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bulk = Bulk::connect();
    // Windows open, rings grow to them.
    let mut packets = 0;
    while packets < 20_000 {
        packets += bulk.step().packets;
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut packets = 0;
    while packets < 50_000 {
        packets += bulk.step().packets;
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    // A ring that grows once more is no allocation per packet; anything that comes with packets is
    // far above this.
    assert!(
        allocations * 10_000 <= packets,
        "{allocations} allocations in {packets} packets"
    );
}

#[test]
fn datagrams_allocate_nothing_each() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for taking in [Taking::Shown, Taking::Batch] {
        let mut load = Datagrams::connect(100, taking);
        while load.app.count < 100_000 {
            load.step();
        }
        let (before, first) = (ALLOCATIONS.load(Ordering::Relaxed), load.app.count);
        let (mut packets, mut steps) = (0, 0);
        while load.app.count - first < 500_000 {
            packets += load.step().packets;
            steps += 1;
        }
        let count = load.app.count - first;
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert!(
            allocations * 10_000 <= count,
            "{taking:?}: {allocations} allocations for {count} datagrams in {steps} steps"
        );
        // Each packet takes as many as it holds: 13 frames of 102 bytes and a length of two.
        assert!(packets * 13 <= count + 13 * steps, "{packets} packets");
        assert_eq!(load.app.bytes, load.app.count * 100);
    }
}

/// Gives every message back, and counts.
struct Bounce(Arc<AtomicU64>);

impl LaneApp<AnyDevice> for Bounce {
    /// `None` ends the shard.
    type Command = Option<Target>;

    fn on_open(&mut self, lanes: &mut Lanes<'_, AnyDevice>, lane: LaneId, info: &LaneInfo) {
        assert!(info.rdma, "a queue pair");
        for n in 0..3 {
            lanes.send(lane, n, &[n as u8; 64]).expect("room");
        }
    }

    fn on_message(
        &mut self,
        lanes: &mut Lanes<'_, AnyDevice>,
        lane: LaneId,
        tag: u32,
        data: &[u8],
    ) -> Consume {
        self.0.fetch_add(1, Ordering::Relaxed);
        // Six are under way, and eight may be.
        let sent = lanes.send(lane, tag, data);
        assert!(matches!(sent, Ok(()) | Err(LaneError::Closed)));
        Consume::Now
    }

    fn on_command(&mut self, lanes: &mut Lanes<'_, AnyDevice>, target: Option<Target>) {
        match target {
            Some(target) => drop(lanes.connect(target).expect("room for a lane")),
            None => lanes.shutdown(),
        }
    }
}

fn lane_engine(
    server: Option<Arc<rustls::ServerConfig>>,
    count: &Arc<AtomicU64>,
) -> Engine<LaneShard<AnyDevice, Bounce>> {
    let mut config = EngineConfig::new("lanes");
    config.bind = Bind::Shared("127.0.0.1:0".parse().unwrap());
    config.server = server;
    let mut port = PortConfig::new("127.0.0.1".parse().unwrap());
    (port.provider, port.roce_port) = (ProviderChoice::Roce, Some(0));
    let mut setups = port.ports(1).expect("a port").setups.into_iter();
    let started = Engine::start(&config, |_| {
        let setup = setups.next().expect("one shard");
        let open = move |ctx: &mut Context<'_>| setup.open(ctx);
        LaneShard::new(LaneConfig::default(), open, Bounce(count.clone()))
    });
    started.expect("an engine")
}

#[test]
fn messages_of_lanes_allocate_nothing_each() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let identity = common::certs::Identity::generate();
    let count = Arc::new(AtomicU64::new(0));
    let server = lane_engine(Some(Arc::new(identity.server_config(&[ALPN]))), &count);
    let client = lane_engine(None, &count);
    let target = Target {
        addr: server.local_addrs()[0],
        name: common::certs::SERVER_NAME.try_into().expect("a name"),
        tls: Arc::new(identity.client_config(&[ALPN])),
    };
    assert!(client.senders()[0].send(Some(target)).is_ok());
    let until = |enough: u64| {
        while count.load(Ordering::Relaxed) < enough {
            std::thread::sleep(Duration::from_millis(1));
        }
        (
            count.load(Ordering::Relaxed),
            ALLOCATIONS.load(Ordering::Relaxed),
        )
    };
    let (first, before) = until(5_000);
    let (last, after) = until(first + 40_000);
    let (messages, allocations) = (last - first, after - before);
    assert!(
        allocations * 100 <= messages,
        "{allocations} allocations for {messages} messages"
    );
    for engine in [client, server] {
        assert!(engine.senders()[0].send(None).is_ok());
        engine.join().expect("the shard ends well");
    }
}
