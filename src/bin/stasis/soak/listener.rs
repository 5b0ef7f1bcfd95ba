//! A handler that checks what it gets, and behaves badly in one of several ways.

use super::checker::{Bounds, Checker, Mark};
use super::ledger::{Ledger, Verdict};
use super::options::Plant;
use super::run::{Slots, lock};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use stasis_bus::{Handler, Received};

/// What travels. Counted while it lives.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) mark: Mark,
    ledger: Arc<Ledger>,
}

impl Item {
    pub(crate) fn new(mark: Mark, ledger: &Arc<Ledger>) -> Self {
        ledger.payloads.fetch_add(1, Ordering::Relaxed);
        Self { mark, ledger: Arc::clone(ledger) }
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.ledger.payloads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a handler behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    Quiet,
    /// Stays; publishers wait for it. The number is its place among the witnesses.
    Witness(usize),
    Panics,
    /// Panics once; the bus ends it then.
    PanicsToTheEnd,
    /// Longer than the watchdog likes.
    Blocks,
    LeavesItself,
    /// Drops the last handle of another subscription, or of its own.
    EndsOthers,
}

impl Habit {
    /// Those that come and go.
    pub(crate) const PASSING: [Habit; 8] = [
        Habit::Quiet,
        Habit::Quiet,
        Habit::Quiet,
        Habit::Panics,
        Habit::PanicsToTheEnd,
        Habit::Blocks,
        Habit::LeavesItself,
        Habit::EndsOthers,
    ];
}

/// What is known of a subscription outside its handler.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) home: usize,
    pub(crate) habit: Habit,
    /// Places that may be missing at the start: set when subscribing has returned.
    pub(crate) from: OnceLock<Vec<u64>>,
    /// Places that must have come: set before it is ended.
    to: OnceLock<Vec<u64>>,
    busy: AtomicBool,
    drops: AtomicU64,
}

impl Watch {
    pub(crate) fn new(home: usize, habit: Habit) -> Arc<Self> {
        Arc::new(Self {
            home,
            habit,
            from: OnceLock::new(),
            to: OnceLock::new(),
            busy: AtomicBool::new(false),
            drops: AtomicU64::new(0),
        })
    }

    fn bounds(&self) -> Bounds<'_> {
        let [from, to] = [&self.from, &self.to].map(|places| places.get().map(Vec::as_slice));
        Bounds { from, to }
    }

    /// To be called before the subscription is ended: what has been published must still come.
    pub(crate) fn ends(&self, ledger: &Ledger) {
        self.to.get_or_init(|| ledger.done(self.home));
    }
}

/// See the module.
pub(crate) struct Listener {
    checker: Checker,
    watch: Arc<Watch>,
    ledger: Arc<Ledger>,
    slots: Arc<Slots>,
    seen: u64,
    held: Option<Mark>,
}

impl Listener {
    pub(crate) fn new(watch: &Arc<Watch>, ledger: &Arc<Ledger>, slots: &Arc<Slots>) -> Self {
        ledger.made.fetch_add(1, Ordering::Relaxed);
        Self {
            checker: Checker::new(watch.home, ledger.paces.len()),
            watch: Arc::clone(watch),
            ledger: Arc::clone(ledger),
            slots: Arc::clone(slots),
            seen: 0,
            held: None,
        }
    }

    fn look(&mut self, mark: Mark) {
        let bounds = self.watch.bounds();
        let result = self.checker.take(mark, bounds);
        self.ledger.check(result, || format!("{mark:?} at {:?}", self.watch));
    }

    /// As [`look`](Self::look), but for the fault that was asked for.
    fn look_or_not(&mut self, mark: Mark) {
        let planted = self.watch.habit == Habit::Witness(0) && self.seen == 100;
        if let Some(earlier) = self.held.take() {
            self.look(mark);
            return self.look(earlier);
        }
        match self.ledger.plant.filter(|_| planted) {
            Some(Plant::Lose) => {}
            Some(Plant::Double) => {
                self.look(mark);
                self.look(mark);
            }
            Some(Plant::Swap) => self.held = Some(mark),
            _ => self.look(mark),
        }
        if !(planted && self.ledger.plant == Some(Plant::Miscount)) {
            self.ledger.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn behave(&mut self, received: &Received<'_>) {
        match self.watch.habit {
            Habit::Quiet => {}
            Habit::Witness(place) => self.ledger.witnessed[place].store(self.seen, Ordering::Relaxed),
            Habit::Panics if self.seen.is_multiple_of(500) => self.panic(),
            Habit::PanicsToTheEnd if self.seen == 1000 => {
                self.watch.ends(&self.ledger);
                self.panic();
            }
            Habit::Blocks if self.seen.is_multiple_of(4000) => std::thread::sleep(Duration::from_millis(5)),
            Habit::LeavesItself if self.seen == 2000 => {
                self.watch.ends(&self.ledger);
                received.unsubscribe();
            }
            Habit::EndsOthers if self.seen.is_multiple_of(3000) => {
                let slot = {
                    let mut slots = lock(&self.slots);
                    let place = self.seen as usize % slots.len().max(1);
                    (!slots.is_empty()).then(|| slots.swap_remove(place))
                };
                if let Some(slot) = slot {
                    drop(slot.end(&self.ledger));
                }
            }
            _ => {}
        }
    }

    fn panic(&self) {
        self.ledger.panics.fetch_add(1, Ordering::Relaxed);
        // No panic hook: this one is meant.
        resume_unwind(Box::new("a handler panics, as it should"));
    }
}

/// Clears the mark, in a panic too.
struct Busy(Arc<Watch>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

impl Handler for Listener {
    fn handle(&mut self, received: &Received<'_>) {
        if self.watch.busy.swap(true, Ordering::AcqRel) {
            self.ledger.violated(Verdict::Concurrent, 1, || format!("two calls at once: {:?}", self.watch));
        }
        let _busy = Busy(Arc::clone(&self.watch));
        if received.is_final() {
            let result = self.checker.finish();
            self.ledger.check(result, || format!("final message of {:?}", self.watch));
            if self.ledger.plant == Some(Plant::Late) && self.watch.habit == Habit::Witness(0) {
                self.look(Mark { publisher: 0, topic: 1, number: u64::MAX, place: u64::MAX });
            }
            return;
        }
        let Some(item) = received.payload::<Item>() else {
            self.ledger.violated(Verdict::Unexpected, 1, || format!("{:?} at {:?}", received.message(), self.watch));
            return;
        };
        self.seen += 1;
        self.look_or_not(item.mark);
        if self.ledger.plant == Some(Plant::Leak) && self.watch.habit == Habit::Witness(0) && self.seen == 100 {
            std::mem::forget(received.message().clone());
        }
        self.behave(received);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.ledger.plant == Some(Plant::Keep) && self.watch.habit == Habit::Witness(0) {
            return;
        }
        self.ledger.dropped.fetch_add(1, Ordering::Relaxed);
        let times = self.watch.drops.fetch_add(1, Ordering::Relaxed);
        self.ledger.violated(Verdict::Handlers, times, || format!("dropped again: {:?}", self.watch));
        // Who was not ended by us has no bounds, and need not have anything.
        let none = vec![0; self.ledger.paces.len()];
        let bounds = self.watch.bounds();
        let to = bounds.to.unwrap_or(&none);
        let result = self.checker.end(bounds.from.unwrap_or(to), to);
        self.ledger.check(result, || format!("at the end of {:?}, seen {:?}", self.watch, self.checker));
    }
}
