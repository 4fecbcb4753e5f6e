//! Flags about how several paths are used: the scheduler, copies, reinjection, failure.

use super::report::units;
use clap::Args;
use corelane::conn::multipath::MultipathConfig;
use corelane::path::duplicate::DuplicationConfig;
use corelane::path::failure::MIN_FLOOR;
use corelane::path::reinject::ReinjectionConfig;
use corelane::path::schedule::SchedulerKind;
use serde::Serialize;
use std::time::Duration;

/// How several paths are used.
#[derive(Clone, Debug, Default, Args, Serialize)]
pub struct PolicyArgs {
    /// Which path a packet takes: low-latency (the default), ecf, min-rtt[:BIAS] (from 0, equal
    /// shares, to 1, the lowest round trip), round-robin, blest, redundant[:PATHS],
    /// weighted[:PATH=WEIGHT,..] (as in weighted:0=3,1=1) or backup
    #[arg(long, value_name = "KIND", value_parser = scheduler)]
    pub scheduler: Option<String>,
    /// What is sent on several paths at once: any of crypto, resets, datagrams, all, and paths=N
    /// (2), permille=N (of the bytes sent, 100), burst=SIZE (16K)
    #[arg(long, value_name = "WHAT,..", value_parser = duplicate)]
    pub duplicate: Option<String>,
    /// Sends on another path what is overdue or in flight on a path that may have failed: `default`
    /// or any of delay=TIME (50ms), max=N (times for a frame, 2), queue=N (256), interval=TIME (0)
    #[arg(long, value_name = "KEY=VALUE,..", value_parser = reinject)]
    pub reinject: Option<String>,
    /// A path may have failed when it acknowledges nothing for so long (200ms; 50ms at least) and
    /// for four round trips
    #[arg(long, value_name = "TIME", value_parser = floor)]
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

    /// Refuses what connections of so many paths have no use for. Where paths come and go by
    /// themselves their identifiers have no end.
    pub fn check(&self, paths: usize, auto: bool) -> Result<(), String> {
        let given = [
            ("--scheduler", self.scheduler.is_some()),
            ("--duplicate", self.duplicate.is_some()),
            ("--reinject", self.reinject.is_some()),
            ("--failure-floor", self.failure_floor.is_some()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given && paths < 2) {
            return Err(format!("{flag} needs several paths: add --paths 2"));
        }
        let config = self.config()?;
        match &config.scheduler {
            SchedulerKind::Redundant { paths: n } if *n < u8::MAX && usize::from(*n) > paths => {
                return Err(format!(
                    "--scheduler redundant:{n}: there are {paths} paths; raise --paths"
                ));
            }
            SchedulerKind::Weighted(weights) if !auto => {
                if let Some((id, _)) = weights.iter().find(|(id, _)| id.0 as usize >= paths) {
                    return Err(format!(
                        "--scheduler: no path {id}: paths are numbered from 0, below --paths"
                    ));
                }
            }
            _ => {}
        }
        let copies = config.duplication.map_or(0, |d| usize::from(d.paths));
        if self
            .duplicate
            .as_ref()
            .is_some_and(|d| d.contains("paths="))
            && copies > paths
        {
            return Err(format!(
                "--duplicate paths={copies}: there are {paths} paths; raise --paths"
            ));
        }
        Ok(())
    }

    /// The settings, for the report.
    pub fn describe(&self) -> serde_json::Value {
        let config = self.config().unwrap_or_default();
        serde_json::json!({
            "scheduler": config.scheduler.to_string(),
            "duplicate": self.duplicate,
            "reinject": self.reinject,
            "failure_floor_seconds": config.failure.floor.as_secs_f64(),
        })
    }
}

fn floor(input: &str) -> Result<Duration, String> {
    match units::parse_duration(input).map_err(|e| e.to_string())? {
        floor if floor < MIN_FLOOR => Err("below 50ms a busy host would do: 50ms at least".into()),
        floor => Ok(floor),
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
                _ => return Err(wrong_copies(part)),
            },
            Some(("paths", n)) => config.paths = number(n)?,
            Some(("permille", n)) => config.permille = number(n)?,
            Some(("burst", n)) => config.burst = units::parse_size(n).map_err(|e| e.to_string())?,
            Some((key, _)) => return Err(wrong_copies(key)),
        }
    }
    let c = &config;
    if !(c.crypto || c.resets || c.datagrams || c.all) {
        return Err("nothing is copied: name crypto, resets, datagrams or all".into());
    }
    if c.paths < 2 {
        return Err("paths=N counts the first one too: 2 at least".into());
    }
    Ok(config)
}

fn wrong_copies(word: &str) -> String {
    format!("no `{word}`: crypto, resets, datagrams, all, paths=N, permille=N or burst=SIZE")
}

fn reinject(input: &str) -> Result<String, String> {
    reinjection(input).map(|_| input.to_owned())
}

fn reinjection(text: &str) -> Result<ReinjectionConfig, String> {
    let mut config = ReinjectionConfig::default();
    let time = |text| units::parse_duration(text).map_err(|e| e.to_string());
    for part in text.split(',') {
        match part.split_once('=') {
            None if part == "default" => {}
            Some(("delay", d)) => config.delay = Some(time(d)?),
            Some(("max", n)) => config.max_per_frame = number(n)?,
            Some(("queue", n)) => config.queue_limit = number(n)?,
            Some(("interval", d)) => config.min_interval = time(d)?,
            _ => {
                let known = "default, or delay=TIME, max=N, queue=N or interval=TIME";
                return Err(format!("no `{part}`: {known}"));
            }
        }
    }
    if config.max_per_frame == 0 || config.queue_limit == 0 {
        return Err("nothing is sent again: max and queue are 1 at least".into());
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
        assert!(duplicate("foo").unwrap_err().contains("datagrams"));
        assert!(reinject("foo=1").unwrap_err().contains("delay=TIME"));
    }

    #[test]
    fn policies_that_do_nothing_are_refused() {
        for (text, word) in [
            ("paths=2", "name crypto"),
            ("permille=500,burst=1M", "name crypto"),
            ("all,paths=1", "2 at least"),
            ("all,paths=0", "2 at least"),
        ] {
            let why = duplicate(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
        for text in ["max=0", "delay=5ms,queue=0"] {
            assert!(reinject(text).unwrap_err().contains("1 at least"), "{text}");
        }
        assert!(reinject("default,delay=5ms").is_ok());
        for text in ["0", "49ms"] {
            assert!(floor(text).unwrap_err().contains("50ms"), "{text}");
        }
        assert_eq!(floor("50ms"), Ok(MIN_FLOOR));
    }

    #[test]
    fn policies_fit_the_paths() {
        let with = |text: &str| PolicyArgs {
            scheduler: Some(text.into()),
            ..PolicyArgs::default()
        };
        assert!(with("ecf").check(2, false).is_ok());
        assert!(with("redundant").check(2, false).is_ok());
        assert!(with("redundant:2").check(2, false).is_ok());
        assert!(with("weighted:0=3,1=1").check(2, false).is_ok());
        assert!(with("weighted:0=3,7=1").check(2, true).is_ok());
        for (text, paths, word) in [
            ("ecf", 1, "--paths 2"),
            ("redundant:9", 2, "--paths"),
            ("weighted:0=3,7=1", 2, "path 7"),
        ] {
            let why = with(text).check(paths, false).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
        assert!(PolicyArgs::default().check(1, false).is_ok());
        assert_eq!(with("ecf").describe()["failure_floor_seconds"], 0.2);
    }
}
