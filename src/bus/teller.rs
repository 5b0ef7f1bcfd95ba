//! Tells the host what the monitor has found, in a thread that lives while there is something to tell.
//!
//! ```text
//!   monitor ── tell ──► [stuck][level][back] ──► thread "stasis-tell": callbacks of the host, in order
//! ```
//!
//! Guarantees: in order, one at a time; a callback that panics is caught, one that blocks holds up later news
//! only, never the monitor; at most [`MOST`] wait, beyond that the oldest are lost and counted.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::congestion::LevelChange;
use super::health::{Stuck, StuckKind};
use crate::contain::quietly;
use crate::exec::affinity;
use crate::sync::plain::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, lock, thread};

/// News that wait at most.
const MOST: usize = 4096;
/// Log messages: one in this time, and the first.
const LOG_EVERY: Duration = Duration::from_secs(1);

type Callback<T> = Option<Arc<dyn Fn(&T) + Send + Sync>>;

/// What the host wants to be told.
#[derive(Clone, Default)]
pub(super) struct Callbacks {
    pub(super) on_culprit: Callback<Stuck>,
    pub(super) on_congestion: Callback<LevelChange>,
}

impl Callbacks {
    pub(super) fn is_empty(&self) -> bool {
        self.on_culprit.is_none() && self.on_congestion.is_none()
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) enum News {
    Stuck(Stuck),
    Level(LevelChange),
}

#[derive(Debug, Default)]
struct Waiting {
    news: VecDeque<News>,
    is_telling: bool,
    logged: Option<Instant>,
    /// News since the last log message.
    unlogged: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Teller {
    callbacks: Callbacks,
    waiting: Mutex<Waiting>,
    lost: AtomicU64,
}

impl Teller {
    pub(super) fn new(callbacks: Callbacks) -> Arc<Self> {
        Arc::new(Self { callbacks, ..Self::default() })
    }

    /// News lost because the host was too slow.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn tell(self: &Arc<Self>, news: Vec<News>) {
        if news.is_empty() {
            return;
        }
        let mut waiting = lock(&self.waiting);
        waiting.news.extend(news);
        let beyond = waiting.news.len().saturating_sub(MOST);
        waiting.news.drain(..beyond);
        self.lost.fetch_add(beyond as u64, Ordering::Relaxed);
        if std::mem::replace(&mut waiting.is_telling, true) {
            return;
        }
        drop(waiting);
        let teller = Arc::clone(self);
        let thread = thread::Builder::new().name("stasis-tell".to_owned()).spawn(affinity::unbound(move || {
            teller.run();
            // The host's closures may go with it.
            quietly(|| drop(teller));
        }));
        if let Err(error) = thread {
            lock(&self.waiting).is_telling = false;
            tracing::error!(%error, "cannot start the thread that tells the host: it is told with the next news");
        }
    }

    /// Tells the log, once in a while: a flood of these would be the next trouble.
    fn log(&self, news: &News) {
        let others = {
            let mut waiting = lock(&self.waiting);
            if waiting.logged.is_some_and(|last| last.elapsed() < LOG_EVERY) {
                waiting.unlogged += 1;
                return;
            }
            waiting.logged = Some(Instant::now());
            std::mem::take(&mut waiting.unlogged)
        };
        quietly(|| match news {
            News::Stuck(Stuck { kind, lane, executing }) => match kind {
                StuckKind::TakenOver => {
                    tracing::warn!(
                        lane,
                        others,
                        "another thread goes on with the lane of a stuck handler: {executing}"
                    );
                }
                StuckKind::KeepsLane => tracing::error!(lane, others, "a handler keeps its lane: {executing}"),
                StuckKind::Returned => tracing::info!(others, "a stuck handler has returned: {executing}"),
            },
            News::Level(LevelChange { queue, is_congested: true, depth, oldest, .. }) => {
                tracing::warn!(queue, depth, ?oldest, others, "a queue is congested");
            }
            News::Level(LevelChange { queue, .. }) => tracing::info!(queue, others, "a queue has recovered"),
        });
    }

    fn run(&self) {
        loop {
            let news = {
                let mut waiting = lock(&self.waiting);
                waiting.is_telling = !waiting.news.is_empty();
                waiting.news.pop_front()
            };
            if let Some(news) = &news {
                self.log(news);
            }
            match (news, &self.callbacks.on_culprit, &self.callbacks.on_congestion) {
                (None, ..) => return,
                (Some(News::Stuck(stuck)), Some(callback), _) => quietly(|| callback(&stuck)),
                (Some(News::Level(change)), _, Some(callback)) => quietly(|| callback(&change)),
                _ => {}
            }
        }
    }
}
