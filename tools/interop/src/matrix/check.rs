//! What must be seen on the link for a case to pass, beyond whole files.

use crate::trace::{Frame, Kind, Packet, Trace, VERSION_2};
use corelane_relay::{Direction, Fate, Log};
use std::collections::HashSet;
use std::time::Duration;

/// What the judgement of a run rests on.
pub struct Evidence<'a> {
    /// The relay's log.
    pub log: &'a Log,
    /// The same, decrypted.
    pub trace: Trace,
    /// Bytes of the requests.
    pub requests: u64,
}

/// A judgement: a remark, or what is wrong.
pub type Check = fn(&Evidence<'_>) -> Result<String, String>;

type Verdict = Result<String, String>;

const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
const PREFERRED_ADDRESS: u64 = 0x0d;
const INITIAL_MAX_PATH_ID: u64 = 0x3e;
/// What a link adds to the time at which the server has a datagram.
const DELAY: Duration = Duration::from_millis(15);

fn ok() -> Verdict {
    Ok(String::new())
}

fn must(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn handshakes(e: &Evidence<'_>, want: usize) -> Result<(), String> {
    let got = e.trace.handshakes();
    must(got == want, || {
        format!("{got} handshakes instead of {want}")
    })
}

fn has(e: &Evidence<'_>, kind: Kind) -> bool {
    e.trace.packets.iter().any(|p| p.kind == kind)
}

/// Some packet of a direction has such a frame.
fn any(e: &Evidence<'_>, direction: Direction, frame: impl Fn(&Frame) -> bool) -> bool {
    e.trace.of(direction).any(|p| p.frames.iter().any(&frame))
}

const BOTH: [(Direction, &str); 2] = [(Direction::Up, "client"), (Direction::Down, "server")];

pub(super) fn one_handshake(e: &Evidence<'_>) -> Verdict {
    handshakes(e, 1)?;
    ok()
}

pub(super) fn fifty_handshakes(e: &Evidence<'_>) -> Verdict {
    handshakes(e, 50)?;
    ok()
}

pub(super) fn handshake(e: &Evidence<'_>) -> Verdict {
    must(!has(e, Kind::Retry), || "a Retry was sent".into())?;
    one_handshake(e)
}

pub(super) fn transfer(e: &Evidence<'_>) -> Verdict {
    let grew = any(e, Direction::Up, |f| matches!(f, Frame::Credit(_)));
    must(grew, || "the client's windows never grew".into())?;
    one_handshake(e)
}

pub(super) fn long_rtt(e: &Evidence<'_>) -> Verdict {
    let begins = |p: &&Packet| {
        let begins = |f: &Frame| matches!(f, Frame::Crypto { offset: 0, .. });
        p.kind == Kind::Initial && p.frames.iter().any(begins)
    };
    let hellos = e.trace.of(Direction::Up).filter(begins).count();
    must(hellos >= 2, || format!("{hellos} ClientHello in all"))?;
    one_handshake(e)
}

pub(super) fn chacha20(e: &Evidence<'_>) -> Verdict {
    let hello = e.trace.handshakes.first().and_then(|h| h.client.as_ref());
    let suites = hello.map(|h| h.suites.clone()).unwrap_or_default();
    must(suites == [0x1303], || {
        format!("the client offered {suites:04x?}")
    })?;
    one_handshake(e)
}

fn parameter(e: &Evidence<'_>, number: u64) -> Option<Vec<u8>> {
    let all = &e.trace.handshakes.first()?.server_parameters;
    let found = all.iter().find(|(n, _)| *n == number);
    found.map(|(_, value)| value.clone())
}

pub(super) fn multiplexing(e: &Evidence<'_>) -> Verdict {
    let max = parameter(e, INITIAL_MAX_STREAMS_BIDI).ok_or("no initial_max_streams_bidi")?;
    let value = crate::trace::varint(&max).unwrap_or(u64::MAX);
    must(value <= 1000, || {
        format!("initial_max_streams_bidi is {value}")
    })?;
    one_handshake(e)
}

pub(super) fn retry(e: &Evidence<'_>) -> Verdict {
    let packets = &e.trace.packets;
    let at = packets.iter().position(|p| p.kind == Kind::Retry);
    let at = at.ok_or("no Retry was sent")?;
    let initial = |p: &&Packet| p.direction == Direction::Up && p.kind == Kind::Initial;
    let before = packets[..at]
        .iter()
        .filter(initial)
        .filter_map(|p| p.number);
    let after: Vec<_> = packets[at..].iter().filter(initial).collect();
    must(after.iter().any(|p| !p.token.is_empty()), || {
        "the token did not come back".into()
    })?;
    let next = after
        .iter()
        .filter(|p| !p.token.is_empty())
        .filter_map(|p| p.number)
        .min();
    let largest = before.max();
    must(next > largest, || {
        format!("packet numbers began anew after the Retry: {largest:?}, then {next:?}")
    })?;
    one_handshake(e)
}

pub(super) fn resumption(e: &Evidence<'_>) -> Verdict {
    handshakes(e, 2)?;
    let shown: Vec<_> = e.trace.handshakes.iter().map(|h| h.certificate).collect();
    must(shown == [true, false], || {
        format!("certificates were shown: {shown:?}")
    })?;
    ok()
}

pub(super) fn zero_rtt(e: &Evidence<'_>) -> Verdict {
    handshakes(e, 2)?;
    let bytes = |kind| -> u64 {
        let sent = e.trace.of(Direction::Up);
        let sent = sent.filter(|p| p.kind == kind && p.connection == 1);
        sent.map(Packet::stream_bytes).sum()
    };
    let (early, late) = (bytes(Kind::ZeroRtt), bytes(Kind::OneRtt));
    must(early > 0, || "no request in 0-RTT packets".into())?;
    must(late * 2 <= e.requests, || {
        format!(
            "{late} of {} bytes of requests came in 1-RTT packets",
            e.requests
        )
    })?;
    Ok(format!("{early} bytes early"))
}

pub(super) fn key_update(e: &Evidence<'_>) -> Verdict {
    for (direction, who) in BOTH {
        let moved = e.trace.of(direction).any(|p| p.generation % 2 == 1);
        must(moved, || format!("the {who} sent nothing with key phase 1"))?;
    }
    one_handshake(e)
}

pub(super) fn ecn(e: &Evidence<'_>) -> Verdict {
    for (direction, who) in BOTH {
        let marked = |ecn: u8| e.trace.of(direction).any(|p| p.ecn == ecn);
        must(marked(1) || marked(2), || {
            format!("the {who} marked nothing ECT")
        })?;
        must(!marked(3), || format!("the {who} marked packets CE"))?;
        let counts = |f: &Frame| matches!(f, Frame::Ack { ecn: Some(_), .. });
        let told = any(e, direction, counts);
        must(told, || format!("the {who} sent no ECN counts"))?;
    }
    one_handshake(e)
}

pub(super) fn version_2(e: &Evidence<'_>) -> Verdict {
    must(!has(e, Kind::VersionNegotiation), || {
        "Version Negotiation was sent".into()
    })?;
    let first = e.trace.of(Direction::Up).next();
    let first = first.map_or(0, |p| p.version);
    must(first == 1, || {
        format!("the client began with version {first:#x}")
    })?;
    for (direction, who) in BOTH {
        let of = e.trace.of(direction);
        let mut handshake = of.filter(|p| p.kind == Kind::Handshake);
        let moved = handshake.all(|p| p.version == VERSION_2);
        must(moved, || {
            format!("the {who}'s Handshake packets are not of version 2")
        })?;
    }
    must(has(e, Kind::Handshake), || "no Handshake packet".into())?;
    one_handshake(e)
}

/// Several paths are offered, and there is one: what would come of more is not on the link where one
/// side knows nothing of them (RFC 10069 §2).
pub(super) fn one_path(e: &Evidence<'_>) -> Verdict {
    let hello = e.trace.handshakes.first().and_then(|h| h.client.as_ref());
    let offers = |all: &[(u64, Vec<u8>)]| all.iter().any(|(n, _)| *n == INITIAL_MAX_PATH_ID);
    let client = hello.is_some_and(|h| offers(&h.parameters));
    let server = parameter(e, INITIAL_MAX_PATH_ID).is_some();
    must(client || server, || "nobody offered several paths".into())?;
    if client && server {
        one_handshake(e)?;
        return Ok("both offer them".into());
    }
    let of_paths = |f: &Frame| matches!(f, Frame::Other(0x3e | 0x3f | 0x3e75..=0x3e7c));
    for (direction, who) in BOTH {
        let used = any(e, direction, of_paths);
        must(!used, || format!("the {who} sent a frame of the extension"))?;
    }
    one_handshake(e)
}

pub(super) fn amplification(e: &Evidence<'_>) -> Verdict {
    let (mut got, mut sent, mut worst) = (Vec::new(), 0usize, 0.0f64);
    let selected = |n: &corelane_relay::Entry| n.fate == Fate::Selected;
    let dropped = e.log.entries.iter().filter(|n| selected(n)).count();
    // The first Handshake packet of the client proves its address (RFC 9000 §8.1).
    let proof = |p: &&Packet| p.kind == Kind::Handshake && p.fate.arrived();
    let proof = e.trace.of(Direction::Up).find(proof).map(|p| p.at + DELAY);
    let proof = proof.ok_or("the client sent no Handshake packet")?;
    for entry in e.log.entries.iter().filter(|n| n.at < proof) {
        if entry.direction == Direction::Up {
            if entry.fate.arrived() {
                got.push((entry.at + DELAY, entry.data.len()));
            }
            continue;
        }
        sent += entry.data.len();
        let had: usize = got
            .iter()
            .filter(|(at, _)| *at <= entry.at)
            .map(|(_, n)| n)
            .sum();
        worst = worst.max(sent as f64 / had.max(1) as f64);
    }
    must(worst <= 3.0, || {
        format!("the server sent {worst:.2} times what it had")
    })?;
    must(dropped > 0, || "the client sent a single datagram".into())?;
    handshakes(e, 1)?;
    Ok(format!("{worst:.2} times"))
}

pub(super) fn cross_traffic(e: &Evidence<'_>) -> Verdict {
    one_handshake(e)?;
    let (arrived, lost) = e.log.cross;
    must(arrived > 0, || {
        "the competing flow got nothing through".into()
    })?;
    let theirs = arrived * 1500;
    let share = e.log.down.bytes as f64 / (e.log.down.bytes + theirs) as f64;
    Ok(format!(
        "{:.0} % beside CUBIC, which lost {lost}",
        share * 100.0
    ))
}

pub(super) fn rebinding(e: &Evidence<'_>) -> Verdict {
    handshakes(e, 1)?;
    let paths: HashSet<_> = e.trace.of(Direction::Down).map(|p| p.rebound).collect();
    must(paths.len() > 1, || {
        "the server sent nothing on a new path".into()
    })?;
    for path in paths.iter().filter(|n| **n > 0) {
        let first = e.trace.of(Direction::Down).find(|p| p.rebound == *path);
        let challenge = |f: &Frame| matches!(f, Frame::PathChallenge(_));
        let asked = first.is_some_and(|p| p.frames.iter().any(challenge));
        must(asked, || {
            format!("path {path} began without PATH_CHALLENGE")
        })?;
    }
    let answered = answered(e)?;
    Ok(format!(
        "{} new paths, {answered} challenges",
        paths.len() - 1
    ))
}

/// Every challenge that arrived has its response, those of the last moments apart.
fn answered(e: &Evidence<'_>) -> Result<usize, String> {
    let end = e.trace.packets.last().map_or(Duration::ZERO, |p| p.at);
    let due = |p: &&Packet| p.fate.arrived() && p.at + DELAY * 6 < end;
    let mut count = 0;
    for packet in e.trace.packets.iter().filter(due) {
        for frame in &packet.frames {
            let Frame::PathChallenge(data) = frame else {
                continue;
            };
            let response = Frame::PathResponse(*data);
            let back = |p: &Packet| p.direction != packet.direction && p.frames.contains(&response);
            must(e.trace.packets.iter().any(back), || {
                format!("the challenge {data:02x?} was not answered")
            })?;
            count += 1;
        }
    }
    Ok(count)
}

pub(super) fn migration(e: &Evidence<'_>) -> Verdict {
    must(parameter(e, PREFERRED_ADDRESS).is_some(), || {
        "the server offered no preferred address".into()
    })?;
    let ids = |front| -> HashSet<&[u8]> {
        let read = |p: &&Packet| p.front == front && p.number.is_some();
        let sent = e.trace.of(Direction::Up).filter(read);
        sent.map(|p| p.dcid.as_slice()).collect()
    };
    let (old, new) = (ids(0), ids(1));
    must(!new.is_empty(), || {
        "the client did not move to the preferred address".into()
    })?;
    must(old.is_disjoint(&new), || {
        "the new path was used with a connection ID of the old one".into()
    })?;
    let data = |p: &Packet| p.front == 1 && p.stream_bytes() > 0;
    must(e.trace.of(Direction::Down).any(data), || {
        "the server sent no data from the preferred address".into()
    })?;
    answered(e)?;
    one_handshake(e)
}

#[cfg(test)]
mod tests;
