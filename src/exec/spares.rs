//! Threads that take lanes over, and serve mailboxes nobody else is free for. Made when needed, kept for a
//! while, bounded.
//!
//! ```text
//!   watchdog ── lane ──────► jobs ──► an idle spare, else a new thread ──► serves the lane for good
//!   stuck thread, when it comes back, ─► serves its mailbox, then is a spare itself
//! ```
//!
//! Guarantees: at most `most` threads beside those of the lanes; an idle one ends after [`KEEP`], all
//! end when the lanes have ended and the jobs are done. One short lock, never held while a job runs.

use std::collections::VecDeque;
use std::time::Duration;

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
            handles: Vec::new(),
        };
        let name = name.chars().filter(|&c| c != '\0').take(9).chain("/spare".chars()).collect();
        Arc::new(Self { most, name, state: Mutex::new(state) })
    }

    /// Whether there is a thread for another lane: taking over makes one more.
    pub(crate) fn is_available(&self) -> bool {
        let state = lock(&self.state);
        state.idle.len() > state.jobs.len() || state.threads < self.most
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
        if let Some((_, sleeper)) = state.idle.pop() {
            drop(state);
            sleeper.wake();
            return;
        }
        if state.threads >= self.most {
            // The next spare that gets free does it.
            return;
        }
        state.threads += 1;
        state.high_water = state.high_water.max(state.threads);
        let spares = Arc::clone(self);
        state.handles.retain(|thread| !thread.is_finished());
        match thread::Builder::new().name(self.name.clone()).spawn(move || spares.work()) {
            Ok(handle) => state.handles.push(handle),
            Err(error) => {
                state.threads -= 1;
                drop(state);
                tracing::error!(%error, "cannot start a spare thread: a lane waits for the next one that gets free");
            }
        }
    }

    /// The calling thread, which has lost its lane, becomes a spare until there is no use for it.
    pub(super) fn become_one(self: &Arc<Self>) {
        self.work();
    }

    fn work(self: &Arc<Self>) {
        message::gather_on_this_thread();
        while let Some(job) = self.next() {
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

    /// The next job; none: this thread is to end.
    fn next(&self) -> Option<Job<M>> {
        let mut waited = false;
        loop {
            let ticket = {
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
