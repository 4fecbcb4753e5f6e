//! How fast a backend moves trains over loopback: one thread sends, one receives, nothing else.
//!
//! `udp_blast [--backend uring|mmsg] [--seconds N] [--size BYTES]`. The receiver tells the sender
//! through shared memory how far it has come, so that nothing is lost to a full socket; without
//! encryption, acknowledgements or streams, the result is the ceiling for everything above.

use corelane::base::{Ecn, FourTuple, limits};
use corelane::io::{Backend, Choice, IoConfig, SocketOptions, Transmit};
use corelane::sys::{affinity, clock::Clock};
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes under way at most: what fits the caches and the sockets' buffers.
const WINDOW: u64 = 1 << 20;

struct Args {
    choice: Choice,
    seconds: u64,
    size: usize,
}

fn args() -> Result<Args, Box<dyn Error>> {
    let mut a = Args {
        choice: Choice::Auto,
        seconds: 2,
        size: 1200,
    };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--backend" => {
                a.choice = match value.as_str() {
                    "uring" => Choice::Uring,
                    "mmsg" => Choice::Mmsg,
                    other => return Err(format!("no backend is called {other}").into()),
                }
            }
            "--seconds" => a.seconds = value.parse::<u64>()?.clamp(1, 60),
            "--size" => a.size = value.parse::<usize>()?.clamp(1, limits::MAX_TRAIN_BYTES),
            other => return Err(format!("unknown flag {other}").into()),
        }
    }
    Ok(a)
}

#[derive(Default)]
struct Shared {
    received: AtomicU64,
    stop: AtomicBool,
}

fn pin(which: usize) {
    let cores = affinity::cores();
    // An unpinned run is slower, not wrong.
    let _ = affinity::pin_to(cores[which % cores.len()]);
}

fn blast(a: &Args, to: SocketAddr, shared: &Shared) -> Result<(), Box<dyn Error>> {
    pin(0);
    let mut b = Backend::open(a.choice, &IoConfig::default())?;
    let socket = b.add_socket(UdpSocket::bind("127.0.0.1:0")?, SocketOptions::default())?;
    let local = b.local_addr(socket).ok_or("the socket is gone")?;
    let segments = (limits::MAX_TRAIN_BYTES / a.size).clamp(1, limits::MAX_TRAIN_SEGMENTS);
    let transmit = Transmit {
        socket,
        path: FourTuple::new(local, to),
        ecn: Ecn::Ect0,
        segment_size: a.size,
        len: segments * a.size,
    };
    let mut sent = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut queued = 0;
        while queued < 4 && sent - shared.received.load(Ordering::Relaxed) < WINDOW {
            let Some(buffer) = b.tx_buffer() else { break };
            b.send(buffer, transmit);
            sent += transmit.len as u64;
            queued += 1;
        }
        b.flush()?;
        std::hint::spin_loop();
    }
    let s = b.stats();
    println!(
        "sender   {:>9} trains, {} dropped, {} system calls {:?}",
        s.tx_trains, s.tx_dropped, s.syscalls, s.errors
    );
    Ok(())
}

fn run() -> Result<(), Box<dyn Error>> {
    let a = args()?;
    pin(1);
    let mut b = Backend::open(a.choice, &IoConfig::default())?;
    let socket = b.add_socket(UdpSocket::bind("127.0.0.1:0")?, SocketOptions::default())?;
    let to = b.local_addr(socket).ok_or("the socket is gone")?;
    b.flush()?;
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| blast(&a, to, &shared).map_err(|e| e.to_string()));
        let start = Clock::now();
        let end = start + Duration::from_secs(a.seconds);
        let mut received = 0;
        while Clock::now() < end && !sender.is_finished() {
            b.recv(&mut |_, data| received += data.len() as u64)?;
            shared.received.store(received, Ordering::Relaxed);
            b.flush()?;
        }
        let elapsed = (Clock::now() - start).as_secs_f64();
        shared.stop.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| "the sender panicked")??;
        let s = b.stats();
        println!(
            "receiver {:>9} trains, {} without a buffer, {} system calls",
            s.rx_trains, s.rx_no_buffer, s.syscalls
        );
        println!(
            "{}: {:.1} Gbit/s, {:.2} Mpackets/s of {} B, {:.1} packets a train",
            b.name(),
            s.rx_bytes as f64 * 8e-9 / elapsed,
            s.rx_datagrams as f64 * 1e-6 / elapsed,
            a.size,
            s.rx_datagrams as f64 / s.rx_trains.max(1) as f64
        );
        Ok(())
    })
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("udp_blast: {e}");
            ExitCode::FAILURE
        }
    }
}
