//! Requests at fixed times, whatever the answers do.
//!
//! A request that begins late counts from the moment at which it was due, so that whatever delays
//! the client or the server is in the latency of all that it delayed. A timer of the kernel waits,
//! because tokio's has milliseconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::Connection;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Fault;
use super::client::{count, request};
use crate::clock::now;
use crate::meter::{Latency, Meter, new_latency};

/// Requests under way at most; those beyond wait, and are late.
const UNDER_WAY: usize = 4096;

/// `rate` requests of `bytes` a second until the meter stops.
pub(super) async fn run(
    connection: &Connection,
    meter: &Arc<Meter>,
    bytes: Vec<u8>,
    rate: u32,
) -> Result<Latency, Fault> {
    let latency = Arc::new(Mutex::new(new_latency()));
    let bytes: Arc<[u8]> = bytes.into();
    let places = Arc::new(Semaphore::new(UNDER_WAY));
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    // SAFETY: the descriptor is owned by the value and closed by nobody else.
    let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE)? };
    let mut under_way = JoinSet::new();
    let begin = now();
    let mut begun = 0;
    while !meter.is_stopped() {
        let due = due(begin, rate, begun);
        let left = due.saturating_duration_since(now());
        if !left.is_zero() {
            timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once(left))?;
            timer.readable().await?.clear_ready();
            continue;
        }
        begun += 1;
        let place = places.clone().acquire_owned().await?;
        let (connection, meter) = (connection.clone(), meter.clone());
        let (bytes, latency) = (bytes.clone(), latency.clone());
        under_way.spawn(async move {
            let answered = request(&connection, &bytes).await;
            let mut latency = latency.lock().unwrap_or_else(PoisonError::into_inner);
            count(&meter, &mut latency, due);
            drop(place);
            answered
        });
        while let Some(ended) = under_way.try_join_next() {
            ended??;
        }
    }
    under_way.shutdown().await;
    let latency = latency.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(latency.clone())
}

/// When request number `n` is due, from 0.
fn due(begin: Instant, rate: u32, n: u64) -> Instant {
    let rate = u64::from(rate.max(1));
    begin + Duration::from_secs(n / rate) + Duration::from_nanos(n % rate * 1_000_000_000 / rate)
}

fn once(after: Duration) -> Itimerspec {
    let at = |duration: Duration| Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    };
    Itimerspec {
        it_interval: at(Duration::ZERO),
        it_value: at(after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_times() {
        let begin = now();
        let after = |n| due(begin, 3, n).duration_since(begin).as_nanos();
        assert_eq!(
            [0, 1, 2, 3].map(after),
            [0, 333_333_333, 666_666_666, 1_000_000_000]
        );
        let years = due(begin, u32::MAX, u64::from(u32::MAX) * 100_000_000);
        assert_eq!(years, begin + Duration::from_secs(100_000_000));
    }
}
