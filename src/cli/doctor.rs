//! `corelane doctor`: what this machine offers, what falls back to what, and what to do about it.
//!
//! Findings come from trying, not from version numbers. Every line stands alone; none of them is a
//! failure, so the command always ends well.

use super::report::machine::Machine;
use super::report::units;
use super::{Failure, output};
use corelane::base::{Rng, limits};
use corelane::io::SocketOptions;
use corelane::io::probe::{self, Report};
use corelane::io::sockopt::Applied;
use corelane::io::uring::TaskRun;
use corelane::rdma::verbs;
use corelane::shard::lanes::RoceSetup;
use corelane::shard::steer::CidCodec;
use corelane::sys::{affinity, reuseport};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// How well a finding suits the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// As good as it gets.
    Ok,
    /// Something else is used instead.
    Fallback,
    /// It works, and could work better.
    Hint,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    what: &'static str,
    says: String,
}

impl Finding {
    fn new(verdict: Verdict, what: &'static str, says: impl Into<String>) -> Self {
        Self {
            verdict,
            what,
            says: says.into(),
        }
    }

    fn line(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Fallback => "fallback",
            Verdict::Hint => "hint",
        };
        format!("{verdict:<8}  {:<16}  {}\n", self.what, self.says)
    }
}

/// Examines this machine and prints what it finds.
pub fn run() -> Result<(), Failure> {
    let machine = Machine::read();
    let mut findings = vec![kernel(&machine), cores(&machine)];
    findings.extend(io(&probe::probe()));
    findings.push(steering(try_steering()));
    findings.extend([
        governor(machine.governor.as_deref()),
        memlock(machine.memlock_bytes),
        buffer("rmem_max", machine.rmem_max_bytes),
        buffer("wmem_max", machine.wmem_max_bytes),
    ]);
    findings.extend([verbs_found(verbs::devices()), roce_port()]);
    findings.extend(interfaces().iter().map(|(name, mtu)| interface(name, *mtu)));
    output::print(&findings.iter().map(Finding::line).collect::<String>())
}

fn kernel(machine: &Machine) -> Finding {
    let release = machine.kernel.as_deref().unwrap_or("unknown");
    let cpu = machine.cpu_model.as_deref().unwrap_or("unknown processor");
    let guest = if machine.hypervisor == Some(true) {
        ", virtual machine"
    } else {
        ""
    };
    Finding::new(
        Verdict::Ok,
        "machine",
        format!("Linux {release}, {cpu}{guest}"),
    )
}

fn cores(machine: &Machine) -> Finding {
    let list = affinity::cores();
    let numbers: Vec<String> = list.iter().map(|c| c.0.to_string()).collect();
    let online = machine.cores.unwrap_or(list.len());
    let says = format!(
        "{} of {online} for this process: {}",
        list.len(),
        numbers.join(",")
    );
    if list.len() < 2 {
        let says = says + "; client and server of `bench` share it and slow each other down";
        return Finding::new(Verdict::Hint, "cores", says);
    }
    Finding::new(Verdict::Ok, "cores", says)
}

fn io(report: &Report) -> Vec<Finding> {
    use Verdict::{Fallback, Ok as Good};
    let uring = match &report.uring {
        Ok(TaskRun::Deferred) => Finding::new(
            Good,
            "io_uring",
            "completions when asked for (DEFER_TASKRUN)",
        ),
        Ok(TaskRun::Cooperative) => {
            let says =
                "completions with the next system call (COOP_TASKRUN); Linux 6.1 defers them";
            Finding::new(Fallback, "io_uring", says)
        }
        Ok(TaskRun::Interrupting) => {
            let says = "completions interrupt the shard; Linux 6.1 defers them";
            Finding::new(Fallback, "io_uring", says)
        }
        Err(e) => {
            let says = format!(
                "falls back to epoll with recvmmsg and sendmmsg: {e}; see the sysctl \
                 kernel.io_uring_disabled and the container's seccomp profile"
            );
            Finding::new(Fallback, "io_uring", says)
        }
    };
    let mut findings = vec![uring];
    match &report.ipv4 {
        Ok(applied) => findings.extend(offloads(applied)),
        Err(e) => findings.push(Finding::new(Fallback, "IPv4", format!("no sockets: {e}"))),
    }
    findings.push(match &report.ipv6 {
        Ok(_) => Finding::new(Good, "IPv6", "available"),
        Err(e) => Finding::new(Fallback, "IPv6", format!("IPv4 only: {e}")),
    });
    findings
}

fn offloads(applied: &Applied) -> Vec<Finding> {
    let either = |on, what, good, bad| match on {
        true => Finding::new(Verdict::Ok, what, good),
        false => Finding::new(Verdict::Fallback, what, bad),
    };
    let wanted = SocketOptions::default().recv_buffer;
    // The kernel accounts twice what is asked for.
    let granted = applied.recv_buffer.min(applied.send_buffer) / 2;
    let buffers = units::bytes(granted as u64);
    let sockets = if granted >= wanted {
        Finding::new(Verdict::Ok, "socket buffers", format!("{buffers} granted"))
    } else {
        let says = format!(
            "{buffers} granted of {}; raise net.core.rmem_max and wmem_max, or run with \
             CAP_NET_ADMIN",
            units::bytes(wanted as u64)
        );
        Finding::new(Verdict::Hint, "socket buffers", says)
    };
    vec![
        either(
            applied.gso,
            "GSO",
            "trains leave in one call",
            "datagrams leave one by one",
        ),
        either(
            applied.gro,
            "GRO",
            "trains arrive in one call",
            "datagrams arrive one by one",
        ),
        sockets,
    ]
}

/// Attaches the steering program of two shards to two sockets.
fn try_steering() -> Result<(), String> {
    let codec = CidCodec::new(
        Rng::from_u64(1).next_u64(),
        limits::DEFAULT_CID_LEN,
        0,
        2,
        None,
    )
    .map_err(|e| e.to_string())?;
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sockets = reuseport::bind_group(here, 2).map_err(|e| e.to_string())?;
    let socket = sockets.first().ok_or("no socket")?;
    reuseport::attach(socket, &codec.program()).map_err(|e| e.to_string())
}

fn steering(tried: Result<(), String>) -> Finding {
    match tried {
        Ok(()) => Finding::new(Verdict::Ok, "steering", "by connection ID, in the kernel"),
        Err(e) => {
            let says = format!("by address; shards hand over what is another's ({e})");
            Finding::new(Verdict::Fallback, "steering", says)
        }
    }
}

fn governor(governor: Option<&str>) -> Finding {
    match governor {
        Some("performance") => Finding::new(Verdict::Ok, "governor", "performance"),
        Some(other) => {
            let says = format!(
                "{other}: clock changes blur latencies; `cpupower frequency-set -g performance`"
            );
            Finding::new(Verdict::Hint, "governor", says)
        }
        None => Finding::new(Verdict::Ok, "governor", "none that this system shows"),
    }
}

/// Memory that io_uring locked before Linux 5.12, and registered buffers lock still.
const MEMLOCK: u64 = 8 << 20;

fn memlock(limit: Option<u64>) -> Finding {
    match limit {
        None => Finding::new(Verdict::Ok, "memlock", "unlimited"),
        Some(n) if n >= MEMLOCK => Finding::new(Verdict::Ok, "memlock", units::bytes(n)),
        Some(n) => {
            let (has, wants) = (units::bytes(n), units::bytes(MEMLOCK));
            let says = format!("{has}: rings may not fit; `ulimit -l` {wants} or more");
            Finding::new(Verdict::Hint, "memlock", says)
        }
    }
}

fn buffer(what: &'static str, max: Option<u64>) -> Finding {
    let wanted = SocketOptions::default().recv_buffer as u64;
    match max {
        None => Finding::new(Verdict::Ok, what, "not shown here"),
        Some(n) if n >= wanted => Finding::new(Verdict::Ok, what, units::bytes(n)),
        Some(n) => {
            let says = format!("{}; `sysctl net.core.{what}={wanted}`", units::bytes(n));
            Finding::new(Verdict::Hint, what, says)
        }
    }
}

/// RDMA by the kernel's devices.
fn verbs_found(devices: Result<Vec<String>, verbs::Unavailable>) -> Finding {
    match devices {
        Ok(names) => Finding::new(Verdict::Ok, "RDMA devices", names.join(", ")),
        Err(e) => {
            let says = format!("lanes use RoCE v2 in user space: {e}");
            Finding::new(Verdict::Fallback, "RDMA devices", says)
        }
    }
}

/// Whether RoCE in user space gets the port at which devices send to it.
fn roce_port() -> Finding {
    let port = RoceSetup::PORT;
    match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Finding::new(Verdict::Ok, "RoCE port", format!("UDP {port} is free")),
        Err(e) => {
            let says = format!(
                "UDP {port} cannot be bound ({e}): RDMA devices do not reach RoCE in user space \
                 at other ports; ss -lunp shows who has it"
            );
            Finding::new(Verdict::Hint, "RoCE port", says)
        }
    }
}

/// Network interfaces and their MTUs.
fn interfaces() -> Vec<(String, u64)> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else {
        return Vec::new();
    };
    let mut found: Vec<(String, u64)> = entries
        .flatten()
        .filter_map(|e| {
            let mtu = fs::read_to_string(e.path().join("mtu")).ok()?;
            Some((
                e.file_name().to_string_lossy().into_owned(),
                mtu.trim().parse().ok()?,
            ))
        })
        .collect();
    found.sort();
    found
}

fn interface(name: &str, mtu: u64) -> Finding {
    let says = format!("{name}: {mtu} bytes");
    if name == "lo" || mtu >= 9000 {
        return Finding::new(Verdict::Ok, "MTU", says);
    }
    let says = says + "; jumbo frames (9000) cut the cost of a byte, where all links carry them";
    Finding::new(Verdict::Hint, "MTU", says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_says_what_to_do() {
        assert_eq!(governor(Some("performance")).verdict, Verdict::Ok);
        assert!(governor(Some("powersave")).says.contains("cpupower"));
        assert_eq!(memlock(None).verdict, Verdict::Ok);
        assert!(memlock(Some(65_536)).says.starts_with("64.0 KiB"));
        assert_eq!(buffer("rmem_max", Some(16 << 20)).verdict, Verdict::Ok);
        assert!(
            buffer("rmem_max", Some(212_992))
                .says
                .ends_with("net.core.rmem_max=8388608`")
        );
        assert_eq!(interface("lo", 65_536).verdict, Verdict::Ok);
        assert_eq!(interface("eth0", 1500).verdict, Verdict::Hint);
        assert_eq!(steering(Err("EINVAL".into())).verdict, Verdict::Fallback);
    }

    #[test]
    fn small_buffers_and_missing_offloads_show() {
        let applied = Applied {
            tos: 0,
            traffic_class: 0,
            recv_buffer: 425_984,
            send_buffer: 425_984,
            gro: false,
            gso: true,
        };
        let verdicts: Vec<Verdict> = offloads(&applied).iter().map(|f| f.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Fallback, Verdict::Hint]);
    }

    #[test]
    fn this_machine_can_be_examined() {
        let findings = io(&probe::probe());
        assert!(findings.iter().all(|f| !f.line().is_empty()) && findings.len() >= 3);
        assert!(interfaces().iter().any(|(name, _)| name == "lo"));
    }
}
