//! What a run ran on, as far as `/proc` and `/sys` tell; what they do not tell is null.
//!
//! A number without its machine cannot be compared, so every report carries this.

use std::fs;
use std::thread;

use serde::Serialize;

/// The machine's description; units are in the names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The first processor's model name.
    pub cpu_model: Option<String>,
    /// Logical processors online.
    pub cores: Option<usize>,
    /// Logical processors that this process may use (affinity and cgroup quota).
    pub cores_allowed: Option<usize>,
    /// Frequency governor of the first processor.
    pub governor: Option<String>,
    /// Whether the processor says that it runs under a hypervisor.
    pub hypervisor: Option<bool>,
    /// Physical memory.
    pub mem_bytes: Option<u64>,
    /// Memory that this process may lock; null where unlimited or unknown.
    pub memlock_bytes: Option<u64>,
    /// The largest socket receive buffer that `SO_RCVBUF` grants.
    pub rmem_max_bytes: Option<u64>,
    /// The largest socket send buffer that `SO_SNDBUF` grants.
    pub wmem_max_bytes: Option<u64>,
    /// The loopback interface's MTU.
    pub loopback_mtu_bytes: Option<u64>,
    /// The kernel's policy on io_uring: `enabled`, `privileged` or `disabled`. A container may
    /// still forbid it; which backend a run used stands with the run.
    pub io_uring: Option<&'static str>,
}

impl Machine {
    /// Describes this machine.
    pub fn read() -> Self {
        let mut machine = Self::from_files(&|path| fs::read_to_string(path).ok());
        machine.cores_allowed = thread::available_parallelism().ok().map(usize::from);
        machine
    }

    /// Describes the machine whose files `read` returns.
    pub fn from_files(read: &dyn Fn(&str) -> Option<String>) -> Self {
        let line = |path| {
            read(path)
                .map(|text| text.trim().to_string())
                .filter(|t| !t.is_empty())
        };
        let number = |path| line(path).and_then(|text| text.parse().ok());
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        let processors = cpuinfo
            .lines()
            .filter(|l| l.starts_with("processor"))
            .count();
        Self {
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu_model: field(&cpuinfo, "model name").or_else(|| field(&cpuinfo, "CPU part")),
            cores: (processors > 0).then_some(processors),
            cores_allowed: None,
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            hypervisor: field(&cpuinfo, "flags")
                .map(|flags| flags.split_whitespace().any(|f| f == "hypervisor")),
            mem_bytes: read("/proc/meminfo").and_then(|m| kib(&field(&m, "MemTotal")?)),
            memlock_bytes: read("/proc/self/limits").and_then(|l| memlock(&l)),
            rmem_max_bytes: number("/proc/sys/net/core/rmem_max"),
            wmem_max_bytes: number("/proc/sys/net/core/wmem_max"),
            loopback_mtu_bytes: number("/sys/class/net/lo/mtu"),
            io_uring: number("/proc/sys/kernel/io_uring_disabled").and_then(|n| match n {
                0 => Some("enabled"),
                1 => Some("privileged"),
                2 => Some("disabled"),
                _ => None,
            }),
        }
    }
}

/// The value of `name : value` in a file of such lines.
pub(super) fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_string())
    })
}

/// Bytes of a value such as `16384 kB`.
pub(super) fn kib(value: &str) -> Option<u64> {
    value
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// The soft limit of the line `Max locked memory  8388608  8388608  bytes`.
fn memlock(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max locked memory"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_files_say() {
        let read = |path: &str| {
            let text = match path {
                "/proc/sys/kernel/osrelease" => "6.8.0-test\n",
                "/proc/cpuinfo" => {
                    "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nflags\t\t: fpu hypervisor\n\n\
                     processor\t: 1\nmodel name\t: A CPU @ 3 GHz\n"
                }
                "/proc/meminfo" => "MemTotal:       16384 kB\nMemFree:  1 kB\n",
                "/proc/self/limits" => {
                    "Limit    Soft Limit  Hard Limit  Units\n\
                     Max locked memory         8388608   unlimited   bytes\n"
                }
                "/proc/sys/net/core/rmem_max" => "212992\n",
                "/proc/sys/kernel/io_uring_disabled" => "2\n",
                _ => return None,
            };
            Some(text.to_string())
        };
        let expected = Machine {
            kernel: Some("6.8.0-test".into()),
            cpu_model: Some("A CPU @ 3 GHz".into()),
            cores: Some(2),
            hypervisor: Some(true),
            mem_bytes: Some(16 << 20),
            memlock_bytes: Some(8 << 20),
            rmem_max_bytes: Some(212_992),
            io_uring: Some("disabled"),
            ..Machine::default()
        };
        assert_eq!(Machine::from_files(&read), expected);
    }

    #[test]
    fn what_is_missing_is_null() {
        let machine = Machine::from_files(&|_| None);
        assert_eq!(machine, Machine::default());
        let json = serde_json::to_string(&machine).unwrap();
        assert!(json.contains("\"governor\":null"), "{json}");
        assert_eq!(
            Machine::from_files(&|_| Some("nonsense".into())).mem_bytes,
            None
        );
    }

    #[test]
    fn this_machine_has_a_kernel_and_a_core() {
        let machine = Machine::read();
        assert!(machine.kernel.is_some() && machine.cores_allowed >= Some(1));
    }
}
