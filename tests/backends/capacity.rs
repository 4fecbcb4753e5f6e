//! Buffers and sockets are limited, shared fairly, and come back.

use crate::rig::{On, Rig, to};
use corelane::io::{IoConfig, IoError, SocketOptions, TX_BUFFER_LEN};

pub fn send_buffers_run_out_and_come_back(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (_, c_addr) = b.bind("127.0.0.1:0");
    let all = IoConfig::default().tx_buffers;
    let mut held: Vec<_> = std::iter::from_fn(|| b.tx_buffer()).collect();
    assert_eq!(held.len(), all);
    assert!(held.iter().all(|h| h.len() == TX_BUFFER_LEN));
    b.release(held.pop().unwrap());
    drop(held.pop());
    held.extend(std::iter::from_fn(|| b.tx_buffer()));
    assert_eq!(held.len(), all);
    // Those that were sent come back by themselves.
    for mut buffer in held.drain(..) {
        buffer[..100].fill(5);
        b.send(buffer, to(a, a_addr, c_addr, 100));
    }
    assert_eq!(b.receive(all).len(), all);
    assert_eq!(b.free_buffers(), all);
}

pub fn more_trains_than_receive_buffers_all_arrive(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (_, c_addr) = b.bind("127.0.0.1:0");
    b.flush().unwrap();
    // They wait in the kernel before the first `recv`; none may be lost.
    let n = 2 * IoConfig::default().rx_buffers + 3;
    for i in 0..n {
        assert!(b.can_send(a));
        b.put(&[i as u8; 1000], to(a, a_addr, c_addr, 1000));
        b.flush().unwrap();
    }
    let got = b.receive(n);
    assert_eq!(got.len(), n);
    for (i, g) in got.iter().enumerate() {
        assert!(g.data.len() == 1000 && g.data.iter().all(|&x| x == i as u8));
    }
}

pub fn a_burst_on_one_socket_leaves_the_other_able_to_send(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (c, c_addr) = b.bind("127.0.0.1:0");
    // The first socket takes every buffer it can get.
    let sent = 3 * IoConfig::default().tx_buffers;
    for _ in 0..sent {
        let buffer = match b.tx_buffer() {
            Some(buffer) => buffer,
            None => {
                b.flush().unwrap();
                b.tx_buffer().expect("a flush frees buffers")
            }
        };
        b.send(buffer, to(a, a_addr, c_addr, 200));
    }
    b.flush().unwrap();
    assert_eq!(b.stats().tx_dropped, 0, "loopback takes them all");
    assert!(b.can_send(c));
    b.put(b"me, too", to(c, c_addr, a_addr, 7));
    let got = b.receive(sent + 1);
    assert!(
        got.iter()
            .any(|g| g.meta.socket == a && g.data == b"me, too")
    );
}

pub fn many_sockets_take_turns(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let targets: Vec<_> = (0..150).map(|_| b.bind("127.0.0.1:0")).collect();
    let mut got = Vec::new();
    for batch in targets.chunks(10) {
        for (id, addr) in batch {
            b.put(&id.0.to_ne_bytes(), to(a, a_addr, *addr, 4));
        }
        got.extend(b.receive(batch.len()));
    }
    assert_eq!(got.len(), targets.len());
    for g in &got {
        assert_eq!(g.data, g.meta.socket.0.to_ne_bytes());
        assert_eq!(b.local_addr(g.meta.socket), Some(g.meta.path.local));
    }
    // All of them at once, more than there are receive buffers.
    let outside = b.world().outside();
    for (_, addr) in &targets {
        outside.send_to(b"!", *addr);
    }
    let got = b.receive(targets.len());
    let mut seen: Vec<u32> = got.iter().map(|g| g.meta.socket.0).collect();
    seen.sort_unstable();
    assert!(seen.iter().eq(targets.iter().map(|(id, _)| &id.0)));
}

pub fn a_removed_socket_frees_its_port_and_its_place(b: &mut Rig) {
    let (keep, keep_addr) = b.bind("127.0.0.1:0");
    let outside = b.world().outside();
    let mut highest = 0;
    for round in 0..40u8 {
        let (id, addr) = b.bind("127.0.0.1:0");
        highest = highest.max(id.0);
        outside.send_to(&[round], addr);
        let got = b.until(|got| got.iter().any(|g| g.meta.socket == id));
        assert!(got.iter().any(|g| g.data == [round]));
        // One datagram waits unread and one send is queued when the socket goes.
        outside.send_to(b"unread", addr);
        b.put(b"queued", to(id, addr, keep_addr, 6));
        b.remove_socket(id);
        b.remove_socket(id);
        assert_eq!(b.local_addr(id), None);
        assert!(!b.can_send(id));
        b.flush().unwrap();
        // The port is free again at once.
        b.world().assert_free(addr);
        b.recv(&mut |meta, _| assert_eq!(meta.socket, keep))
            .unwrap();
    }
    assert!(highest < 20, "places are used again: {highest}");
    outside.send_to(b"still", keep_addr);
    let got = b.until(|got| got.iter().any(|g| g.data == b"still"));
    assert!(got.iter().all(|g| g.meta.socket == keep));
    assert_eq!(
        b.free_buffers(),
        IoConfig::default().tx_buffers,
        "no send buffer leaked"
    );
}

pub fn the_table_of_sockets_is_bounded(on: On) {
    let config = IoConfig {
        max_sockets: 2,
        ..IoConfig::default()
    };
    let Some(mut b) = Rig::open_with(on, &config) else {
        return;
    };
    let (first, _) = b.bind("127.0.0.1:0");
    b.bind("127.0.0.1:0");
    let error = b.try_bind("127.0.0.1:0", SocketOptions::default());
    assert_eq!(error, Err(IoError::TooManySockets { limit: 2 }));
    b.flush().unwrap();
    b.remove_socket(first);
    b.bind("127.0.0.1:0");
}
