//! What was measured and what it ran on, as far as a build, `/proc` and `/sys` tell. Numbers of one
//! machine say nothing about those of another.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::child;

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// The machine's description; what it does not tell is null.
pub fn describe() -> Value {
    let line = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        Some(text.trim().to_string())
    };
    let number = |path: &str| line(path)?.parse::<u64>().ok();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    json!({
        "kernel": line("/proc/sys/kernel/osrelease"),
        "cpu_model": cpu_model(&cpuinfo),
        "cores": cpuinfo.lines().filter(|l| l.starts_with("processor")).count(),
        "hypervisor": cpuinfo.contains(" hypervisor"),
        "governor": line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "rmem_max_bytes": number("/proc/sys/net/core/rmem_max"),
        "wmem_max_bytes": number("/proc/sys/net/core/wmem_max"),
        "loopback_mtu_bytes": number("/sys/class/net/lo/mtu"),
    })
}

/// The commit that a build of corelane is of, as it says itself; `+` when the sources differed.
pub fn commit(corelane: &Path) -> Option<String> {
    let mut ask = Command::new(corelane);
    let version = child::output(ask.arg("--version"), PATIENCE).ok()?;
    Some(stamp(&version)?.into())
}

/// `corelane 0.1.0 (0123456789+)`
fn stamp(version: &str) -> Option<&str> {
    let (_, rest) = version.trim().rsplit_once(" (")?;
    let commit = rest.strip_suffix(')')?;
    let is_commit = |c: char| c.is_ascii_hexdigit() || c == '+';
    (!commit.is_empty() && commit.chars().all(is_commit)).then_some(commit)
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_says_its_commit_or_nothing() {
        assert_eq!(stamp("corelane 0.1.0 (be3fa48640+)\n"), Some("be3fa48640+"));
        assert_eq!(stamp("corelane 0.1.0 (be3fa48640)\n"), Some("be3fa48640"));
        for none in ["corelane 0.1.0\n", "", "x ()", "x (../be3)", "x (be3"] {
            assert_eq!(stamp(none), None, "{none}");
        }
        assert_eq!(commit(Path::new("./no-such-program")), None);
    }

    #[test]
    fn the_model_is_the_first_processors() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\n\nmodel name\t: other\n";
        assert_eq!(cpu_model(cpuinfo), Some("A CPU @ 3 GHz"));
        assert_eq!(cpu_model(""), None);
    }
}
