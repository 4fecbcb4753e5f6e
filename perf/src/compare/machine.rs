//! What the runs ran on, as far as `/proc` and `/sys` tell. Numbers of one machine say nothing
//! about those of another.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

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

/// The commit that was measured, if the working directory is in a checkout; `+` when it differs.
pub fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_string())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(commit + if changes.is_empty() { "" } else { "+" })
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_the_first_processors() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\n\nmodel name\t: other\n";
        assert_eq!(cpu_model(cpuinfo), Some("A CPU @ 3 GHz"));
        assert_eq!(cpu_model(""), None);
    }
}
