//! Counters that the two sides of a run share, and the window in which they count.
//!
//! A run warms up, is measured, and stops. The thread that measures sleeps meanwhile: it reads the
//! counters and both CPU clocks at the two ends of the window, so that starting, connecting and
//! stopping are in no number. Bytes are counted where they arrive.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::{CpuClock, now};

/// Latencies in nanoseconds.
pub type Latency = Histogram<u64>;

/// An empty histogram of 1 ns to 60 s with three significant digits.
pub fn new_latency() -> Latency {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that the histogram accepts")
}

// A meter begins at 0: warming up.
const MEASURE: u8 = 1;
const STOP: u8 = 2;

/// A counter on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What both sides of a run count.
#[derive(Default)]
pub struct Meter {
    /// Application data received, bytes.
    pub bytes: Counter,
    /// Operations finished.
    pub operations: Counter,
    /// Operations that failed.
    pub failures: Counter,
    phase: AtomicU8,
}

/// What was counted in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The window's length.
    pub elapsed: Duration,
    /// Application data received.
    pub bytes: u64,
    /// Operations finished.
    pub operations: u64,
    /// Operations that failed.
    pub failures: u64,
    /// CPU time of the client's thread.
    pub client_cpu: Duration,
    /// CPU time of the server's thread.
    pub server_cpu: Duration,
}

impl Meter {
    /// Whether latencies count now.
    pub fn is_measuring(&self) -> bool {
        self.phase.load(Relaxed) == MEASURE
    }

    /// Whether both sides have to end.
    pub fn is_stopped(&self) -> bool {
        self.phase.load(Relaxed) == STOP
    }

    /// Ends the run.
    pub fn stop(&self) {
        self.phase.store(STOP, Relaxed);
    }

    /// Sleeps through the warm-up and the window, then stops both sides.
    ///
    /// # Errors
    /// When a side has ended before the window.
    pub fn measure(
        &self,
        warm_up: Duration,
        window: Duration,
        client: CpuClock,
        server: CpuClock,
    ) -> io::Result<Sample> {
        thread::sleep(warm_up);
        self.phase.store(MEASURE, Relaxed);
        let begin = now();
        let before = self.read(client, server);
        thread::sleep(window);
        let after = self.read(client, server);
        let elapsed = begin.elapsed();
        self.stop();
        let (before, after) = (before?, after?);
        Ok(Sample {
            elapsed,
            bytes: after.bytes - before.bytes,
            operations: after.operations - before.operations,
            failures: after.failures.saturating_sub(before.failures),
            client_cpu: after.client_cpu.saturating_sub(before.client_cpu),
            server_cpu: after.server_cpu.saturating_sub(before.server_cpu),
        })
    }

    fn read(&self, client: CpuClock, server: CpuClock) -> io::Result<Sample> {
        Ok(Sample {
            elapsed: Duration::ZERO,
            bytes: self.bytes.get(),
            operations: self.operations.get(),
            failures: self.failures.get(),
            client_cpu: client.read()?,
            server_cpu: server.read()?,
        })
    }
}
