//! Connections that do nothing: what they cost, and that each of them still works afterwards.
//!
//! Where the server is a process of its own, memory is counted from after a few connections that
//! came and went, so that what an engine sets up once is not in it.

use super::Failure;
use super::client::Order;
use super::results::{Apart, Measured};
use super::run::{CONNECT_TIME, DRAIN, ORDER_TIME, Run, usage};
use crate::cli::report::meter::Usage;
use corelane::sys::clock::Clock;
use std::thread;
use std::time::Duration;

/// Connections that come and go before.
const WARM_UPS: usize = 16;
/// How long they get to be forgotten.
const SETTLE: Duration = Duration::from_millis(500);
/// The time between the last connection and the measurement, where nobody waits for the result.
const QUIET: Duration = Duration::from_secs(2);

impl Run<'_> {
    /// Opens the connections and measures.
    pub(super) fn idle(&mut self) -> Result<Measured, Failure> {
        let mut server_before = None;
        if self.apart.is_some() {
            self.warm_up()?;
            self.before = usage()?;
            server_before = self.server_usage()?;
        }
        self.order(|| Order::Open)?;
        self.await_connections()?;
        // What the handshakes left over is not what idle connections cost.
        thread::sleep(if self.apart.is_some() { QUIET } else { DRAIN });
        let from = Clock::now();
        let (before, server_from) = (usage()?, self.server_usage()?);
        self.sleep_until(from + self.spec.time)?;
        let (after, server_after) = (usage()?, self.server_usage()?);
        let mut measured = Measured {
            spent: after.since(&before),
            duration: Clock::now() - from,
            rss_before: self.before.rss_bytes,
            apart: apart(server_before, server_from, server_after),
            remote: self.is_remote(),
            ..Measured::default()
        };
        let pinged = Clock::now();
        self.order(|| Order::Start)?;
        let wanted = self.spec.connections as u64;
        let answered = || self.client_live.sum(|c| &c.operations);
        let patience = ORDER_TIME + Duration::from_millis(wanted);
        while answered() < wanted && Clock::now() - pinged < patience {
            thread::sleep(Duration::from_millis(1));
        }
        measured.operations = answered();
        measured.operations_time = Some(Clock::now() - pinged);
        measured.record.merge(&self.cut()?);
        Ok(measured)
    }

    /// Opens a few connections, closes them, and waits until they are forgotten.
    fn warm_up(&self) -> Result<(), Failure> {
        self.order(|| Order::WarmUp(WARM_UPS))?;
        let wanted = (WARM_UPS * self.client.senders().len()) as u64;
        let begin = Clock::now();
        while self.client_live.sum(|c| &c.warmed_up) < wanted {
            if let Some(trouble) = self.client_live.trouble() {
                return Err(Failure::Failed(trouble));
            }
            if Clock::now() - begin > CONNECT_TIME {
                let why = "the first connections did not come and go";
                return Err(Failure::Failed(why.into()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(SETTLE);
        Ok(())
    }

    /// What the server's process has used so far, where there is one.
    fn server_usage(&self) -> Result<Option<Usage>, Failure> {
        self.apart.as_ref().map(|server| server.usage()).transpose()
    }
}

fn apart(empty: Option<Usage>, from: Option<Usage>, to: Option<Usage>) -> Option<Apart> {
    let (empty, spent) = (empty?.rss_bytes?, to?.since(&from?));
    Some(Apart {
        // All threads: nothing else runs in that process.
        cpu: spent.cpu_of(""),
        rss_bytes: spent.rss_bytes?.saturating_sub(empty),
    })
}
