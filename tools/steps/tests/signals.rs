//! A signal that somebody sends to the child is passed on, and counts for nothing. The child is
//! this program again, which sends itself one.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() {
    use corelane_steps::trace::{END, mark, ready, steps};
    use nix::sys::signal::{Signal, raise};
    use std::cell::Cell;
    use std::process::Command;

    const CHILD: &str = "CORELANE_STEPS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        ready().expect("permission to be traced");
        mark(0);
        raise(Signal::SIGCONT).expect("a signal that is ignored");
        mark(END);
        println!("to its end");
        return;
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let counted = Cell::new(0);
    let output = steps(command.env(CHILD, ""), |_| {
        let counted = &counted;
        Ok(move |_| counted.set(counted.get() + 1))
    });
    assert_eq!(output.as_deref(), Ok("to its end\n"));
    assert!(counted.get() > 10, "{counted:?}");
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}
