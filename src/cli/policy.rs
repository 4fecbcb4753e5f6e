//! Flags about how several paths are used: the scheduler, copies, reinjection, failure.

use super::report::units;
use clap::Args;
use corelane::conn::multipath::MultipathConfig;
use corelane::path::duplicate::DuplicationConfig;
use corelane::path::reinject::ReinjectionConfig;
use corelane::path::schedule::SchedulerKind;
use serde::Serialize;
use std::time::Duration;

/// How several paths are used.
#[derive(Clone, Debug, Default, Args, Serialize)]
pub struct PolicyArgs {
    /// Which path a packet takes: ecf, min-rtt[:BIAS], low-latency, round-robin, blest,
    /// redundant[:PATHS], weighted[:W,..] or backup
    #[arg(long, value_name = "KIND", value_parser = scheduler)]
    pub scheduler: Option<String>,
    /// What is sent on several paths at once: any of crypto, resets, datagrams, all, and paths=N,
    /// permille=N (of the bytes sent), burst=SIZE
    #[arg(long, value_name = "WHAT,..", value_parser = duplicate)]
    pub duplicate: Option<String>,
    /// Sends on another path what is overdue or in flight on a path that may have failed: `default`
    /// or any of delay=TIME, max=N (times for a frame), queue=N, interval=TIME
    #[arg(long, value_name = "KEY=VALUE,..", value_parser = reinject)]
    pub reinject: Option<String>,
    /// A path may have failed when it acknowledges nothing for so long, or four round trips
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub failure_floor: Option<Duration>,
}

impl PolicyArgs {
    /// What the flags say; clap has read them once.
    pub fn config(&self) -> Result<MultipathConfig, String> {
        let mut config = MultipathConfig::default();
        if let Some(text) = &self.scheduler {
            config.scheduler = kind(text)?;
        }
        config.duplication = self.duplicate.as_deref().map(duplication).transpose()?;
        config.reinjection = self.reinject.as_deref().map(reinjection).transpose()?;
        if let Some(floor) = self.failure_floor {
            config.failure.floor = floor;
        }
        Ok(config)
    }
}

fn scheduler(input: &str) -> Result<String, String> {
    kind(input).map(|_| input.to_owned())
}

fn kind(text: &str) -> Result<SchedulerKind, String> {
    text.parse().map_err(|e| format!("{e}"))
}

fn duplicate(input: &str) -> Result<String, String> {
    duplication(input).map(|_| input.to_owned())
}

fn duplication(text: &str) -> Result<DuplicationConfig, String> {
    let mut config = DuplicationConfig {
        crypto: false,
        resets: false,
        ..DuplicationConfig::default()
    };
    for part in text.split(',') {
        match part.split_once('=') {
            None => match part {
                "crypto" => config.crypto = true,
                "resets" => config.resets = true,
                "datagrams" => config.datagrams = true,
                "all" => config.all = true,
                _ => return Err(format!("`{part}` is nothing that can be sent twice")),
            },
            Some(("paths", n)) => config.paths = number(n)?,
            Some(("permille", n)) => config.permille = number(n)?,
            Some(("burst", n)) => config.burst = units::parse_size(n).map_err(|e| e.to_string())?,
            Some((key, _)) => return Err(format!("`{key}` is no limit of copies")),
        }
    }
    Ok(config)
}

fn reinject(input: &str) -> Result<String, String> {
    reinjection(input).map(|_| input.to_owned())
}

fn reinjection(text: &str) -> Result<ReinjectionConfig, String> {
    let mut config = ReinjectionConfig::default();
    if text == "default" {
        return Ok(config);
    }
    let time = |text| units::parse_duration(text).map_err(|e| e.to_string());
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("delay", d)) => config.delay = Some(time(d)?),
            Some(("max", n)) => config.max_per_frame = number(n)?,
            Some(("queue", n)) => config.queue_limit = number(n)?,
            Some(("interval", d)) => config.min_interval = time(d)?,
            _ => return Err(format!("`{part}` is no limit of reinjection")),
        }
    }
    Ok(config)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no number that fits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        let args = PolicyArgs {
            scheduler: Some("round-robin".into()),
            duplicate: Some("datagrams,paths=3,permille=500,burst=1M".into()),
            reinject: Some("delay=20ms,max=1".into()),
            failure_floor: Some(Duration::from_millis(50)),
        };
        let config = args.config().unwrap();
        assert_eq!(config.scheduler, SchedulerKind::RoundRobin);
        let copies = config.duplication.unwrap();
        assert!(copies.datagrams && !copies.all && !copies.crypto);
        assert_eq!(
            (copies.paths, copies.permille, copies.burst),
            (3, 500, 1 << 20)
        );
        let again = config.reinjection.unwrap();
        assert_eq!(again.delay, Some(Duration::from_millis(20)));
        assert_eq!(again.max_per_frame, 1);
        assert_eq!(config.failure.floor, Duration::from_millis(50));
        assert!(
            PolicyArgs::default()
                .config()
                .unwrap()
                .duplication
                .is_none()
        );
        assert!(reinject("default").is_ok());
        for wrong in ["", "streams", "paths", "paths=x", "delay=1"] {
            assert!(duplicate(wrong).is_err(), "{wrong}");
            assert!(reinject(wrong).is_err() || wrong == "delay=1", "{wrong}");
        }
        assert!(scheduler("fastest").is_err());
    }
}
