//! Addresses that either side tells the other (`wire::frame::address`), where both declared it.
//!
//! Ours are told only where the configuration allows each. What a peer names is a hint that may be
//! a lie (RFC 9000 §21.5): addresses where nothing is sent on somebody's word are passed over, few
//! are kept, few may follow each other, and a path to one gets challenges alone, at a slow pace,
//! until somebody answers there.

use super::super::Connection;
use super::super::guard::PortGuard;
use super::super::space::SentFrame;
use super::auto::Automatic;
use super::{OpenPathError, PathEvent};
use crate::base::net::canonical;
use crate::base::{Timestamp, limits};
use crate::path::validate::Start;
use crate::path::{Path, PathId, PathState, Validation};
use crate::wire::frame::address::{ADD_ADDRESS_SIZE, PATHS_SIZE};
use crate::wire::frame::{AddAddress, AddressFrame, address};
use crate::wire::{Code, Extensions, Side, TransportError, Writer};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Which addresses of ours a peer may be told, and that it may tell us its own.
///
/// ```
/// use corelane::conn::{AddressConfig, TransportConfig};
///
/// let mut transport = TransportConfig::default();
/// transport.max_paths = 4;
/// transport.multipath.addresses = Some(AddressConfig {
///     allow: vec![("192.0.2.0".parse().unwrap(), 24)],
/// });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressConfig {
    /// Prefixes whose addresses may be told, with their length in bits; none at all by default, for
    /// an address says where in its networks a host is.
    pub allow: Vec<(IpAddr, u8)>,
}

impl AddressConfig {
    /// Whether an address may be told.
    pub fn allows(&self, addr: IpAddr) -> bool {
        let allows = |(prefix, bits): &(IpAddr, u8)| match (prefix, addr) {
            (IpAddr::V4(p), IpAddr::V4(a)) => {
                shares(p.to_bits().into(), a.to_bits().into(), 32, *bits)
            }
            (IpAddr::V6(p), IpAddr::V6(a)) => shares(p.to_bits(), a.to_bits(), 128, *bits),
            _ => false,
        };
        self.allow.iter().any(allows)
    }
}

/// Whether two addresses of `width` bits share the first `bits`.
fn shares(a: u128, b: u128, width: u32, bits: u8) -> bool {
    let rest = width.saturating_sub(bits.into());
    (a ^ b).checked_shr(rest).unwrap_or(0) == 0
}

/// Why the peer is not told an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertiseError {
    /// The connection is over.
    #[error("the connection is over")]
    Closed,
    /// One side does not take part.
    #[error("one side does not advertise addresses (MultipathConfig::addresses)")]
    NotNegotiated,
    /// The configuration does not allow it.
    #[error("{0} is not among the addresses that may be told (AddressConfig::allow)")]
    NotAllowed(SocketAddr),
    /// Nothing can be sent there.
    #[error("nothing can be sent to {0}")]
    NoHost(SocketAddr),
    /// Enough were told.
    #[error("the peer was told as many addresses as it keeps")]
    TooMany,
}

/// Attempts that are given back with time.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: u32,
    since: Timestamp,
}

impl Allowance {
    const fn new(now: Timestamp, burst: u32) -> Self {
        let since = now;
        Self { left: burst, since }
    }

    /// Takes one, of at most `burst` that grow by one each `every`.
    fn take(&mut self, now: Timestamp, burst: u32, every: Duration) -> bool {
        while self.left < burst && self.since + every <= now {
            self.left += 1;
            self.since += every;
        }
        if self.left == burst {
            self.since = now;
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }
}

/// An address of ours that the peer is told.
#[derive(Clone, Copy, Debug)]
struct Told {
    addr: SocketAddr,
    seq: u64,
    due: bool,
}

/// An address that the peer named.
#[derive(Clone, Copy, Debug)]
struct Named {
    id: u64,
    seq: u64,
    addr: SocketAddr,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Addresses {
    /// By our name for them, which is their index.
    told: Vec<Told>,
    named: Vec<Named>,
    /// PATHS is to be sent, and what it said last.
    paths_due: bool,
    paths_said: (u64, u64),
    /// CLOSE_PATH frames to be sent.
    closes: Vec<(PathId, Code)>,
    /// News of addresses that are taken from the peer.
    news: Allowance,
    /// Paths that may be tried to addresses of the peer's naming.
    tries: Allowance,
}

impl Addresses {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            told: Vec::new(),
            named: Vec::new(),
            paths_due: false,
            paths_said: (0, 1),
            closes: Vec::new(),
            news: Allowance::new(now, limits::PEER_ADDRESSES as u32),
            tries: Allowance::new(now, limits::ADDRESS_TRIES),
        }
    }

    /// Whether a frame waits.
    pub(super) fn wants_to_send(&self) -> bool {
        self.paths_due || !self.closes.is_empty() || self.told.iter().any(|t| t.due)
    }

    /// Writes the frames that wait, as far as there is room.
    pub(super) fn write(&mut self, w: &mut Writer<'_>, scratch: &mut Vec<SentFrame>) {
        for (id, told) in self.told.iter_mut().enumerate().filter(|(_, t)| t.due) {
            if w.remaining() < ADD_ADDRESS_SIZE {
                return;
            }
            let Told { addr, seq, .. } = *told;
            let id = id as u32;
            let frame = AddAddress {
                id: id.into(),
                seq,
                addr,
            };
            address::write_add_address(w, &frame);
            scratch.push(SentFrame::AddAddress { id });
            told.due = false;
        }
        if self.paths_due && w.remaining() >= PATHS_SIZE {
            address::write_paths(w, self.paths_said.0, self.paths_said.1);
            scratch.push(SentFrame::Paths);
            self.paths_due = false;
        }
        while let Some((path, error)) = self.closes.last().copied() {
            let frame = AddressFrame::ClosePath {
                path,
                error,
                reason: b"",
            };
            if w.remaining() < frame.write_size() {
                return;
            }
            frame.write(w);
            scratch.push(SentFrame::ClosePath { path, error });
            self.closes.pop();
        }
    }

    /// A frame was lost.
    pub(super) fn on_lost(&mut self, frame: SentFrame) {
        match frame {
            SentFrame::AddAddress { id } => {
                if let Some(told) = self.told.get_mut(id as usize) {
                    told.due = true;
                }
            }
            SentFrame::Paths => self.paths_due = true,
            SentFrame::ClosePath { path, error } => self.ask_to_close(path, error),
            _ => {}
        }
    }

    fn ask_to_close(&mut self, path: PathId, error: Code) {
        if self.closes.len() < limits::PATH_ABANDONS && !self.closes.contains(&(path, error)) {
            self.closes.push((path, error));
        }
    }

    /// Whether a path to an address of the peer's naming may be tried now, which counts.
    fn may_try(&mut self, now: Timestamp) -> bool {
        let (burst, every) = (limits::ADDRESS_TRIES, limits::ADDRESS_TRY_EVERY);
        self.tries.take(now, burst, every)
    }

    /// Whether an address is known from the peer's word alone.
    fn is_named(&self, remote: SocketAddr) -> bool {
        self.named.iter().any(|n| n.addr == canonical(remote))
    }

    /// The addresses that the peer named.
    pub(super) fn named(&self) -> impl Iterator<Item = SocketAddr> {
        self.named.iter().map(|n| n.addr)
    }

    /// The peer named an address that is worth keeping; false when it is not news.
    fn on_named(&mut self, now: Timestamp, f: &AddAddress) -> bool {
        let addr = canonical(f.addr);
        let known = self.named.iter().position(|n| n.id == f.id);
        let old = known.and_then(|at| self.named.get(at));
        if old.is_some_and(|n| n.seq >= f.seq) {
            return false;
        }
        if old.is_some_and(|n| n.addr == addr) {
            if let Some(n) = known.and_then(|at| self.named.get_mut(at)) {
                n.seq = f.seq;
            }
            return false;
        }
        let full = known.is_none() && self.named.len() >= limits::PEER_ADDRESSES;
        let most = limits::PEER_ADDRESSES as u32;
        if full || !self.news.take(now, most, limits::ADDRESS_NEWS_EVERY) {
            return false;
        }
        let named = Named {
            id: f.id,
            seq: f.seq,
            addr,
        };
        match known.and_then(|at| self.named.get_mut(at)) {
            Some(n) => *n = named,
            None => self.named.push(named),
        }
        true
    }
}

impl PortGuard {
    /// Whether a path may be tried to `new` because a peer at `present` says so: nothing behind
    /// this host's own borders on the word of somebody outside (RFC 9000 §21.5.6).
    fn admits_named(&self, present: SocketAddr, new: SocketAddr) -> bool {
        let (present, new) = (canonical(present), canonical(new));
        self.admits(present, new) && (!is_private(new.ip()) || is_inside(present.ip()))
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        // RFC 1918, and RFC 6598 for networks behind a carrier's NAT.
        IpAddr::V4(ip) => ip.is_private() || matches!(ip.octets(), [100, 64..=127, ..]),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

fn is_inside(ip: IpAddr) -> bool {
    is_private(ip) || ip.is_loopback()
}

impl Connection {
    /// Whether both sides tell each other addresses.
    pub fn advertises_addresses(&self) -> bool {
        self.extensions.addresses && self.multipath.is_some()
    }

    /// Tells the peer that this side can be reached at an address too. It is told once.
    ///
    /// # Errors
    /// [`AdvertiseError`].
    pub fn advertise_address(&mut self, addr: SocketAddr) -> Result<(), AdvertiseError> {
        if self.state.is_closed() {
            return Err(AdvertiseError::Closed);
        }
        let addr = canonical(addr);
        let config = self.config.multipath.addresses.as_ref();
        let addresses = self.multipath.as_deref_mut();
        let addresses = addresses.and_then(|m| m.addresses.as_deref_mut());
        let (Some(config), Some(addresses)) = (config, addresses) else {
            return Err(AdvertiseError::NotNegotiated);
        };
        let ip = addr.ip();
        if addr.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(AdvertiseError::NoHost(addr));
        }
        if !config.allows(ip) {
            return Err(AdvertiseError::NotAllowed(addr));
        }
        if addresses.told.iter().any(|t| t.addr == addr) {
            return Ok(());
        }
        if addresses.told.len() >= limits::PEER_ADDRESSES {
            return Err(AdvertiseError::TooMany);
        }
        let seq = addresses.told.len() as u64;
        let due = true;
        addresses.told.push(Told { addr, seq, due });
        Ok(())
    }

    /// Asks the peer to abandon a path. False when it would not understand.
    pub fn ask_to_close(&mut self, path: PathId, error: Code) -> bool {
        let addresses = self.multipath.as_deref_mut();
        let addresses = addresses.and_then(|m| m.addresses.as_deref_mut());
        let known = self.paths.get(path).is_some_and(|p| !p.is_abandoned());
        addresses.filter(|_| known).is_some_and(|a| {
            a.ask_to_close(path, error);
            true
        })
    }

    /// The addresses that the peer named and that a path may be tried to.
    pub fn peer_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let m = self.multipath.as_deref();
        let addresses = m.and_then(|m| m.addresses.as_deref());
        addresses.into_iter().flat_map(Addresses::named)
    }

    /// What the configuration asks for, of a connection that may have several paths.
    pub(super) fn begin_addresses(&mut self) {
        let told = self.extensions.addresses;
        let auto = self.config.multipath.auto_paths;
        let auto = auto.filter(|_| self.side == Side::Client);
        if let Some(m) = self.multipath.as_deref_mut() {
            m.addresses = told.then(|| Box::new(Addresses::new(Timestamp::ZERO)));
            m.auto = auto.map(|max| Box::new(Automatic::new(max)));
        }
    }

    /// Whether an address is known from the peer's word alone, which counts as a try of it.
    pub(super) fn try_named(
        &mut self,
        now: Timestamp,
        remote: SocketAddr,
    ) -> Result<bool, OpenPathError> {
        let m = self.multipath.as_deref_mut();
        let Some(addresses) = m.and_then(|m| m.addresses.as_deref_mut()) else {
            return Ok(false);
        };
        let proven = |p: &Path<SentFrame>| p.state == PathState::Open && p.tuple.remote == remote;
        if !addresses.is_named(remote) || self.paths.iter().any(proven) {
            return Ok(false);
        }
        match addresses.may_try(now) {
            true => Ok(true),
            false => Err(OpenPathError::TooSoon(remote)),
        }
    }

    /// The try was none.
    pub(super) fn give_back_try(&mut self, named: bool) {
        let m = self.multipath.as_deref_mut().filter(|_| named);
        if let Some(addresses) = m.and_then(|m| m.addresses.as_deref_mut()) {
            addresses.tries.left += 1;
        }
    }

    /// The validation of a new path of ours: slow, to an address on somebody's word, and as if one
    /// datagram had come from there. What the peer makes this side say while no other path is left
    /// would go there as well, acknowledgements for example (RFC 9000 §8, §21.5).
    pub(super) fn challenge_named(&mut self, now: Timestamp, named: bool) -> Validation {
        if !named {
            return self.challenge(now, None);
        }
        let (interval, patience) = self.patience();
        let start = Start {
            data: [self.rng.array(), self.rng.array()],
            interval: interval.max(self.config.initial_rtt),
            patience,
            received: Some(limits::MIN_UDP_PAYLOAD),
        };
        let mut validation = Validation::default();
        validation.start(now, start);
        validation
    }

    /// A frame of the extension came.
    pub(in super::super) fn on_address_frame(
        &mut self,
        now: Timestamp,
        frame: &AddressFrame<'_>,
    ) -> Result<(), TransportError> {
        if !self.advertises_addresses() {
            return Err(Extensions::unknown(frame.ty()));
        }
        let present = self.main_path().tuple.remote;
        let Some(m) = self.multipath.as_deref_mut() else {
            return Ok(());
        };
        match *frame {
            AddressFrame::AddAddress(f) => {
                let admitted = self.config.port_guard.admits_named(present, f.addr);
                let addresses = m.addresses.as_deref_mut().filter(|_| admitted);
                if addresses.is_some_and(|a| a.on_named(now, &f)) {
                    let (id, addr) = (f.id, canonical(f.addr));
                    self.push_path_event(PathEvent::PeerAddress { id, addr });
                    self.consider_paths();
                }
            }
            AddressFrame::Paths { available, active } => {
                self.push_path_event(PathEvent::PeerPaths { available, active });
            }
            AddressFrame::ClosePath { path, error, .. } => {
                if path > m.limits.local_max() {
                    return Err(super::abandon::beyond_limit());
                }
                // Who is asked for the last one keeps it: the peer can abandon it itself.
                let open = self.paths.get(path).is_some_and(|p| !p.is_abandoned());
                if open && !self.is_last(path) {
                    self.push_path_event(PathEvent::CloseAsked { id: path, error });
                    self.abandon_path(now, path, error, false);
                }
            }
        }
        Ok(())
    }

    /// Tells the peer how many paths there are, if that changed.
    pub(super) fn count_paths(&mut self) {
        let open = |p: &&Path<SentFrame>| p.state == PathState::Open;
        let active = self.paths.iter().filter(open).count() as u64;
        let available = u64::from(self.config.max_paths).max(active);
        let m = self.multipath.as_deref_mut();
        if let Some(a) = m.and_then(|m| m.addresses.as_deref_mut())
            && a.paths_said != (available, active)
        {
            a.paths_said = (available, active);
            a.paths_due = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_say_what_may_be_told() {
        let config = AddressConfig {
            allow: vec![
                ("192.0.2.0".parse().unwrap(), 24),
                ("2001:db8::".parse().unwrap(), 32),
                ("198.51.100.7".parse().unwrap(), 32),
            ],
        };
        for (addr, ok) in [
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("198.51.100.7", true),
            ("198.51.100.6", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("::ffff:192.0.2.1", false),
        ] {
            assert_eq!(config.allows(addr.parse().unwrap()), ok, "{addr}");
        }
        assert!(!AddressConfig::default().allows("192.0.2.1".parse().unwrap()));
        let all = AddressConfig {
            allow: vec![("0.0.0.0".parse().unwrap(), 0)],
        };
        assert!(all.allows("203.0.113.1".parse().unwrap()));
        assert!(!all.allows("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn nobody_outside_names_addresses_inside() {
        let guard = PortGuard::default();
        let (outside, inside) = ("203.0.113.5:443", "10.1.2.3:443");
        for (present, new, ok) in [
            (outside, "198.51.100.1:443", true),
            (outside, "192.168.1.1:443", false),
            (outside, "10.0.0.1:443", false),
            (outside, "100.64.0.1:443", false),
            (outside, "[fd00::1]:443", false),
            (outside, "[::ffff:10.0.0.1]:443", false),
            (outside, "127.0.0.1:443", false),
            (outside, "[::ffff:127.0.0.1]:443", false),
            (outside, "224.0.0.1:443", false),
            (outside, "255.255.255.255:443", false),
            (outside, "0.0.0.0:443", false),
            (outside, "198.51.100.1:53", false),
            (inside, "192.168.1.1:443", true),
            (inside, "127.0.0.1:443", false),
            ("127.0.0.1:443", "127.0.0.9:443", true),
        ] {
            let (present, new) = (present.parse().unwrap(), new.parse().unwrap());
            assert_eq!(guard.admits_named(present, new), ok, "{present} {new}");
        }
    }

    #[test]
    fn news_are_capped_and_come_at_a_rate() {
        let mut now = Timestamp::ZERO;
        let mut a = Addresses::new(now);
        let named = |id: u64, seq: u64| AddAddress {
            id,
            seq,
            addr: SocketAddr::from(([203, 0, 113, (seq % 250) as u8], 443)),
        };
        let taken = (0..1000).filter(|n| a.on_named(now, &named(*n, *n)));
        assert_eq!(taken.count(), limits::PEER_ADDRESSES);
        // Changes of those that are known come no faster than the rate.
        now += limits::ADDRESS_NEWS_EVERY * 3;
        let taken = (1..1000).filter(|n| a.on_named(now, &named(0, 1000 + n)));
        assert_eq!(taken.count(), 3);
        assert!(!a.on_named(now, &named(0, 5)), "an old one");
        assert_eq!(a.named().count(), limits::PEER_ADDRESSES);
    }

    #[test]
    fn tries_are_limited() {
        let now = Timestamp::ZERO;
        let mut a = Addresses::new(now);
        let addr = SocketAddr::from(([203, 0, 113, 9], 443));
        assert!(a.on_named(
            now,
            &AddAddress {
                id: 0,
                seq: 0,
                addr
            }
        ));
        assert!(a.is_named(addr));
        let tries = (0..100).filter(|_| a.may_try(now)).count();
        assert_eq!(tries, limits::ADDRESS_TRIES as usize);
        let later = now + limits::ADDRESS_TRY_EVERY;
        assert!(a.may_try(later) && !a.may_try(later));
    }
}
