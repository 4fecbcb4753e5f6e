//! The programs that are compared, and how each is asked for a case.
//!
//! A program runs both sides, the server's thread on core 0 and the client's on core 1, measures by
//! itself and prints a report. Peers take one command line, that of `program`, so one function asks
//! all of them; a program may answer that it does not offer a work. What a row cannot do for other
//! reasons it has no arguments for.

use clap::ValueEnum;

use super::case::{Case, Work};
use crate::program::Profile;

/// What a row is in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What the others are compared with.
    Subject,
    /// The same implementation in another configuration.
    Variant,
    /// Another implementation of QUIC.
    Quic,
    /// Another transport.
    Other,
    /// What the machine allows; no protocol at all.
    Ceiling,
}

/// Settings of every run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Seconds that are measured.
    pub seconds: f64,
    /// Seconds that are left out before.
    pub omit: f64,
    /// How implementations are configured.
    pub profile: Profile,
}

/// Which build makes a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Built {
    /// `cargo build --release --workspace`.
    Here,
    /// `perf/peers/setup`.
    ByPeers,
}

/// One program in one configuration.
#[derive(Debug)]
pub struct Peer {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// What it is.
    pub role: Role,
    /// The file that is run.
    pub program: &'static str,
    /// Which build makes it.
    pub built: Built,
    /// The arguments for a case; none when it is no row of that.
    pub arguments: fn(&Case, &Settings) -> Option<Vec<String>>,
}

const fn subject(
    name: &'static str,
    role: Role,
    arguments: fn(&Case, &Settings) -> Option<Vec<String>>,
) -> Peer {
    Peer {
        name,
        role,
        program: "corelane",
        built: Built::Here,
        arguments,
    }
}

const fn peer(name: &'static str, role: Role, program: &'static str, built: Built) -> Peer {
    Peer {
        name,
        role,
        program,
        built,
        arguments: ask,
    }
}

const fn ceiling(
    name: &'static str,
    arguments: fn(&Case, &Settings) -> Option<Vec<String>>,
) -> Peer {
    Peer {
        name,
        role: Role::Ceiling,
        program: "ceiling",
        built: Built::Here,
        arguments,
    }
}

/// Every row, the subject first. The order is the order of a round.
pub const PEERS: &[Peer] = &[
    subject("corelane", Role::Subject, corelane),
    subject("corelane-spin", Role::Variant, corelane_spin),
    subject("corelane-park", Role::Variant, corelane_park),
    subject("corelane-full", Role::Variant, corelane_full),
    subject("corelane-one", Role::Variant, corelane_one),
    peer("quinn", Role::Quic, "quinn-bench", Built::Here),
    peer("s2n-quic", Role::Quic, "s2n-bench", Built::ByPeers),
    peer("quiche", Role::Quic, "quiche-bench", Built::ByPeers),
    peer("noq", Role::Quic, "noq-bench", Built::ByPeers),
    peer("tquic", Role::Quic, "tquic-bench", Built::ByPeers),
    peer("tcp-rustls", Role::Other, "tcp-bench", Built::ByPeers),
    ceiling("sealed", |case, settings| one_way("aes128", case, settings)),
    ceiling("udp", |case, settings| one_way("none", case, settings)),
    ceiling("sealed-echo", |case, settings| {
        echo("aes128", case, settings)
    }),
    ceiling("udp-echo", |case, settings| echo("none", case, settings)),
];

/// The program of that name.
pub fn find(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

/// The command line that every peer takes; see `program`.
fn ask(case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let Settings { seconds, omit, .. } = settings;
    let profile = settings.profile.to_possible_value()?;
    let profile = profile.get_name();
    let work = match case.work {
        Work::Bulk { streams, down } => {
            let direction = if down { "down" } else { "up" };
            format!("bulk --direction {direction} --streams {streams}")
        }
        Work::RequestResponse { depth } => format!("rr --streams {depth} --size 64"),
        Work::OpenLoop { rate } => format!("rr --rate {} --size 64", rate?),
        Work::Handshake { parallel, resumed } => {
            let resume = if resumed { " --resume" } else { "" };
            format!("handshake --streams {parallel}{resume}")
        }
        Work::Datagram { size } => format!("datagram --size {size}"),
        Work::Idle { connections } => format!("idle --connections {connections}"),
        // Their adapters have a thread on each side.
        Work::Scale { .. } => return None,
    };
    Some(words(&format!(
        "--work {work} --settings {profile} --seconds {seconds} --omit {omit} --json"
    )))
}

/// As it is without any flag, but for the work and the settings.
fn corelane(case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let Settings { seconds, omit, .. } = settings;
    let omit = format!("-O {omit}");
    let profile = match settings.profile {
        Profile::Default => "",
        Profile::Tuned => "--mtu 1452 --window 8M --socket-buffer 4M --no-pacing",
        Profile::Jumbo => "--mtu 65507 --window 8M --socket-buffer 4M --no-pacing",
    };
    let work = match case.work {
        Work::Bulk { streams, down } => {
            let direction = if down { "-R" } else { "" };
            format!("throughput {omit} -P {streams} {direction} -l 64K")
        }
        Work::RequestResponse { depth } => format!("rr {omit} --depth {depth} -l 64 --new-stream"),
        // As many under way as a connection may have streams.
        Work::OpenLoop { rate } => {
            let rate = rate?;
            format!("rr {omit} --rate {rate} --depth 1000 -l 64 --new-stream")
        }
        Work::Handshake { parallel, resumed } => {
            let resume = if resumed { "--resume" } else { "" };
            format!("handshake {omit} -P {parallel} {resume}")
        }
        Work::Datagram { size } => format!("datagram {omit} -l {size}"),
        Work::Idle { connections } => format!("connections --apart --connections {connections}"),
        Work::Scale { shards } => scale(&omit, shards),
    };
    Some(words(&format!("bench {work} -t {seconds} {profile} -J")))
}

/// Connections of a client with several shards: where each lands at the server is chance, and with
/// so many all shards get some.
fn scale(omit: &str, shards: u32) -> String {
    format!("throughput {omit} --shards {shards} --connections 16 -P 16 -l 64K")
}

/// The same work with one shard on each side, to have beside several.
fn corelane_one(case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let Work::Scale { .. } = case.work else {
        return None;
    };
    let one = Case {
        name: case.name.clone(),
        work: Work::Scale { shards: 1 },
    };
    corelane(&one, settings)
}

/// Shards that never sleep, where sleeping is what costs.
fn corelane_spin(case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let matters = matches!(
        case.work,
        Work::RequestResponse { depth: 1 } | Work::OpenLoop { .. }
    );
    with(matters, case, settings, "--idle spin")
}

/// Shards that sleep at once.
fn corelane_park(case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let matters = matches!(
        case.work,
        Work::RequestResponse { depth: 1 } | Work::OpenLoop { .. } | Work::Idle { .. }
    );
    with(matters, case, settings, "--idle park")
}

fn with(matters: bool, case: &Case, settings: &Settings, more: &str) -> Option<Vec<String>> {
    let mut arguments = corelane(case, settings).filter(|_| matters)?;
    arguments.extend(words(more));
    Some(arguments)
}

/// Full handshakes, to have beside the resumed ones.
fn corelane_full(case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let Work::Handshake {
        parallel,
        resumed: true,
    } = case.work
    else {
        return None;
    };
    let full = Case {
        name: case.name.clone(),
        work: Work::Handshake {
            parallel,
            resumed: false,
        },
    };
    corelane(&full, settings)
}

/// Trains of packets in the direction of the data.
fn one_way(cipher: &str, case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let Work::Bulk { streams: 1, down } = case.work else {
        return None;
    };
    let work = if down { "down" } else { "up" };
    let payload = match settings.profile {
        Profile::Default | Profile::Tuned => 1452,
        Profile::Jumbo => 65_507,
    };
    run_ceiling(work, cipher, payload, settings)
}

/// A message there and back, as often as it goes.
fn echo(cipher: &str, case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let is_one = case.work == Work::RequestResponse { depth: 1 };
    is_one.then(|| run_ceiling("echo", cipher, 64, settings))?
}

fn run_ceiling(work: &str, cipher: &str, size: u32, settings: &Settings) -> Option<Vec<String>> {
    let Settings { seconds, omit, .. } = settings;
    Some(words(&format!(
        "--work {work} --cipher {cipher} --size {size} --seconds {seconds} --omit {omit} --json"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::case::ALL;

    fn settings(profile: Profile) -> Settings {
        Settings {
            seconds: 3.0,
            omit: 0.5,
            profile,
        }
    }

    fn line(peer: &str, case: &str, profile: Profile) -> Option<String> {
        let case = Case::parse(case).unwrap();
        let arguments = (find(peer).unwrap().arguments)(&case, &settings(profile))?;
        Some(arguments.join(" "))
    }

    #[test]
    fn there_is_one_subject_and_it_is_first() {
        assert_eq!(PEERS[0].role, Role::Subject);
        assert!(PEERS[1..].iter().all(|peer| peer.role != Role::Subject));
        for peer in PEERS {
            assert_eq!(find(peer.name).map(|p| p.program), Some(peer.program));
        }
    }

    #[test]
    fn every_case_has_the_subject_and_every_peer() {
        for name in ALL.iter().filter(|name| **name != "rr-open") {
            for peer in PEERS {
                let asked = line(peer.name, name, Profile::Tuned);
                match peer.role {
                    // Their adapters have one thread on each side.
                    Role::Quic | Role::Other if name.starts_with("scale") => {
                        assert_eq!(asked, None);
                    }
                    Role::Subject | Role::Quic | Role::Other => {
                        assert!(asked.is_some_and(|a| a.contains(" 3 ")), "{name}");
                    }
                    Role::Variant | Role::Ceiling => {}
                }
            }
        }
        let rows = |case: &str, role| {
            let of = |p: &&Peer| p.role == role && line(p.name, case, Profile::Tuned).is_some();
            PEERS.iter().filter(of).map(|p| p.name).collect::<Vec<_>>()
        };
        assert_eq!(rows("bulk-down", Role::Ceiling), ["sealed", "udp"]);
        assert_eq!(rows("rr-1", Role::Ceiling), ["sealed-echo", "udp-echo"]);
        assert_eq!(
            rows("rr-1", Role::Variant),
            ["corelane-spin", "corelane-park"]
        );
        assert_eq!(rows("idle-1000", Role::Variant), ["corelane-park"]);
        assert_eq!(
            rows("handshake-32-resumed", Role::Variant),
            ["corelane-full"]
        );
        assert!(rows("bulk-up-8", Role::Ceiling).is_empty());
        assert_eq!(rows("scale-2", Role::Variant), ["corelane-one"]);
    }

    #[test]
    fn peers_are_asked_in_the_words_of_their_interface() {
        let tail = "--settings tuned --seconds 3 --omit 0.5 --json";
        for (case, words) in [
            ("bulk-up", "--work bulk --direction up --streams 1"),
            ("bulk-down-8", "--work bulk --direction down --streams 8"),
            ("rr-64", "--work rr --streams 64 --size 64"),
            ("rr-open-20k", "--work rr --rate 20000 --size 64"),
            ("handshake-32", "--work handshake --streams 32"),
            (
                "handshake-32-resumed",
                "--work handshake --streams 32 --resume",
            ),
            ("datagram-1100", "--work datagram --size 1100"),
            ("idle-10000", "--work idle --connections 10000"),
        ] {
            let expected = format!("{words} {tail}");
            for peer in PEERS.iter().filter(|p| p.role == Role::Quic) {
                assert_eq!(
                    line(peer.name, case, Profile::Tuned),
                    Some(expected.clone())
                );
            }
        }
        let jumbo = line("noq", "bulk-up", Profile::Jumbo).unwrap();
        assert!(jumbo.contains("--settings jumbo"), "{jumbo}");
        assert_eq!(line("noq", "rr-open", Profile::Tuned), None, "no rate yet");
    }

    #[test]
    fn corelane_without_settings_has_no_flag_of_its_own() {
        let bulk = line("corelane", "bulk-down-8", Profile::Default);
        assert_eq!(
            bulk.unwrap(),
            "bench throughput -O 0.5 -P 8 -R -l 64K -t 3 -J"
        );
        let idle = line("corelane-park", "idle-1000", Profile::Tuned).unwrap();
        assert!(idle.starts_with("bench connections --apart --connections 1000 -t 3 --mtu 1452"));
        assert!(idle.ends_with("--idle park"));
        let full = line("corelane-full", "handshake-32-resumed", Profile::Default);
        assert_eq!(full.unwrap(), "bench handshake -O 0.5 -P 32 -t 3 -J");
        for (row, shards) in [("corelane", 4), ("corelane-one", 1)] {
            let scale = line(row, "scale-4", Profile::Default).unwrap();
            let expected = format!("--shards {shards} --connections 16 -P 16 -l 64K -t 3 -J");
            assert_eq!(scale, format!("bench throughput -O 0.5 {expected}"));
        }
    }
}
