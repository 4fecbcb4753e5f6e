//! The programs that are compared, and how each is asked for a case.
//!
//! A program runs both sides in one process, the server's thread on core 0 and the client's on core
//! 1, measures by itself and prints a report. What it cannot do it has no command for.

use super::case::{Case, Work};

/// What a program is in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What the others are compared with.
    Subject,
    /// Another implementation.
    Peer,
    /// What the machine allows; no protocol at all.
    Ceiling,
}

/// How large UDP payloads are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Packets {
    /// 1,452 bytes, what an Ethernet carries with IPv6.
    Tuned,
    /// The largest that each implementation moves.
    Jumbo,
}

/// Settings of every run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Seconds that are measured.
    pub seconds: f64,
    /// Seconds that are left out before.
    pub omit: f64,
    /// How large UDP payloads are.
    pub packets: Packets,
}

/// One program in one configuration.
pub struct Peer {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// What it is.
    pub role: Role,
    /// The file that is run, found beside this program.
    pub program: &'static str,
    /// The arguments for a case; none when it does not do that.
    pub arguments: fn(&Case, &Settings) -> Option<Vec<String>>,
}

/// Every program, the subject first. The order is the order of a round.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "corelane",
        role: Role::Subject,
        program: "corelane",
        arguments: corelane,
    },
    Peer {
        name: "quinn",
        role: Role::Peer,
        program: "quinn-bulk",
        arguments: quinn,
    },
    Peer {
        name: "sealed",
        role: Role::Ceiling,
        program: "ceiling",
        arguments: |case, settings| ceiling("aes128", case, settings),
    },
    Peer {
        name: "udp",
        role: Role::Ceiling,
        program: "ceiling",
        arguments: |case, settings| ceiling("none", case, settings),
    },
];

/// The program of that name.
pub fn find(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

fn corelane(case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let Settings { seconds, omit, .. } = settings;
    let mtu = match settings.packets {
        Packets::Tuned => 1452,
        Packets::Jumbo => 65_507,
    };
    let work = match case.work {
        Work::Bulk { streams, down } => {
            format!("-P {streams}{}", if down { " -R" } else { "" })
        }
        Work::RequestResponse { depth } => format!("--depth {depth} -l 64 --new-stream"),
        Work::Handshake { parallel } => format!("-P {parallel}"),
        Work::Datagram { size } => format!("-l {size}"),
    };
    let name = case.workload();
    Some(words(&format!(
        "bench {name} -t {seconds} -O {omit} --mtu {mtu} --window 8M {work} -J"
    )))
}

fn quinn(case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let Settings { seconds, omit, .. } = settings;
    // Above 6,500 bytes its batches of ten exceed what UDP carries, and transfers stall.
    let mtu = match settings.packets {
        Packets::Tuned => 1452,
        Packets::Jumbo => 6500,
    };
    let work = match case.work {
        Work::Bulk { streams, down } => {
            let direction = if down { "down" } else { "up" };
            format!("bulk --direction {direction} --streams {streams}")
        }
        Work::RequestResponse { depth } => format!("rr --streams {depth} --size 64"),
        Work::Handshake { parallel } => format!("handshake --streams {parallel}"),
        Work::Datagram { size } => format!("datagram --size {size}"),
    };
    Some(words(&format!(
        "--work {work} --seconds {seconds} --omit {omit} --mtu {mtu} --json"
    )))
}

/// Only bulk data from the client has a ceiling: it is the same in both directions.
fn ceiling(cipher: &str, case: &Case, settings: &Settings) -> Option<Vec<String>> {
    let Settings { seconds, omit, .. } = settings;
    let payload = match settings.packets {
        Packets::Tuned => 1452,
        Packets::Jumbo => 65_507,
    };
    let bulk = Work::Bulk {
        streams: 1,
        down: false,
    };
    (case.work == bulk).then(|| {
        words(&format!(
            "--cipher {cipher} --seconds {seconds} --omit {omit} --payload {payload} --json"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::case::CASES;

    const SETTINGS: Settings = Settings {
        seconds: 3.0,
        omit: 0.5,
        packets: Packets::Tuned,
    };

    #[test]
    fn there_is_one_subject_and_it_is_first() {
        assert_eq!(PEERS[0].role, Role::Subject);
        assert!(PEERS[1..].iter().all(|peer| peer.role != Role::Subject));
        for peer in PEERS {
            assert_eq!(find(peer.name).map(|p| p.program), Some(peer.program));
        }
    }

    #[test]
    fn every_case_has_the_subject_and_a_peer() {
        for case in CASES {
            for peer in &PEERS[..2] {
                let arguments = (peer.arguments)(case, &SETTINGS);
                assert!(arguments.is_some_and(|a| a.iter().any(|a| a == "3")));
            }
        }
    }

    #[test]
    fn ceilings_stand_beside_one_case() {
        let with = |case: &&Case| ceiling("none", case, &SETTINGS).is_some();
        let names: Vec<_> = CASES.iter().filter(with).map(|case| case.name).collect();
        assert_eq!(names, ["bulk-up"]);
    }
}
