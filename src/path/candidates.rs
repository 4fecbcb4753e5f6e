//! Which pairs of addresses are worth a path: every local address with every remote one, less what
//! cannot work, what there is already, and what failed a moment ago.
//!
//! Pure. Where local addresses come from is `sys::netlink`'s business, and of remote ones the
//! handshake's and the peer's; that an address answers is proved by path validation alone
//! (RFC 9000 §8.2).

use crate::base::net::canonical;
use crate::base::{AddressState, FourTuple, LocalAddress, Timestamp, limits};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The wait before a pair that failed is tried again; twice as long after each further failure.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Why no path is tried between two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unusable {
    /// One is IPv4 and the other IPv6.
    #[error("the addresses are of two families")]
    Family,
    /// One is no host's address: unspecified, multicast or broadcast; or the port is 0.
    #[error("an address is no host's")]
    NoHost,
    /// The local address is tentative or deprecated (RFC 4862 §5.5.4).
    #[error("the local address is tentative or deprecated")]
    State,
    /// One is a loopback address and the other is not.
    #[error("only one of the addresses is a loopback address")]
    Loopback,
    /// One is link-local and the other is not, or is so on another link.
    #[error("a link-local address reaches its own link only")]
    Link,
}

/// Whether packets can go from `local` to `remote` at all.
///
/// # Errors
/// Why not.
pub fn check(local: &LocalAddress, remote: SocketAddr) -> Result<(), Unusable> {
    let remote = canonical(remote);
    let (from, to) = (canonical(SocketAddr::new(local.ip, 0)).ip(), remote.ip());
    if from.is_ipv4() != to.is_ipv4() {
        return Err(Unusable::Family);
    }
    if remote.port() == 0 || is_no_host(from) || is_no_host(to) {
        return Err(Unusable::NoHost);
    }
    if local.state != AddressState::Preferred {
        return Err(Unusable::State);
    }
    if from.is_loopback() != to.is_loopback() {
        return Err(Unusable::Loopback);
    }
    if is_link_local(from) != is_link_local(to) {
        return Err(Unusable::Link);
    }
    match remote {
        // RFC 4007 §6: without its zone the address is not one.
        SocketAddr::V6(to) if is_link_local(from) && to.scope_id() != local.interface => {
            Err(Unusable::Link)
        }
        _ => Ok(()),
    }
}

fn is_no_host(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Pairs that failed, and until when they wait.
#[derive(Clone, Debug, Default)]
pub struct Failures(Vec<Failure>);

#[derive(Clone, Copy, Debug)]
struct Failure {
    tuple: FourTuple,
    times: u32,
    until: Timestamp,
}

impl Failures {
    /// Notes that a path between these addresses did not come up, or broke.
    pub fn note(&mut self, now: Timestamp, tuple: FourTuple) {
        let known = self.0.iter().position(|f| f.tuple == tuple);
        let times = known.map_or(0, |n| self.0.swap_remove(n).times);
        let wait = FIRST_WAIT.saturating_mul(1 << times.min(16));
        if self.0.len() >= limits::FAILED_PAIRS {
            // Who waits longest has failed most often, and is the last to be worth another try.
            let first = (0..self.0.len()).min_by_key(|n| self.0.get(*n).map(|f| f.until));
            first.map(|n| self.0.swap_remove(n));
        }
        self.0.push(Failure {
            tuple,
            times: times.saturating_add(1),
            until: now + wait.min(LONGEST_WAIT),
        });
    }

    /// Forgets what failed between these addresses: a path between them came up.
    pub fn clear(&mut self, tuple: FourTuple) {
        self.0.retain(|f| f.tuple != tuple);
    }

    /// Forgets what failed from this address, as when it comes back.
    pub fn clear_local(&mut self, local: IpAddr) {
        self.0.retain(|f| f.tuple.local.ip() != local);
    }

    /// Whether the pair has still to wait.
    pub fn is_waiting(&self, now: Timestamp, tuple: &FourTuple) -> bool {
        self.0.iter().any(|f| f.tuple == *tuple && now < f.until)
    }

    /// When the next pair may be tried again, of those that still wait.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let waiting = self.0.iter().map(|f| f.until).filter(|until| now < *until);
        waiting.min()
    }
}

/// What there is to choose from.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The addresses of this machine.
    pub locals: &'a [LocalAddress],
    /// The ports that paths leave from, in the order of `locals`.
    pub ports: &'a [u16],
    /// The port of those that have none there.
    pub local_port: u16,
    /// Where the peer can be reached, the most wanted first.
    pub remotes: &'a [SocketAddr],
    /// Paths that there are, in whatever state.
    pub present: &'a [FourTuple],
    /// What failed.
    pub failures: &'a Failures,
    /// Pairs wanted at most.
    pub max: usize,
}

/// The pairs to try now, the best first: each interface without a path once, then each local
/// address without one, then what is left; remote addresses in their order.
///
/// They are tried for a change of addresses and not for each packet, so this allocates.
pub fn candidates(now: Timestamp, choice: &Choice<'_>) -> Vec<FourTuple> {
    let max = choice.max.min(limits::PATHS);
    // A path whose local address the system chose has no interface to count against.
    let mut out: Vec<FourTuple> = Vec::new();
    let mut rounds = [Fresh::Interface, Fresh::Address, Fresh::Any].into_iter();
    let mut round = rounds.next();
    while let Some(fresh) = round.filter(|_| out.len() < max) {
        match choice.find(now, fresh, &out) {
            Some(tuple) => out.push(tuple),
            None => round = rounds.next(),
        }
    }
    out
}

/// What a pair brings that no path has yet.
#[derive(Clone, Copy)]
enum Fresh {
    Interface,
    Address,
    Any,
}

impl Choice<'_> {
    fn find(&self, now: Timestamp, fresh: Fresh, chosen: &[FourTuple]) -> Option<FourTuple> {
        let has = |ip: IpAddr| {
            let mut all = self.present.iter().chain(chosen);
            all.any(|t| canonical(t.local).ip() == ip)
        };
        let on_fresh = |local: &&LocalAddress| match fresh {
            Fresh::Any => true,
            Fresh::Address => !has(local.ip),
            Fresh::Interface => {
                let mut beside = self.locals.iter();
                !beside.any(|l| l.interface == local.interface && has(l.ip))
            }
        };
        let pairs = self.remotes.iter().flat_map(|remote| {
            let locals = self.locals.iter().enumerate();
            let locals = locals.filter(|(_, local)| on_fresh(local));
            locals.map(move |(n, local)| (n, local, *remote))
        });
        let usable = pairs.filter(|(_, local, remote)| check(local, *remote).is_ok());
        usable
            .map(|(n, local, remote)| self.tuple(n, local, remote))
            .find(|tuple| {
                let mut all = self.present.iter().chain(chosen);
                !all.any(|t| t.matches(tuple)) && !self.failures.is_waiting(now, tuple)
            })
    }

    fn tuple(&self, n: usize, local: &LocalAddress, remote: SocketAddr) -> FourTuple {
        let port = self.ports.get(n).copied().unwrap_or(self.local_port);
        let mut from = SocketAddr::new(local.ip, port);
        if let SocketAddr::V6(v6) = &mut from
            && v6.ip().is_unicast_link_local()
        {
            v6.set_scope_id(local.interface);
        }
        FourTuple::new(canonical(from), canonical(remote))
    }
}

#[cfg(test)]
mod tests;
