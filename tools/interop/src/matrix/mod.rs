//! The runner: every case, corelane with itself and with each peer in both roles, and the matrix of
//! who passed what.

mod cases;
mod cell;
mod certs;
mod check;
mod limits;
mod peers;
mod process;
mod report;

pub use cases::{Case, all as cases};
pub use cell::{Cell, Outcome, Pair};
pub use peers::{Peer, Peers};
pub use report::Report;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What to play and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// How to start each implementation.
    pub peers: Peers,
    /// Who meets whom.
    pub pairs: Vec<Pair>,
    /// Which cases.
    pub cases: Vec<Case>,
    /// Cells that run at a time.
    pub jobs: usize,
    /// Where logs and downloads go.
    pub out: PathBuf,
    /// What the relay's chance depends on.
    pub seed: u64,
}

/// All pairs that have corelane in them: with itself, then with each peer in both roles.
pub fn pairs(peers: &[Peer]) -> Vec<Pair> {
    let us = Peer::Corelane;
    let mut all = Vec::new();
    for &peer in peers {
        all.push(Pair {
            client: us,
            server: peer,
        });
        if peer != us {
            all.push(Pair {
                client: peer,
                server: us,
            });
        }
    }
    all
}

/// Plays everything; `progress` hears of each cell as it ends.
///
/// # Errors
/// Files cannot be written. What a cell runs into is in its outcome.
pub fn run(options: &Options, progress: impl Fn(&Cell) + Sync) -> io::Result<Report> {
    fs::create_dir_all(&options.out)?;
    let certs = certs::Certs::make(&options.out.join("certs"))?;
    for case in &options.cases {
        case.write_files(&options.out)?;
    }
    let pairs = || options.pairs.iter();
    let all: Vec<(&Case, Pair)> = options
        .cases
        .iter()
        .flat_map(|case| pairs().map(move |pair| (case, *pair)))
        .collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, all.len().max(1)) {
            scope.spawn(|| {
                while let Some((case, pair)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let cell = cell::play(case, *pair, options, &certs);
                    progress(&cell);
                    if let Ok(mut done) = done.lock() {
                        done.push(cell);
                    }
                }
            });
        }
    });
    let mut cells = done.into_inner().unwrap_or_default();
    let place = |c: &Cell| {
        all.iter()
            .position(|(k, p)| k.name == c.case && *p == c.pair)
    };
    cells.sort_by_key(place);
    Ok(Report { cells })
}
