//! Credits: how many records the pulled sources may take.
//!
//! A source reserves credits before it takes records, and hands them over with the records. The
//! count of what is used covers everything held and everything reserved, so the cap holds at any
//! rate. Owns that one count; knows no source and no sink. A thread waits for credits by
//! [`Credits::wait`], a task by [`Freed::wait`].

mod gate;

pub use self::gate::Gate;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use tokio::sync::watch;

/// Shared between the pipeline, which settles, and the threads of the pulled sources, which ask.
#[derive(Debug)]
pub struct Credits {
    used: AtomicUsize,
    /// Pulled sources take nothing beyond this many records used.
    pull_limit: AtomicUsize,
    /// Nobody takes anything beyond this.
    cap: AtomicUsize,
    /// Zero while pulled sources shall take nothing for another reason (bytes, drain).
    open: AtomicUsize,
    waiting: Mutex<usize>,
    freed: Condvar,
    freed_for_tasks: watch::Sender<()>,
}

impl Credits {
    #[must_use]
    pub fn new(pull_limit: usize, cap: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            pull_limit: AtomicUsize::new(pull_limit),
            cap: AtomicUsize::new(cap),
            open: AtomicUsize::new(1),
            waiting: Mutex::new(0),
            freed: Condvar::new(),
            freed_for_tasks: watch::Sender::new(()),
        }
    }

    /// From now on. What is used beyond a lower limit stays used until it is given back.
    pub fn set_limits(&self, pull_limit: usize, cap: usize) {
        self.pull_limit.store(pull_limit, Ordering::Release);
        self.cap.store(cap, Ordering::Release);
        self.wake();
    }

    /// Everything held, and everything reserved and not yet handed over.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Reserves up to `want` credits for a pulled source; 0 when there are none. Of the free ones
    /// it gets its share: as many as each of the sources that wait could have.
    #[must_use]
    pub fn reserve(&self, want: usize) -> usize {
        if self.open.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let askers = *self.waiting.lock().expect("no panic while held") + 1;
        self.take(want, self.pull_limit.load(Ordering::Acquire), askers)
    }

    /// Admits up to `want` pushed records, up to `cap` plus `reserve`; says how many.
    #[must_use]
    pub fn admit(&self, want: usize, reserve: usize) -> usize {
        self.take(want, self.cap.load(Ordering::Acquire) + reserve, 1)
    }

    fn take(&self, want: usize, limit: usize, askers: usize) -> usize {
        let mut used = self.used.load(Ordering::Acquire);
        loop {
            let free = limit.saturating_sub(used);
            let taken = want.min(free.div_ceil(askers));
            if taken == 0 {
                return 0;
            }
            let next = used + taken;
            match self.used.compare_exchange_weak(used, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return taken,
                Err(now) => used = now,
            }
        }
    }

    /// Gives back credits: unused ones, or those of records that are settled.
    pub fn release(&self, count: usize) {
        if count == 0 {
            return;
        }
        let before = self.used.fetch_sub(count, Ordering::AcqRel);
        debug_assert!(before >= count, "released {count} of {before} credits");
        self.wake();
    }

    /// Opens or closes the counter for pulled sources.
    pub fn set_open(&self, open: bool) {
        let before = self.open.swap(usize::from(open), Ordering::AcqRel);
        if open && before == 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        if *self.waiting.lock().expect("no panic while held") > 0 {
            self.freed.notify_all();
        }
        // Each task that may be just about to wait finds it when it does.
        self.freed_for_tasks.send_replace(());
    }

    /// For one task that waits for credits.
    #[must_use]
    pub fn freed(&self) -> Freed {
        Freed(self.freed_for_tasks.subscribe())
    }

    /// Blocks the calling thread until credits were given back or `timeout` has passed.
    pub fn wait(&self, timeout: Duration) {
        let mut waiting = self.waiting.lock().expect("no panic while held");
        *waiting += 1;
        let (mut waiting, _) =
            self.freed.wait_timeout(waiting, timeout).expect("no panic while held");
        *waiting -= 1;
    }
}

/// What one task has seen of credits that were given back. Each that waits has its own.
#[derive(Debug, Clone)]
pub struct Freed(watch::Receiver<()>);

impl Freed {
    /// Waits until credits were given back since the last wait. The task counts among those that wait
    /// until this is dropped.
    pub async fn wait(&mut self, credits: &Credits) {
        let _waiting = Waiting::begin(&credits.waiting);
        // The sender is a part of what we have a reference to.
        self.0.changed().await.expect("credits are still there");
    }
}

/// Counts as waiting while it lives.
struct Waiting<'a>(&'a Mutex<usize>);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a Mutex<usize>) -> Self {
        *waiting.lock().expect("no panic while held") += 1;
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.0.lock().expect("no panic while held") -= 1;
    }
}
