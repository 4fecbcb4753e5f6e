//! One set of scenarios for every provider of queue pairs: two devices of `roce` in this process;
//! and in a machine that `tools/rdma-vm` starts (`--guest`), two of `verbs` on the kernel's rxe
//! driver, and `roce` crossed with rxe over a UDP socket, either one asking, the other answering.
//!
//! Arguments other than options choose scenarios by a part of their name.

#[cfg(feature = "rdma-verbs")]
#[path = "verbs/crossed.rs"]
mod crossed;
#[path = "verbs/faults.rs"]
mod faults;
#[cfg(feature = "rdma-verbs")]
#[path = "verbs/guest.rs"]
mod guest;
#[path = "verbs/link.rs"]
mod link;
#[path = "verbs/memory_net.rs"]
mod memory_net;
#[path = "verbs/objects.rs"]
mod objects;
#[path = "verbs/transfers.rs"]
mod transfers;

use corelane::rdma::verbs;
use corelane::sys::clock::Clock;
use link::Net;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// What is done between two devices, whatever they are.
type Scenario = fn(&mut dyn Net);

const MANY: &str = "100 queue pairs";
const SCENARIOS: &[(&str, Scenario)] = &[
    ("send", transfers::send),
    ("send with immediate", transfers::send_with_imm),
    ("write", transfers::write),
    ("write with immediate", transfers::write_with_imm),
    ("read", transfers::read),
    ("compare and swap", transfers::compare_and_swap),
    ("fetch and add", transfers::fetch_and_add),
    ("both ways at once", transfers::both_ways),
    (
        "unsignalled requests and a full queue",
        transfers::unsignaled,
    ),
    ("wrong rkey", faults::wrong_rkey),
    ("out of range", faults::out_of_range),
    ("foreign domain", faults::foreign_domain),
    ("missing rights", faults::missing_rights),
    ("receive too short", faults::too_short),
    ("no receive for a while", faults::rnr_then_ready),
    ("no receive at all", faults::rnr_exceeded),
    ("nobody there", faults::nobody_there),
    ("flush in ERR", faults::flush),
    ("again after RESET", faults::reset),
    ("states", objects::states),
    ("teardown order", objects::teardown_order),
    ("device limits", objects::limits),
    (
        "shared receive queue and its limit",
        objects::shared_receives,
    ),
    (MANY, objects::hundred),
];

/// Runs what was chosen, one after another.
struct Run {
    filters: Vec<String>,
    passed: usize,
    failed: Vec<String>,
}

impl Run {
    fn one(&mut self, name: String, work: impl FnOnce()) {
        if !self.filters.is_empty() && !self.filters.iter().any(|f| name.contains(f.as_str())) {
            return;
        }
        let begin = Clock::now();
        let ended = catch_unwind(AssertUnwindSafe(work));
        let took = (Clock::now() - begin).as_millis();
        match ended {
            Ok(()) => {
                println!("ok      {name} ({took} ms)");
                self.passed += 1;
            }
            Err(_) => {
                println!("FAILED  {name} ({took} ms)");
                self.failed.push(name);
            }
        }
    }

    /// Every scenario on a net that is new each time, for a failed one leaves nothing usable;
    /// without that of many where it was done on both devices already.
    fn all<N: Net>(&mut self, on: &str, many: bool, net: impl Fn() -> N) {
        for (name, scenario) in SCENARIOS {
            if !many && *name == MANY {
                continue;
            }
            self.one(format!("{on}: {name}"), || {
                let mut net = net();
                scenario(&mut net);
            });
        }
    }
}

fn main() -> ExitCode {
    let (options, filters): (Vec<String>, _) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with('-'));
    if options.iter().any(|o| o == "--list") {
        return ExitCode::SUCCESS;
    }
    let mut run = Run {
        filters,
        passed: 0,
        failed: Vec::new(),
    };
    run.all("roce", true, || memory_net::Memory::new(1));
    if options.iter().any(|o| o == "--guest") {
        #[cfg(feature = "rdma-verbs")]
        guest::run(&mut run);
        #[cfg(not(feature = "rdma-verbs"))]
        run.one("verbs".into(), || {
            panic!("{}", verbs::Unavailable::NotBuilt)
        });
    } else {
        match verbs::devices() {
            Ok(names) => println!("{names:?} are left alone: see tools/rdma-vm"),
            Err(missing) => println!("{missing}"),
        }
    }
    println!("{} passed, {} failed", run.passed, run.failed.len());
    for name in &run.failed {
        println!("FAILED  {name}");
    }
    if run.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
