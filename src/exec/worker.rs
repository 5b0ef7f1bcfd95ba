//! The worker of a lane: takes dispatches in order, walks their members, serves control entries.
//!
//! ```text
//!   turn: control entry due at this position?  ─► serve it
//!         else next dispatch                   ─► for each accepting member: deliver
//!   idle: spin, yield, hand message memory back, sleep
//!
//!   a handler waits (join, publish_sync)       ─► help: the same turns, deeper on this stack;
//!         what is for a member whose handler is below on the stack waits in `deferred`
//!         until that handler returns; lists retired meanwhile are freed at the bottom
//! ```
//!
//! A helper first finishes the walk that the waiting handler is part of, from the member after it;
//! when the handler returns, the outer walk sees that there is nothing left of it.
//!
//! Guarantees: each member's messages in the order of the ring (G2), one at a time (G4), the final one
//! last (G5); a panic in a destructor of a payload is caught; cost 3-5 ns a member. Models:
//! `loom-tests/tests/lane.rs`.
#![allow(unsafe_code)]

#[cfg_attr(not(feature = "ext"), allow(dead_code))]
pub(crate) mod manual;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::affinity;
use super::audience::Cursor;
use super::completion::Completion;
use super::frames::{Helper, Serving};
use super::lane::{Control, Lane, LaneEnd, Member};
use super::part::{Dispatch, Target};
use super::serial::Token;
use super::wait::{Idle, Next, WaitStrategy, nap};
use crate::contain::quietly;
use crate::message::{self, Message};
use crate::reclaim::Reclaimer;
use crate::ring::{Consumer, Position};
use crate::sync::plain::Ordering;
use crate::sync::{Arc, park, thread};

/// How a worker runs.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSetup {
    pub(crate) core: Option<usize>,
    pub(crate) wait: WaitStrategy,
    pub(crate) reclaimer: Arc<Reclaimer>,
}

/// Starts the worker thread of a lane.
pub(crate) fn spawn<M: Member>(end: LaneEnd<M>, setup: WorkerSetup) -> std::io::Result<thread::JoinHandle<()>> {
    let name: String = end.lane.name().chars().filter(|&c| c != '\0').take(15).collect();
    let body = move || {
        if let Some(core) = setup.core {
            affinity::pin_this_thread(core);
        }
        Worker::new(end, setup.wait, setup.reclaimer).run();
    };
    thread::Builder::new().name(name).spawn(body)
}

/// Something for a member whose handler is on the stack.
enum Deferred<M: Member> {
    Message(Arc<M>, Message),
    Finish(Arc<M>, Message),
    Notify(Arc<Completion>),
}

enum Work<M: Member> {
    Dispatch(Dispatch<M>),
    Control(Control<M>),
}

/// What changes between turns. Never borrowed while foreign code runs.
struct Core<M: Member> {
    consumer: Consumer<Dispatch<M>>,
    /// Control entries taken over, by position.
    controls: VecDeque<(Position, Control<M>)>,
    deferred: HashMap<u64, VecDeque<Deferred<M>>>,
    /// Lists retired while a walk was open.
    retired: Vec<Control<M>>,
}

impl<M: Member> Core<M> {
    /// What comes next, in the lane's order.
    #[inline]
    fn next(&mut self, lane: &Lane<M>) -> Option<Work<M>> {
        if lane.has_controls() {
            self.take_controls(lane);
        }
        if let Some((position, _)) = self.controls.front()
            && *position <= self.consumer.head()
        {
            return self.controls.pop_front().map(|(_, control)| Work::Control(control));
        }
        let dispatch = self.consumer.pop()?;
        lane.busy.tally.dispatches.add(1);
        Some(Work::Dispatch(dispatch))
    }

    #[cold]
    fn take_controls(&mut self, lane: &Lane<M>) {
        for (position, control) in lane.take_controls() {
            // Positions mostly come in order; equal ones keep the order of pushing.
            let at = self.controls.partition_point(|(earlier, _)| *earlier <= position);
            self.controls.insert(at, (position, control));
        }
    }
}

/// A walk in progress; the n-th handler on the stack is called from the n-th of these.
struct Walk<M: Member> {
    message: RefCell<Option<Message>>,
    target: Cell<Option<Target<M>>>,
    cursor: Cell<Cursor>,
    /// A helper has taken over the rest.
    finished: Cell<bool>,
}

/// One lane's worker. Lives on its thread.
pub(crate) struct Worker<M: Member> {
    lane: Arc<Lane<M>>,
    token: Token,
    core: RefCell<Core<M>>,
    /// Walks by depth, kept for use again.
    walks: RefCell<Vec<Rc<Walk<M>>>>,
    /// Open walks.
    depth: Cell<usize>,
    /// Members whose handlers are waiting further down the stack, and how many they are.
    waiting: RefCell<Vec<u64>>,
    helping: Cell<usize>,
    has_deferred: Cell<bool>,
    stop: Cell<bool>,
    /// The lane takes nothing any more.
    ended: Cell<bool>,
    wait: WaitStrategy,
    reclaimer: Arc<Reclaimer>,
}

impl<M: Member> Worker<M> {
    pub(crate) fn new(end: LaneEnd<M>, wait: WaitStrategy, reclaimer: Arc<Reclaimer>) -> Rc<Self> {
        Rc::new(Self {
            lane: end.lane,
            token: end.token,
            core: RefCell::new(Core {
                consumer: end.consumer,
                controls: VecDeque::new(),
                deferred: HashMap::new(),
                retired: Vec::new(),
            }),
            walks: RefCell::default(),
            depth: Cell::new(0),
            waiting: RefCell::default(),
            helping: Cell::new(0),
            has_deferred: Cell::new(false),
            stop: Cell::new(false),
            ended: Cell::new(false),
            wait,
            reclaimer,
        })
    }

    /// Serves the lane until it is stopped.
    pub(crate) fn run(self: Rc<Self>) {
        self.lane.served_by_this_thread();
        message::gather_on_this_thread();
        let _serving = Serving::begin(Rc::clone(&self) as Rc<dyn Helper>);
        let mut idle = Idle::new(self.wait);
        // A stopped lane serves its members to their end, however late that comes.
        while !(self.stop.get() && self.lane.members() == 0) {
            if self.turn() {
                idle.reset();
                continue;
            }
            if idle.is_lasting() {
                self.tidy();
            }
            if idle.pause() == Next::Sleep {
                self.tidy();
                self.doze(&|| true, nap(self.reclaimer.is_pending()));
            }
        }
        self.end();
    }

    /// A stopped lane whose members are gone takes nothing any more.
    fn end(&self) {
        // What publishers that were in the middle have pushed: there is nobody left to take it.
        while self.turn() {}
        // From here on a list may be freed at once by whoever lets it go: no dispatch is looked at.
        self.ended.set(true);
        let mut rest = std::mem::take(&mut self.core.borrow_mut().controls);
        rest.extend(self.lane.close());
        for (_, control) in rest {
            self.control(control);
        }
        self.tidy();
    }

    /// What an idle worker does for others.
    fn tidy(&self) {
        message::flush();
        let retired = std::mem::take(&mut self.core.borrow_mut().retired);
        if self.depth.get() == 0 {
            quietly(|| drop(retired));
        } else {
            self.core.borrow_mut().retired.extend(retired);
        }
        if self.reclaimer.is_pending() {
            quietly(|| self.reclaimer.tick());
        }
    }

    /// Serves one dispatch or control entry; false if there was none.
    #[inline]
    pub(crate) fn turn(&self) -> bool {
        let work = self.core.borrow_mut().next(&self.lane);
        match work {
            None => return false,
            Some(Work::Dispatch(dispatch)) => {
                let (message, target) = dispatch.open();
                self.walk(message, target, None);
            }
            Some(Work::Control(control)) => self.control(control),
        }
        true
    }

    fn walk_at(&self, depth: usize) -> Rc<Walk<M>> {
        let mut walks = self.walks.borrow_mut();
        while walks.len() <= depth {
            walks.push(Rc::new(Walk {
                message: RefCell::new(None),
                target: Cell::new(None),
                cursor: Cell::default(),
                finished: Cell::new(false),
            }));
        }
        Rc::clone(&walks[depth])
    }

    /// Gives the message to all members, or to those behind `after`.
    #[inline]
    fn walk(&self, message: Message, target: Target<M>, after: Option<Cursor>) {
        let depth = self.depth.get();
        let walk = self.walk_at(depth);
        walk.message.replace(Some(message));
        walk.target.set(Some(target));
        walk.finished.set(false);
        self.depth.set(depth + 1);
        let before = self.running();
        {
            let message = walk.message.borrow();
            let message = message.as_ref().expect("put there above");
            // SAFETY: we are the lane's worker, and free no list while a walk is open (`control`).
            let audience = unsafe { target.audience() };
            let mut scan = audience.scan(after);
            while let Some(member) = scan.next(message) {
                walk.cursor.set(scan.cursor());
                self.give(member, message);
                if walk.finished.get() {
                    break;
                }
            }
        }
        self.set_running(before);
        self.depth.set(depth);
        let message = walk.message.take();
        quietly(|| drop(message));
    }

    #[inline]
    fn give(&self, member: &Arc<M>, message: &Message) {
        let id = member.id();
        if self.is_waiting(id) {
            self.defer(id, Deferred::Message(Arc::clone(member), message.clone()));
            return;
        }
        self.set_running(id);
        member.deliver(&self.token, message);
        if self.has_deferred.get() {
            self.serve_deferred(id);
        }
    }

    fn control(&self, control: Control<M>) {
        match control {
            Control::Finish(member, message) if self.is_waiting(member.id()) => {
                self.defer(member.id(), Deferred::Finish(member, message));
            }
            Control::Finish(member, message) => {
                let before = self.running();
                self.set_running(member.id());
                member.finish(&self.token, &message);
                if self.has_deferred.get() {
                    self.serve_deferred(member.id());
                }
                self.set_running(before);
                quietly(|| drop((member, message)));
            }
            Control::Notify(id, completion) if self.is_waiting(id) => {
                self.defer(id, Deferred::Notify(completion));
            }
            Control::Notify(_, completion) => completion.complete(),
            retire @ Control::Retire(_) if self.depth.get() > 0 => self.core.borrow_mut().retired.push(retire),
            retire @ Control::Retire(_) => quietly(|| drop(retire)),
            Control::Stop => self.stop.set(true),
        }
    }

    #[cold]
    fn defer(&self, id: u64, what: Deferred<M>) {
        self.core.borrow_mut().deferred.entry(id).or_default().push_back(what);
        self.has_deferred.set(true);
    }

    /// The member's handler has returned: gives it what came meanwhile.
    #[cold]
    fn serve_deferred(&self, id: u64) {
        loop {
            let next = {
                let deferred = &mut self.core.borrow_mut().deferred;
                let next = deferred.get_mut(&id).and_then(VecDeque::pop_front);
                if next.is_none() {
                    deferred.remove(&id);
                    self.has_deferred.set(!deferred.is_empty());
                }
                next
            };
            match next {
                None => return,
                Some(Deferred::Message(member, message)) => {
                    member.deliver(&self.token, &message);
                    quietly(|| drop((member, message)));
                }
                Some(Deferred::Finish(member, message)) => {
                    member.finish(&self.token, &message);
                    quietly(|| drop((member, message)));
                }
                Some(Deferred::Notify(completion)) => completion.complete(),
            }
        }
    }

    /// Does something while the handler that runs now counts as waiting.
    fn beside<R>(&self, f: impl FnOnce() -> R) -> R {
        let id = self.running();
        self.waiting.borrow_mut().push(id);
        self.helping.set(self.helping.get() + 1);
        self.set_running(0);
        let result = f();
        self.helping.set(self.helping.get() - 1);
        self.waiting.borrow_mut().pop();
        self.set_running(id);
        result
    }

    #[inline]
    fn running(&self) -> u64 {
        self.lane.busy.running.load(Ordering::Relaxed)
    }

    #[inline]
    fn set_running(&self, id: u64) {
        self.lane.busy.running.store(id, Ordering::Relaxed);
    }

    #[inline]
    fn is_waiting(&self, id: u64) -> bool {
        self.helping.get() > 0 && self.waiting.borrow().contains(&id)
    }
}

impl<M: Member> Helper for Worker<M> {
    fn depth(&self) -> usize {
        self.helping.get()
    }

    fn runs(&self, id: u64) -> bool {
        self.running() == id || self.is_waiting(id)
    }

    fn running(&self, into: &mut Vec<u64>) {
        into.extend(self.waiting.borrow().iter().copied());
        into.extend(Some(self.running()).filter(|&id| id != 0));
    }

    fn help(&self) -> bool {
        if self.ended.get() {
            return false;
        }
        self.beside(|| {
            let rest = self.depth.get().checked_sub(1).map(|top| self.walk_at(top)).filter(|walk| !walk.finished.get());
            match rest {
                Some(walk) => {
                    walk.finished.set(true);
                    let message = walk.message.borrow().clone();
                    if let (Some(message), Some(target)) = (message, walk.target.get()) {
                        self.walk(message, target, Some(walk.cursor.get()));
                    }
                    true
                }
                None => self.turn(),
            }
        })
    }

    fn doze(&self, still_waiting: &dyn Fn() -> bool, timeout: Option<Duration>) {
        if !self.core.borrow_mut().consumer.try_mark_asleep() {
            // A producer is between claiming and writing.
            thread::yield_now();
            return;
        }
        if !self.lane.has_controls() && still_waiting() {
            self.lane.busy.tally.sleeps.add(1);
            park::sleep(timeout);
        }
        self.core.borrow_mut().consumer.cancel_sleep();
    }
}
