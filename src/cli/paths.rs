//! Flags about several paths, and what they mean: transport settings, the addresses of the paths,
//! links between client and server that behave as told.

use super::Failure;
use super::policy::PolicyArgs;
use clap::Args;
use corelane::conn::TransportConfig;
use corelane_relay::{Change, Config, Knob, LinkConfig, PathConfig, Relay};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// The most paths of a connection.
const MOST: usize = corelane::base::limits::PATHS;
/// UDP payload that a link of `--link` carries unless told otherwise: an Ethernet frame's.
const LINK_MTU: usize = 1472;
/// How long datagrams wait before such a link at most.
const LINK_QUEUE: Duration = Duration::from_millis(50);

/// Several paths of a connection.
#[derive(Clone, Debug, Default, Args, Serialize)]
pub struct PathArgs {
    /// Paths of each connection: 1 by default, and 2 for failover
    #[arg(long, value_name = "N", value_parser = paths)]
    pub paths: Option<usize>,
    /// Local addresses of the paths, in order and over again; by default 127.0.0.1 and those that
    /// follow where the server's address begins with 127, and else the one that the routes say
    #[arg(long, value_name = "IP,..", value_delimiter = ',')]
    pub local: Vec<IpAddr>,
    /// Clients find their paths by themselves, --paths of them at most, and follow the host's
    /// addresses as they come and go; or those of --local
    #[arg(long)]
    pub auto_paths: bool,
    #[command(flatten)]
    #[serde(flatten)]
    pub policy: PolicyArgs,
}

/// Links between client and server of this process.
#[derive(Clone, Debug, Default, Args, Serialize)]
pub struct LinkArgs {
    /// What the link of a path does, the first one's first and the last one's for all that follow:
    /// KEY=VALUE,.. of delay (ms), rate (Mb/s), queue-ms (ms, 50), mtu (bytes, 1472), loss,
    /// corrupt, duplicate, reorder (%), each for both directions or with up- or down- before it.
    /// May be repeated
    #[arg(long, value_name = "KEY=VALUE,..", value_parser = link)]
    pub link: Vec<String>,
    /// The path that is killed in mid-transfer (failover)
    #[arg(long, value_name = "PATH", value_parser = clap::value_parser!(u32).range(..8))]
    pub kill: Option<u32>,
}

/// A number of paths.
pub fn paths(input: &str) -> Result<usize, String> {
    match input.parse() {
        Ok(n) if (1..=MOST).contains(&n) => Ok(n),
        _ => Err(format!("write a number from 1 to {MOST}")),
    }
}

fn link(input: &str) -> Result<String, String> {
    directions(input).map(|_| input.to_owned())
}

/// Both directions of a link, up and down.
fn directions(text: &str) -> Result<(LinkConfig, LinkConfig), String> {
    let plain = LinkConfig {
        mtu: LINK_MTU,
        queue: usize::MAX,
        queue_time: Some(LINK_QUEUE),
        ..LinkConfig::default()
    };
    let (mut up, mut down) = (plain.clone(), plain);
    let set = |link: &mut LinkConfig, knob: Knob| link.set(knob);
    for change in Change::parse(text)? {
        match change {
            Change::Set(None, knob) => {
                set(&mut up, knob);
                set(&mut down, knob);
            }
            Change::Set(Some(corelane_relay::Direction::Up), knob) => set(&mut up, knob),
            Change::Set(Some(corelane_relay::Direction::Down), knob) => set(&mut down, knob),
            _ => return Err(format!("`{text}` is no property of a link")),
        }
    }
    Ok((up, down))
}

/// Where the paths of a client's connections begin, and what is between them and the server.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// Paths of each connection.
    pub paths: usize,
    /// Connections find them by themselves.
    pub auto: bool,
    local: Vec<IpAddr>,
    links: Vec<(LinkConfig, LinkConfig)>,
    loopback: bool,
}

impl Ways {
    /// What the flags say; `loopback` where the server is at an address of 127.0.0.0/8.
    pub fn new(paths: &PathArgs, links: &LinkArgs, loopback: bool) -> Result<Self, Failure> {
        let each = links.link.iter().map(|text| directions(text));
        let each = each.collect::<Result<_, _>>();
        Ok(Self {
            paths: paths.count(),
            auto: paths.auto_paths,
            local: paths.local.clone(),
            links: each.map_err(Failure::Usage)?,
            loopback,
        })
    }

    /// Gives every path this link if none has one.
    pub fn default_link(&mut self, text: &str) -> Result<(), Failure> {
        if self.links.is_empty() {
            self.links.push(directions(text).map_err(Failure::Usage)?);
        }
        Ok(())
    }

    /// The addresses that paths are found from, if not from all that the host has.
    pub fn addresses(&self) -> Option<Vec<IpAddr>> {
        match self.loopback && self.local.is_empty() {
            true => (0..self.paths).map(|path| self.local(path)).collect(),
            false => Some(self.local.clone()).filter(|l| !l.is_empty()),
        }
    }

    /// What one has to know of these paths, if they are not what they may be taken for.
    pub fn caution(&self) -> Option<String> {
        let mut from: Vec<_> = (0..self.paths).map(|path| self.local(path)).collect();
        from.sort();
        from.dedup();
        let alike = self.paths > 1 && !self.auto && from.len() == 1;
        alike.then(|| {
            format!(
                "{} paths, one local address: name others with --local",
                self.paths
            )
        })
    }

    /// The local address of a path; `None` leaves it to the routes.
    fn local(&self, path: usize) -> Option<IpAddr> {
        let given = self.local.get(path % self.local.len().max(1)).copied();
        let own = || {
            let last = u8::try_from(path + 1).ok()?;
            (self.loopback && self.paths > 1).then(|| Ipv4Addr::new(127, 0, 0, last).into())
        };
        given.or_else(own)
    }

    /// A socket for a path to `server`, which alone it hears.
    pub fn socket(&self, path: usize, server: SocketAddr) -> Result<UdpSocket, Failure> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = self.local(path).unwrap_or(any);
        let open = || -> io::Result<UdpSocket> {
            let domain = Domain::for_address(server);
            let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&SocketAddr::new(local, 0).into())?;
            socket.connect(&server.into())?;
            Ok(socket.into())
        };
        open().map_err(|e| {
            Failure::Failed(format!(
                "cannot send from {local} to {server}: {e}; see --local"
            ))
        })
    }

    /// Whether the first path takes no particular socket.
    pub fn is_plain(&self) -> bool {
        self.paths <= 1 && self.local.is_empty() && self.links.is_empty()
    }

    /// Puts the links before `server`, if there are any: clients connect to the relay then.
    pub fn relay(&self, server: SocketAddr) -> Result<Option<Relay>, Failure> {
        let Some(last) = self.links.last() else {
            return Ok(None);
        };
        let here = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let paths = (0..self.paths.max(1)).map(|n| {
            let (up, down) = self.links.get(n).unwrap_or(last).clone();
            PathConfig {
                client: self.local(n),
                up,
                down,
                ..PathConfig::new(here, server)
            }
        });
        let relay = Relay::start(Config::of_paths(paths.collect()));
        let failed = |e| Failure::Failed(format!("cannot start the relay: {e}"));
        relay.map(Some).map_err(failed)
    }
}

impl PathArgs {
    /// Paths of each connection.
    pub fn count(&self) -> usize {
        self.paths.unwrap_or(1)
    }

    /// The settings, for the report.
    pub fn describe(&self, links: &LinkArgs) -> serde_json::Value {
        let mut described = serde_json::json!({
            "auto_paths": self.auto_paths,
            "local": self.local,
            "link": links.link,
        });
        if let (Some(all), serde_json::Value::Object(policy)) =
            (described.as_object_mut(), self.policy.describe())
        {
            all.extend(policy);
        }
        described
    }

    /// Adapts the transport settings of connections with so many paths.
    pub fn apply(&self, transport: &mut TransportConfig, paths: usize) -> Result<(), Failure> {
        if paths > 1 {
            transport.max_paths = paths as u32;
            transport.multipath = self.policy.config().map_err(Failure::Usage)?;
            transport.multipath.auto_paths = self.auto_paths.then_some(paths as u32);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_as_it_is_told_in_each_direction() {
        let (up, down) = directions("delay=10,rate=20,down-loss=50").unwrap();
        assert_eq!(
            (up.delay, up.rate),
            (Duration::from_millis(10), Some(20_000_000))
        );
        assert_eq!((up.loss, down.loss, down.mtu), (0.0, 0.5, LINK_MTU));
        for (wrong, word) in [
            ("blackhole", "property"),
            ("delay", "queue-ms"),
            ("delay=x", "milliseconds"),
            ("rate=x", "Mb/s"),
            ("speed=10", "queue-ms"),
            ("loss=200", "100"),
        ] {
            let why = link(wrong).unwrap_err();
            assert!(why.contains(word), "{wrong}: {why}");
        }
    }

    #[test]
    fn paths_begin_where_they_are_told_or_next_to_each_other() {
        let args = |paths, local: &[&str]| PathArgs {
            paths: Some(paths),
            local: local.iter().map(|a| a.parse().unwrap()).collect(),
            auto_paths: false,
            policy: PolicyArgs::default(),
        };
        let links = LinkArgs::default();
        let ways = Ways::new(&args(3, &[]), &links, true).unwrap();
        assert_eq!(ways.local(2), Some("127.0.0.3".parse().unwrap()));
        assert_eq!(ways.addresses().unwrap().last().copied(), ways.local(2));
        assert_eq!(
            Ways::new(&args(3, &[]), &links, false).unwrap().local(2),
            None
        );
        assert_eq!(ways.caution(), None);
        let away = Ways::new(&args(2, &[]), &links, false).unwrap();
        assert!(away.caution().unwrap().contains("--local"));
        let ways = Ways::new(&args(3, &["127.0.0.9", "127.0.0.8"]), &links, true).unwrap();
        assert_eq!(ways.caution(), None);
        assert_eq!(ways.local(2), Some("127.0.0.9".parse().unwrap()));
        assert_eq!(ways.addresses().map(|a| a.len()), Some(2));
        assert!(!ways.is_plain());
        assert!(Ways::new(&args(1, &[]), &links, true).unwrap().is_plain());
        assert!(
            ways.relay("127.0.0.1:1".parse().unwrap())
                .unwrap()
                .is_none()
        );
    }
}
