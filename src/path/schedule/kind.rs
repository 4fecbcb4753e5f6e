//! The schedulers by name, as configuration and as text.
//!
//! `round-robin`, `low-latency`, `min-rtt[:BIAS]`, `ecf`, `blest`, `redundant[:PATHS]`,
//! `weighted[:PATH=WEIGHT,..]` and `backup`. What `Display` writes, `FromStr` reads.

use super::{Backup, Blest, Ecf, LowLatency, MinRtt, Redundant, RoundRobin, Scheduler, Weighted};
use crate::path::PathId;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The bias of `min-rtt` where none is named.
const DEFAULT_BIAS: f64 = 0.5;
/// Paths that `weighted` names at most.
const MAX_WEIGHTS: usize = 64;

/// Which scheduler a connection has.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SchedulerKind {
    /// Each packet on the next path.
    RoundRobin,
    /// The path on which a packet arrives first.
    #[default]
    LowLatency,
    /// Between the lowest RTT (1) and equal shares (0).
    MinRtt {
        /// The bias, in 0 to 1.
        bias: f64,
    },
    /// Earliest completion first.
    Ecf,
    /// Blocking estimation.
    Blest,
    /// On several paths at once.
    Redundant {
        /// So many at most; `u8::MAX` for all.
        paths: u8,
    },
    /// Bytes in proportion to weights.
    Weighted(Vec<(PathId, u32)>),
    /// One path at a time.
    Backup,
    /// The embedder's own.
    Custom(SchedulerFactory),
}

impl SchedulerKind {
    /// A scheduler of this kind for one connection.
    pub fn build(&self) -> Box<dyn Scheduler> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::LowLatency => Box::new(LowLatency),
            Self::MinRtt { bias } => Box::new(MinRtt::new(*bias)),
            Self::Ecf => Box::new(Ecf::default()),
            Self::Blest => Box::new(Blest::default()),
            Self::Redundant { paths } => Box::new(Redundant::new(*paths)),
            Self::Weighted(weights) => Box::new(Weighted::new(weights)),
            Self::Backup => Box::new(Backup),
            Self::Custom(factory) => (factory.0)(),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LowLatency => "low-latency",
            Self::MinRtt { .. } => "min-rtt",
            Self::Ecf => "ecf",
            Self::Blest => "blest",
            Self::Redundant { .. } => "redundant",
            Self::Weighted(_) => "weighted",
            Self::Backup => "backup",
            Self::Custom(_) => "custom",
        }
    }
}

/// Makes a scheduler for each connection.
#[derive(Clone)]
pub struct SchedulerFactory(Arc<dyn Fn() -> Box<dyn Scheduler> + Send + Sync>);

impl SchedulerFactory {
    /// A factory that calls `make` once a connection.
    pub fn new(make: impl Fn() -> Box<dyn Scheduler> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for SchedulerFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SchedulerFactory")
    }
}

impl PartialEq for SchedulerFactory {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::MinRtt { bias } => write!(f, ":{bias}"),
            Self::Redundant { paths } if *paths < u8::MAX => write!(f, ":{paths}"),
            Self::Weighted(weights) => {
                for (n, (path, weight)) in weights.iter().enumerate() {
                    let mark = if n == 0 { ':' } else { ',' };
                    write!(f, "{mark}{}={weight}", path.0)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A text that names no scheduler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSchedulerError {
    /// The name is not one of the schedulers'.
    #[error(
        "no scheduler `{0}`: round-robin, low-latency, min-rtt[:BIAS], ecf, blest, \
         redundant[:PATHS], weighted[:PATH=WEIGHT,..] or backup"
    )]
    Name(String),
    /// What follows the colon is not what that scheduler takes.
    #[error("`{0}`: {1}")]
    Argument(String, &'static str),
}

impl FromStr for SchedulerKind {
    type Err = ParseSchedulerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let wrong = |why| ParseSchedulerError::Argument(text.to_string(), why);
        let kind = match (name, argument) {
            ("min-rtt", None) => Self::MinRtt { bias: DEFAULT_BIAS },
            ("min-rtt", Some(a)) => match a.parse::<f64>() {
                Ok(bias) if (0.0..=1.0).contains(&bias) => Self::MinRtt { bias },
                _ => return Err(wrong("the bias is a number from 0 to 1")),
            },
            ("redundant", None) => Self::Redundant { paths: u8::MAX },
            ("redundant", Some(a)) => match a.parse() {
                Ok(paths) if paths > 0 => Self::Redundant { paths },
                _ => return Err(wrong("the number of paths is 1 to 255")),
            },
            ("weighted", None) => Self::Weighted(Vec::new()),
            ("weighted", Some(a)) => Self::Weighted(weights(a).map_err(wrong)?),
            ("round-robin", None) => Self::RoundRobin,
            ("low-latency", None) => Self::LowLatency,
            ("ecf", None) => Self::Ecf,
            ("blest", None) => Self::Blest,
            ("backup", None) => Self::Backup,
            ("round-robin" | "low-latency" | "ecf" | "blest" | "backup", Some(_)) => {
                return Err(wrong("this scheduler takes no argument"));
            }
            _ => return Err(ParseSchedulerError::Name(name.to_string())),
        };
        Ok(kind)
    }
}

fn weights(text: &str) -> Result<Vec<(PathId, u32)>, &'static str> {
    let mut weights = Vec::new();
    for item in text.split(',') {
        let (path, weight) = item.split_once('=').ok_or("write PATH=WEIGHT,..")?;
        let path = PathId(path.parse().map_err(|_| "a path ID is a number")?);
        let weight: u32 = weight.parse().map_err(|_| "a weight is a number")?;
        if weight == 0 {
            return Err("a weight is 1 at least");
        }
        if weights.iter().any(|w: &(PathId, u32)| w.0 == path) {
            return Err("a path has one weight");
        }
        if weights.len() == MAX_WEIGHTS {
            return Err("that many paths there are not");
        }
        weights.push((path, weight));
    }
    Ok(weights)
}
