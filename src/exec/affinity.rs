//! Pinning a worker to a core, and stepping aside where the core is taken. The only file that names core_affinity.
//!
//! A pinned thread that is woken by a thread on its own core waits until that one has used its time slice up:
//! milliseconds, while another core may be idle. So who wakes a lane from its own core sends it to the others first; when
//! nothing has come for a while, the lane goes home. (To be let off is not enough: the other core is often busy just now,
//! with who woke the waker, the lane is queued behind the waker, and stays there for five slices and more.) A lane that
//! is woken seldom, for a message or two, may run on the waker's core: it takes turns with it sooner (8 us here) than
//! an idle core wakes (25 us). On Linux only; and if a third thread has the lane's core, the lane waits.
//!
//! Threads inherit the cores of who starts them, so the engine starts all of its own [`unbound`].

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::sync::cores::{self, Freedom};

/// Where the workers of lanes run.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Pinning {
    /// Lane n on the n-th core this process may use, round and round (default). A lane that is woken from its own
    /// core runs where the operating system likes, at first on another one unless it has little to do, until it has
    /// slept half a second without work.
    #[default]
    Cores,
    /// Where the operating system likes.
    Off,
    /// Lane n on the n-th of these core numbers, round and round, and it stays there: for cores that do nothing else.
    /// (Who takes a lane over from a handler that keeps it is not pinned, here and with `Cores`.)
    List(Vec<usize>),
}

/// A lane's core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    core: usize,
    /// It never leaves it.
    firm: bool,
}

impl Pinning {
    /// The core of lane `index`.
    pub(crate) fn of_lane(&self, index: usize) -> Option<Pin> {
        match self {
            Self::Off => None,
            Self::List(cores) => cores.get(index % cores.len().max(1)).map(|&core| Pin { core, firm: true }),
            Self::Cores => {
                let cores = core_affinity::get_core_ids()?;
                cores.get(index % cores.len().max(1)).map(|core| Pin { core: core.id, firm: false })
            }
        }
    }
}

/// Core numbers below this fit into the system's sets of cores; core_affinity panics beyond.
const CORES: usize = 1024;

/// Pins the calling thread.
pub(super) fn pin(core: usize) -> bool {
    core < CORES && core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

/// The core the calling thread runs on.
pub(super) fn this_core() -> Option<usize> {
    cores::current()
}

/// A living thread on its core, from which it can step aside.
pub(super) struct Seat {
    home: usize,
    freedom: Freedom,
    /// It never leaves it.
    firm: bool,
    place: Place,
    goes_home: bool,
    pace: Pace,
}

/// Where a thread may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Home,
    /// Not where it went to sleep, until it has woken elsewhere.
    Sent,
    Anywhere,
}

/// Whether a thread is woken seldom, and for little.
#[derive(Clone, Copy, Debug)]
struct Pace {
    woken: Instant,
    served: u64,
    /// Such wakes in a row.
    calm: u32,
}

/// Wakes further apart are seldom.
const SELDOM: Duration = Duration::from_micros(300);
/// Entries served between two wakes that are little.
const LITTLE: u64 = 4;
/// Such wakes in a row: with one alone a stream may begin.
const CALM: u32 = 3;

impl Pace {
    fn new() -> Self {
        Self { woken: Instant::now(), served: 0, calm: 0 }
    }

    /// It is woken now, and has served so many entries in all; whether it has been calm for a while.
    fn note(&mut self, now: Instant, served: u64) -> bool {
        let is_calm = now.saturating_duration_since(self.woken) > SELDOM && served.wrapping_sub(self.served) <= LITTLE;
        self.calm = if is_calm { self.calm.saturating_add(1) } else { 0 };
        (self.woken, self.served) = (now, served);
        self.calm >= CALM
    }
}

thread_local! {
    /// Where the calling thread might run before it was pinned.
    static BEFORE: RefCell<Option<Freedom>> = const { RefCell::new(None) };
}

/// A thread's body that is not bound to the core of who starts it, if that is a pinned thread of ours.
pub(crate) fn unbound<R>(body: impl FnOnce() -> R) -> impl FnOnce() -> R {
    let freedom = BEFORE.with_borrow(Clone::clone);
    move || {
        if let Some(freedom) = freedom {
            freedom.give_to_this_thread();
        }
        body()
    }
}

/// Pins the calling thread; warns and goes on where the system refuses. None: it is not, or the system does not say
/// where it might run.
pub(super) fn pin_this_thread(to: Pin) -> Option<Seat> {
    let freedom = Freedom::here();
    if !pin(to.core) {
        tracing::warn!(core = to.core, "the system refuses to pin a lane to this core; it runs unpinned");
        return None;
    }
    let freedom = freedom?;
    BEFORE.set(Some(freedom.clone()));
    Some(Seat { home: to.core, freedom, firm: to.firm, place: Place::Home, goes_home: false, pace: Pace::new() })
}

impl Seat {
    /// Called by who is about to wake the thread, which has served so many entries so far and went to sleep on that core:
    /// sends it away if that is the caller's.
    pub(super) fn step_aside(&mut self, served: u64, slept_on: usize) {
        if self.firm || self.goes_home {
            return;
        }
        let is_calm = self.pace.note(Instant::now(), served);
        let Some(here) = cores::current() else { return };
        let is_here = match self.place {
            Place::Home => self.home == here,
            Place::Anywhere => slept_on == here,
            Place::Sent => false,
        };
        if is_here && !is_calm {
            if self.freedom.keep_off(here) {
                self.place = Place::Sent;
            }
        } else if is_here && self.place == Place::Home && self.freedom.give_back() {
            self.place = Place::Anywhere;
        }
    }

    /// Called by the thread itself when it has woken: it runs where it was sent, and may be moved from there.
    pub(super) fn has_woken(&mut self) {
        if self.place == Place::Sent && self.freedom.give_to_this_thread() {
            self.place = Place::Anywhere;
        }
    }

    pub(super) fn may_step_aside(&self) -> bool {
        !self.firm
    }

    /// The core, if the thread is not there: it goes there now, and nobody sends it elsewhere until it says that it has
    /// [`come`](Self::has_come_home).
    pub(super) fn go_home(&mut self) -> Option<usize> {
        self.goes_home = self.place != Place::Home;
        self.goes_home.then_some(self.home)
    }

    /// It is there, or the system did not let it.
    pub(super) fn has_come_home(&mut self, is_there: bool) {
        self.goes_home = false;
        if is_there {
            self.place = Place::Home;
        }
    }

    /// The thread is to run where the system likes from now on.
    pub(super) fn give_up(self) {
        self.freedom.give_back();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_calm_when_it_is_woken_seldom_and_for_little_several_times() {
        let (mut pace, mut now, mut served) = (Pace::new(), Instant::now(), 0);
        let mut wake = |after: Duration, for_so_many: u64| {
            now += after;
            served += for_so_many;
            pace.note(now, served)
        };
        let (seldom, often) = (Duration::from_millis(1), Duration::from_micros(50));
        assert_eq!([(); 5].map(|()| wake(seldom, 1)), [false, false, true, true, true]);
        // A stream after a pause: the pause does not count for it.
        assert!(!wake(often, 1));
        assert_eq!([(); 3].map(|()| wake(seldom, 1)), [false, false, true]);
        assert!(!wake(seldom, LITTLE + 1), "it had much to do");
    }
}
