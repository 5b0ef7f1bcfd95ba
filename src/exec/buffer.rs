//! The queue of a subscription that says itself how much may wait, for how long, and what goes first.
//!
//! ```text
//!   publisher ── push, by the policy ──► store ──► serve_next: one at a time, by who has the turn
//!       └─ nobody has it ─► a turn (control entry) on the lane; a turn serves a few, then the next is queued
//! ```
//!
//! The store is the order; turns carry none. A turn is served like any other call of the lane: a handler
//! that gets stuck in it is taken over, and further turns go to the member's mailbox.
//!
//! Guarantees: a message waits here or was handed out or is counted, at any moment (G3); while something
//! waits, a turn is queued or running, and at most one is; the lock is held for a push or a pop: no user code, no
//! destructor, no other lock under it. Entries count towards the memory budget. Models:
//! `loom-tests/tests/buffer.rs`; against a simple queue: `tests/overflow.rs`.

pub(crate) mod rules;
mod store;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::completion::Completion;
use crate::clock::Timestamp;
use crate::contain::{discard, quietly, report_panic};
use crate::message::Message;
use crate::ring::Budget;
use crate::sync::{Arc, Mutex, lock, plain};
use rules::{Overflow, Rules};
pub(crate) use store::{Counts, Next};
use store::{Item, Store};

struct State {
    store: Store,
    /// A turn is queued or running.
    turn: bool,
    /// Type of the message taken last; empty: it was none.
    serving: String,
    /// Entries the budget knows of.
    charged: usize,
}

/// See the module.
pub(crate) struct Buffer {
    rules: Rules,
    state: Mutex<State>,
    budget: Arc<Budget>,
    /// Messages lost before the one that is being delivered. Written and read by the runner.
    lagged: plain::AtomicU64,
}

/// Runs a function of the user's; its panic counts as no answer.
fn ask<T: Default>(of: &str, f: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        report_panic(of, &*panic);
        discard(panic);
        T::default()
    })
}

fn drop_all(messages: Vec<Message>) {
    for message in messages {
        quietly(|| drop(message));
    }
}

impl Buffer {
    const ENTRY_BYTES: usize = size_of::<Item>() + size_of::<u64>();

    pub(crate) fn new(rules: Rules, budget: Arc<Budget>) -> Self {
        let state = State { store: Store::new(rules.overflow), turn: false, serving: String::new(), charged: 0 };
        Self { rules, state: Mutex::new(state), budget, lagged: plain::AtomicU64::new(0) }
    }

    /// Changes the store; true: there is something to serve and nobody has the turn, so the caller is to queue it.
    fn change(&self, f: impl FnOnce(&mut Store)) -> bool {
        let mut state = lock(&self.state);
        f(&mut state.store);
        self.charge(&mut state);
        state.store.entries() > 0 && !std::mem::replace(&mut state.turn, true)
    }

    fn charge(&self, state: &mut State) {
        let entries = state.store.entries();
        if entries > state.charged {
            self.budget.force((entries - state.charged) * Self::ENTRY_BYTES);
        } else {
            self.budget.give((state.charged - entries) * Self::ENTRY_BYTES);
        }
        state.charged = entries;
    }

    /// Whether a message is too old.
    fn is_expired(&self) -> impl Fn(&Message) -> bool {
        let limit = self.rules.time_to_live.map(|limit| (limit, Timestamp::now()));
        move |message| limit.is_some_and(|(limit, now)| now.since(message.created()) > limit)
    }

    fn item(&self, message: Message) -> Item {
        let (mut group, mut value, mut is_control) = (None, None, false);
        if let Some(priority) = &self.rules.priority {
            group = ask("a subscription's key function", || (priority.key)(&message));
            is_control = ask("a subscription's priority function", || (priority.is_control)(&message));
        }
        if let Overflow::Conflate { key, .. } = self.rules.overflow
            && !is_control
        {
            value = ask("a subscription's key function", || key(&message));
        }
        Item { message, group, value, is_control }
    }

    /// Promises a place for the next [`push`](Self::push); false: publishing is to be refused.
    pub(crate) fn reserve(&self) -> bool {
        match self.rules.overflow {
            // Others may keep what they have for good: whoever has nothing waiting is not refused for it.
            Overflow::Spill => !self.budget.is_exceeded() || lock(&self.state).charged == 0,
            Overflow::Fail { .. } => lock(&self.state).store.reserve(),
            _ => true,
        }
    }

    /// Takes the promise back.
    pub(crate) fn release(&self) {
        if matches!(self.rules.overflow, Overflow::Fail { .. }) {
            lock(&self.state).store.release();
        }
    }

    /// Takes a message in; true: the caller is to queue a turn. `reserved`: there is a promise for it.
    pub(crate) fn push(&self, message: Message, reserved: bool) -> bool {
        let item = self.item(message);
        let mut out = Vec::new();
        let is_expired = self.is_expired();
        let queue = self.change(|store| {
            if reserved && matches!(self.rules.overflow, Overflow::Fail { .. }) {
                store.release();
            }
            store.push(item, is_expired, &mut out);
        });
        drop_all(out);
        queue
    }

    /// As [`push`](Self::push), for a notice.
    pub(crate) fn notify(&self, notice: Arc<Completion>) -> bool {
        self.change(|store| store.notify(notice))
    }

    /// As [`push`](Self::push), for the final message.
    pub(crate) fn finish(&self, message: Message) -> bool {
        self.change(|store| store.finish(message))
    }

    /// What is to be served next; `None`: nothing, and the turn is over. By who has the turn.
    pub(crate) fn next(&self) -> Option<Next> {
        let mut out = Vec::new();
        let is_expired = self.is_expired();
        let next = {
            let mut state = lock(&self.state);
            let next = state.store.pop(is_expired, &mut out);
            self.charge(&mut state);
            state.turn = next.is_some();
            state.serving.clear();
            if let Some((Next::Message(message) | Next::Final(message), _)) = &next {
                state.serving.push_str(message.type_name_for_report());
            }
            next
        };
        drop_all(out);
        let (next, lost) = next?;
        self.lagged.store(lost, plain::Ordering::Relaxed);
        Some(next)
    }

    /// Type of the message that was taken last, unless what came last was none.
    pub(crate) fn serving(&self) -> Option<Box<str>> {
        let state = lock(&self.state);
        (!state.serving.is_empty()).then(|| state.serving.as_str().into())
    }

    /// Whether something waits; if not, the turn is over. By who has the turn.
    pub(crate) fn goes_on(&self) -> bool {
        let mut state = lock(&self.state);
        state.turn = state.store.entries() > 0;
        state.turn
    }

    /// Nobody serves it any more: what waits is counted as ended.
    pub(crate) fn end(&self) {
        let mut out = Vec::new();
        let notices = {
            let mut state = lock(&self.state);
            let notices = state.store.end(&mut out);
            self.charge(&mut state);
            state.turn = false;
            notices
        };
        drop_all(out);
        for notice in notices {
            quietly(|| notice.complete());
        }
    }

    /// Messages lost before the one that is being delivered, if the policy is to say so.
    pub(crate) fn lagged(&self) -> u64 {
        match self.rules.overflow {
            Overflow::Lag { .. } => self.lagged.load(plain::Ordering::Relaxed),
            _ => 0,
        }
    }

    /// Counts and what waits, of one moment.
    pub(crate) fn look(&self) -> (Counts, u64) {
        let state = lock(&self.state);
        (state.store.counts, state.store.waiting() as u64)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.budget.give(lock(&self.state).charged * Self::ENTRY_BYTES);
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("rules", &self.rules).finish_non_exhaustive()
    }
}
