//! Paths of one relay that are shaped apart from each other, and what changes on them while it
//! runs; with the text forms of both that the program takes.

use crate::link::{Knob, LinkConfig};
use crate::log::Direction;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// One way between clients and a server, with a link of its own.
#[derive(Clone, Debug)]
pub struct PathConfig {
    /// Where clients send to; port 0 for any.
    pub listen: SocketAddr,
    /// Only clients at this address take this path. Several paths may then share `listen`, and the
    /// client's address tells them apart, as its interface would.
    pub client: Option<IpAddr>,
    /// Where their datagrams go.
    pub to: SocketAddr,
    /// The address that the server sees them come from; the loopback address by default.
    pub from: Option<IpAddr>,
    /// Client to server.
    pub up: LinkConfig,
    /// Server to client.
    pub down: LinkConfig,
}

impl PathConfig {
    /// A perfect link from `listen` to `to`.
    pub fn new(listen: SocketAddr, to: SocketAddr) -> Self {
        Self {
            listen,
            client: None,
            to,
            from: None,
            up: LinkConfig::default(),
            down: LinkConfig::default(),
        }
    }

    /// The same with both directions like `link`.
    #[must_use]
    pub fn with_link(self, link: LinkConfig) -> Self {
        Self {
            up: link.clone(),
            down: link,
            ..self
        }
    }

    fn set(&mut self, direction: Option<Direction>, knob: Knob) {
        if direction != Some(Direction::Down) {
            self.up.set(knob);
        }
        if direction != Some(Direction::Up) {
            self.down.set(knob);
        }
    }

    /// Reads `listen=ADDR,to=ADDR[,client=IP][,from=IP][,KNOB=VALUE]..`; what it does not say is as
    /// in `link`. A knob is one of [`Change::parse`].
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, link: &LinkConfig) -> Result<Self, String> {
        let (mut listen, mut to, mut client, mut from) = (None, None, None, None);
        let mut knobs = Vec::new();
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not KEY=VALUE"))?;
            match key {
                "listen" => listen = Some(number(key, value)?),
                "to" => to = Some(number(key, value)?),
                "client" => client = Some(number(key, value)?),
                "from" => from = Some(number(key, value)?),
                _ => knobs.push(knob(key, value)?),
            }
        }
        let listen = listen.ok_or("a path needs listen=ADDR")?;
        let to = to.ok_or("a path needs to=ADDR")?;
        let mut path = Self::new(listen, to).with_link(link.clone());
        (path.client, path.from) = (client, from);
        for (direction, knob) in knobs {
            path.set(direction, knob);
        }
        Ok(path)
    }
}

/// What changes on a path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Nothing that enters that direction comes out, or nothing at all; what is on the link does.
    Blackhole(Option<Direction>),
    /// The end of it, in both directions.
    Restore,
    /// One property of that direction, or of both.
    Set(Option<Direction>, Knob),
    /// The path's clients get another port before the server, as by a NAT.
    Rebind,
}

impl Change {
    /// Reads `blackhole`, `blackhole-up`, `blackhole-down`, `restore`, `rebind`, or changes of the
    /// link as `KNOB=VALUE[,KNOB=VALUE]..`, each knob one of `delay`, `reorder-by`, `queue-ms` (all
    /// in ms), `rate` (in Mb/s, or `off`), `queue` (datagrams), `queue-bytes`, `mtu` (bytes),
    /// `loss`, `corrupt`, `duplicate`, `reorder` (in percent), with `up-` or `down-` before it for
    /// one direction.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        Ok(vec![match text {
            "blackhole" => Self::Blackhole(None),
            "blackhole-up" => Self::Blackhole(Some(Direction::Up)),
            "blackhole-down" => Self::Blackhole(Some(Direction::Down)),
            "restore" => Self::Restore,
            "rebind" => Self::Rebind,
            _ => {
                let each = text.split(',').map(|part| {
                    let (key, value) = part
                        .split_once('=')
                        .ok_or_else(|| format!("`{part}` is not KEY=VALUE: {KNOBS}"))?;
                    let (direction, knob) = knob(key, value)?;
                    Ok(Self::Set(direction, knob))
                });
                return each.collect();
            }
        }])
    }
}

/// A change at its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Since the relay began.
    pub at: Duration,
    /// Which path, from 0 in the order of the configuration.
    pub path: usize,
    /// What happens to it.
    pub change: Change,
}

impl Event {
    /// Reads `TIME pathN CHANGE`, where the time is like `2s` or `1500ms` and the change as
    /// [`Change::parse`] has it.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let words: Vec<_> = text.split_whitespace().collect();
        let [time, path, change] = words[..] else {
            return Err("expected `TIME pathN CHANGE`".into());
        };
        let at = match (time.strip_suffix("ms"), time.strip_suffix('s')) {
            (Some(ms), _) => millis("a time", ms)?,
            (None, Some(s)) => duration("a time", number("a time", s)?)?,
            _ => return Err(format!("`{time}` is no time in s or ms")),
        };
        let path = path
            .strip_prefix("path")
            .ok_or_else(|| format!("`{path}` is no path: path0, path1, .."))?;
        let path = number("a path", path)?;
        let changes = Change::parse(change)?.into_iter();
        Ok(changes.map(|change| Self { at, path, change }).collect())
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    let parsed = value.parse();
    parsed.map_err(|_| format!("`{value}` will not do for {key}"))
}

fn duration(key: &str, seconds: f64) -> Result<Duration, String> {
    let d = Duration::try_from_secs_f64(seconds);
    d.map_err(|_| format!("`{seconds}` will not do for {key}"))
}

fn millis(key: &str, value: &str) -> Result<Duration, String> {
    let number = number::<f64>(key, value).map_err(|e| e + ": write milliseconds, as in 10")?;
    duration(key, number / 1e3)
}

fn megabits(key: &str, value: &str) -> Result<u64, String> {
    let number = number::<f64>(key, value).map_err(|e| e + ": write Mb/s, as in 20, or off")?;
    Ok((number * 1e6) as u64)
}

fn percent(key: &str, value: &str) -> Result<f64, String> {
    match number::<f64>(key, value)? {
        p if (0.0..=100.0).contains(&p) => Ok(p / 100.0),
        _ => Err(format!("`{value}` for {key} is not from 0 to 100")),
    }
}

/// The properties of a link, for who named another.
const KNOBS: &str = "delay, queue-ms, reorder-by (ms), rate (Mb/s), mtu, queue-bytes (bytes), \
                     queue (datagrams), loss, corrupt, duplicate or reorder (%), each with up- or \
                     down- before it for one direction";

/// One knob, and the direction that it is for.
fn knob(key: &str, value: &str) -> Result<(Option<Direction>, Knob), String> {
    let (direction, name) = if let Some(name) = key.strip_prefix("up-") {
        (Some(Direction::Up), name)
    } else if let Some(name) = key.strip_prefix("down-") {
        (Some(Direction::Down), name)
    } else {
        (None, key)
    };
    let knob = match name {
        "delay" => Knob::Delay(millis(key, value)?),
        "rate" if value == "off" => Knob::Rate(None),
        "rate" => Knob::Rate(Some(megabits(key, value)?)),
        "queue" => Knob::Queue(number(key, value)?),
        "queue-bytes" => Knob::QueueBytes(Some(number(key, value)?)),
        "queue-ms" => Knob::QueueTime(Some(millis(key, value)?)),
        "mtu" => Knob::Mtu(number(key, value)?),
        "loss" => Knob::Loss(percent(key, value)?),
        "corrupt" => Knob::Corrupt(percent(key, value)?),
        "duplicate" => Knob::Duplicate(percent(key, value)?),
        "reorder" => Knob::Reorder(percent(key, value)?),
        "reorder-by" => Knob::ReorderBy(millis(key, value)?),
        _ => return Err(format!("`{key}` is not known: {KNOBS}")),
    };
    Ok((direction, knob))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_path_is_read_over_what_all_paths_have() {
        let all = LinkConfig {
            delay: MS * 5,
            queue: 7,
            ..LinkConfig::default()
        };
        let text =
            "listen=127.0.0.1:0,to=127.0.0.1:4433,from=127.0.0.9,rate=20,down-delay=30,loss=1";
        let path = PathConfig::parse(text, &all).unwrap();
        assert_eq!(path.to, "127.0.0.1:4433".parse().unwrap());
        assert_eq!(path.from, Some("127.0.0.9".parse().unwrap()));
        assert_eq!(path.client, None);
        assert_eq!(
            (path.up.rate, path.down.rate),
            (Some(20_000_000), Some(20_000_000))
        );
        assert_eq!((path.up.delay, path.down.delay), (MS * 5, MS * 30));
        assert_eq!((path.up.loss, path.up.queue), (0.01, 7));
        for wrong in [
            "",
            "listen=127.0.0.1:0",
            "to=127.0.0.1:1",
            "listen=nowhere,to=127.0.0.1:1",
            "listen=127.0.0.1:0,to=127.0.0.1:1,loss=101",
            "listen=127.0.0.1:0,to=127.0.0.1:1,delay=-1",
            "listen=127.0.0.1:0,to=127.0.0.1:1,speed=3",
            "listen=127.0.0.1:0,to=127.0.0.1:1,loss",
        ] {
            assert!(PathConfig::parse(wrong, &all).is_err(), "{wrong}");
        }
    }

    #[test]
    fn events_are_read_with_their_time_and_path() {
        let one = |text| Event::parse(text).unwrap()[0];
        let event = one("2s path1 blackhole");
        assert_eq!((event.at, event.path), (Duration::from_secs(2), 1));
        assert_eq!(event.change, Change::Blackhole(None));
        let up = Change::Blackhole(Some(Direction::Up));
        assert_eq!(one("1500ms path0 blackhole-up").change, up);
        assert_eq!(one("0.5s path0 restore").at, MS * 500);
        assert_eq!(one("0s path2 rebind").change, Change::Rebind);
        let both = Event::parse("1s path0 rate=off,down-delay=40").unwrap();
        let delay = Knob::Delay(MS * 40);
        assert_eq!(
            [both[0].change, both[1].change],
            [
                Change::Set(None, Knob::Rate(None)),
                Change::Set(Some(Direction::Down), delay)
            ]
        );
        for wrong in [
            "",
            "2s path1",
            "2 path1 restore",
            "2s 1 restore",
            "2s path-1 restore",
            "-2s path1 restore",
            "2s path1 explode",
            "2s path1 restore now",
        ] {
            assert!(Event::parse(wrong).is_err(), "{wrong}");
        }
    }
}
