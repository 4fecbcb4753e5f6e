//! Requests of a client that drives one connection by itself: when the next may begin, which are
//! under way, and how long each took.
//!
//! A request has a number, counted from 0; its stream follows from that. Requests either follow
//! answers, so that as many as the run says are under way, or begin when they are due.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use crate::{Fault, Latency, MAX_UNDER_WAY, Meter, Pacer, Run, SETTLE, Timer, new_latency, now};

/// A request whose answer is not complete.
#[derive(Clone, Copy)]
struct UnderWay {
    since: Instant,
    answered: usize,
}

/// Requests at fixed times.
struct Schedule {
    pacer: Pacer,
    timer: Rc<Timer>,
    timer_is_for: Option<Instant>,
}

/// The requests of one connection.
pub struct Requests {
    size: usize,
    at_a_time: usize,
    schedule: Option<Schedule>,
    /// By number, from `first` on; none where the answer has come.
    under_way: VecDeque<Option<UnderWay>>,
    first: u64,
    open: usize,
    latency: Latency,
}

impl Requests {
    /// Those of a run, from now on.
    ///
    /// # Errors
    /// When there is no descriptor left for a timer.
    pub fn new(run: &Run) -> io::Result<Self> {
        let schedule = |rate| -> io::Result<Schedule> {
            Ok(Schedule {
                pacer: Pacer::new(now(), rate),
                timer: Rc::new(Timer::new()?),
                timer_is_for: None,
            })
        };
        let schedule = run.rate.map(schedule).transpose()?;
        Ok(Self {
            size: run.size,
            at_a_time: match schedule {
                Some(_) => MAX_UNDER_WAY,
                None => run.streams,
            },
            schedule,
            under_way: VecDeque::new(),
            first: 0,
            open: 0,
            latency: new_latency(),
        })
    }

    /// What to wait for beside the socket: it fires when a request is due.
    pub fn timer(&self) -> Option<Rc<Timer>> {
        self.schedule
            .as_ref()
            .map(|schedule| schedule.timer.clone())
    }

    /// Since when the latency of the next request counts, if it may begin now.
    pub fn due(&self) -> Option<Instant> {
        if self.open >= self.at_a_time {
            return None;
        }
        let now = now();
        match &self.schedule {
            Some(schedule) => Some(schedule.pacer.next()).filter(|next| *next <= now),
            None => Some(now),
        }
    }

    /// The request that was due since then begins; returns its number.
    pub fn begin(&mut self, since: Instant) -> u64 {
        if let Some(schedule) = &mut self.schedule {
            schedule.pacer.take(since);
        }
        let number = self.first + self.under_way.len() as u64;
        self.under_way
            .push_back(Some(UnderWay { since, answered: 0 }));
        self.open += 1;
        number
    }

    /// Nothing more can begin now: sets the timer for what is due next, unless that waits for
    /// answers.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_timer(&mut self) -> io::Result<()> {
        let Some(schedule) = &mut self.schedule else {
            return Ok(());
        };
        let (next, now) = (schedule.pacer.next(), now());
        let next = (self.open < self.at_a_time && next > now).then_some(next);
        if next != schedule.timer_is_for {
            schedule.timer_is_for = next;
            // A timer that has fired stays readable until it is set again.
            let wait = next.map_or(SETTLE, |next| next.saturating_duration_since(now));
            schedule.timer.set(wait)?;
        }
        Ok(())
    }

    /// `bytes` more of the answer to request `number` have come, and with `is_end` no more will.
    ///
    /// # Errors
    /// When there was no such request, or its answer is not as long as it.
    pub fn answered(
        &mut self,
        number: u64,
        bytes: usize,
        is_end: bool,
        meter: &Meter,
    ) -> Result<(), Fault> {
        let at = number.checked_sub(self.first);
        let at = at.and_then(|at| usize::try_from(at).ok());
        let Some(slot) = at.and_then(|at| self.under_way.get_mut(at)) else {
            return Err(format!("an answer to request {number}").into());
        };
        let Some(request) = slot else {
            return Ok(());
        };
        request.answered += bytes;
        if !is_end {
            return Ok(());
        }
        if request.answered != self.size {
            return Err(format!("an answer of {} bytes", request.answered).into());
        }
        meter.operations.add(1);
        if meter.is_measuring() {
            let nanos = request.since.elapsed().as_nanos();
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            self.latency.saturating_record(nanos.max(1));
        }
        *slot = None;
        self.open -= 1;
        while let Some(None) = self.under_way.front() {
            self.under_way.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    /// Latencies of those answered in the window.
    pub fn into_latency(self) -> Latency {
        self.latency
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Profile, Work};

    fn run(streams: usize, rate: Option<u32>) -> Run {
        Run {
            work: Work::RequestResponse,
            profile: Profile::Tuned,
            streams,
            size: 64,
            rate,
            resume: false,
            connections: 1,
            warm_up: Duration::ZERO,
            window: Duration::ZERO,
            server_core: 0,
            client_core: 0,
        }
    }

    #[test]
    fn a_request_follows_each_answer() {
        let mut requests = Requests::new(&run(2, None)).unwrap();
        let meter = Meter::default();
        for number in 0..2 {
            let since = requests.due().unwrap();
            assert_eq!(requests.begin(since), number);
        }
        assert!(requests.due().is_none() && requests.timer().is_none());
        requests.answered(1, 60, false, &meter).unwrap();
        assert!(requests.due().is_none());
        requests.answered(1, 4, true, &meter).unwrap();
        let since = requests.due().unwrap();
        assert_eq!((requests.begin(since), meter.operations.get()), (2, 1));
        requests.answered(0, 64, true, &meter).unwrap();
        assert_eq!((requests.first, requests.open), (2, 1));
        assert!(requests.answered(1, 64, true, &meter).is_err());
        assert!(requests.answered(2, 63, true, &meter).is_err());
        assert!(requests.answered(3, 64, true, &meter).is_err());
    }

    #[test]
    fn requests_at_fixed_times_begin_when_they_are_due() {
        let mut requests = Requests::new(&run(1, Some(1))).unwrap();
        let begin = requests.due().unwrap();
        assert_eq!(requests.begin(begin), 0);
        assert!(requests.due().is_none() && requests.timer().is_some());
        requests.set_timer().unwrap();
        let timer_is_for = requests.schedule.as_ref().and_then(|s| s.timer_is_for);
        assert_eq!(timer_is_for, Some(begin + Duration::from_secs(1)));
    }

    #[test]
    fn no_more_than_the_cap_are_under_way() {
        let mut requests = Requests::new(&run(1, Some(10_000_000))).unwrap();
        let mut begun = 0;
        while begun < MAX_UNDER_WAY {
            if let Some(since) = requests.due() {
                requests.begin(since);
                begun += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
        assert!(requests.due().is_none());
        requests.set_timer().unwrap();
        requests.answered(0, 64, true, &Meter::default()).unwrap();
        assert!(requests.due().is_some());
    }
}
