//! Messages as the kernel lays them out, the table that they make, and the kernel itself in a
//! network namespace of the test's own.

use super::message::{HEADER, messages};
use super::*;
use crate::base::AddressState;
use proptest::prelude::*;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::Command;

/// A message with this body.
fn framed(ty: u16, flags: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((HEADER as u32 + payload.len() as u32).to_ne_bytes());
    out.extend(ty.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(seq.to_ne_bytes());
    out.extend(0u32.to_ne_bytes());
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn attribute(ty: u16, value: &[u8]) -> Vec<u8> {
    let mut out = (4 + value.len() as u16).to_ne_bytes().to_vec();
    out.extend(ty.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn octets(ip: &str) -> (u8, Vec<u8>) {
    match ip.parse().unwrap() {
        IpAddr::V4(ip) => (libc::AF_INET as u8, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6 as u8, ip.octets().to_vec()),
    }
}

fn addr_body(ip: &str, index: u32, flags: u8, more: &[u8]) -> Vec<u8> {
    let (family, octets) = octets(ip);
    let mut out = vec![family, 24, flags, 0];
    out.extend(index.to_ne_bytes());
    out.extend(attribute(libc::IFA_ADDRESS, &octets));
    out.extend(more);
    out
}

fn link_body(family: u8, index: u32, flags: i32, name: &[u8]) -> Vec<u8> {
    let mut out = vec![family, 0, 0, 0];
    out.extend(index.to_ne_bytes());
    out.extend((flags as u32).to_ne_bytes());
    out.extend([0; 4]);
    out.extend(attribute(libc::IFLA_IFNAME, name));
    out
}

const UP: i32 = libc::IFF_UP | libc::IFF_RUNNING;

fn new_addr(seq: u32, ip: &str, index: u32, flags: u8) -> Vec<u8> {
    framed(libc::RTM_NEWADDR, 0, seq, &addr_body(ip, index, flags, &[]))
}

fn new_link(seq: u32, index: u32, flags: i32) -> Vec<u8> {
    framed(
        libc::RTM_NEWLINK,
        0,
        seq,
        &link_body(0, index, flags, b"eth0\0"),
    )
}

fn done(seq: u32, flags: i32) -> Vec<u8> {
    framed(libc::NLMSG_DONE as u16, flags as u16, seq, &[0; 4])
}

fn local(ip: &str, interface: u32, state: AddressState) -> LocalAddress {
    LocalAddress {
        ip: ip.parse().unwrap(),
        interface,
        state,
    }
}

/// What the bytes make of a table.
fn feed(table: &mut Table, bytes: &[u8]) -> (Vec<RouteEvent>, Request) {
    let (mut events, mut request) = (Vec::new(), None);
    for message in messages(bytes) {
        request = table.take(message, &mut events).or(request);
    }
    (events, request)
}

fn address_of(bytes: &[u8]) -> Option<LocalAddress> {
    match messages(bytes).next()?.body {
        Body::Address { address, .. } => Some(address),
        _ => None,
    }
}

#[test]
fn an_address_is_the_local_one_with_its_state() {
    use AddressState::{Deprecated, Preferred, Tentative};
    let states = [
        (0, Preferred),
        (libc::IFA_F_PERMANENT, Preferred),
        (libc::IFA_F_DEPRECATED, Deprecated),
        (libc::IFA_F_TENTATIVE, Tentative),
        (libc::IFA_F_TENTATIVE | libc::IFA_F_OPTIMISTIC, Preferred),
        (libc::IFA_F_DADFAILED | libc::IFA_F_TENTATIVE, Tentative),
    ];
    for (flags, state) in states {
        let short = new_addr(0, "2001:db8::1", 7, flags as u8);
        assert_eq!(address_of(&short), Some(local("2001:db8::1", 7, state)));
        // The attribute counts, where it is there.
        let long = attribute(libc::IFA_FLAGS, &flags.to_ne_bytes());
        let body = addr_body("2001:db8::1", 7, !(flags as u8), &long);
        let message = framed(libc::RTM_NEWADDR, 0, 0, &body);
        assert_eq!(address_of(&message), Some(local("2001:db8::1", 7, state)));
    }
    let near = attribute(libc::IFA_LOCAL, &octets("192.0.2.1").1);
    let body = addr_body("192.0.2.2", 3, 0, &near);
    let message = framed(libc::RTM_NEWADDR, 0, 0, &body);
    assert_eq!(address_of(&message), Some(local("192.0.2.1", 3, Preferred)));
    // Families and lengths that are not addresses.
    let mut other = addr_body("192.0.2.2", 3, 0, &[]);
    other[0] = 99;
    assert_eq!(address_of(&framed(libc::RTM_NEWADDR, 0, 0, &other)), None);
    other[0] = libc::AF_INET6 as u8;
    assert_eq!(address_of(&framed(libc::RTM_NEWADDR, 0, 0, &other)), None);
}

#[test]
fn a_link_is_up_when_it_runs_and_bridges_do_not_count() {
    let up = |family, flags| {
        let body = link_body(family, 2, flags, b"eth0\0");
        match messages(&framed(libc::RTM_NEWLINK, 0, 0, &body))
            .next()
            .unwrap()
            .body
        {
            Body::Link {
                index: 2,
                name,
                is_up,
            } => Some((name.to_vec(), is_up)),
            _ => None,
        }
    };
    assert_eq!(up(0, UP), Some((b"eth0".to_vec(), true)));
    assert_eq!(up(0, libc::IFF_UP), Some((b"eth0".to_vec(), false)));
    assert_eq!(up(0, libc::IFF_RUNNING), Some((b"eth0".to_vec(), false)));
    assert_eq!(up(libc::AF_BRIDGE as u8, UP), None);
}

#[test]
fn a_message_cut_anywhere_says_nothing() {
    let whole = [new_link(0, 2, UP), new_addr(0, "192.0.2.1", 2, 0)].concat();
    let first = new_link(0, 2, UP).len();
    for cut in 0..whole.len() {
        let (events, _) = feed(&mut Table::new(), &whole[..cut]);
        assert_eq!(events.len(), usize::from(cut >= first), "{cut}");
    }
    assert_eq!(feed(&mut Table::new(), &whole).0.len(), 2);
}

/// A table that has learnt of one link and two addresses.
fn settled() -> Table {
    let mut table = Table::new();
    assert_eq!(table.restart(), Some(libc::RTM_GETLINK));
    let links = [new_link(1, 2, UP), done(1, 0)].concat();
    let (events, request) = feed(&mut table, &links);
    assert_eq!(events, [RouteEvent::LinkUp { interface: 2 }]);
    assert_eq!(request, Some(libc::RTM_GETADDR));
    let addresses = [
        new_addr(2, "192.0.2.1", 2, 0),
        new_addr(2, "2001:db8::1", 2, libc::IFA_F_TENTATIVE as u8),
        done(2, 0),
    ];
    let (events, request) = feed(&mut table, &addresses.concat());
    assert_eq!((events.len(), request), (2, None));
    assert!(
        matches!(&events[0], RouteEvent::AddressAdded { interface, .. } if &**interface == "eth0")
    );
    assert_eq!(table.dump, Dump::Idle);
    table
}

#[test]
fn only_news_is_told() {
    let mut table = settled();
    let again = [new_link(0, 2, UP), new_addr(0, "192.0.2.1", 2, 0)].concat();
    assert_eq!(feed(&mut table, &again).0, []);
    // The address has turned out to be unique.
    let (events, _) = feed(&mut table, &new_addr(0, "2001:db8::1", 2, 0));
    let ready = local("2001:db8::1", 2, AddressState::Preferred);
    assert!(matches!(events[..], [RouteEvent::AddressAdded { address, .. }] if address == ready));
    let (events, _) = feed(&mut table, &new_link(0, 2, libc::IFF_UP));
    assert_eq!(events, [RouteEvent::LinkDown { interface: 2 }]);
    assert!(!table.is_up(2));
    let body = addr_body("192.0.2.1", 2, 0, &[]);
    let gone = framed(libc::RTM_DELADDR, 0, 0, &body);
    let (events, _) = feed(&mut table, &gone);
    let address = local("192.0.2.1", 2, AddressState::Preferred);
    assert_eq!(events, [RouteEvent::AddressRemoved { address }]);
    assert_eq!(feed(&mut table, &gone).0, [], "once");
}

#[test]
fn what_was_lost_is_made_up_for() {
    let mut table = settled();
    let overrun = framed(libc::NLMSG_OVERRUN as u16, 0, 0, &[]);
    assert_eq!(
        feed(&mut table, &overrun),
        (vec![], Some(libc::RTM_GETLINK))
    );
    // A second loss while the kernel answers does not interrupt it, and has it asked again.
    assert_eq!(table.lost(), None);
    let links = [new_link(3, 2, UP), done(3, 0)].concat();
    assert_eq!(feed(&mut table, &links), (vec![], Some(libc::RTM_GETLINK)));
    let links = [new_link(4, 2, UP), done(4, 0)].concat();
    assert_eq!(feed(&mut table, &links), (vec![], Some(libc::RTM_GETADDR)));
    // An end that was not asked for ends nothing.
    assert_eq!(feed(&mut table, &done(4, 0)), (vec![], None));
    let addresses = [new_addr(5, "192.0.2.1", 2, 0), done(5, 0)].concat();
    let (events, request) = feed(&mut table, &addresses);
    let address = local("2001:db8::1", 2, AddressState::Tentative);
    assert_eq!(events, [RouteEvent::AddressRemoved { address }]);
    assert_eq!((request, table.dump), (None, Dump::Idle));
}

#[test]
fn a_dump_that_fails_forgets_nothing_and_ends() {
    let mut table = settled();
    let mut request = table.lost();
    let mut asked = 0;
    while request.is_some() {
        asked += 1;
        let busy = (-libc::EBUSY).to_ne_bytes();
        let failed = framed(libc::NLMSG_ERROR as u16, 0, table.seq, &busy);
        let (events, next) = feed(&mut table, &failed);
        assert_eq!(events, []);
        request = next;
    }
    assert_eq!((asked, table.dump), (RETRIES + 1, Dump::Idle));
    assert_eq!(table.addresses.len(), 2);
    assert!(table.lost().is_some(), "a later loss is seen to again");
    // So is one that a change overtook.
    let interrupted = done(table.seq, libc::NLM_F_DUMP_INTR);
    assert_eq!(feed(&mut table, &interrupted).1, Some(libc::RTM_GETLINK));
}

#[test]
fn links_and_addresses_are_bounded() {
    let mut table = Table::new();
    for n in 0..limits::INTERFACES as u32 + 9 {
        let ip = IpAddr::from(n.to_be_bytes()).to_string();
        let both = [new_link(0, n, UP), new_addr(0, &ip, n, 0)].concat();
        let (events, _) = feed(&mut table, &both);
        let expected = if n < limits::INTERFACES as u32 { 2 } else { 0 };
        assert_eq!(events.len(), expected, "{n}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_their_end(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        ty in prop_oneof![Just(libc::RTM_NEWLINK), Just(libc::RTM_NEWADDR), any::<u16>()],
    ) {
        let mut table = Table::new();
        feed(&mut table, &bytes);
        feed(&mut table, &framed(ty, 0, 0, &bytes));
        prop_assert!(table.addresses.len() <= 2 + bytes.len());
    }
}

/// Reads until `done` says so; the harness's own limit ends a wait that has no end.
fn read_until(
    watcher: &mut RouteWatcher,
    mut done: impl FnMut(&RouteWatcher, &[RouteEvent]) -> bool,
) -> Vec<RouteEvent> {
    let mut events = Vec::new();
    loop {
        watcher.read(&mut events).unwrap();
        if done(watcher, &events) {
            return events;
        }
        let mut poll = libc::pollfd {
            fd: watcher.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one `pollfd`, which lives through the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 20_000) };
        assert_eq!(ready, 1, "nothing more in {events:?}");
    }
}

/// Set in the process that runs in a namespace of its own.
const INSIDE: &str = "CORELANE_TEST_NAMESPACE";

#[test]
fn the_kernel_tells_of_addresses_that_come_and_go() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let name = "sys::netlink::tests::the_kernel_tells_of_addresses_that_come_and_go";
    let exe = std::env::current_exe().unwrap();
    let can = Command::new("unshare")
        .args(["-Urn", "ip", "link", "add", "d0", "type", "veth"])
        .output();
    if !can.is_ok_and(|out| out.status.success()) {
        println!("skipped: no network namespaces or pairs of interfaces here");
        return;
    }
    let out = Command::new("unshare")
        .arg("-Urn")
        .arg(exe)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}");
}

fn inside() {
    let has = |w: &RouteWatcher, ip: &str| {
        let ip: IpAddr = ip.parse().unwrap();
        w.addresses().any(|a| a.ip == ip)
    };
    ip("link set lo up");
    ip("link add d0 type veth peer name d1");
    ip("link set d1 up");
    ip("addr add 192.0.2.1/24 dev d0");
    let mut watcher = RouteWatcher::new().unwrap();
    read_until(&mut watcher, |w, _| w.is_settled());
    assert!(has(&watcher, "127.0.0.1"));
    assert!(!has(&watcher, "192.0.2.1"), "its link is down");
    ip("link set d0 up");
    let events = read_until(&mut watcher, |w, _| has(w, "192.0.2.1"));
    let d0 = watcher
        .addresses()
        .find(|a| !a.ip.is_loopback())
        .unwrap()
        .interface;
    assert_eq!(watcher.interface_name(d0), "d0");
    assert!(events.contains(&RouteEvent::LinkUp { interface: d0 }));
    ip("addr add 2001:db8::1/64 dev d0 nodad");
    let events = read_until(&mut watcher, |w, _| has(w, "2001:db8::1"));
    // The far end of the cable.
    ip("link set d1 down");
    let down = RouteEvent::LinkDown { interface: d0 };
    read_until(&mut watcher, |_, events| events.contains(&down));
    assert!(!has(&watcher, "192.0.2.1"));
    ip("link set d1 up");
    read_until(&mut watcher, |w, _| has(w, "192.0.2.1"));
    let named = events.iter().any(|e| {
        matches!(e, RouteEvent::AddressAdded { address, interface, .. }
            if address.ip.is_ipv6() && &**interface == "d0")
    });
    assert!(named, "{events:?}");
    ip("addr del 192.0.2.1/24 dev d0");
    read_until(&mut watcher, |w, _| !has(w, "192.0.2.1"));
    ip("link del d0");
    let events = read_until(&mut watcher, |w, _| !has(w, "2001:db8::1"));
    read_until(&mut watcher, |w, _| w.interface_name(d0).is_empty());
    assert!(!events.is_empty());
}
