//! What the program shows of itself, and how it ends when it is told to.

use super::{Server, corelane, failure, report, run};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("seeing-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a writable directory");
    dir
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status();
    assert!(status.expect("kill is there").success());
}

/// Reads one line of a child's standard error.
fn line_of(child: &mut Child) -> String {
    let stderr = child.stderr.as_mut().expect("piped");
    let mut line = String::new();
    BufReader::with_capacity(1, stderr)
        .read_line(&mut line)
        .expect("text");
    line
}

fn scrape(url: &str) -> String {
    let addr = url.strip_prefix("http://").expect("a URL");
    let addr = addr.strip_suffix("/metrics").expect("the path");
    let mut stream = TcpStream::connect(addr).expect("it listens");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    body.to_owned()
}

/// The sum of a metric over the shards of an engine.
fn metric(text: &str, name: &str, engine: &str) -> u64 {
    let start = format!("{name}{{engine=\"{engine}\"");
    let lines = text.lines().filter(|l| l.starts_with(&start));
    lines
        .map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn events(dir: &Path, role: &str, name: &str) -> u64 {
    let suffix = format!("_{role}.sqlog");
    let mut count = 0;
    for file in std::fs::read_dir(dir).expect("the directory") {
        let path = file.unwrap().path();
        if !path.to_string_lossy().ends_with(&suffix) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        for record in text.split('\u{1e}').skip(1) {
            let record: Value = serde_json::from_str(record).expect("JSON");
            count += u64::from(record["name"] == name);
        }
    }
    count
}

#[test]
fn a_server_shows_what_it_does_and_ends_when_told() {
    let dir = dir("server");
    let keys = dir.join("keys");
    let line = format!(
        "server --listen 127.0.0.1:0 --shards 2 --idle park --metrics 127.0.0.1:0 --qlog {} --keylog {}",
        dir.display(),
        keys.display()
    );
    let mut child = corelane(&line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let told = line_of(&mut child);
    let url = told.strip_prefix("metrics at ").expect("where").trim();
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let listening = lines.next().expect("a line").expect("text");
    let addr = listening.strip_prefix("listening on ").expect("where");
    let addr = addr.split(": ").next().expect("the address");

    let report = report(&format!("client {addr} rr -t 0.3 -O 0 -J --insecure"));
    assert!(report["end"]["workloads"][0]["operations"].as_u64() > Some(0));
    // What the last turn counted is shown within a moment; nothing else changes any more.
    let mut text = scrape(url);
    while metric(&text, "corelane_connections_open", "server") > 0 {
        std::thread::sleep(Duration::from_millis(5));
        text = scrape(url);
    }
    assert_eq!(
        metric(&text, "corelane_endpoint_accepted_total", "server"),
        1
    );
    let rtts = "corelane_connection_rtt_seconds_count";
    assert_eq!(metric(&text, rtts, "server"), 1);

    signal(&child, "TERM");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let counted = |name: &str| {
        metric(
            &text,
            &format!("corelane_connection_{name}_total"),
            "server",
        )
    };
    for name in ["packet_sent", "packet_received"] {
        let events = events(&dir, "server", &format!("transport:{name}"));
        assert!(events > 10, "{name}");
        let name = name.replacen("packet", "packets", 1);
        assert_eq!(events, counted(&name), "{name}");
    }
    let secrets = std::fs::read_to_string(&keys).expect("secrets");
    for label in [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET ",
        "SERVER_TRAFFIC_SECRET_0 ",
    ] {
        assert!(secrets.contains(label), "{secrets}");
    }
}

#[test]
fn a_client_hears_that_its_server_ends() {
    let mut server = Server::start("--idle park");
    let line = format!("client {} rr -t 60 -O 0 -i 0.05 --insecure", server.addr);
    let mut client = corelane(&format!("{line} --metrics 127.0.0.1:0"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let told = line_of(&mut client);
    let url = told.strip_prefix("metrics at ").expect("where").trim();
    let sent = "corelane_connection_packets_sent_total";
    while metric(&scrape(url), sent, "client") < 10 {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&server.child, "INT");
    assert_eq!(server.child.wait().expect("it ends").code(), Some(0));
    // Long before its minute and its idle timeout are over.
    let output = client.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(errors.contains("the server ends"), "{errors}");
}

#[test]
fn an_interrupted_measurement_shows_what_it_has() {
    let dir = dir("interrupted");
    let line = "bench rr -t 60 -O 0 -i 0.05 -J --idle park --metrics 127.0.0.1:0";
    let mut child = corelane(line)
        .env("QLOGDIR", &dir)
        .env("SSLKEYLOGFILE", dir.join("keys"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let told = line_of(&mut child);
    let url = told.strip_prefix("metrics at ").expect("where").trim();
    let received = "corelane_connection_packets_received_total";
    while metric(&scrape(url), received, "server") < 100 {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "INT");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(errors.contains("stopped by a signal"), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one document");
    let workload = &report["end"]["workloads"][0];
    assert!(workload["operations"].as_u64() > Some(0));
    assert!(workload["duration_seconds"].as_f64() < Some(60.0));
    assert!(report["end"]["error"].as_str().unwrap().contains("signal"));
    for role in ["client", "server"] {
        assert_eq!(events(&dir, role, "connectivity:connection_closed"), 1);
    }
    assert!(dir.join("keys").exists());
}

#[test]
fn nothing_is_written_that_was_not_asked_for() {
    let dir = dir("off");
    let output = corelane("bench rr -t 0.1 -O 0 --idle park")
        .current_dir(&dir)
        .env_remove("QLOGDIR")
        .env_remove("SSLKEYLOGFILE")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(std::fs::read_dir(&dir).expect("the directory").count(), 0);
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(
        table.contains("\nfailed: ") && table.contains("\nlost: "),
        "{table}"
    );
}

#[test]
fn a_port_that_is_taken_is_said_to_be() {
    let server = Server::start("--idle park --shards 1");
    let errors = failure(&format!("server --listen {} --shards 1", server.addr), 1);
    assert!(
        errors.contains("in use") && errors.contains("--listen"),
        "{errors}"
    );
    let file = dir("taken").join("file");
    std::fs::write(&file, "").expect("a file");
    let output = run(&format!("bench rr -t 1 --qlog {}/x", file.display()));
    assert_eq!(output.status.code(), Some(1));
}
