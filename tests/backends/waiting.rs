//! Sleeping, waking, and not calling the system for nothing.

use crate::rig::{Rig, World, to};
use corelane::sys::clock::Clock;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub fn another_thread_ends_a_wait(b: &mut Rig) {
    b.bind("127.0.0.1:0");
    for _ in 0..20 {
        let waker = b.waker();
        let t = std::thread::spawn(move || waker.wake());
        // Without the wake this would never return.
        b.wait(None).unwrap();
        t.join().unwrap();
    }
    // A wake while awake is kept for the next wait.
    b.waker().wake();
    b.wait(None).unwrap();
    assert_eq!(b.recv(&mut |_, _| {}), Ok(0));
}

pub fn an_arrival_ends_a_wait(b: &mut Rig) {
    let (_, addr) = b.bind("127.0.0.1:0");
    let world = b.world().clone();
    let t = std::thread::spawn(move || {
        world.outside().send_to(b"knock", addr);
    });
    let mut got = 0;
    while got == 0 {
        b.wait(None).unwrap();
        got = b.recv(&mut |_, data| assert_eq!(data, b"knock")).unwrap();
    }
    t.join().unwrap();
}

pub fn a_wait_times_out(b: &mut Rig) {
    b.bind("127.0.0.1:0");
    for timeout in [0, 1, 1_000_000, 3_000_000] {
        let timeout = Duration::from_nanos(timeout);
        let before = Clock::now();
        b.wait(Some(timeout)).unwrap();
        let slept = Clock::now() - before;
        assert!(slept >= timeout, "{slept:?} of {timeout:?}");
    }
    assert_eq!(b.recv(&mut |_, _| {}), Ok(0));
}

pub fn a_watched_descriptor_ends_a_wait_and_is_told_of(b: &mut Rig) {
    b.bind("127.0.0.1:0");
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let id = b.watch_duplicate(ours.as_fd()).unwrap();
    assert_eq!(b.next_readable(), None);
    for n in 0..20u8 {
        let mut writer = theirs.try_clone().unwrap();
        let t = std::thread::spawn(move || writer.write_all(&[n]).unwrap());
        let mut told = None;
        while told.is_none() {
            b.wait(None).unwrap();
            told = b.next_readable();
        }
        t.join().unwrap();
        let mut read = [0; 1];
        ours.read_exact(&mut read).unwrap();
        assert_eq!((told, read), (Some(id), [n]));
        assert_eq!(b.next_readable(), None, "once");
    }
    // One that is readable already ends the first wait.
    let (ours, mut other) = UnixStream::pair().unwrap();
    other.write_all(b"x").unwrap();
    let second = b.watch_duplicate(ours.as_fd()).unwrap();
    while b.next_readable() != Some(second) {
        b.wait(None).unwrap();
    }
    // Told and not taken, it does not keep a wait from ending for another.
    theirs.write_all(b"y").unwrap();
    while b.next_readable() != Some(id) {
        b.wait(None).unwrap();
    }
}

pub fn a_descriptor_that_is_watched_no_longer_ends_nothing(b: &mut Rig) {
    b.bind("127.0.0.1:0");
    for round in 0..50u8 {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let id = b.watch_duplicate(ours.as_fd()).unwrap();
        if round % 2 == 0 {
            b.wait(Some(Duration::ZERO)).unwrap();
        }
        b.unwatch(id);
        b.unwatch(id);
        theirs.write_all(b"x").unwrap();
        b.wait(Some(Duration::from_micros(50))).unwrap();
        assert_eq!(b.next_readable(), None);
        // Nothing holds our end, so the other is told that it is gone.
        drop(ours);
        assert_eq!(theirs.read(&mut [0]).map_err(|e| e.kind()).unwrap_or(0), 0);
    }
}

pub fn an_idle_flush_makes_no_system_call(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (_, c_addr) = b.bind("127.0.0.1:0");
    b.put(b"x", to(a, a_addr, c_addr, 1));
    b.receive(1);
    b.flush().unwrap();
    b.recv(&mut |_, _| {}).unwrap();
    b.flush().unwrap();
    let before = b.stats().syscalls;
    for _ in 0..100 {
        b.flush().unwrap();
    }
    assert_eq!(b.stats().syscalls, before);
    if b.name() == "uring" {
        // There a look for news is free as well.
        for _ in 0..100 {
            b.recv(&mut |_, _| {}).unwrap();
        }
        assert_eq!(b.stats().syscalls, before);
    }
}

pub fn a_simulated_wait_returns_at_once_and_moves_no_time(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    b.put(b"later", to(a, a_addr, a_addr, 5));
    let World::Simulated(network) = b.world().clone() else {
        panic!("not a simulated world");
    };
    let before = network.now();
    // Without a limit a kernel backend would sleep until the datagram comes.
    b.wait(None).unwrap();
    b.wait(Some(Duration::from_secs(3600))).unwrap();
    assert_eq!(network.now(), before);
    assert_eq!(b.recv(&mut |_, _| {}), Ok(0));
    // It has flushed, though: the datagram is under way, and comes when time passes.
    assert!(network.next_event().is_some_and(|at| at > before));
    assert_eq!(b.receive(1)[0].data, b"later");
}

pub fn a_simulated_wake_leaves_a_mark_until_the_next_wait(b: &mut Rig) {
    let (_, addr) = b.bind("127.0.0.1:0");
    let waker = b.waker();
    let there = waker.clone();
    std::thread::spawn(move || there.wake()).join().unwrap();
    assert!(waker.take_pending() && !waker.take_pending());
    // An arrival is a wake, too, and a wait forgets both.
    b.world().outside().send_to(b"knock", addr);
    assert!(waker.take_pending());
    waker.wake();
    b.wait(None).unwrap();
    assert!(!waker.take_pending());
}
