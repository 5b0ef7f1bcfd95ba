//! Lanes without threads: one thread drives their workers by hand, one step at a time.
//!
//! ```text
//!   a bus, any thread ── leaves lane ends in ──► Yard ──► Driver ── step ──► this worker's or that one's turn
//!   a wait on the driving thread (join, publish_sync, shutdown) ── helps ──► the same steps
//! ```
//!
//! A step is one dispatch, one entry of a subscription's own queue, or the final message of one subscription. Notices, retired lists and the end of a
//! lane are served along the way: when a list may be freed depends on other threads, and must not change
//! which step comes next.
//!
//! All lanes share one stack. A handler that waits for another one further down that stack could never
//! go on, whatever lanes they are on, so that is an error (see `frames`).
//!
//! Guarantees: those of a worker; the order of steps depends on the seed and on what was published only.
//! Tests: `tests/deterministic.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::Worker;
use crate::contain::quietly;
use crate::exec::frames::{Driving, Helper};
use crate::exec::lane::{Control, LaneEnd, Member};
use crate::exec::wait::WaitStrategy;
use crate::message;
use crate::reclaim::Reclaimer;
use crate::sync::{Arc, Mutex, lock, park};

/// Lanes that nobody serves yet.
pub(crate) struct Yard<M: Member>(Mutex<Vec<LaneEnd<M>>>);

impl<M: Member> Yard<M> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Leaves a lane to the driver.
    pub(crate) fn leave(&self, end: LaneEnd<M>) {
        lock(&self.0).push(end);
    }

    fn take(&self) -> Vec<LaneEnd<M>> {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl<M: Member> Worker<M> {
    /// Serves what nobody sees and is due: a step is what remains. `within`: inside a handler of this lane,
    /// where a notice may be due only after the rest of an open walk.
    fn serve_silent(&self, within: bool) {
        loop {
            let next = self.with(|core| {
                if self.lane.has_controls() {
                    core.take_controls(&self.lane);
                }
                let head = core.consumer.head();
                let is_silent = |control: &Control<M>| match control {
                    Control::Retire(_) | Control::Stop => true,
                    Control::Notify(..) => !within,
                    Control::Finish(..) | Control::Serve(_) | Control::Dispatch(_) => false,
                };
                match core.controls.front() {
                    Some((position, control)) if *position <= head && is_silent(control) => core.controls.pop_front(),
                    _ => None,
                }
            });
            match next {
                Some((_, control)) => self.control(control),
                None => return,
            }
        }
    }

    /// One step; false if there was nothing. `within`: a turn of this worker is on the stack already.
    fn step(&self, within: bool) -> bool {
        if self.ended.get() {
            return false;
        }
        self.serve_silent(within);
        if within {
            let served = self.help();
            // After helping no walk is open any more.
            self.beside(|_| self.serve_silent(false));
            served
        } else {
            let served = self.turn();
            self.serve_silent(false);
            served
        }
    }
}

/// Which lane comes next.
#[derive(Debug)]
enum Order {
    /// They take turns; the number of the one to begin with.
    Turns(Cell<usize>),
    /// By a row of numbers that a seed began.
    Seeded(Cell<u64>),
}

/// A small generator of equally likely numbers (splitmix64): the same on every machine.
fn draw(state: &Cell<u64>, below: usize) -> usize {
    state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut mixed = state.get();
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31) as usize % below
}

/// The workers of one driver. No borrow is held while foreign code runs.
struct Crew<M: Member> {
    yard: Arc<Yard<M>>,
    reclaimer: Arc<Reclaimer>,
    /// By lane number; `None`: ended.
    workers: RefCell<Vec<Option<Arc<Worker<M>>>>>,
    /// Lanes whose turns are on the stack, the latest last.
    active: RefCell<Vec<usize>>,
    order: Order,
}

impl<M: Member> Crew<M> {
    fn adopt(&self) {
        for end in self.yard.take() {
            let worker = Worker::new(end, WaitStrategy::Park.into(), Arc::clone(&self.reclaimer), None);
            worker.is_manual.set(true);
            worker.lane.served_by(&worker, None);
            self.workers.borrow_mut().push(Some(worker));
        }
    }

    fn worker(&self, lane: usize) -> Option<Arc<Worker<M>>> {
        self.workers.borrow().get(lane).cloned().flatten()
    }

    fn step_lane(&self, lane: usize) -> bool {
        self.adopt();
        let Some(worker) = self.worker(lane) else { return false };
        let within = self.active.borrow().contains(&lane);
        self.active.borrow_mut().push(lane);
        let served = worker.step(within);
        self.active.borrow_mut().pop();
        if !within && worker.is_over() {
            self.end(lane);
        }
        served
    }

    fn end(&self, lane: usize) {
        let worker = self.workers.borrow_mut().get_mut(lane).and_then(Option::take);
        if let Some(worker) = worker {
            worker.end();
            worker.let_go();
        }
    }

    fn step(&self) -> Option<usize> {
        self.adopt();
        let lanes = self.workers.borrow().len();
        match &self.order {
            Order::Turns(first) => {
                let served = (0..lanes).map(|n| (first.get() + n) % lanes).find(|&lane| self.step_lane(lane))?;
                first.set(served + 1);
                Some(served)
            }
            Order::Seeded(state) => {
                let mut left: Vec<usize> = (0..lanes).filter(|&lane| self.worker(lane).is_some()).collect();
                while !left.is_empty() {
                    let lane = left.swap_remove(draw(state, left.len()));
                    if self.step_lane(lane) {
                        return Some(lane);
                    }
                }
                None
            }
        }
    }

    fn tidy(&self) {
        message::flush();
        if self.reclaimer.is_pending() {
            quietly(|| self.reclaimer.tick());
        }
    }
}

impl<M: Member> Helper for Crew<M> {
    fn depth(&self) -> usize {
        self.active.borrow().len()
    }

    /// Of the innermost lane only: for a handler of another lane below, the wait is a circle.
    fn runs(&self, id: u64) -> bool {
        let innermost = self.active.borrow().last().copied();
        innermost.and_then(|lane| self.worker(lane)).is_some_and(|worker| worker.runs(id))
    }

    fn running(&self, into: &mut Vec<u64>) {
        let mut lanes = self.active.borrow().clone();
        lanes.sort_unstable();
        lanes.dedup();
        for worker in lanes.into_iter().filter_map(|lane| self.worker(lane)) {
            Helper::running(&*worker, into);
        }
    }

    fn help(&self) -> bool {
        self.step().is_some()
    }

    /// For a moment: what other threads push wakes nobody.
    fn doze(&self, still_waiting: &dyn Fn() -> bool, timeout: Option<Duration>) {
        self.tidy();
        if still_waiting() {
            let moment = Duration::from_millis(1);
            park::sleep(Some(timeout.map_or(moment, |limit| limit.min(moment))));
        }
    }
}

/// Drives the lanes of a bus without threads, on the thread that made it.
pub(crate) struct Driver<M: Member> {
    crew: Rc<Crew<M>>,
    _driving: Driving,
}

impl<M: Member> Driver<M> {
    /// Waits made on this thread serve these lanes from now on.
    pub(crate) fn begin(yard: Arc<Yard<M>>, reclaimer: Arc<Reclaimer>, seed: Option<u64>) -> Self {
        let order = seed.map_or(Order::Turns(Cell::new(0)), |seed| Order::Seeded(Cell::new(seed)));
        let crew = Rc::new(Crew { yard, reclaimer, workers: RefCell::default(), active: RefCell::default(), order });
        let driving = Driving::begin(Rc::clone(&crew) as Rc<dyn Helper>);
        Self { crew, _driving: driving }
    }

    /// Serves one thing of the lane whose turn it is: its number, or `None` if all are idle.
    pub(crate) fn step(&self) -> Option<usize> {
        let served = self.crew.step();
        if served.is_none() {
            self.crew.tidy();
        }
        served
    }

    /// Serves one thing of this lane; false if it is idle, has ended or never was.
    pub(crate) fn step_lane(&self, lane: usize) -> bool {
        self.crew.step_lane(lane)
    }

    /// Lanes so far, those that have ended included.
    pub(crate) fn lanes(&self) -> usize {
        self.crew.adopt();
        self.crew.workers.borrow().len()
    }

    /// Whether every lane has been stopped and has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.crew.adopt();
        self.crew.workers.borrow().iter().all(Option::is_none)
    }
}

impl<M: Member> Drop for Driver<M> {
    fn drop(&mut self) {
        // Whatever came: nobody shall wait for a lane that nobody drives.
        self.crew.adopt();
        let lanes = self.crew.workers.borrow().len();
        (0..lanes).for_each(|lane| self.crew.end(lane));
    }
}

impl<M: Member> std::fmt::Debug for Driver<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("order", &self.crew.order).finish_non_exhaustive()
    }
}
