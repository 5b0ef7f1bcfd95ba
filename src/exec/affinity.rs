//! Pinning a worker to a core, and stepping aside where the core is taken. The only file that names core_affinity.
//!
//! A pinned thread that is woken by a thread on its own core waits until that one has used its time slice up: milliseconds,
//! while another core may be idle. So who wakes a lane from its own core lets it off there first; when nothing has come for
//! a while, the lane goes home. On Linux only; and if a third thread has the lane's core, the lane waits.
//!
//! Threads inherit the cores of who starts them, so the engine starts all of its own [`unbound`].

use std::cell::RefCell;

use crate::sync::cores::{self, Freedom};

/// Where the workers of lanes run.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Pinning {
    /// Lane n on the n-th core this process may use, round and round (default). A lane that is woken from its own
    /// core runs where the operating system likes, until it has slept half a second without work.
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

/// A living thread on its core, from which it can step aside.
pub(super) struct Seat {
    home: usize,
    freedom: Freedom,
    /// It never leaves it.
    firm: bool,
    is_aside: bool,
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
    Some(Seat { home: to.core, freedom, firm: to.firm, is_aside: false })
}

impl Seat {
    /// Called by who is about to wake the thread: lets it off the core if that is the caller's.
    pub(super) fn step_aside(&mut self) {
        if self.may_step_aside() && !self.is_aside && cores::current() == Some(self.home) {
            self.is_aside = self.freedom.give_back();
        }
    }

    pub(super) fn may_step_aside(&self) -> bool {
        !self.firm
    }

    /// The core, if the thread is not there.
    pub(super) fn home_to_go_to(&self) -> Option<usize> {
        self.is_aside.then_some(self.home)
    }

    /// It is there again.
    pub(super) fn is_home(&mut self) {
        self.is_aside = false;
    }

    /// The thread is to run where the system likes from now on.
    pub(super) fn give_up(self) {
        self.freedom.give_back();
    }
}
