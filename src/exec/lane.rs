//! A lane: one queue of dispatches, one worker that serves it, and control entries in between.
//!
//! ```text
//!   publishers ── push ─────► ring      #17 #18 #19 #20 …
//!   control ── control ─────► stack     (finish S, before #19) (retire list, before #20)
//!                                        served by the worker when it gets to that position
//! ```
//!
//! Control entries (final messages, notices, retired lists) never compete for room: they stand on a
//! stack beside the ring, each with the position it comes before, so they always get through (G9).
//!
//! Guarantees: what was pushed before a control entry (happens-before) is served before it; an entry
//! that a closed lane hands back was not and will not be served. Waking the worker costs a
//! system call only while it sleeps. Models: `loom-tests/tests/{lane,park}.rs`.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::affinity::{self, Seat};
use super::audience::{Entry, Identified};
use super::calls::Calls;
use super::completion::Completion;
use super::flood::Flood;
use super::hold::Seen;
use super::mailbox::{Deferred, Mailbox};
use super::part::{Dispatch, Held};
use super::serial::{Alone, Token, TokenId};
use super::slab::Slabs;
use super::watchdog::Watch;
use super::worker::Worker;
use crossbeam_utils::CachePadded;

use crate::message::Message;
use crate::message::depth::InHandler;
use crate::ring::{Budget, Consumer, Place, Position, Ring, ring};
use crate::stats::Tally;
use crate::sync::park::Sleeper;
use crate::sync::plain::{AtomicU64, AtomicUsize as PlainUsize, Ordering as PlainOrdering};
use crate::sync::stack::{ClosableStack, Taken};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, OnceLock, Ordering, Weak, lock};

/// What a lane serves: the executable half of a subscription.
pub(crate) trait Member: Identified<Post: Sync> + Send + Sync + Sized + 'static {
    /// What handlers are called with; all of a walk with the same.
    type Call<'a>;

    /// For this message.
    fn call(message: &Message) -> Self::Call<'_>;
    /// Hands the member a message; `post` is its own. A panic of its handler comes through: the caller catches it and
    /// tells [`panicked`](Self::panicked).
    fn deliver<'a>(self: &'a Arc<Self>, post: &Self::Post, token: &Token, call: &mut Self::Call<'a>);
    /// As [`deliver`](Self::deliver), for who knows that the handler does not run.
    fn deliver_alone<'a>(self: &'a Arc<Self>, post: &Self::Post, alone: Alone<'_>, call: &mut Self::Call<'a>);
    /// As [`deliver_alone`](Self::deliver_alone) to each of a long row, one after the other; break: nothing of the walk is
    /// left to do here.
    fn deliver_row<'a>(row: &'a [Entry<Self>], calls: &Calls<'_>, call: &mut Self::Call<'a>) -> ControlFlow<()>;
    /// Its handler has panicked with this. Never unwinds.
    fn panicked(self: &Arc<Self>, panic: Box<dyn Any + Send>);
    /// Hands the member its final message and lets go of its handler. Never unwinds.
    fn finish(self: &Arc<Self>, token: &Token, message: &Message);

    /// Serves the next entry of the member's own queue (`buffer`), by who has the turn. Never unwinds.
    fn serve_next(self: &Arc<Self>, _token: &Token) -> Turn {
        Turn::Over
    }
    /// Type of the message that was taken from that queue last, for those who look.
    fn serving(&self) -> Option<Box<str>> {
        None
    }
    /// Whether something waits in that queue; if not, the turn is over.
    fn goes_on(&self) -> bool {
        false
    }
    /// Queues the next turn.
    fn queue_turn(self: Arc<Self>) {}

    /// As [`deliver`](Self::deliver), with the catching done. Never unwinds.
    fn deliver_caught(self: &Arc<Self>, token: &Token, message: &Message) {
        let _depth = InHandler::of(message);
        if let Err(panic) =
            catch_unwind(AssertUnwindSafe(|| self.deliver(self.post(), token, &mut Self::call(message))))
        {
            self.panicked(panic);
        }
    }
}

/// What a step of a member's turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// An entry was served.
    Served,
    /// The final message was served.
    Last,
    /// Nothing waits: the turn is over.
    Over,
}

/// Dispatches that wait beside a full queue, at most.
const MOST_BESIDE: usize = 1 << 16;

/// The number of no core.
const NOWHERE: usize = usize::MAX;

/// Something to do at a position of the lane.
pub(crate) enum Control<M: Member> {
    /// The member's last message.
    Finish(Arc<M>, Message),
    /// Say that everything before this was served to the member.
    Notify(u64, Arc<Completion>),
    /// Serve the member's own queue for a while.
    Serve(Arc<M>),
    /// A message that must get through though the queue was full.
    Dispatch(Dispatch<M>),
    /// Free a list nobody pushes to any more.
    Retire(#[allow(dead_code)] Arc<Held<M>>),
    /// End the worker. Nothing comes after it.
    Stop,
}

/// A call of a handler, for those who look.
pub(crate) struct Running<M> {
    pub(crate) id: u64,
    /// Nobody: it was not called from a walk.
    pub(crate) member: Weak<M>,
    pub(crate) message_type: Option<Box<str>>,
}

/// A member that is served away from its lane, for those who look.
pub(crate) struct Away<M> {
    pub(crate) id: u64,
    pub(crate) member: Weak<M>,
    /// When it got stuck.
    pub(crate) opened: Instant,
    /// What its handler has now and since when, if it runs.
    pub(crate) running: Option<(Option<Box<str>>, Instant)>,
    /// Entries ever queued for it.
    pub(crate) pushed: u64,
    pub(crate) waiting: u64,
}

/// Sizes of a lane's ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingSize {
    /// 2^n entries a segment.
    pub(crate) slot_bits: u32,
    /// Entries that are always there.
    pub(crate) capacity: usize,
    /// Entries it may grow to.
    pub(crate) most: usize,
}

/// What a lane counts. Written by its worker only.
#[derive(Debug, Default)]
pub(crate) struct LaneTally {
    /// Dispatches served.
    pub(crate) dispatches: Tally,
    /// Control entries served.
    pub(crate) controls: Tally,
    /// Times the worker went to sleep.
    pub(crate) sleeps: Tally,
}

/// See the module.
pub(crate) struct Lane<M: Member> {
    name: String,
    token: TokenId,
    ring: Arc<Ring<Dispatch<M>>>,
    controls: ClosableStack<(Position, Control<M>)>,
    /// Control entries ever pushed.
    pushed_controls: AtomicU64,
    /// Who serves it now, and how to wake that thread.
    server: Mutex<Server<M>>,
    watch: OnceLock<Arc<Watch>>,
    /// What waits in mailboxes.
    flood: Arc<Flood>,
    /// The worker takes nothing any more.
    ended: AtomicBool,
    /// Dispatches beside the queue.
    beside: PlainUsize,
    /// Handler calls that panicked.
    panics: AtomicU64,
    /// Members that have not had their final message.
    members: AtomicUsize,
    /// Core on which the worker went to sleep last, or [`NOWHERE`].
    slept_on: PlainUsize,
    /// Where they and their handlers lie. On lines of its own: publishers read the rest.
    slabs: CachePadded<Slabs>,
    /// On lines of its own: written at every delivery, while publishers read the rest.
    pub(super) busy: CachePadded<Busy>,
}

/// What the worker writes as it goes.
#[derive(Debug, Default)]
pub(super) struct Busy {
    pub(super) tally: LaneTally,
    /// Times it was taken over. By the watchdog.
    takeovers: Tally,
}

struct Server<M: Member> {
    worker: Weak<Worker<M>>,
    sleeper: Option<Sleeper>,
    /// Of that thread, which lives, if it is pinned and may step aside.
    seat: Option<Seat>,
    /// Of members that are served elsewhere.
    mailboxes: Vec<Arc<Mailbox<M>>>,
}

/// What the worker of a lane needs besides: one of each per lane.
pub(crate) struct LaneEnd<M: Member> {
    pub(super) lane: Arc<Lane<M>>,
    pub(super) consumer: Consumer<Dispatch<M>>,
    pub(super) token: Token,
}

impl<M: Member> Lane<M> {
    /// A lane and the end its worker takes.
    pub(crate) fn new(name: String, size: RingSize, budget: Arc<Budget>) -> (Arc<Self>, LaneEnd<M>) {
        let (ring, consumer) = ring(size.slot_bits, size.capacity, size.most, Arc::clone(&budget));
        let token = Token::new();
        let lane = Arc::new(Self {
            name,
            token: token.id(),
            ring,
            controls: ClosableStack::new(),
            pushed_controls: AtomicU64::new(0),
            server: Mutex::new(Server { worker: Weak::new(), sleeper: None, seat: None, mailboxes: Vec::new() }),
            watch: OnceLock::new(),
            flood: Arc::new(Flood::new(budget)),
            ended: AtomicBool::new(false),
            beside: PlainUsize::new(0),
            panics: AtomicU64::new(0),
            members: AtomicUsize::new(0),
            slept_on: PlainUsize::new(NOWHERE),
            slabs: CachePadded::default(),
            busy: CachePadded::default(),
        });
        (Arc::clone(&lane), LaneEnd { lane, consumer, token })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The token its worker holds: what members homed here are made for.
    pub(crate) fn token_id(&self) -> TokenId {
        self.token
    }

    /// Where its members lie.
    pub(crate) fn slabs(&self) -> &Slabs {
        &self.slabs
    }

    /// Whether ordinary messages should be refused now.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        // What is beside the queue comes before what is pushed later: the worker looks there first, but not again.
        self.ring.is_full() || self.flood.is_on() || self.beside.load(PlainOrdering::Relaxed) != 0
    }

    /// Queues a dispatch.
    #[inline(always)]
    pub(super) fn push(&self, dispatch: Dispatch<M>) {
        self.fill(self.claim(), dispatch);
    }

    /// Takes the place that comes next in the lane's order. It has to be filled at once: the lane waits at it.
    #[inline(always)]
    pub(super) fn claim(&self) -> Place {
        self.ring.claim()
    }

    /// Queues a dispatch at its place.
    #[inline(always)]
    pub(super) fn fill(&self, place: Place, dispatch: Dispatch<M>) {
        if self.ring.fill(place, dispatch) {
            self.wake();
        }
    }

    /// Queues a dispatch that must get through though the queue is full; false: too many wait so, it is lost.
    pub(super) fn push_beside(&self, dispatch: Dispatch<M>) -> bool {
        if self.beside.fetch_add(1, PlainOrdering::Relaxed) >= MOST_BESIDE {
            self.beside_taken();
            return false;
        }
        if self.control(Control::Dispatch(dispatch)).is_err() {
            // The lane has ended: it came too late.
            self.beside_taken();
        }
        true
    }

    pub(super) fn beside_taken(&self) {
        self.beside.fetch_sub(1, PlainOrdering::Relaxed);
    }

    /// Queues a control entry behind everything pushed so far; hands it back if the lane has ended.
    pub(crate) fn control(&self, control: Control<M>) -> Result<(), Control<M>> {
        self.controls.push((self.ring.tail(), control)).map_err(|(_, control)| control)?;
        self.pushed_controls.fetch_add(1, PlainOrdering::Relaxed);
        if self.ring.take_sleep_mark() {
            self.wake();
        }
        Ok(())
    }

    #[cold]
    fn wake(&self) {
        let mut server = lock(&self.server);
        if let Some(seat) = &mut server.seat {
            seat.step_aside(self.served(), self.slept_on.load(PlainOrdering::Relaxed));
        }
        let sleeper = server.sleeper.clone();
        drop(server);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// The calling worker is about to sleep.
    pub(super) fn note_core(&self) {
        self.slept_on.store(affinity::this_core().unwrap_or(NOWHERE), PlainOrdering::Relaxed);
    }

    /// The calling worker has slept.
    pub(super) fn has_woken(&self) {
        if let Some(seat) = &mut lock(&self.server).seat {
            seat.has_woken();
        }
    }

    /// The calling worker has had nothing to do for a while: it goes back to its core.
    pub(super) fn go_home(&self) {
        let Some(home) = lock(&self.server).seat.as_mut().and_then(Seat::go_home) else { return };
        // Without the lock: the thread may have to wait for its core.
        let is_there = affinity::pin(home);
        if let Some(seat) = &mut lock(&self.server).seat {
            seat.has_come_home(is_there);
        }
    }

    /// The calling thread serves the lane no more: it may be about to end.
    pub(super) fn leave_seat(&self) {
        if let Some(seat) = lock(&self.server).seat.take() {
            seat.give_up();
        }
    }

    /// The calling thread serves the lane from now on, pinned to a core or not. Called before it first sleeps.
    pub(super) fn served_by(&self, worker: &Arc<Worker<M>>, seat: Option<Seat>) {
        let mut server = lock(&self.server);
        // Who has lost the lane is bound to its core no more, and lives: it takes its seat away before it ends.
        if let Some(lost) = std::mem::replace(&mut server.seat, seat) {
            lost.give_up();
        }
        server.worker = Arc::downgrade(worker);
        server.sleeper = Some(Sleeper::current());
    }

    /// The present worker.
    pub(super) fn worker(&self) -> Option<Arc<Worker<M>>> {
        lock(&self.server).worker.upgrade()
    }

    /// A mailbox for a member whose handler is stuck; `waiting` stood aside for it. `over`: in its final message.
    pub(super) fn open_mailbox(
        &self,
        about: Running<M>,
        quick: Duration,
        waiting: VecDeque<Deferred<M>>,
        over: bool,
    ) -> Arc<Mailbox<M>> {
        let mailbox = Arc::new(Mailbox::new(about, self.token, quick, waiting, over, Arc::clone(&self.flood)));
        lock(&self.server).mailboxes.push(Arc::clone(&mailbox));
        mailbox
    }

    pub(super) fn mailbox_closed(&self, mailbox: &Arc<Mailbox<M>>) {
        lock(&self.server).mailboxes.retain(|other| !Arc::ptr_eq(other, mailbox));
    }

    /// What runs now.
    pub(crate) fn look(&self) -> Seen {
        self.worker().map_or_else(Seen::default, |worker| worker.look())
    }

    /// Who runs, if that call still does. Costs the worker a short wait if it ends just now.
    pub(crate) fn describe(&self, seen: Seen) -> Option<Running<M>> {
        self.worker()?.describe(seen)
    }

    /// Members that are served elsewhere.
    pub(crate) fn away(&self) -> Vec<Away<M>> {
        let mailboxes = lock(&self.server).mailboxes.clone();
        mailboxes.iter().filter_map(|mailbox| mailbox.look()).collect()
    }

    /// Dispatches ever pushed. Those [`served`](Self::served) are out of the queue.
    pub(crate) fn pushed(&self) -> u64 {
        self.ring.tail().get()
    }

    /// Dispatches and control entries ever queued. Those [`begun`](Self::begun) wait no more.
    pub(super) fn queued(&self) -> u64 {
        self.pushed() + self.pushed_controls.load(PlainOrdering::Relaxed)
    }

    /// Dispatches and control entries taken out of the queue.
    pub(super) fn begun(&self) -> u64 {
        self.served() + self.busy.tally.controls.get()
    }

    pub(crate) fn watched_by(&self, watch: Arc<Watch>) {
        let _ = self.watch.set(watch);
    }

    /// The worker has slept and looks for work again.
    pub(super) fn awake(&self) {
        if let Some(watch) = self.watch.get() {
            watch.lane_woke();
        }
    }

    /// Whether the worker sleeps.
    pub(crate) fn is_asleep(&self) -> bool {
        self.ring.is_asleep()
    }

    pub(super) fn set_ended(&self) {
        // Release: who sees it sees all the worker did.
        self.ended.store(true, Ordering::Release);
        if let Some(watch) = self.watch.get() {
            watch.lane_ended();
        }
    }

    /// Whether the worker has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn note_takeover(&self) {
        self.busy.takeovers.add(1);
    }

    /// Times it was taken over.
    pub(crate) fn takeovers(&self) -> u64 {
        self.busy.takeovers.get()
    }

    pub(crate) fn note_panic(&self) {
        self.panics.fetch_add(1, PlainOrdering::Relaxed);
    }

    /// Handler calls of its members that panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(PlainOrdering::Relaxed)
    }

    #[inline]
    pub(super) fn has_controls(&self) -> bool {
        self.controls.is_marked()
    }

    pub(super) fn take_controls(&self) -> Taken<(Position, Control<M>)> {
        self.controls.take()
    }

    pub(super) fn close(&self) -> Taken<(Position, Control<M>)> {
        self.controls.close()
    }

    /// A member will be served here, until [`member_left`](Self::member_left).
    pub(crate) fn member_joins(&self) {
        self.members.fetch_add(1, Ordering::Relaxed);
    }

    /// A member has had its final message, or will get none.
    pub(crate) fn member_left(&self) {
        // A stopped lane that sleeps has waited for this: its last member may have ended elsewhere.
        if self.members.fetch_sub(1, Ordering::Release) == 1 && self.ring.take_sleep_mark() {
            self.wake();
        }
    }

    /// Members that are still to be served.
    pub(super) fn members(&self) -> usize {
        self.members.load(Ordering::Acquire)
    }

    /// Whether the member's handler runs now, here or away.
    pub(crate) fn is_running(&self, id: u64) -> bool {
        self.worker().is_some_and(|worker| worker.hold.running() == id)
            || lock(&self.server).mailboxes.iter().any(|mailbox| mailbox.id() == id && mailbox.is_running())
    }

    /// Dispatches waiting, roughly.
    pub(crate) fn depth(&self) -> u64 {
        self.ring.depth()
    }

    /// Most dispatches that waited, as sampled.
    pub(crate) fn high_water(&self) -> u64 {
        self.ring.high_water()
    }

    /// Dispatches served.
    pub(crate) fn served(&self) -> u64 {
        self.busy.tally.dispatches.get()
    }

    /// Times the worker went to sleep.
    pub(crate) fn sleeps(&self) -> u64 {
        self.busy.tally.sleeps.get()
    }
}

impl<M: Member> std::fmt::Debug for Lane<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("name", &self.name).field("depth", &self.depth()).finish_non_exhaustive()
    }
}
