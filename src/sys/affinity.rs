//! Which cores this process may use, and pinning the current thread to one of them.
//!
//! A container's CPU set counts: [`cores`] lists what the scheduler would really give. The answer
//! is that of the first call, since a thread inherits its parent's pinning and would otherwise see
//! one core only.

use std::sync::OnceLock;

/// A core that this process may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Core(pub usize);

/// The thread could not be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot pin a thread to core {}: it is not in this process's CPU set", core.0)]
pub struct PinError {
    /// The core that was asked for.
    pub core: Core,
}

/// The cores that this process may use, in ascending order; at least one.
pub fn cores() -> &'static [Core] {
    static CORES: OnceLock<Vec<Core>> = OnceLock::new();
    CORES.get_or_init(|| {
        let mut cores = allowed();
        if cores.is_empty() {
            cores.push(Core(0));
        }
        cores
    })
}

/// The cores in the calling thread's mask.
fn allowed() -> Vec<Core> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    let mut cores: Vec<Core> = ids.into_iter().map(|c| Core(c.id)).collect();
    cores.sort_unstable();
    cores
}

/// Pins the calling thread to `core`.
pub fn pin_to(core: Core) -> Result<(), PinError> {
    // The set is asked first: the system call would take a core that is merely not online as
    // "outside of the mask" on one kernel and as an invalid argument on another.
    let listed = cores().contains(&core);
    if listed && core_affinity::set_for_current(core_affinity::CoreId { id: core.0 }) {
        Ok(())
    } else {
        Err(PinError { core })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_pins_to_a_listed_core_and_to_no_other() {
        let last = *cores().last().unwrap();
        std::thread::spawn(move || {
            assert_eq!(pin_to(last), Ok(()));
            assert_eq!(allowed(), [last]);
            // A thread started from a pinned one still finds the others.
            let all = std::thread::spawn(|| cores().len()).join().unwrap();
            assert_eq!(all, cores().len());
            for &core in cores() {
                assert_eq!(pin_to(core), Ok(()));
            }
        })
        .join()
        .unwrap();
        let absent = Core(100_000);
        assert_eq!(pin_to(absent), Err(PinError { core: absent }));
    }
}
