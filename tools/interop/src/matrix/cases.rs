//! The cases: files, network, time, and what must be seen. They are those of quic-interop-runner,
//! less HTTP/3 and Version Negotiation, which that runner has switched off, and one that it does not
//! have: `multipath`.

use super::check::{self, Check};
use corelane_relay::{Config, Rebind, RebindKind};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What `TESTCASE` says to the client.
    pub(super) client: &'static str,
    /// What `TESTCASE` says to the server.
    pub(super) server: &'static str,
    /// How many files of which size.
    files: Vec<(usize, usize)>,
    /// Characters of a file's name at least.
    name_len: usize,
    /// Time for one run.
    pub(super) limit: Duration,
    /// How often it is run.
    pub(super) runs: usize,
    /// Says the rate in the report.
    pub(super) measure: bool,
    /// The server shows nine certificates.
    pub(super) chain: bool,
    /// Over IPv6.
    pub(super) v6: bool,
    network: fn(&mut Config),
    /// What must be seen beyond whole files.
    pub(super) check: Check,
}

fn case(name: &'static str, files: &[(usize, usize)], seconds: u64, check: Check) -> Case {
    Case {
        name,
        client: name,
        server: name,
        files: files.to_vec(),
        name_len: 8,
        limit: Duration::from_secs(seconds),
        runs: 1,
        measure: false,
        chain: false,
        v6: false,
        network: |_| {},
        check,
    }
}

/// A case that endpoints know as another.
fn like(told: &'static str, case: Case) -> Case {
    Case {
        client: told,
        server: told,
        ..case
    }
}

/// Loss or corruption of both directions.
fn faults(config: &mut Config, loss: f64, corrupt: f64) {
    for link in [&mut config.up, &mut config.down] {
        link.loss = loss;
        link.corrupt = corrupt;
        link.burst = 3;
    }
}

fn rebind(config: &mut Config, kind: RebindKind) {
    config.rebind = Some(Rebind {
        every: Duration::from_secs(5),
        kind,
    });
}

/// All cases, in the order of the matrix.
pub fn all() -> Vec<Case> {
    let mut all = plain();
    all.extend(adverse());
    all.extend(moving());
    all
}

fn plain() -> Vec<Case> {
    vec![
        case("handshake", &[(1, KIB)], 30, check::handshake),
        case(
            "transfer",
            &[(1, 2 * MIB), (1, 3 * MIB), (1, 5 * MIB)],
            60,
            check::transfer,
        ),
        Case {
            network: |c| {
                c.up.delay = Duration::from_millis(750);
                c.down.delay = Duration::from_millis(750);
            },
            ..case("longrtt", &[(1, KIB)], 60, check::long_rtt)
        },
        case("chacha20", &[(1, 3 * MIB)], 40, check::chacha20),
        case("multiplexing", &[(1999, 32)], 60, check::multiplexing),
        Case {
            client: "transfer",
            ..case("retry", &[(1, KIB)], 30, check::retry)
        },
        case("resumption", &[(2, 5 * KIB)], 30, check::resumption),
        Case {
            name_len: 250,
            ..case("zerortt", &[(40, 32)], 30, check::zero_rtt)
        },
        Case {
            server: "transfer",
            ..case("keyupdate", &[(1, 3 * MIB)], 40, check::key_update)
        },
        case("ecn", &[(1, 3 * MIB)], 40, check::ecn),
        Case {
            v6: true,
            ..case("ipv6", &[(1, 3 * MIB)], 40, check::one_handshake)
        },
        case("v2", &[(1, 10 * KIB)], 30, check::version_2),
        case("multipath", &[(1, 3 * MIB)], 40, check::one_path),
    ]
}

fn adverse() -> Vec<Case> {
    vec![
        Case {
            network: |c| c.blackhole = Some((Duration::from_secs(5), Duration::from_secs(2))),
            ..case("blackhole", &[(1, 10 * MIB)], 120, check::one_handshake)
        },
        Case {
            chain: true,
            network: |c| c.drop_client = Some(2..=7),
            ..case(
                "amplificationlimit",
                &[(1, 5 * KIB)],
                60,
                check::amplification,
            )
        },
        like(
            "multiconnect",
            Case {
                network: |c| faults(c, 0.3, 0.0),
                ..case("handshakeloss", &[(50, KIB)], 300, check::fifty_handshakes)
            },
        ),
        like(
            "multiconnect",
            Case {
                network: |c| faults(c, 0.0, 0.3),
                ..case(
                    "handshakecorruption",
                    &[(50, KIB)],
                    300,
                    check::fifty_handshakes,
                )
            },
        ),
        Case {
            network: |c| faults(c, 0.02, 0.0),
            ..case("transferloss", &[(1, 2 * MIB)], 120, check::one_handshake)
        },
        Case {
            network: |c| faults(c, 0.0, 0.02),
            ..case(
                "transfercorruption",
                &[(1, 2 * MIB)],
                120,
                check::one_handshake,
            )
        },
        Case {
            runs: 5,
            measure: true,
            ..case("goodput", &[(1, 10 * MIB)], 60, check::one_handshake)
        },
        Case {
            measure: true,
            network: |c| c.cross = true,
            ..case("crosstraffic", &[(1, 25 * MIB)], 240, check::cross_traffic)
        },
    ]
}

fn moving() -> Vec<Case> {
    vec![
        Case {
            network: |c| rebind(c, RebindKind::Port),
            ..case("rebind-port", &[(1, 10 * MIB)], 90, check::rebinding)
        },
        Case {
            network: |c| rebind(c, RebindKind::Addr),
            ..case("rebind-addr", &[(1, 10 * MIB)], 90, check::rebinding)
        },
        case("connectionmigration", &[(1, 2 * MIB)], 40, check::migration),
    ]
}

impl Case {
    /// Names and sizes of its files.
    pub(super) fn files(&self) -> impl Iterator<Item = (String, usize)> {
        let sizes = self.files.iter().flat_map(|(n, size)| vec![*size; *n]);
        let width = self.name_len;
        sizes
            .enumerate()
            .map(move |(n, size)| (format!("{n:0width$}"), size))
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> usize {
        self.files.iter().map(|(n, size)| n * size).sum()
    }

    /// What a server of this case serves.
    pub(super) fn files_dir(&self, out: &Path) -> PathBuf {
        out.join("www").join(self.name)
    }

    /// Makes the files, of bytes that no compression and no shift would leave alike.
    pub(super) fn write_files(&self, out: &Path) -> io::Result<()> {
        let dir = self.files_dir(out);
        fs::create_dir_all(&dir)?;
        let mut state = 0x1234_5678_9abc_def1u64;
        for (name, size) in self.files() {
            let mut data = Vec::with_capacity(size + 8);
            while data.len() < size {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                data.extend_from_slice(&state.to_le_bytes());
            }
            data.truncate(size);
            fs::write(dir.join(name), data)?;
        }
        Ok(())
    }

    /// Makes the network: 15 ms, 10 Mb/s, a queue of 25, datagrams of 1,500 bytes, and what is the
    /// case's own.
    pub(super) fn shape(&self, config: &mut Config) {
        for link in [&mut config.up, &mut config.down] {
            link.delay = Duration::from_millis(15);
            link.rate = Some(10_000_000);
            link.queue = 25;
            link.mtu = if self.v6 { 1452 } else { 1472 };
        }
        (self.network)(config);
    }
}
