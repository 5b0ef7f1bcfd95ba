//! Which lane a subscription lives on, and the threads of dedicated ones.
//!
//! Affinity keeps the subscriptions of a topic together, so that a publish to a few of them is one
//! dispatch; after every group it goes on to the next lane, so that a large audience is served by
//! all cores.

use std::time::{Duration, Instant};

use super::route::Route;
use super::subscriber::Subscriber;
use super::topic::TopicInner;
use crate::error::SubscribeError;
use crate::exec::lane::{Lane, RingSize};
use crate::exec::spares::Spares;
use crate::exec::wait::{WaitStrategy, Waits};
use crate::exec::watchdog::Watch;
use crate::exec::worker::manual::Yard;
use crate::exec::worker::{self, WorkerSetup};
use crate::reclaim::Reclaimer;
use crate::ring::Budget;
use crate::sync::plain::{AtomicUsize, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, Mutex, lock, scaled};

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Home {
    /// Together with the other subscriptions of the topic: sixteen to a lane (default).
    #[default]
    Affinity,
    /// The lane with the fewest subscriptions.
    LeastLoaded,
    /// The lane with this number, from 0.
    Lane(usize),
}

/// Subscriptions of a topic that share a lane by affinity.
const GROUP: usize = 16;

/// Ring of a dedicated subscription.
const DEDICATED_SLOT_BITS: u32 = scaled(8, 1) as u32;
/// Entries it may grow to.
const DEDICATED_MOST: usize = 1 << 19;

/// The lanes of a bus.
pub(crate) struct Homes {
    pub(crate) lanes: Box<[Arc<Lane<Subscriber>>]>,
    /// Subscriptions on each lane.
    loads: Box<[AtomicUsize]>,
    /// Threads that have not been joined: of lanes and of dedicated subscriptions.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Who takes lanes over; none on a bus without watchdog.
    pub(crate) spares: Option<Arc<Spares<Subscriber>>>,
    pub(crate) watch: Arc<Watch>,
    setup: WorkerSetup,
    /// Where lanes wait for their driver, on a bus without threads.
    yard: Option<Arc<Yard<Subscriber>>>,
    budget: Arc<Budget>,
    /// Entries a ring may hold.
    most: usize,
}

impl Homes {
    pub(crate) fn new(
        lanes: Vec<Arc<Lane<Subscriber>>>,
        wait: WaitStrategy,
        reclaimer: Arc<Reclaimer>,
        budget: Arc<Budget>,
        most: usize,
        spares: Option<Arc<Spares<Subscriber>>>,
        yard: Option<Arc<Yard<Subscriber>>>,
    ) -> Self {
        Self {
            loads: lanes.iter().map(|_| AtomicUsize::new(0)).collect(),
            lanes: lanes.into(),
            threads: Mutex::default(),
            spares,
            watch: Arc::default(),
            // A thread that never sleeps is for lanes that have a core to themselves.
            setup: WorkerSetup {
                pin: None,
                wait: Waits::from(match wait {
                    WaitStrategy::Park => WaitStrategy::Park,
                    _ => WaitStrategy::Adaptive,
                }),
                reclaimer,
            },
            yard,
            budget,
            most,
        }
    }

    pub(crate) fn adopt(&self, thread: JoinHandle<()>) {
        lock(&self.threads).push(thread);
    }

    /// Joins the threads that end before `deadline`; a worker does not wait for itself. How many are left.
    pub(crate) fn join_threads(&self, deadline: Instant) -> usize {
        let own = thread::current().id();
        let mut threads = std::mem::take(&mut *lock(&self.threads));
        loop {
            threads.extend(self.spares.iter().flat_map(|spares| spares.take_handles()));
            let (ended, running): (Vec<_>, Vec<_>) = threads.into_iter().partition(JoinHandle::is_finished);
            for thread in ended {
                // Its panic, if any, was reported where it happened.
                let _ = thread.join();
            }
            threads = running;
            if threads.iter().all(|other| other.thread().id() == own) || Instant::now() >= deadline {
                break;
            }
            thread::sleep(Duration::from_micros(50));
        }
        let left = threads.len();
        lock(&self.threads).extend(threads);
        left
    }

    fn least_loaded(&self) -> usize {
        let load = |lane: &usize| self.loads[*lane].load(Ordering::Relaxed);
        (0..self.lanes.len()).min_by_key(load).unwrap_or(0)
    }

    /// The lane for a new subscription of `topic`.
    pub(crate) fn choose(&self, home: Home, topic: &TopicInner) -> Result<Arc<Lane<Subscriber>>, SubscribeError> {
        let lanes = self.lanes.len();
        let before = topic.homed.load(Ordering::Relaxed);
        let lane = match home {
            Home::Lane(lane) if lane < lanes => lane,
            Home::Lane(asked) => return Err(SubscribeError::NoSuchLane { asked, lanes }),
            Home::LeastLoaded => self.least_loaded(),
            Home::Affinity => {
                if topic.home.load(Ordering::Relaxed) == 0 {
                    // Two first subscriptions at once: either's choice will do.
                    topic.home.store(self.least_loaded() + 1, Ordering::Relaxed);
                }
                let first = topic.home.load(Ordering::Relaxed) - 1;
                (first + before / GROUP) % lanes
            }
        };
        self.loads[lane].fetch_add(1, Ordering::Relaxed);
        topic.homed.fetch_add(1, Ordering::Relaxed);
        self.lanes[lane].member_joins();
        Ok(Arc::clone(&self.lanes[lane]))
    }

    /// A lane with a thread of its own.
    pub(crate) fn start_dedicated(&self, topic: &str) -> Result<Arc<Lane<Subscriber>>, SubscribeError> {
        let size = RingSize {
            slot_bits: DEDICATED_SLOT_BITS,
            capacity: 4 << DEDICATED_SLOT_BITS,
            most: self.most.min(DEDICATED_MOST),
        };
        let (lane, end) = Lane::new(format!("own/{topic}"), size, Arc::clone(&self.budget));
        lane.member_joins();
        if let Some(yard) = &self.yard {
            yard.leave(end);
            return Ok(lane);
        }
        let thread = worker::spawn(end, self.setup.clone(), None).map_err(SubscribeError::Thread)?;
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(lane)
    }

    /// A subscription has left.
    pub(crate) fn leave(&self, subscriber: &Subscriber, topic: &TopicInner) {
        let lane = match &subscriber.route {
            Route::Lane(lane) => lane,
            Route::Buffered(own) if !own.dedicated => &own.lane,
            _ => return,
        };
        if let Some(at) = self.lanes.iter().position(|other| Arc::ptr_eq(other, lane)) {
            self.loads[at].fetch_sub(1, Ordering::Relaxed);
            topic.homed.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Homes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Homes").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}
