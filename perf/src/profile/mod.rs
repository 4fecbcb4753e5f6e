//! Where the time of `corelane bench` goes, by layer and side: samples of `perf record` on the
//! clock of the CPU, kernel included, put down to layers by the program's debug information.
//!
//! `samples` reads what perf prints, `cost` sums up and prints. The rule of attribution is that of
//! `tools/steps`, which counts instructions instead, where there is no perf.

pub mod cost;
pub mod samples;

use cost::{Cost, Profile, Side};
use object::{Object, ObjectSegment};
use samples::{Code, Record};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use corelane_steps::layer::{Layer, Place, Spot, alone, judge_symbol};
use corelane_steps::symbols::Symbols;
use rustix::process::Signal;
use serde_json::Value;

use crate::child::tie;

/// What is profiled.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program, with debug information.
    pub program: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
    /// Samples of each second.
    pub frequency: u32,
    /// Where perf leaves its samples.
    pub data: PathBuf,
}

/// Runs the program under `perf record` and sums up.
///
/// # Errors
/// perf is not there or not permitted, the program fails, or it says nothing of its CPU time.
pub fn run(settings: &Settings) -> Result<Profile, String> {
    check(settings.frequency, permitted())?;
    let mut record = Command::new("perf");
    record
        .args(["record", "-q", "-e", "cpu-clock", "-F"])
        .arg(settings.frequency.to_string())
        .arg("-o")
        .arg(&settings.data)
        .arg("--")
        .arg(&settings.program)
        .args(&settings.arguments);
    let report = output(&mut record)?;
    let mut script = Command::new("perf");
    script
        .args([
            "script",
            "--show-mmap-events",
            "-F",
            "comm,tid,time,ip,sym,dso",
            "-i",
        ])
        .arg(&settings.data);
    let script = output(&mut script)?;
    let window = window(&serde_json::from_str(&report).map_err(|e| e.to_string())?)?;
    let program = fs::canonicalize(&settings.program).map_err(|e| e.to_string())?;
    let costs = costs(&script, &program)?;
    Ok(Profile::new(window, costs))
}

/// What the command prints. perf and the program below it speak on standard error for themselves.
fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    // perf ends what it started when it is asked to end, and not when it is killed.
    let out = tie(command.stderr(Stdio::inherit()), Signal::TERM)
        .output()
        .map_err(|e| missing(&name, &e))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => Err(format!(
            "`{name}` ended with {}: it has said why above",
            out.status
        )),
    }
}

fn missing(name: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "`{name}` is not installed: it is in the package linux-perf (Debian) or linux-tools \
             (Ubuntu), perf elsewhere; without it, `cargo run --profile steps -p corelane-steps` \
             counts instructions by layer"
        ),
        _ => format!("cannot start `{name}`: {error}"),
    }
}

/// The rate at which the system permits samples, where it tells.
fn permitted() -> Option<u32> {
    let text = fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate").ok()?;
    text.trim().parse().ok()
}

fn check(frequency: u32, permitted: Option<u32>) -> Result<(), String> {
    match permitted.filter(|most| *most < frequency) {
        None => Ok(()),
        Some(most) => Err(format!(
            "{frequency} samples a second are more than the {most} that the system permits: take \
             `-F {most}`, or set kernel.perf_event_max_sample_rate"
        )),
    }
}

/// The nanoseconds of CPU that each side used in the window, and what to divide them by.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// `packet`, or what the workload counts.
    pub unit: &'static str,
    /// How many units.
    pub units: f64,
    /// CPU time of the client's thread.
    pub client_ns: f64,
    /// CPU time of the server's.
    pub server_ns: f64,
}

/// Reads the report of `corelane bench --json`, of its one workload.
fn window(report: &Value) -> Result<Window, String> {
    let workloads = report.pointer("/end/workloads").and_then(Value::as_array);
    let [workload] = workloads.map_or(&[][..], Vec::as_slice) else {
        return Err(
            "samples of several workloads cannot be told apart: name one behind `--`, as in \
             `-- rr`, and for datagrams a size (-l)"
                .into(),
        );
    };
    let number = |pointer: &str| workload.pointer(pointer).and_then(Value::as_f64);
    let need = |pointer: &str| number(pointer).ok_or(format!("the report lacks {pointer}"));
    let ns = need("/duration_seconds")? * 1e9;
    let operations = number("/operations").unwrap_or(0.0);
    let packets = need("/bytes")? / need("/udp_payload_bytes")?;
    let (unit, units) = match operations > 0.0 {
        true => ("operation", operations),
        false => ("packet", packets),
    };
    Ok(Window {
        unit,
        units,
        client_ns: need("/cpu_utilization_percent/client")? / 100.0 * ns,
        server_ns: need("/cpu_utilization_percent/server")? / 100.0 * ns,
    })
}

/// What every sample of the two sides' threads belongs to.
fn costs(script: &str, program: &Path) -> Result<Vec<Cost>, String> {
    let mut symbols = Symbols::of(program)?;
    let image = fs::read(program).map_err(|e| e.to_string())?;
    let segments = segments(&image)?;
    let path = program.to_string_lossy();
    let mut maps = Vec::new();
    let mut costs = Vec::new();
    for record in script.lines().filter_map(samples::parse) {
        match record {
            Record::Map(map) if map.path == path => maps.push(map),
            Record::Map(_) => {}
            Record::Sample(sample) => {
                let Some(side) = Side::of_thread(&sample.thread) else {
                    continue;
                };
                let place = match sample.code {
                    Code::Kernel => place_of(Layer::Kernel, sample.symbol),
                    Code::User => {
                        let map = maps.iter().find(|m| m.contains(sample.address));
                        let file = map.map(|m| m.offset(sample.address));
                        match file.and_then(|offset| address(&segments, offset)) {
                            Some(address) => settle(symbols.spot(address).as_ref().clone()),
                            None => settle(judge_symbol(&sample.symbol)),
                        }
                    }
                };
                costs.push(Cost { side, place });
            }
        }
    }
    match costs.is_empty() {
        true => Err("perf saw neither a client's nor a server's thread".into()),
        false => Ok(costs),
    }
}

/// Offset in the file, length, address.
type Segments = Vec<(u64, u64, u64)>;

fn segments(image: &[u8]) -> Result<Segments, String> {
    let file = object::File::parse(image).map_err(|e| e.to_string())?;
    let segments = file.segments().map(|segment| {
        let (offset, len) = segment.file_range();
        (offset, len, segment.address())
    });
    Ok(segments.collect())
}

fn address(segments: &Segments, offset: u64) -> Option<u64> {
    let mut segments = segments.iter();
    let inside = segments.find(|(start, len, _)| (*start..*start + *len).contains(&offset));
    inside.map(|(start, _, address)| offset - start + address)
}

fn place_of(layer: Layer, function: String) -> Place {
    let line = String::new();
    Place {
        layer,
        function,
        line,
    }
}

/// A sample does not tell who called: the block cipher, which masks of headers and nonces share,
/// counts to the payload, the rest of cryptography to TLS, and what stands alone of `core` to
/// nobody.
fn settle(spot: Spot) -> Place {
    match spot {
        Spot::Here(place) => place,
        Spot::Cipher(name) => place_of(alone(&name), name),
        Spot::Callers(name) => place_of(Layer::Other, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(operations: u64) -> Value {
        json!({"end": {"workloads": [{
            "duration_seconds": 2.0, "bytes": 1_452_000, "udp_payload_bytes": 1452,
            "operations": operations,
            "cpu_utilization_percent": {"client": 50.0, "server": 25.0}
        }]}})
    }

    #[test]
    fn cpu_time_is_that_of_the_window() {
        let window = window(&report(0)).expect("a window");
        assert_eq!((window.unit, window.units), ("packet", 1000.0));
        assert_eq!((window.client_ns, window.server_ns), (1e9, 5e8));
    }

    #[test]
    fn operations_divide_where_there_are_some() {
        let window = window(&report(7)).expect("a window");
        assert_eq!((window.unit, window.units), ("operation", 7.0));
    }

    #[test]
    fn samples_of_two_workloads_are_of_neither() {
        let mut report = report(0);
        let workloads = report.pointer_mut("/end/workloads").unwrap();
        let one = workloads[0].clone();
        workloads.as_array_mut().unwrap().push(one);
        assert!(window(&report).unwrap_err().contains("name one"));
        assert!(window(&json!({})).is_err());
    }

    #[test]
    fn a_report_without_cpu_time_is_an_error() {
        let mut report = report(0);
        report["end"]["workloads"][0]["cpu_utilization_percent"]["client"] = Value::Null;
        assert!(window(&report).is_err());
    }

    #[test]
    fn a_sample_of_cryptography_has_a_layer_without_its_caller() {
        let layer = |name: &str| settle(judge_symbol(name)).layer;
        assert_eq!(layer("aes_hw_ctr32_encrypt_blocks"), Layer::Aead);
        assert_eq!(layer("aead_aes_gcm_seal_scatter"), Layer::Aead);
        assert_eq!(layer("aws_lc_0_47_0_x25519_NEON"), Layer::Tls);
        assert_eq!(layer("jent_measure_jitter"), Layer::Tls);
        assert_eq!(layer("core::slice::sort"), Layer::Other);
    }

    #[test]
    fn what_is_missing_or_too_much_is_said_with_what_to_do() {
        let none = io::Error::from(io::ErrorKind::NotFound);
        let text = missing("perf", &none);
        for part in ["not installed", "linux-perf", "corelane-steps"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(
            (check(4000, Some(4000)), check(9999, None)),
            (Ok(()), Ok(()))
        );
        let text = check(4000, Some(1000)).unwrap_err();
        assert!(text.contains("`-F 1000`"), "{text}");
    }

    #[test]
    fn offsets_become_addresses_by_segment() {
        let segments = vec![(0, 0x1000, 0), (0x1000, 0x500, 0x2000)];
        assert_eq!(address(&segments, 0x1010), Some(0x2010));
        assert_eq!(address(&segments, 0x1500), None);
    }
}
