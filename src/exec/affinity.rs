//! Pinning a worker to a core, and stepping aside where the core is taken. The only file that names core_affinity.
//!
//! A pinned thread that is woken by a thread on its own core waits until that one has used its time slice up: milliseconds,
//! while another core may be idle. So who wakes a lane from its own core lets it off there first; when nothing has come for
//! a while, the lane goes home.

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
    /// Lane n on the n-th of these core numbers, round and round, and never anywhere else: for cores that do nothing
    /// else.
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

fn pin(core: usize) -> bool {
    core < CORES && core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

/// A living thread on its core, from which it can step aside.
pub(super) struct Seat {
    home: usize,
    freedom: Freedom,
    is_aside: bool,
}

/// Pins the calling thread; warns and goes on where the system refuses. None: it will not step aside.
pub(super) fn pin_this_thread(to: Pin) -> Option<Seat> {
    let freedom = Freedom::here();
    if !pin(to.core) {
        tracing::warn!(core = to.core, "the system refuses to pin a lane to this core; it runs unpinned");
        return None;
    }
    let freedom = freedom.filter(|_| !to.firm)?;
    Some(Seat { home: to.core, freedom, is_aside: false })
}

impl Seat {
    /// Called by who is about to wake the thread: lets it off the core if that is the caller's.
    pub(super) fn step_aside(&mut self) {
        if !self.is_aside && cores::current() == Some(self.home) {
            self.is_aside = self.freedom.give_back();
        }
    }

    /// Called by the thread itself: back to its core.
    pub(super) fn go_home(&mut self) {
        if self.is_aside {
            self.is_aside = !pin(self.home);
        }
    }

    /// The thread is to run where the system likes from now on.
    pub(super) fn give_up(self) {
        self.freedom.give_back();
    }
}
