//! From flags to engines: transport settings, backends, and which shards run on which cores.

use super::Failure;
use super::args::{BackendArg, Cc, EngineArgs, IdleArg, Mtu, QuicVersion};
use corelane::conn::TransportConfig;
use corelane::io::Choice;
use corelane::recovery::{Algorithm, MtuConfig};
use corelane::shard::engine::{EngineConfig, Idle};
use corelane::sys::affinity::{self, Core};
use corelane::wire::Version;
use std::sync::Arc;
use std::time::Duration;

/// Streams of a client that the server serves at a time.
const STREAMS: u64 = 1024;

/// Bytes of datagrams that wait to be read, more than a turn can bring, and to be sent, few enough
/// not to age.
const DATAGRAM_BUFFERS: (usize, usize) = (16 << 20, 512 << 10);

/// The transport settings that the flags ask for, for runs of up to `time`.
pub fn transport(args: &EngineArgs, time: Duration) -> Arc<TransportConfig> {
    let mut t = TransportConfig::default();
    // Idle connections are part of what is measured, and no handshake may die of a busy machine.
    t.max_idle_timeout = Duration::from_secs(30).max(time.saturating_mul(2));
    t.congestion = match args.cc {
        Cc::Cubic => Algorithm::Cubic,
        Cc::Newreno => Algorithm::NewReno,
        Cc::Bbr => Algorithm::Bbr,
        Cc::Lia => Algorithm::Lia,
        Cc::Olia => Algorithm::Olia,
        Cc::Balia => Algorithm::Balia,
    };
    t.pacing = !args.no_pacing;
    t.mtu = match args.mtu {
        Mtu::Auto => MtuConfig::default(),
        Mtu::Fixed(size) => MtuConfig::fixed(size),
    };
    let version = args.quic_version.map(|v| match v {
        QuicVersion::V1 => Version::V1,
        QuicVersion::V2 => Version::V2,
    });
    t.versions.sort_by_key(|v| Some(*v) != version);
    t.preferred_version = version;
    t.datagram_receive_buffer = DATAGRAM_BUFFERS.0;
    t.datagram_send_buffer = DATAGRAM_BUFFERS.1;
    t.streams.max_streams_bidi = STREAMS;
    t.streams.max_streams_uni = 0;
    if let Some(window) = args.window {
        let s = &mut t.streams;
        s.connection_window_max = window;
        s.stream_window_max = window / 2;
        s.connection_window = s.connection_window.min(window);
        s.stream_window = s.stream_window.min(window / 2);
        s.send_buffer = s.send_buffer.max(window as usize);
    }
    Arc::new(t)
}

/// An engine of `shards` shards on `cores`; its threads are called `name`.
pub fn engine(
    name: &str,
    shards: usize,
    cores: Vec<Core>,
    args: &EngineArgs,
    transport: Arc<TransportConfig>,
) -> EngineConfig {
    let mut config = EngineConfig::new(name);
    config.shards = shards;
    config.cores = cores;
    config.backend = match args.backend {
        BackendArg::Auto => Choice::Auto,
        BackendArg::Uring => Choice::Uring,
        BackendArg::Mmsg => Choice::Mmsg,
    };
    config.idle = match args.idle {
        IdleArg::Spin => Idle::Spin,
        IdleArg::Adaptive => Idle::default(),
        IdleArg::Park => Idle::Park,
    };
    if let Some(bytes) = args.socket_buffer {
        config.socket.recv_buffer = bytes as usize;
        config.socket.send_buffer = bytes as usize;
    }
    config.transport = transport;
    config
}

/// Cores for `first` shards and then `second` others: each its own as far as there are enough,
/// else in turn. Empty, which pins nothing, when the process has a single core.
pub fn cores(
    args: &EngineArgs,
    first: usize,
    second: usize,
) -> Result<(Vec<Core>, Vec<Core>), Failure> {
    cores_of(&args.cores, first, second)
}

/// The same of a list from the command line, which may be empty.
pub fn cores_of(
    asked: &[usize],
    first: usize,
    second: usize,
) -> Result<(Vec<Core>, Vec<Core>), Failure> {
    let available = affinity::cores();
    let list: Vec<Core> = asked.iter().copied().map(Core).collect();
    if let Some(core) = list.iter().find(|c| !available.contains(c)) {
        let known: Vec<String> = available.iter().map(|c| c.0.to_string()).collect();
        return Err(Failure::Usage(format!(
            "--cores {}: this process may run on {} only",
            core.0,
            known.join(",")
        )));
    }
    let list = if list.is_empty() {
        available.to_vec()
    } else {
        list
    };
    if list.len() < 2 && asked.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    Ok(deal(&list, first, second))
}

fn deal(list: &[Core], first: usize, second: usize) -> (Vec<Core>, Vec<Core>) {
    let mut turn = list.iter().copied().cycle();
    let one = turn.by_ref().take(first).collect();
    (one, turn.take(second).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_its_core_while_there_are_enough() {
        let list: Vec<Core> = (0..4).map(Core).collect();
        let cores = |numbers: &[usize]| numbers.iter().copied().map(Core).collect::<Vec<_>>();
        assert_eq!(deal(&list, 1, 1), (cores(&[0]), cores(&[1])));
        assert_eq!(deal(&list, 2, 2), (cores(&[0, 1]), cores(&[2, 3])));
        assert_eq!(deal(&list[..2], 2, 2), (cores(&[0, 1]), cores(&[0, 1])));
        assert_eq!(deal(&list, 3, 0), (cores(&[0, 1, 2]), cores(&[])));
    }
}
