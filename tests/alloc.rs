//! Bulk transfer allocates nothing per packet, and datagrams nothing each: an allocator that counts
//! says so.

mod common;

use common::bulk::Bulk;
use common::datagrams::{Datagrams, Taking};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; `ptr` came from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`; `ptr` came from `System`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The counter is everybody's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn bulk_transfer_allocates_nothing_per_packet() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bulk = Bulk::connect();
    // Windows open, rings grow to them.
    let mut packets = 0;
    while packets < 20_000 {
        packets += bulk.step().packets;
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut packets = 0;
    while packets < 50_000 {
        packets += bulk.step().packets;
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    // A ring that grows once more is no allocation per packet; anything that comes with packets is
    // far above this.
    assert!(
        allocations * 10_000 <= packets,
        "{allocations} allocations in {packets} packets"
    );
}

#[test]
fn datagrams_allocate_nothing_each() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for taking in [Taking::Shown, Taking::Batch] {
        let mut load = Datagrams::connect(100, taking);
        while load.app.count < 100_000 {
            load.step();
        }
        let (before, first) = (ALLOCATIONS.load(Ordering::Relaxed), load.app.count);
        let (mut packets, mut steps) = (0, 0);
        while load.app.count - first < 500_000 {
            packets += load.step().packets;
            steps += 1;
        }
        let count = load.app.count - first;
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert!(
            allocations * 10_000 <= count,
            "{taking:?}: {allocations} allocations for {count} datagrams in {steps} steps"
        );
        // Each packet takes as many as it holds: 13 frames of 102 bytes and a length of two.
        assert!(packets * 13 <= count + 13 * steps, "{packets} packets");
        assert_eq!(load.app.bytes, load.app.count * 100);
    }
}
