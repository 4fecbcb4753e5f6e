//! A short run on each backend: so many connections, and nothing of them is left.

use corelane::io::Choice;
use corelane_churn::{Bounds, Plan, Until, run};
use std::time::Duration;

fn churn(backend: Choice) {
    let plan = Plan {
        warm_up: Until::Ended(60),
        run: Until::Ended(200),
        parallel: 15,
        backend,
        rebind: Duration::from_millis(100),
        ..Plan::default()
    };
    let outcome = match run(&plan, &mut |_| {}) {
        Ok(outcome) => outcome,
        Err(e) if backend == Choice::Uring => {
            eprintln!("skipped: {e}");
            return;
        }
        Err(e) => panic!("{e}"),
    };
    // Counters alone: what other tests of this process allocate is none of this run's business.
    let faults = outcome.faults(Bounds {
        heap: isize::MAX,
        resident: u64::MAX,
    });
    assert!(faults.is_empty(), "{faults:?} {outcome:?}");
    let (c, s) = (outcome.after.client, outcome.after.server);
    assert!(c.ended >= 260 && c.streams > 500 && c.resets > 100, "{c:?}");
    assert!(c.echoed > 1 << 20 && c.datagrams > 50, "{c:?}");
    assert!(s.established > 100 && outcome.after.rebinds > 0, "{s:?}");
}

#[test]
fn connections_come_and_go_on_mmsg() {
    churn(Choice::Mmsg);
}

#[test]
fn connections_come_and_go_on_uring() {
    churn(Choice::Uring);
}
