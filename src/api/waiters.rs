//! Tasks that wait for something another thread does: any number of them on one [`Waiters`].
//!
//! The list of wakers is behind a mutex, but [`Waiters::notify`], which shards call, only ever
//! tries it: who holds it when a notification passes carries the notification out on leaving.

use slab::Slab;
use smallvec::SmallVec;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};

/// Wakers of the tasks that wait for one thing.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// One place for each waiting future; empty once it was woken.
    list: Mutex<Slab<Option<Waker>>>,
    /// Places taken.
    waiting: AtomicUsize,
    /// A notification that was not carried out yet.
    missed: AtomicBool,
}

impl Waiters {
    /// Wakes everybody. Call after the change that they wait for. Never blocks.
    pub(super) fn notify(&self) {
        // With the fence in `register`: we see the waiter, or it sees the change.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.missed.store(true, Ordering::SeqCst);
            self.settle();
        }
    }

    fn settle(&self) {
        loop {
            // Between a notification and the attempt to lock, and between leaving the lock and the
            // look for notifications: one of the two sides sees the other.
            fence(Ordering::SeqCst);
            if !self.missed.load(Ordering::SeqCst) {
                return;
            }
            let mut list = match self.list.try_lock() {
                Ok(list) => list,
                Err(TryLockError::Poisoned(e)) => e.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.missed.store(false, Ordering::SeqCst);
            let woken: SmallVec<[Waker; 4]> = list
                .iter_mut()
                .filter_map(|(_, waker)| waker.take())
                .collect();
            drop(list);
            // Outside the lock: a waker may run anything.
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// Has `waker` woken by the next notification. Look again afterwards whether it is needed.
    pub(super) fn register(&self, place: &mut Place, waker: &Waker) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        match place.0.and_then(|key| list.get_mut(key)) {
            Some(Some(known)) if known.will_wake(waker) => {}
            Some(entry) => *entry = Some(waker.clone()),
            None => {
                place.0 = Some(list.insert(Some(waker.clone())));
                self.waiting.store(list.len(), Ordering::Relaxed);
            }
        }
        drop(list);
        self.settle();
        fence(Ordering::SeqCst);
    }

    /// Gives a place back. Every place that was registered must be.
    pub(super) fn leave(&self, place: &mut Place) {
        if let Some(key) = place.0.take() {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            let waker = list.try_remove(key);
            self.waiting.store(list.len(), Ordering::Relaxed);
            drop(list);
            drop(waker);
            self.settle();
        }
    }

    /// Waits until `check` yields something. Dropping the future loses nothing that `check` did not
    /// take.
    pub(super) fn until<T, F>(&self, check: F) -> Until<'_, F>
    where
        F: FnMut() -> Option<T> + Unpin,
    {
        Until {
            waiters: self,
            place: Place::default(),
            check,
        }
    }
}

/// A future's place in a list of waiters.
#[derive(Debug, Default)]
pub(super) struct Place(Option<usize>);

/// See [`Waiters::until`].
pub(super) struct Until<'a, F> {
    waiters: &'a Waiters,
    place: Place,
    check: F,
}

impl<T, F: FnMut() -> Option<T> + Unpin> Future for Until<'_, F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        if let Some(value) = (this.check)() {
            return Poll::Ready(value);
        }
        this.waiters.register(&mut this.place, cx.waker());
        (this.check)().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        self.waiters.leave(&mut self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn everybody_is_woken_once_and_places_are_given_back() {
        let (waiters, count) = (Waiters::default(), Arc::new(Count(AtomicU32::new(0))));
        let waker = Waker::from(count.clone());
        let mut places = [Place::default(), Place::default()];
        for place in &mut places {
            waiters.register(place, &waker);
            waiters.register(place, &waker);
        }
        waiters.notify();
        waiters.notify();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        for place in &mut places {
            waiters.leave(place);
        }
        assert!(waiters.list.lock().unwrap().is_empty());
        assert_eq!(waiters.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_notification_that_finds_the_list_locked_is_carried_out() {
        let (waiters, count) = (Waiters::default(), Arc::new(Count(AtomicU32::new(0))));
        let mut place = Place::default();
        waiters.register(&mut place, &Waker::from(count.clone()));
        let held = waiters.list.lock().unwrap();
        waiters.notify();
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        drop(held);
        let mut other = Place::default();
        waiters.register(&mut other, Waker::noop());
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        waiters.leave(&mut other);
        waiters.leave(&mut place);
    }

    #[test]
    fn threads_that_wait_for_each_other_all_get_through() {
        const ROUNDS: usize = 2000;
        let turn = Arc::new((AtomicUsize::new(0), Waiters::default()));
        let threads: Vec<_> = (0..3)
            .map(|me| {
                let turn = turn.clone();
                std::thread::spawn(move || {
                    futures_executor::block_on(async {
                        for round in 0..ROUNDS {
                            let mine = round * 3 + me;
                            let (at, waiters) = &*turn;
                            let my_turn = || (at.load(Ordering::Relaxed) == mine).then_some(());
                            waiters.until(my_turn).await;
                            at.store(mine + 1, Ordering::Relaxed);
                            waiters.notify();
                        }
                    });
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(turn.0.load(Ordering::SeqCst), 3 * ROUNDS);
    }
}
