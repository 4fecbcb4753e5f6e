//! Single-steps a child process and shows where each instruction was; Linux on x86-64.
//!
//! The child calls [`ready`] when it is to be watched, and [`mark`] where one part of its work ends
//! and the next begins. Both processes run the same program, which is how the mark is recognized.

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::hint::black_box;
use std::io::Read;
use std::process::{Child, Command, Stdio};

/// The mark behind which nothing is counted any more.
pub const END: usize = usize::MAX;

/// Begins part `part` of the work.
#[inline(never)]
pub extern "C" fn mark(part: usize) {
    black_box(part);
}

/// Asks the parent to watch this process.
///
/// # Errors
/// The system does not permit it.
pub fn ready() -> Result<(), String> {
    ptrace::traceme().map_err(|e| format!("cannot be traced: {e}"))?;
    raise(Signal::SIGSTOP).map_err(|e| format!("cannot stop: {e}"))
}

/// A file that is mapped into a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The path of the file.
    pub path: String,
    /// Where its first byte is.
    pub base: u64,
    /// One past its last byte.
    pub end: u64,
}

/// The files that are mapped into process `pid`, from its `/proc/PID/maps`.
///
/// # Errors
/// The file cannot be read.
pub fn modules(pid: u32) -> Result<Vec<Module>, String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
    Ok(parse_maps(&maps.map_err(|e| e.to_string())?))
}

fn parse_maps(maps: &str) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(path)) = (words.next(), words.nth(4)) else {
            continue;
        };
        let hex = |s| u64::from_str_radix(s, 16).ok();
        let Some((Some(base), Some(end))) = range.split_once('-').map(|(a, b)| (hex(a), hex(b)))
        else {
            continue;
        };
        match modules.last_mut() {
            Some(last) if last.path == path => last.end = end,
            _ => modules.push(Module {
                path: path.into(),
                base,
                end,
            }),
        }
    }
    modules
}

/// One instruction that the child executed.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Which part of the work it belongs to.
    pub part: usize,
    /// Where it is, in the child's memory.
    pub address: u64,
}

/// Runs `command`, which is to be this program again, and shows every instruction between its marks
/// to what `watch` makes of the files that are mapped into it. Returns what the child wrote to its
/// standard output.
///
/// # Errors
/// The child cannot be started, traced, or ends too early.
pub fn steps<W: FnMut(Step)>(
    command: &mut Command,
    watch: impl FnOnce(&[Module]) -> Result<W, String>,
) -> Result<String, String> {
    stay()?;
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start the child: {e}"))?;
    let result = run(&child, watch);
    if result.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
    }
    let output = output(&mut child);
    result?;
    output
}

/// Binds this process and its children to the core it is on: handing over between two costs several
/// times as much.
fn stay() -> Result<(), String> {
    let mut cores = CpuSet::new();
    let core = sched_getcpu().map_err(|e| e.to_string())?;
    cores.set(core).map_err(|e| e.to_string())?;
    sched_setaffinity(Pid::from_raw(0), &cores).map_err(|e| e.to_string())
}

fn output(child: &mut Child) -> Result<String, String> {
    let mut text = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout
            .read_to_string(&mut text)
            .map_err(|e| e.to_string())?;
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    match status.success() {
        true => Ok(text),
        false => Err(format!("the child ended with {status}")),
    }
}

fn run<W: FnMut(Step)>(
    child: &Child,
    watch: impl FnOnce(&[Module]) -> Result<W, String>,
) -> Result<(), String> {
    let pid = Pid::from_raw(child.id() as i32);
    while let Some(other) = stopped(pid, Signal::SIGSTOP)? {
        ptrace::cont(pid, other).map_err(|e| format!("cannot go on: {e}"))?;
    }
    ptrace::setoptions(pid, ptrace::Options::PTRACE_O_EXITKILL).map_err(|e| e.to_string())?;
    let theirs = modules(child.id())?;
    let ours = modules(std::process::id())?;
    let (Some(ours), Some(base)) = (ours.first(), theirs.first()) else {
        return Err("no program is mapped".into());
    };
    let mark_at = mark as *const () as u64 - ours.base + base.base;
    let mut watch = watch(&theirs)?;
    let (mut part, mut signal) = (None, None);
    loop {
        ptrace::step(pid, signal).map_err(|e| format!("cannot step: {e}"))?;
        signal = stopped(pid, Signal::SIGTRAP)?;
        if signal.is_some() {
            continue; // nothing was executed
        }
        let registers = ptrace::getregs(pid).map_err(|e| e.to_string())?;
        if registers.rip == mark_at {
            part = Some(registers.rdi as usize);
            if part == Some(END) {
                return ptrace::detach(pid, None).map_err(|e| e.to_string());
            }
        }
        if let Some(part) = part {
            let address = registers.rip;
            watch(Step { part, address });
        }
    }
}

/// Waits until the child stops. Any other signal than `by` comes from outside, and is to be passed
/// on: a shell's job control sends some.
fn stopped(pid: Pid, by: Signal) -> Result<Option<Signal>, String> {
    match waitpid(pid, None).map_err(|e| e.to_string())? {
        WaitStatus::Stopped(_, signal) => Ok((signal != by).then_some(signal)),
        other => Err(format!("the child did not stop: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_joined_by_file() {
        let maps = "\
55d0a000-55d0b000 r--p 00000000 08:01 12 /bin/steps
55d0b000-55d0f000 r-xp 00001000 08:01 12 /bin/steps
55d10000-55d31000 rw-p 00000000 00:00 0 [heap]
7f000000-7f002000 r--p 00000000 08:01 13 /lib/libc.so.6
7f002000-7f005000 rw-p 00000000 00:00 0
";
        let module = |path: &str, base, end| Module {
            path: path.into(),
            base,
            end,
        };
        assert_eq!(
            parse_maps(maps),
            [
                module("/bin/steps", 0x55d0_a000, 0x55d0_f000),
                module("[heap]", 0x55d1_0000, 0x55d3_1000),
                module("/lib/libc.so.6", 0x7f00_0000, 0x7f00_2000),
            ]
        );
    }
}
