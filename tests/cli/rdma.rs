//! `corelane rdma`: every measurement as JSON, and a server and its client as two processes; in
//! user space, or over a device of the kernel's in the guest that `tools/rdma-vm` starts.

use super::{corelane, failure, report, run};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};

fn workloads(line: &str) -> Vec<Value> {
    let report = report(line);
    let all = report["end"]["workloads"].as_array();
    all.expect("a list").clone()
}

/// Whose queue pairs, and the flags for them. Two that poll would starve the guest's driver.
fn provider() -> (&'static str, &'static str) {
    match std::env::var_os("CORELANE_LANES") {
        None => ("roce", "--rdma-provider roce"),
        Some(_) => ("verbs", "--rdma-provider verbs -d rxe0 -e --patience 2m"),
    }
}

#[test]
fn every_measurement_runs_and_says_what_it_found() {
    let (carrier, flags) = provider();
    for (measure, answered) in [("send", 1), ("write", 50), ("read", 50), ("latency", 50)] {
        let all = workloads(&format!("rdma bench {measure} -n 50 -O 0 -J {flags}"));
        let [w] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!(
            (&w["name"], &w["carrier"]),
            (&measure.into(), &carrier.into())
        );
        assert_eq!(w["operations"], 50);
        let size = if measure == "latency" {
            64
        } else {
            w["bytes"].as_u64().unwrap_or(0) / 50
        };
        assert_eq!(w["bytes"], 50 * size);
        // Messages that stay are not answered but for the last.
        assert_eq!(w["latency_ns"]["count"], answered, "{measure}");
    }
    let [w] = &workloads("rdma bench write -D 50ms -O 0 -s 4K -J --no-rdma")[..] else {
        panic!("one");
    };
    assert_eq!(w["carrier"], "quic");
    assert!(w["duration_seconds"].as_f64() >= Some(0.05) && w["operations"].as_u64() > Some(0));
}

#[test]
fn clients_are_measured_in_stages() {
    let (carrier, flags) = provider();
    let all = workloads(&format!(
        "rdma bench clients -n 4 -D 20ms -O 0 -s 16K -J {flags}"
    ));
    let clients: Vec<_> = all.iter().map(|w| w["clients"].as_u64()).collect();
    assert_eq!(clients, [Some(1), Some(2), Some(4)]);
    assert!(all.iter().all(|w| w["bytes"].as_u64() > Some(0)));
    assert!(all.iter().all(|w| w["carrier"] == carrier));
}

#[test]
fn setup_is_measured_in_stages() {
    let (carrier, flags) = provider();
    let all = workloads(&format!("rdma bench setup -n 25 -J {flags}"));
    let stages: Vec<_> = all.iter().map(|w| w["clients"].as_u64()).collect();
    assert_eq!(stages, [Some(10), Some(20), Some(25)]);
    let opened: u64 = all.iter().filter_map(|w| w["operations"].as_u64()).sum();
    assert_eq!(opened, 25);
    assert!(all.iter().all(|w| w["carrier"] == carrier));
    // Eight messages of 4 KiB and a region of 4 KiB at either end, all of it resident; a device
    // that cannot share receives has them beside that.
    const LEAST: u64 = 2 * 9 * 4096;
    let of = |key: &str| -> Vec<_> { all.iter().filter_map(|w| w[key].as_u64()).collect() };
    let resident = of("memory_bytes_per_client");
    let registered = of("registered_bytes_per_client");
    for bytes in [&resident, &registered] {
        assert!(
            bytes.len() == 3 && bytes.iter().all(|n| *n >= LEAST),
            "{all:?}"
        );
    }
    assert!(
        carrier != "roce" || registered == [LEAST; 3],
        "{registered:?}"
    );
}

fn kill(child: &Child, signal: &str) {
    let id = child.id().to_string();
    let done = Command::new("kill").args([signal, &id]).status();
    assert!(done.expect("kill starts").success());
}

#[test]
fn a_measurement_ends_at_a_signal_with_what_it_has() {
    let mut bench = corelane("rdma bench write -D 1h -O 0 -J")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // Until its threads are there; a signal before that ends it as well, with nothing to show.
    let tasks = format!("/proc/{}/task", bench.id());
    while std::fs::read_dir(&tasks).map_or(0, Iterator::count) < 3 {
        assert_eq!(bench.try_wait().expect("waited"), None);
        std::thread::yield_now();
    }
    kill(&bench, "-TERM");
    assert_eq!(bench.wait().expect("ended").code(), Some(130));
}

#[test]
fn who_asks_for_a_device_gets_it_or_hears_why_not() {
    let line = "rdma bench write -n 1 --rdma-device none0";
    let sentence = failure(line, 1);
    assert!(sentence.contains("no verbs: "), "{sentence}");
    let report = report(&format!("rdma bench write -n 1 -O 0 -J {}", provider().1));
    let (device, ip) = match provider().0 {
        "verbs" => ("rxe0".into(), "10.99.0.1"),
        _ if UdpSocket::bind("[::1]:0").is_ok() => (Value::Null, "::1"),
        _ => (Value::Null, "127.0.0.1"),
    };
    let config = &report["config"];
    assert_eq!((&config["device"], &config["ip"]), (&device, &ip.into()));
}

#[test]
fn wrong_flags_are_usage_errors() {
    failure("rdma bench write -t 65", 2);
    // Before anything is sent to anybody.
    let line = failure("rdma client 127.0.0.1:9 --insecure send hello", 2);
    assert!(line.contains("\"send hello\""), "{line}");
    failure("rdma bench send -s 70000", 2);
    failure("rdma bench write --mtu 1500", 2);
    failure("rdma bench write --spin --events", 2);
}

/// The flag of a provider that a server and its clients choose alike.
fn provider_flags() -> &'static str {
    match provider().0 {
        // Emulation on a busy machine takes its time.
        "verbs" => "--rdma-provider verbs --patience 2m",
        _ => "--rdma-provider roce",
    }
}

/// A server that was started with these flags, its address and its fingerprint.
fn serve(flags: &str) -> (Child, String, String) {
    let own = match provider().0 {
        "verbs" => "--listen 10.99.0.1:0",
        _ => "--listen 127.0.0.1:0 --roce-port 0",
    };
    let line = format!("rdma server {own} {} {flags}", provider_flags());
    let mut server = corelane(&line)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let mut after = |what: &str| {
        let line = lines.next().expect("a line").expect("text");
        line.strip_prefix(what).expect(what).to_owned()
    };
    let listening = after("listening on ");
    let addr = listening.split(": ").next().expect("an address").to_owned();
    let pin = after("certificate SHA-256 ");
    (server, addr, pin)
}

#[test]
fn a_server_that_asks_for_certificates_takes_those_who_show_one() {
    let folder = std::env::temp_dir();
    let [cert, key] = ["cert", "key"].map(|kind| {
        let name = format!("corelane-rdma-{}-{kind}.pem", std::process::id());
        folder.join(name)
    });
    let made = rcgen::generate_simple_self_signed(["a client".to_owned()]).expect("made");
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let [shown, secret] = [&cert, &key].map(|path| path.display().to_string());
    let (mut server, addr, pin) = serve(&format!("--client-ca {shown}"));
    let client = |flags: &str| {
        corelane(&format!("rdma client {addr} --pin {pin} {flags}"))
            .arg("send hello")
            .output()
            .expect("the program starts")
    };
    let without = client("");
    let errors = String::from_utf8_lossy(&without.stderr).into_owned();
    assert_eq!(without.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("show one with --cert and --key"),
        "{errors}"
    );
    let with = client(&format!("--cert {shown} --key {secret}"));
    let said = String::from_utf8_lossy(&with.stdout).into_owned();
    assert!(with.status.success() && said.contains("hello"), "{said}");
    server.kill().expect("killed");
    server.wait().expect("ended");
    for path in [cert, key] {
        std::fs::remove_file(path).expect("removed");
    }
}

#[test]
fn two_processes_exchange_messages_writes_reads_and_atomics() {
    let flags = provider_flags();
    let (mut server, addr, pin) = serve("");
    let client = corelane(&format!("rdma client {addr} --pin {pin} {flags}"))
        .args([
            "send hello",
            "write 16 there",
            "read 16 5",
            "atomic add 64 3",
            "atomic add 64 3",
        ])
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&client.stdout).into_owned();
    assert_eq!(client.status.code(), Some(0), "{said} {:?}", client.stderr);
    // Nothing that the device answers to the lane's own end is worth a line; which it is, is.
    let errors = String::from_utf8_lossy(&client.stderr).into_owned();
    let says = if provider().0 == "verbs" {
        "RDMA by the device rxe0\n"
    } else {
        ""
    };
    assert_eq!(errors, says);
    let reading = |commands: &str, flags: &str| {
        corelane(&format!("rdma client {addr} --pin {pin} {flags}"))
            .args((!commands.is_empty()).then_some(commands))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    };
    let plain = reading("quit", "--no-rdma").wait_with_output();
    let plain = String::from_utf8(plain.expect("ended").stdout).expect("text");
    assert!(
        plain.contains("over QUIC (there is no RDMA at this end), region"),
        "{plain}"
    );
    let mut lines = reading("", flags);
    let input = lines.stdin.as_mut().expect("piped");
    input
        .write_all(b"nonsense\nread 65530 8\nsend on\n")
        .expect("it reads");
    let lines = lines.wait_with_output().expect("ended");
    let errors = String::from_utf8_lossy(&lines.stderr).into_owned();
    let expected = 2 + says.lines().count();
    assert_eq!(
        (lines.status.code(), errors.lines().count()),
        (Some(0), expected),
        "{errors}"
    );
    assert!(errors.contains("8 bytes at offset 65530") && lines.stdout.ends_with(b"\non\n"));
    let mut asked = reading("", flags);
    // Not at its end.
    let _input = asked.stdin.take();
    let heard = BufReader::new(asked.stdout.take().expect("piped")).lines();
    heard.take(2).for_each(|line| drop(line.expect("text")));
    kill(&asked, "-INT");
    assert_eq!(asked.wait().expect("ended").code(), Some(130));
    for part in ["over RDMA", "\nhello\n", "\nthere\n", "found 0\nfound 3\n"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    let status = run(&format!("rdma status {addr} --pin {pin}"));
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    // Of four clients, one went without RDMA; who asks for the status is none.
    assert_eq!(
        (&status["opened_rdma"], &status["device"]["queue_pairs"]),
        (&3.into(), &0.into())
    );
    server.kill().expect("killed");
    server.wait().expect("ended");
}
