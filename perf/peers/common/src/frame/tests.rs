//! Peers that misbehave: the run ends with what went wrong.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

use super::*;
use crate::{Profile, new_latency};

fn brief() -> Run {
    Run {
        work: Work::Datagram,
        profile: Profile::Tuned,
        streams: 1,
        size: 64,
        rate: None,
        resume: false,
        connections: 1,
        warm_up: Duration::ZERO,
        window: Duration::from_millis(50),
        server_core: 0,
        client_core: 0,
    }
}

fn wait(stop: &Stop) {
    let mut fds = [PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
    poll(&mut fds, None).unwrap();
}

fn anywhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9).into()
}

/// Both sides count, and wait until they are stopped.
struct Good;

impl Peer for Good {
    const NAME: &'static str = "good";
    const PACKAGE: &'static str = "tokio";
    fn settings(_: &Run) -> serde_json::Value {
        serde_json::json!({})
    }
    fn serve(server: Server) -> Result<(), Fault> {
        server.listening(anywhere());
        wait(&server.stop);
        Ok(())
    }
    fn drive(client: Client) -> Result<Outcome, Fault> {
        assert_eq!(client.addr, anywhere());
        let mut latency = new_latency();
        client.ready();
        while !client.meter.is_stopped() {
            client.meter.operations.add(2);
            client.meter.failures.add(3);
            std::thread::yield_now();
        }
        wait(&client.stop);
        latency.record(7)?;
        let latency = Some(latency);
        Ok(Outcome { latency, open: 0 })
    }
}

#[test]
fn what_both_sides_count_is_measured() {
    let measured = run::<Good>(&brief()).unwrap();
    let sample = measured.sample;
    assert!(sample.operations > 0 && sample.elapsed >= Duration::from_millis(50));
    assert!(sample.failures > 0 && sample.failures < sample.operations);
    assert!(!sample.client_cpu.is_zero());
    assert_eq!(measured.latency.map(|l| l.len()), Some(1));
}

macro_rules! bad {
    ($name:ident, $serve:expr, $drive:expr) => {
        struct $name;
        impl Peer for $name {
            const NAME: &'static str = "bad";
            const PACKAGE: &'static str = "tokio";
            fn settings(_: &Run) -> serde_json::Value {
                serde_json::json!({})
            }
            fn serve(server: Server) -> Result<(), Fault> {
                let serve: fn(Server) -> Result<(), Fault> = $serve;
                serve(server)
            }
            fn drive(client: Client) -> Result<Outcome, Fault> {
                let drive: fn(Client) -> Result<Outcome, Fault> = $drive;
                drive(client)
            }
        }
    };
}

bad!(
    NoPort,
    |_| Err("no port".into()),
    |_| Ok(Outcome::default())
);
bad!(NoServer, Good::serve, |_| Err("refused".into()));
bad!(Panics, Good::serve, |_| panic!("on purpose"));
bad!(
    Dies,
    |server| {
        server.listening(anywhere());
        Err("died".into())
    },
    |client| {
        wait(&client.stop);
        Ok(Outcome::default())
    }
);

#[test]
fn the_reason_of_an_early_end_is_told() {
    let why = |result: Result<Measured, Fault>| result.err().map(|e| e.to_string());
    assert_eq!(why(run::<NoPort>(&brief())).as_deref(), Some("no port"));
    assert_eq!(why(run::<NoServer>(&brief())).as_deref(), Some("refused"));
    assert_eq!(
        why(run::<Panics>(&brief())).as_deref(),
        Some("a thread panicked")
    );
    assert_eq!(why(run::<Dies>(&brief())).as_deref(), Some("died"));
}
