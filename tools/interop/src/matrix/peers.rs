//! The implementations and how to start them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Peer {
    /// This one.
    Corelane,
    /// quinn.
    Quinn,
    /// s2n-quic.
    S2n,
    /// quiche.
    Quiche,
    /// aioquic.
    Aioquic,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Corelane,
        Self::Quinn,
        Self::S2n,
        Self::Quiche,
        Self::Aioquic,
    ];
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corelane => "corelane",
            Self::Quinn => "quinn",
            Self::S2n => "s2n-quic",
            Self::Quiche => "quiche",
            Self::Aioquic => "aioquic",
        })
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Peers {
    /// `corelane-interop`.
    pub corelane: PathBuf,
    /// The directory of the peers' workspace, built by its `setup`.
    pub dir: PathBuf,
}

impl Peers {
    /// The command of a peer, without arguments; `None` if it is not built.
    pub fn command(&self, peer: Peer) -> Option<Command> {
        let built = |name: &str| self.dir.join("target/release").join(name);
        let program = match peer {
            Peer::Corelane => self.corelane.clone(),
            Peer::Quinn => built("corelane-peer-quinn"),
            Peer::S2n => built("corelane-peer-s2n"),
            Peer::Quiche => built("corelane-peer-quiche"),
            Peer::Aioquic => self.dir.join("target/venv/bin/python"),
        };
        let mut command = exists(&program)?;
        if peer == Peer::Aioquic {
            command.arg(self.dir.join("aioquic/peer.py"));
        }
        Some(command)
    }
}

fn exists(program: &Path) -> Option<Command> {
    program.is_file().then(|| Command::new(program))
}
