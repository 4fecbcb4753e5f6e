//! What a scheduler is shown of what waits: a stream's deadline, and what is ahead on each path.

use crate::common::pair::CLIENT;
use crate::rig::*;
use corelane::base::Timestamp;
use corelane::conn::{PathController, PathControllers};
use corelane::path::PathId;
use corelane::path::reinject::ReinjectionConfig;
use corelane::path::schedule::{Decision, Pin, SchedulerContext};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One question about a train that any path may take.
#[derive(Clone, Debug)]
struct Shown {
    deadline: Option<Timestamp>,
    delays: Vec<(PathId, Duration)>,
}

struct Watch(Arc<Mutex<Vec<Shown>>>);

impl PathController for Watch {
    fn select_path(&mut self, ctx: &SchedulerContext<'_>) -> Option<Decision> {
        if ctx.pin.is_none() {
            let delays = ctx.paths.iter().map(|p| (p.id, p.queue_delay)).collect();
            let deadline = ctx.packet.deadline;
            self.0.lock().unwrap().push(Shown { deadline, delays });
        }
        None
    }
}

fn watched() -> (Rig, Arc<Mutex<Vec<Shown>>>) {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let mut s = setup(4);
    let log = shown.clone();
    let watch = move |_| -> Option<Box<dyn PathController>> { Some(Box::new(Watch(log.clone()))) };
    s.client.multipath.controller = Some(PathControllers::new(watch));
    s.client.multipath.reinjection = Some(ReinjectionConfig::default());
    let rig = Rig::with(s).and_second();
    shown.lock().unwrap().clear();
    (rig, shown)
}

#[test]
fn the_deadline_of_the_next_stream_is_shown() {
    let (mut rig, shown) = watched();
    let (now, client) = (rig.pair.now, rig.client);
    let at = now + Duration::from_secs(5);
    let id = rig.send(CLIENT, 300_000);
    let conn = rig.pair.conn(CLIENT, client);
    assert!(conn.set_stream_deadline(id, Some(at)));
    rig.run_ms(1000);
    assert!(rig.has_exactly(CLIENT, id, 300_000));
    let of_it = std::mem::take(&mut *shown.lock().unwrap());
    assert!(of_it.iter().any(|s| s.deadline == Some(at)), "{of_it:?}");
    rig.deliver(CLIENT, 300_000, 1000);
    let of_others = shown.lock().unwrap();
    assert!(!of_others.is_empty());
    assert!(of_others.iter().all(|s| s.deadline.is_none()));
}

#[test]
fn what_is_pinned_to_a_path_delays_others_there_and_nowhere_else() {
    let (mut rig, shown) = watched();
    let id = rig.send(CLIENT, 600_000);
    let client = rig.client;
    let pin = Some(Pin::only(PathId(1)));
    let conn = rig.pair.conn(CLIENT, client);
    conn.set_stream_path(id, pin).unwrap();
    rig.deliver(CLIENT, 600_000, 3000);
    assert!(rig.has_exactly(CLIENT, id, 600_000));
    let with = std::mem::take(&mut *shown.lock().unwrap());
    let delay = |s: &Shown, path| s.delays.iter().find(|d| d.0 == path).map(|d| d.1);
    let waits = |s: &&Shown| delay(s, PathId(1)) > Some(Duration::ZERO);
    assert!(with.iter().any(|s| waits(&s)), "{with:?}");
    assert!(
        with.iter()
            .all(|s| delay(s, PathId(0)) == Some(Duration::ZERO))
    );
    rig.deliver(CLIENT, 600_000, 3000);
    let without = shown.lock().unwrap();
    assert!(!without.is_empty() && !without.iter().any(|s| waits(&s)));
}
