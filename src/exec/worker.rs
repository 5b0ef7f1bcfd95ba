//! The worker of a lane: takes dispatches in order, walks their members, serves control entries.
//!
//! ```text
//!   turn: control entry due at this position?  ─► serve it
//!         else next dispatch                   ─► for each accepting member: deliver
//!   idle: spin, hand message memory back, sleep
//! ```
//!
//! What is for a member whose handler waits further down the stack (`helping`) stands aside until that
//! handler returns; what is for a member that is served elsewhere (`takeover`) goes to its mailbox. After
//! every call of foreign code the worker looks whether it has lost the lane meanwhile; if so it touches
//! nothing of it any more and leaves.
//!
//! Guarantees: each member's messages in the order of the ring (G2), one at a time (G4), the final one
//! last (G5); a panic in a destructor of a payload is caught; cost 3-5 ns a member. Models:
//! `loom-tests/tests/lane.rs`, `takeover.rs`.
#![allow(unsafe_code)]

#[cfg_attr(not(feature = "ext"), allow(dead_code))]
pub(crate) mod manual;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::affinity::{self, Pin, Seat};
use super::frames::{Helper, Serving};
use super::hold::{Hold, NO_MEMBER};
use super::lane::{Control, Lane, LaneEnd, Member, Turn};
use super::mailbox::{Deferred, Mailbox};
use super::part::Dispatch;
use super::serial::Token;
use super::spares::Spares;
use super::wait::{Idle, Next, Waits, nap};
use super::walk::{Rest, Walks};
use crate::contain::quietly;
use crate::message;
use crate::reclaim::Reclaimer;
use crate::ring::{Consumer, Position};
use crate::sync::{Arc, Weak, scaled, thread};

/// Entries of a member's own queue that are served in one turn.
const TURN: usize = scaled(32, 1);

/// So long has a lane that stepped aside nothing to do before it goes home.
const GO_HOME: Duration = Duration::from_millis(500);

/// The calling thread serves the lane, and may be at its core; gives the seat up however it ends.
struct Seated<'a, M: Member>(&'a Lane<M>);

impl<M: Member> Drop for Seated<'_, M> {
    fn drop(&mut self) {
        self.0.leave_seat();
    }
}

/// How a worker runs.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSetup {
    pub(crate) pin: Option<Pin>,
    pub(crate) wait: Waits,
    pub(crate) reclaimer: Arc<Reclaimer>,
}

/// Starts the worker thread of a lane. `spares`: who takes the lane over, and what the thread becomes after
/// that.
pub(crate) fn spawn<M: Member>(
    end: LaneEnd<M>,
    setup: WorkerSetup,
    spares: Option<Arc<Spares<M>>>,
) -> std::io::Result<thread::JoinHandle<()>> {
    let name: String = end.lane.name().chars().filter(|&c| c != '\0').take(15).collect();
    let body = move || {
        let seat = setup.pin.and_then(affinity::pin_this_thread);
        let worker = Worker::new(end, setup.wait, setup.reclaimer, spares.clone());
        worker.may_step_aside.set(seat.as_ref().is_some_and(Seat::may_step_aside));
        worker.seat.set(seat);
        if Arc::clone(&worker).run() == Ended::Lost {
            worker.serve_away();
            drop(worker);
            message::flush();
            if let Some(spares) = spares {
                spares.become_one();
            }
        }
    };
    thread::Builder::new().name(name).spawn(affinity::unbound(body))
}

/// How serving a lane came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The lane was stopped.
    Stopped,
    /// Another thread serves it now.
    Lost,
}

enum Work<M: Member> {
    Dispatch(Dispatch<M>),
    Control(Control<M>),
}

/// What goes with the lane. Never borrowed while foreign code runs.
pub(super) struct Core<M: Member> {
    pub(super) consumer: Consumer<Dispatch<M>>,
    /// Control entries taken over, by position.
    pub(super) controls: VecDeque<(Position, Control<M>)>,
    pub(super) deferred: HashMap<u64, VecDeque<Deferred<M>>>,
    /// Lists nobody pushes to any more: fewer than a batch, or retired while a walk was open.
    pub(super) retired: Vec<Control<M>>,
    /// Members that are served elsewhere.
    pub(super) away: HashMap<u64, Arc<Mailbox<M>>>,
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
            lane.busy.tally.controls.add(1);
            return self.controls.pop_front().map(|(_, control)| Work::Control(control));
        }
        let dispatch = self.consumer.pop()?;
        lane.busy.tally.dispatches.add(1);
        Some(Work::Dispatch(dispatch))
    }

    /// Whether something is queued.
    pub(super) fn has_work(&self) -> bool {
        !self.controls.is_empty() || self.consumer.has_more()
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

/// One lane's worker. Its cells are for the thread that runs it; a taker looks at them while that thread is
/// in foreign code (`hold`).
pub(crate) struct Worker<M: Member> {
    pub(super) lane: Arc<Lane<M>>,
    pub(super) hold: CachePadded<Hold>,
    pub(super) token: Token,
    /// None: the lane is lost.
    pub(super) core: RefCell<Option<Core<M>>>,
    pub(super) walks: Walks<M>,
    /// Open walks.
    pub(super) depth: Cell<usize>,
    /// Members whose handlers are waiting further down the stack, and how many they are.
    pub(super) waiting: RefCell<Vec<u64>>,
    pub(super) helping: Cell<usize>,
    pub(super) has_deferred: Cell<bool>,
    /// Some members are served elsewhere.
    pub(super) some_away: Cell<bool>,
    pub(super) stop: Cell<bool>,
    /// The lane takes nothing any more.
    pub(super) ended: Cell<bool>,
    /// Who on the stack is served without a walk.
    pub(super) guests: RefCell<Vec<(u64, Weak<M>)>>,
    /// The member that got its final message last: nothing comes after it.
    pub(super) finishing: Cell<u64>,
    /// The rest of a walk that was taken over.
    pub(super) rest: Cell<Option<Rest<M>>>,
    /// Mailboxes of the members on this stack, once the lane is lost.
    pub(super) left_behind: RefCell<Vec<Arc<Mailbox<M>>>>,
    /// Driven by hand.
    pub(super) is_manual: Cell<bool>,
    /// The thread's core, until it serves.
    seat: Cell<Option<Seat>>,
    pub(super) may_step_aside: Cell<bool>,
    pub(super) wait: Waits,
    pub(super) reclaimer: Arc<Reclaimer>,
    pub(super) spares: Option<Arc<Spares<M>>>,
}

// SAFETY: the cells and counts are touched by the one thread that runs the worker, or by a taker while
// that thread is in foreign code or waits for the verdict (`hold`); both hand over through its lock. What
// is in them may go to other threads: messages, members, the consumer, pointers to lists (`part`).
unsafe impl<M: Member> Send for Worker<M> {}
// SAFETY: as above.
unsafe impl<M: Member> Sync for Worker<M> {}

impl<M: Member> Worker<M> {
    pub(crate) fn new(
        end: LaneEnd<M>,
        wait: Waits,
        reclaimer: Arc<Reclaimer>,
        spares: Option<Arc<Spares<M>>>,
    ) -> Arc<Self> {
        let core = Core {
            consumer: end.consumer,
            controls: VecDeque::new(),
            deferred: HashMap::new(),
            retired: Vec::new(),
            away: HashMap::new(),
        };
        Self::with_core(end.lane, core, end.token, wait, reclaimer, spares)
    }

    pub(super) fn with_core(
        lane: Arc<Lane<M>>,
        core: Core<M>,
        token: Token,
        wait: Waits,
        reclaimer: Arc<Reclaimer>,
        spares: Option<Arc<Spares<M>>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            lane,
            hold: CachePadded::default(),
            token,
            has_deferred: Cell::new(!core.deferred.is_empty()),
            some_away: Cell::new(!core.away.is_empty()),
            core: RefCell::new(Some(core)),
            walks: Walks::default(),
            depth: Cell::new(0),
            waiting: RefCell::default(),
            helping: Cell::new(0),
            stop: Cell::new(false),
            ended: Cell::new(false),
            guests: RefCell::default(),
            finishing: Cell::new(0),
            rest: Cell::default(),
            left_behind: RefCell::default(),
            is_manual: Cell::new(false),
            seat: Cell::default(),
            may_step_aside: Cell::new(false),
            wait,
            reclaimer,
            spares,
        })
    }

    /// Looks at what goes with the lane. The worker has it, and runs no foreign code meanwhile.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Core<M>) -> R) -> R {
        f(self.core.borrow_mut().as_mut().expect("asked after every call"))
    }

    /// Runs foreign code that is no member's handler; false: the lane was lost meanwhile.
    #[inline]
    pub(super) fn foreign(&self, f: impl FnOnce()) -> bool {
        self.hold.enter(NO_MEMBER);
        quietly(f);
        self.hold.leave() || !self.hold.is_lost()
    }

    /// Serves the lane until it is stopped or taken over.
    pub(crate) fn run(self: Arc<Self>) -> Ended {
        self.lane.served_by(&self, self.seat.take());
        let seat = Seated(&self.lane);
        message::gather_on_this_thread();
        let serving = Serving::begin(Rc::new(Arc::clone(&self)));
        let ended = self.serve();
        drop(serving);
        drop(seat);
        if ended == Ended::Stopped {
            self.let_go();
        }
        ended
    }

    /// Whether it has been stopped and served its members to their end.
    fn is_over(&self) -> bool {
        self.stop.get() && self.lane.members() == 0
    }

    fn serve(&self) -> Ended {
        if let Some(rest) = self.rest.take() {
            self.walk(rest.message, rest.target, Some(rest.after));
            if self.hold.is_lost() {
                return Ended::Lost;
            }
        }
        let mut idle = Idle::new(self.wait);
        let mut has_slept = false;
        let mut idle_since: Option<Instant> = None;
        // A stopped lane serves its members to their end, however late that comes.
        while !self.is_over() {
            if self.turn() {
                idle.reset();
                (has_slept, idle_since) = (false, None);
                continue;
            }
            if self.hold.is_lost() {
                return Ended::Lost;
            }
            let next = idle.pause();
            // Not before a short sleep: what it frees others have allocated, and are perhaps allocating now.
            if idle.is_long() || next == Next::Sleep && has_slept {
                if !self.tidy() {
                    return Ended::Lost;
                }
                if self.may_step_aside.get() && idle_since.get_or_insert_with(Instant::now).elapsed() >= GO_HOME {
                    idle_since = None;
                    self.lane.go_home();
                }
            } else if idle.is_lasting() || next == Next::Sleep {
                self.settle();
            }
            if next == Next::Sleep {
                self.doze(&|| !self.is_over(), nap(self.is_untidy()));
                has_slept = true;
            }
        }
        self.end()
    }

    /// A stopped lane whose members are gone takes nothing any more.
    fn end(&self) -> Ended {
        // Ended already: it was taken over from a worker that had come this far.
        if !self.ended.get() {
            // What publishers that were in the middle have pushed: there is nobody left to take it.
            while self.turn() {}
            if self.hold.is_lost() {
                return Ended::Lost;
            }
            // From here on a list may be freed at once by whoever lets it go: no dispatch is looked at.
            self.ended.set(true);
        }
        let rest = self.lane.close();
        self.with(|core| core.controls.extend(rest));
        while let Some((_, control)) = self.with(|core| core.controls.pop_front()) {
            self.control(control);
            if self.hold.is_lost() {
                return Ended::Lost;
            }
        }
        loop {
            if !self.tidy() {
                return Ended::Lost;
            }
            if !self.lane.slabs().is_untidy() {
                break;
            }
        }
        self.lane.set_ended();
        Ended::Stopped
    }

    /// Serves one dispatch or control entry; false if there was none, or the lane is lost.
    #[inline]
    pub(crate) fn turn(&self) -> bool {
        let work = match &mut *self.core.borrow_mut() {
            Some(core) => core.next(&self.lane),
            None => return false,
        };
        match work {
            None => return false,
            Some(Work::Dispatch(dispatch)) => self.dispatch(dispatch),
            Some(Work::Control(control)) => self.control(control),
        }
        true
    }

    #[inline]
    fn dispatch(&self, dispatch: Dispatch<M>) {
        let (message, target) = dispatch.open();
        self.walk(message, target, None);
    }

    fn control(&self, control: Control<M>) {
        self.hold.step();
        match control {
            Control::Finish(member, message) => {
                let id = member.id();
                let guest = (id, Arc::downgrade(&member));
                let Err(item) = self.divert(id, Deferred::Finish(member, message)) else { return };
                self.guests.borrow_mut().push(guest);
                self.finishing.set(id);
                self.hold.enter(id);
                item.serve(&self.token);
                if !self.hold.leave() {
                    self.call_ended(id);
                }
                self.guests.borrow_mut().pop();
            }
            Control::Notify(id, completion) => {
                if let Err(Deferred::Notify(completion)) = self.divert(id, Deferred::Notify(completion)) {
                    self.foreign(|| completion.complete());
                }
            }
            Control::Serve(member) => self.serve_turn(member),
            // Its list may be gone: see `late`.
            Control::Dispatch(dispatch) if self.ended.get() => drop(self.foreign(|| drop(dispatch))),
            Control::Dispatch(dispatch) => {
                self.lane.beside_taken();
                self.dispatch(dispatch);
            }
            retire @ Control::Retire(_) => self.retire(retire),
            Control::Stop => self.stop.set(true),
        }
    }

    /// Serves a member's own queue for a while. The turn goes on, here or elsewhere, as long as something waits.
    fn serve_turn(&self, member: Arc<M>) {
        let id = member.id();
        let Err(Deferred::Serve(member)) = self.divert(id, Deferred::Serve(member)) else { return };
        self.guests.borrow_mut().push((id, Arc::downgrade(&member)));
        let over = self.serve_entries(&member);
        self.guests.borrow_mut().pop();
        // To the lane, whoever serves it now: it knows where the member is served.
        if !over && member.goes_on() {
            member.queue_turn();
        } else if self.hold.has_signs() && self.hold.is_lost() {
            quietly(|| drop(member));
        } else {
            self.foreign(|| drop(member));
        }
    }

    /// Serves some entries of the member's own queue; true: nothing waits there any more.
    fn serve_entries(&self, member: &Arc<M>) -> bool {
        let id = member.id();
        // A driver's steps are single ones.
        let most = if self.is_manual.get() { 1 } else { TURN };
        for _ in 0..most {
            self.hold.step();
            self.hold.enter(id);
            let turn = member.serve_next(&self.token);
            let lost = !self.hold.leave() && self.call_ended(id);
            if turn == Turn::Over || lost {
                return turn == Turn::Over;
            }
        }
        false
    }

    #[inline]
    pub(super) fn is_elsewhere(&self, id: u64) -> bool {
        self.is_waiting(id) || self.some_away.get() && self.with(|core| core.away.contains_key(&id))
    }

    /// Keeps what is for a member that is not to be called here now; else hands it back.
    pub(super) fn divert(&self, id: u64, item: Deferred<M>) -> Result<(), Deferred<M>> {
        if self.is_waiting(id) {
            self.with(|core| core.deferred.entry(id).or_default().push_back(item));
            self.has_deferred.set(true);
            self.hold.note_work();
            return Ok(());
        }
        if !self.some_away.get() {
            return Err(item);
        }
        self.with(|core| {
            let Some(mailbox) = core.away.get(&id) else { return Err(item) };
            mailbox.push(item)
        })
        // Handed back: the mailbox is closed, all that was pushed before has been served.
    }

    /// The member's handler has returned: gives it what came meanwhile.
    #[cold]
    pub(super) fn serve_deferred(&self, id: u64) {
        loop {
            let next = self.with(|core| {
                let next = core.deferred.get_mut(&id).and_then(VecDeque::pop_front);
                if next.is_none() {
                    core.deferred.remove(&id);
                    self.has_deferred.set(!core.deferred.is_empty());
                }
                next
            });
            let Some(item) = next else { return };
            if matches!(item, Deferred::Finish(..)) {
                self.finishing.set(id);
            }
            self.hold.step();
            self.hold.enter(id);
            item.serve(&self.token);
            if !self.hold.leave() && self.hold.is_lost() {
                return;
            }
        }
    }

    #[inline]
    pub(super) fn is_waiting(&self, id: u64) -> bool {
        self.helping.get() > 0 && self.waiting.borrow().contains(&id)
    }

    /// After the lane was lost: serves the members this thread was stuck in.
    pub(crate) fn serve_away(&self) {
        loop {
            let Some(mailbox) = self.left_behind.borrow_mut().pop() else { return };
            mailbox.serve();
        }
    }

    /// Leaves the handler that is running for a moment; false: the lane is lost.
    pub(super) fn step_out(&self) -> bool {
        self.hold.leave() || !self.hold.is_lost()
    }
}
