//! The queue of a member that is served away from its lane: its handler got stuck, and the lane was taken
//! over (`takeover`).
//!
//! ```text
//!   lane's worker ── push ──► items ──► whoever serves the mailbox: the stuck thread when it comes back,
//!                                       or a spare
//!   quick again and nothing left ─► closed: the next push fails, and the lane serves the member itself
//! ```
//!
//! Guarantees: order: what was pushed is served before the mailbox closes, and what comes later goes
//! over the lane; one server at a time (the right to serve goes with the job); entries count towards
//! the memory budget. The lock is held for a push or a pop, never while a handler runs.
//! Model: `loom-tests/tests/takeover.rs`.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::completion::Completion;
use super::flood::Flood;
use super::frames::{Helper, Serving};
use super::lane::{Away, Member, Running, Turn};
use super::serial::{Token, TokenId};
use crate::clock::Timestamp;
use crate::contain::quietly;
use crate::message::Message;
use crate::sync::park::{self, Sleeper};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Weak, lock, scaled};

/// Something for one member, later.
pub(super) enum Deferred<M: Member> {
    Message(Arc<M>, Message),
    Finish(Arc<M>, Message),
    Notify(Arc<Completion>),
    /// One entry of its own queue.
    Serve(Arc<M>),
}

impl<M: Member> Deferred<M> {
    /// Type of the message it brings.
    fn message_type(&self) -> &str {
        match self {
            Self::Message(_, message) | Self::Finish(_, message) => message.type_name_for_report(),
            Self::Notify(_) | Self::Serve(_) => "",
        }
    }

    /// Serves it; true: it was the member's last. Never unwinds.
    pub(super) fn serve(self, token: &Token) -> bool {
        match self {
            Self::Message(member, message) => {
                member.deliver_caught(token, &message);
                quietly(|| drop((member, message)));
                false
            }
            Self::Finish(member, message) => {
                member.finish(token, &message);
                quietly(|| drop((member, message)));
                true
            }
            Self::Notify(completion) => {
                completion.complete();
                false
            }
            Self::Serve(member) => {
                let turn = member.serve_next(token);
                if turn == Turn::Over {
                    quietly(|| drop(member));
                } else if member.goes_on() {
                    // By way of the lane, so that the member can go back to it.
                    member.queue_turn();
                } else {
                    quietly(|| drop(member));
                }
                turn == Turn::Last
            }
        }
    }
}

/// Calls in a row that must be quick before the member goes back to its lane.
const QUICK_CALLS: usize = scaled(32, 0);
/// So many entries ahead of the next one it asks for the message.
const AHEAD: usize = 8;
/// How long a mailbox with nothing to do waits before the member goes back all the same.
const PATIENCE: Duration = Duration::from_secs(1);

struct Items<M: Member> {
    waiting: VecDeque<Deferred<M>>,
    closed: bool,
    /// Entries ever queued.
    pushed: u64,
    /// Type of what the handler was given last (empty: of none), and when; none: that of the call
    /// that got stuck.
    current: (String, Option<Timestamp>),
    /// Who serves it, while that thread sleeps.
    sleeper: Option<Sleeper>,
}

/// See the module.
pub(super) struct Mailbox<M: Member> {
    /// The call that got stuck.
    about: Running<M>,
    opened: Instant,
    token: TokenId,
    /// What counts as quick.
    quick: Duration,
    /// The call that got stuck is the final one: closed as soon as it has returned and nothing waits.
    over: bool,
    /// Whether the handler runs now.
    running: AtomicBool,
    items: Mutex<Items<M>>,
    flood: Arc<Flood>,
}

impl<M: Member> Mailbox<M> {
    const ITEM_BYTES: usize = size_of::<Deferred<M>>();

    /// A mailbox for a member whose handler runs; with what waits for it already.
    pub(super) fn new(
        mut about: Running<M>,
        token: TokenId,
        quick: Duration,
        waiting: VecDeque<Deferred<M>>,
        over: bool,
        flood: Arc<Flood>,
    ) -> Self {
        flood.rose(waiting.len(), Self::ITEM_BYTES);
        let (opened, pushed) = (Instant::now(), waiting.len() as u64);
        let current = (about.message_type.take().unwrap_or_default().into(), None);
        let items = Mutex::new(Items { waiting, closed: false, pushed, current, sleeper: None });
        Self { about, opened, token, quick, over, running: AtomicBool::new(true), items, flood }
    }

    pub(super) fn id(&self) -> u64 {
        self.about.id
    }

    /// A moment's view; none: the member is back on its lane, or is to be.
    pub(super) fn look(&self) -> Option<Away<M>> {
        let items = lock(&self.items);
        (!items.closed).then(|| Away {
            id: self.about.id,
            member: Weak::clone(&self.about.member),
            opened: self.opened,
            running: self.is_running().then(|| {
                let (kind, since) = &items.current;
                let began = since.and_then(|since| Instant::now().checked_sub(since.elapsed()));
                ((!kind.is_empty()).then(|| kind.as_str().into()), began.unwrap_or(self.opened))
            }),
            pushed: items.pushed,
            waiting: items.waiting.len() as u64,
        })
    }

    /// Whether the member's handler runs now.
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Whether the member is back on its lane, or is to be.
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.items).closed
    }

    /// Queues an entry; hands it back if the member is back on its lane.
    pub(super) fn push(&self, item: Deferred<M>) -> Result<(), Deferred<M>> {
        let sleeper = {
            let mut items = lock(&self.items);
            if items.closed {
                return Err(item);
            }
            self.flood.rose(1, Self::ITEM_BYTES);
            items.waiting.push_back(item);
            items.pushed += 1;
            items.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        Ok(())
    }

    /// The next entry; none: the mailbox is closed. `now` is when the last call ended, and then when this entry was taken:
    /// the clock is read again after a sleep only.
    fn next(&self, quick_calls: usize, last: bool, now: &mut Timestamp) -> Option<Deferred<M>> {
        let mut waited = false;
        loop {
            {
                let mut items = lock(&self.items);
                if let Some(item) = items.waiting.pop_front() {
                    // What waited for long is in no cache.
                    if let Some(Deferred::Message(_, message)) = items.waiting.get(AHEAD) {
                        message.expect();
                    }
                    self.flood.fell(Self::ITEM_BYTES);
                    let (kind, since) = &mut items.current;
                    kind.clear();
                    kind.push_str(item.message_type());
                    *since = Some(*now);
                    return Some(item);
                }
                if last || waited || quick_calls >= QUICK_CALLS {
                    items.closed = true;
                    return None;
                }
                items.sleeper = Some(Sleeper::current());
            }
            let until = Instant::now() + PATIENCE;
            while lock(&self.items).sleeper.is_some() {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    waited = lock(&self.items).sleeper.take().is_some();
                    break;
                }
                park::sleep(Some(left));
            }
            *now = Timestamp::now();
        }
    }

    /// Serves the member until it is back on its lane. The caller has the right to: it is the thread whose
    /// call got stuck, or was handed the job.
    pub(super) fn serve(self: &Arc<Self>) {
        // SAFETY: the lane does not serve the member until the mailbox is closed, and one thread has the job.
        let token = unsafe { Token::again(self.token) };
        let _serving = Serving::begin(Rc::new(Arc::clone(self)));
        self.running.store(false, Ordering::Relaxed);
        let (mut quick_calls, mut last, mut now) = (0, self.over, Timestamp::now());
        while let Some(item) = self.next(quick_calls, last, &mut now) {
            let began = now;
            self.running.store(true, Ordering::Relaxed);
            last |= item.serve(&token);
            self.running.store(false, Ordering::Relaxed);
            now = Timestamp::now();
            quick_calls = if now.since(began) < self.quick { quick_calls + 1 } else { 0 };
        }
    }
}

/// What a wait inside the handler needs to know; there is no lane to help.
impl<M: Member> Helper for Mailbox<M> {
    fn depth(&self) -> usize {
        0
    }

    fn runs(&self, id: u64) -> bool {
        self.id() == id && self.is_running()
    }

    fn running(&self, into: &mut Vec<u64>) {
        into.extend(Some(self.id()).filter(|_| self.is_running()));
    }

    fn help(&self) -> bool {
        false
    }

    fn doze(&self, still_waiting: &dyn Fn() -> bool, timeout: Option<Duration>) {
        if still_waiting() {
            park::sleep(timeout);
        }
    }
}
