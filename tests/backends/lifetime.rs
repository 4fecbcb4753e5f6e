//! Which thread makes, drives and drops a backend, and what is in flight then.

use crate::rig::{On, Rig, to};

pub fn a_backend_may_be_made_here_and_driven_there(on: On) {
    let Some(mut b) = Rig::open(on) else {
        return;
    };
    let (a, a_addr) = b.bind("127.0.0.1:0");
    std::thread::spawn(move || {
        b.put(b"self", to(a, a_addr, a_addr, 4));
        assert_eq!(b.receive(1)[0].data, b"self");
    })
    .join()
    .unwrap();
}

pub fn dropping_with_operations_in_flight_is_safe(on: On) {
    for round in 0..20 {
        let Some(mut b) = Rig::open(on) else {
            return;
        };
        let (a, a_addr) = b.bind("127.0.0.1:0");
        let (_, c_addr) = b.bind("127.0.0.1:0");
        let waker = b.waker();
        if round > 0 {
            b.flush().unwrap();
            waker.wake();
            b.wait(None).unwrap();
            for _ in 0..5 {
                let mut t = to(a, a_addr, c_addr, 60_000);
                t.segment_size = 1000;
                b.put(&[9; 60_000], t);
            }
            b.flush().unwrap();
            b.put(b"never flushed", to(a, a_addr, c_addr, 13));
        }
        let mut lent = b.tx_buffer().unwrap();
        let world = b.world().clone();
        drop(b);
        lent.fill(1);
        waker.wake();
        // The ports are free again.
        world.assert_free(a_addr);
        world.assert_free(c_addr);
    }
}

pub fn dropping_away_from_the_driving_thread_is_safe(on: On) {
    for _ in 0..5 {
        let Some(mut b) = Rig::open(on) else {
            return;
        };
        let (a, a_addr) = b.bind("127.0.0.1:0");
        b.put(b"self", to(a, a_addr, a_addr, 4));
        assert_eq!(b.receive(1)[0].data, b"self");
        b.put(b"more", to(a, a_addr, a_addr, 4));
        let waker = b.waker();
        std::thread::spawn(move || drop(b)).join().unwrap();
        waker.wake();
    }
}
