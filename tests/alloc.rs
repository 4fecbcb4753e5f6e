//! Bulk transfer allocates nothing per packet: an allocator that counts says so.

mod common;

use common::bulk::Bulk;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

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

#[test]
fn bulk_transfer_allocates_nothing_per_packet() {
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
