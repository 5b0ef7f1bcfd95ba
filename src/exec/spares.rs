//! Threads that take lanes over, and serve mailboxes nobody else is free for. Made when needed, kept for a
//! while, bounded.
//!
//! ```text
//!   watchdog ── lane ──────► jobs ──► an idle spare, else a new thread ──► serves the lane for good
//!   stuck thread, when it comes back, ─► serves its mailbox, then is a spare itself
//! ```
//!
//! A lane is taken only when a thread for it is there already ([`Spares::reserve`]). A job that was handed in gets
//! a thread whatever the limit says: handlers may be waiting for what it serves, and those in turn keep the
//! threads there are.
//!
//! Guarantees: at most `most` threads beside those of the lanes, and one for each handler that got stuck above
//! a waiting one; an idle one ends after [`KEEP`], all end when the lanes have ended and the jobs are done. No
//! job is left without a thread but while the system refuses one; the watchdog then asks again. One short
//! lock, never held while a job runs.

use std::collections::VecDeque;
use std::time::Duration;

use super::affinity;
use super::lane::{Lane, Member};
use super::mailbox::Mailbox;
use super::worker::{Ended, Worker};
use crate::message;
use crate::sync::park::{self, Sleeper};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, Mutex, lock};

/// How long an idle spare stays.
const KEEP: Duration = Duration::from_secs(10);

enum Job<M: Member> {
    Lane(Arc<Worker<M>>),
    Mailbox(Arc<Lane<M>>, Arc<Mailbox<M>>),
}

struct State<M: Member> {
    jobs: VecDeque<Job<M>>,
    idle: Vec<(u64, Sleeper)>,
    next_idle: u64,
    /// Threads beside those that serve lanes.
    threads: usize,
    high_water: usize,
    closed: bool,
    /// The system refused a thread for a job.
    starved: bool,
    handles: Vec<JoinHandle<()>>,
}

/// See the module.
pub(crate) struct Spares<M: Member> {
    most: usize,
    name: String,
    state: Mutex<State<M>>,
}

impl<M: Member> Spares<M> {
    /// At most `most` threads.
    pub(crate) fn new(name: &str, most: usize) -> Arc<Self> {
        let state = State {
            jobs: VecDeque::new(),
            idle: Vec::new(),
            next_idle: 0,
            threads: 0,
            high_water: 0,
            closed: false,
            starved: false,
            handles: Vec::new(),
        };
        let name = name.chars().filter(|&c| c != '\0').take(9).chain("/spare".chars()).collect();
        Arc::new(Self { most, name, state: Mutex::new(state) })
    }

    /// Sees to it that an idle thread is there for another lane; false: it is not to be had.
    pub(crate) fn reserve(self: &Arc<Self>) -> bool {
        let mut state = lock(&self.state);
        if !state.idle.is_empty() {
            return true;
        }
        state.threads < self.most && self.start(&mut state).is_ok()
    }

    /// Starts a thread for jobs that have none because the system refused it.
    pub(crate) fn retry(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        // A thread too many finds nothing to do.
        if std::mem::take(&mut state.starved) {
            for _ in 0..state.jobs.len() {
                if state.idle.is_empty() && self.start(&mut state).is_err() {
                    state.starved = true;
                    return;
                }
                Self::wake_one(&mut state);
            }
        }
    }

    /// Threads beside those that serve lanes: now, and at most so far.
    pub(crate) fn threads(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.threads, state.high_water)
    }

    /// Gives a lane that was taken over to a spare.
    pub(crate) fn serve_lane(self: &Arc<Self>, worker: Arc<Worker<M>>) {
        self.submit(Job::Lane(worker));
    }

    pub(super) fn serve_mailbox(self: &Arc<Self>, lane: Arc<Lane<M>>, mailbox: Arc<Mailbox<M>>) {
        self.submit(Job::Mailbox(lane, mailbox));
    }

    fn submit(self: &Arc<Self>, job: Job<M>) {
        let mut state = lock(&self.state);
        state.jobs.push_back(job);
        if state.idle.is_empty()
            && let Err(error) = self.start(&mut state)
        {
            state.starved = true;
            drop(state);
            tracing::error!(%error, "cannot start a spare thread: what it is for waits");
            return;
        }
        Self::wake_one(&mut state);
    }

    /// Starts a thread, which is idle at first.
    fn start(self: &Arc<Self>, state: &mut State<M>) -> std::io::Result<()> {
        state.handles.retain(|thread| !thread.is_finished());
        state.next_idle += 1;
        let (spares, ticket) = (Arc::clone(self), state.next_idle);
        // It looks at its ticket under the lock we hold.
        let handle = thread::Builder::new()
            .name(self.name.clone())
            .spawn(affinity::unbound(move || spares.work(Some(ticket))))?;
        state.threads += 1;
        state.high_water = state.high_water.max(state.threads);
        state.idle.push((ticket, Sleeper::of(handle.thread())));
        state.handles.push(handle);
        Ok(())
    }

    /// Tells an idle thread that there is a job.
    fn wake_one(state: &mut State<M>) {
        if let Some((_, sleeper)) = state.idle.pop() {
            sleeper.wake();
        }
    }

    /// The calling thread, which has lost its lane, becomes a spare until there is no use for it.
    pub(super) fn become_one(self: &Arc<Self>) {
        self.work(None);
    }

    /// `ticket`: it counts as idle already.
    fn work(self: &Arc<Self>, mut ticket: Option<u64>) {
        message::gather_on_this_thread();
        while let Some(job) = self.next(ticket.take()) {
            match job {
                Job::Lane(worker) => {
                    // This thread is the lane's now; the one that was is counted in its place.
                    if Arc::clone(&worker).run() == Ended::Stopped {
                        // The lane's thread ends with it, and is no spare any more: see `next`.
                        message::flush();
                        continue;
                    }
                    worker.serve_away();
                }
                Job::Mailbox(_lane, mailbox) => mailbox.serve(),
            }
            message::flush();
        }
    }

    /// The next job; none: this thread is to end. `idle`: its ticket, if it counts as idle already.
    fn next(&self, mut idle: Option<u64>) -> Option<Job<M>> {
        let mut waited = false;
        loop {
            let ticket = match idle.take() {
                Some(ticket) => ticket,
                None => {
                    let mut state = lock(&self.state);
                    if let Some(job) = state.jobs.pop_front() {
                        return Some(job);
                    }
                    if waited || state.closed {
                        state.threads = state.threads.saturating_sub(1);
                        return None;
                    }
                    state.next_idle += 1;
                    let ticket = state.next_idle;
                    state.idle.push((ticket, Sleeper::current()));
                    ticket
                }
            };
            let is_idle = || lock(&self.state).idle.iter().any(|(other, _)| *other == ticket);
            let until = std::time::Instant::now() + KEEP;
            while is_idle() {
                let left = until.saturating_duration_since(std::time::Instant::now());
                if left.is_zero() {
                    waited = true;
                    lock(&self.state).idle.retain(|(other, _)| *other != ticket);
                    break;
                }
                park::sleep(Some(left));
            }
        }
    }

    /// The lanes have ended: spares end when the jobs are done.
    pub(crate) fn close(&self) {
        let idle = {
            let mut state = lock(&self.state);
            state.closed = true;
            std::mem::take(&mut state.idle)
        };
        for (_, sleeper) in idle {
            sleeper.wake();
        }
    }

    /// Threads to join.
    pub(crate) fn take_handles(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut lock(&self.state).handles)
    }
}

impl<M: Member> std::fmt::Debug for Spares<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spares").field("threads", &self.threads()).finish_non_exhaustive()
    }
}
