//! The kernels of the engine for models (`loom-tests`) and fuzzing: thin wrappers, no logic.
//!
//! Not part of the interface: it exists under `--cfg loom` and `--cfg fuzzing` only.
#![allow(unsafe_code, missing_debug_implementations, missing_docs, clippy::new_without_default)]

use std::any::Any;
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::bus::{shutdown, subscribers};
use crate::exec::audience::{Audience, Entry, Identified};
use crate::exec::buffer::{Buffer, Next};
use crate::exec::calls::Calls;
use crate::exec::frames::WaitPlan;
use crate::exec::lane::{Control, Member, Turn};
use crate::exec::serial::{Alone, Serial, Token};
use crate::exec::wait::WaitStrategy;
use crate::exec::{completion, inline, lane, part, serial, worker};
use crate::message::{self, Formatters, Interest, Message, MessageType, TypeId};
use crate::ring::index::{Layout, Position};
use crate::ring::{Entry as RingEntry, mpsc};
use crate::sync::plain::AtomicU64;
use crate::sync::{Arc, fence, park, stack};
use crate::{ring, sync};

mod queued;
mod slabs;
mod snapshots;
mod spans;

pub use self::slabs::{Placed, Slabs};
pub use self::snapshots::{Pin, PinnedCell, Reclaimer, SnapshotCell, pin, synchronize};
pub use self::spans::{Block, span_of_two};

/// Destroys the engine's thread-locals of the calling thread, as its end does (in a model; elsewhere threads
/// do that themselves).
pub fn end_thread() {
    sync::end_thread();
}

/// A full fence, for models that show what a fence is for.
pub fn full_fence() {
    fence::full();
}

/// An entry of a modelled ring: something owned and a number that fills the second word.
pub struct Item<T>(pub Box<T>, pub usize);

impl<T: Send> RingEntry for Item<T> {
    fn into_words(self) -> (NonNull<()>, *const ()) {
        let first = NonNull::from(Box::leak(self.0)).cast();
        (first, std::ptr::without_provenance(self.1))
    }

    unsafe fn from_words(first: NonNull<()>, second: *const ()) -> Self {
        // SAFETY: from the `Box::leak` above, once.
        Self(unsafe { Box::from_raw(first.cast().as_ptr()) }, second.addr())
    }
}

pub struct Budget(Arc<ring::Budget>);

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(ring::Budget::new(bytes)))
    }
    pub fn used(&self) -> usize {
        self.0.used()
    }
}

pub struct Ring<T: Send>(Arc<mpsc::Ring<Item<T>>>);

impl<T: Send> Clone for Ring<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub struct Consumer<T: Send>(mpsc::Consumer<Item<T>>);

/// A ring of `2^slot_bits` entries a segment, `2^segment_bits` segments at most, `base` at least.
pub fn ring<T: Send>(slot_bits: u32, segment_bits: u32, base: usize, budget: &Budget) -> (Ring<T>, Consumer<T>) {
    let layout = Layout::new(slot_bits, segment_bits);
    let (ring, consumer) = mpsc::ring_at(layout, base, u64::MAX, Position::default(), Arc::clone(&budget.0));
    (Ring(ring), Consumer(consumer))
}

impl<T: Send> Ring<T> {
    pub fn push(&self, value: T, number: usize) -> bool {
        self.0.push(Item(Box::new(value), number))
    }
    pub fn is_full(&self) -> bool {
        self.0.is_full()
    }
    pub fn tail(&self) -> u64 {
        self.0.tail().get()
    }
    pub fn take_sleep_mark(&self) -> bool {
        self.0.take_sleep_mark()
    }
}

impl<T: Send> Consumer<T> {
    pub fn pop(&mut self) -> Option<Item<T>> {
        self.0.pop()
    }
    pub fn head(&self) -> u64 {
        self.0.head().get()
    }
    pub fn try_mark_asleep(&mut self) -> bool {
        self.0.try_mark_asleep()
    }
    pub fn cancel_sleep(&mut self) -> bool {
        self.0.cancel_sleep()
    }
}

#[derive(Clone)]
pub struct Sleeper(park::Sleeper);

impl Sleeper {
    pub fn current() -> Self {
        Self(park::Sleeper::current())
    }
    pub fn wake(&self) {
        self.0.wake();
    }
}

pub fn sleep() {
    park::sleep(None);
}

pub struct Stack<T>(stack::ClosableStack<T>);

impl<T> Stack<T> {
    pub fn new() -> Self {
        Self(stack::ClosableStack::new())
    }
    /// # Errors
    /// The value, if the stack is closed.
    pub fn push(&self, value: T) -> Result<(), T> {
        self.0.push(value)
    }
    pub fn is_marked(&self) -> bool {
        self.0.is_marked()
    }
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
    pub fn take(&self) -> Vec<T> {
        self.0.take().collect()
    }
    pub fn close(&self) -> Vec<T> {
        self.0.close().collect()
    }
}

pub struct Baton<T>(serial::Baton<T>);
pub struct Holder<'a, T>(serial::Holder<'a, T>);

impl<T> Baton<T> {
    pub fn new(state: T) -> Self {
        Self(serial::Baton::new(state))
    }
    pub fn try_take(&self) -> Option<Holder<'_, T>> {
        self.0.try_take().map(Holder)
    }
    pub fn announce(&self) -> Option<Holder<'_, T>> {
        self.0.announce().map(Holder)
    }
}

impl<T> Holder<'_, T> {
    pub fn with<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> R {
        self.0.with(f)
    }
    #[must_use]
    pub fn done_one(self) -> Option<Self> {
        self.0.done_one().map(Holder)
    }
}

#[derive(Clone)]
pub struct Completion(Arc<completion::Completion>);

impl Completion {
    pub fn new() -> Self {
        Self(Arc::new(completion::Completion::new()))
    }
    pub fn complete(&self) {
        self.0.complete();
    }
    pub fn is_done(&self) -> bool {
        self.0.is_done()
    }
    /// As a task waits: the poll of [`crate::Completion`].
    pub async fn waiting(&self) {
        let mut task = None;
        std::future::poll_fn(|context| self.0.poll(&mut task, context)).await;
    }
    /// Waits as `join` does: the engine's own loop. Target 0 is nobody's number.
    pub fn wait(&self) {
        let plan = WaitPlan::announce(0).expect("nobody's handler runs here");
        plan.wait(&self.0, None).expect("no deadline");
    }
    /// Begins to wait as a thread does, and gives up.
    pub fn wait_in_vain(&self) {
        let sleeper = self.0.wake_thread();
        self.0.give_up(sleeper);
    }
}

/// Closes a bus and waits for the publishers in the middle: the first half of its shutdown.
pub fn close_intake(bus: &crate::Bus) {
    shutdown::close_intake(&bus.core, Instant::now() + Duration::from_secs(1000));
}

/// The other half.
pub fn finish_shutdown(bus: &crate::Bus) -> crate::ShutdownReport {
    let limit = Duration::from_secs(1000);
    shutdown::finish(&bus.core, limit, Instant::now() + limit).expect("no deadline in a model")
}

/// Lets what was retired pass its grace period, and lanes do what there is and go to sleep.
pub fn settle(bus: &crate::Bus) {
    while bus.core.reclaimer.is_pending() {
        bus.core.reclaimer.tick();
        sync::thread::yield_now();
    }
    (0..8).for_each(|_| sync::thread::yield_now());
    // The last turn found nobody else. To loom this thread would still be one that gives way, and whoever it spawns
    // begin at once in every execution.
    sync::thread::current().unpark();
}

/// A message type on no bus.
pub fn message_type<P: Send + Sync + 'static>(name: &str) -> MessageType<P> {
    MessageType::builder(name).register(Arc::default()).expect("room for a type")
}

/// As [`message_type`], whose JSON formatter is `format`.
pub fn formatted_type(
    name: &str,
    format: impl Fn(&usize) -> Option<String> + Send + Sync + 'static,
) -> MessageType<usize> {
    MessageType::builder(name).to_json(format).register(Arc::default()).expect("room for a type")
}

/// Makes this thread hand message memory over in batches, as a lane does.
pub fn gather_on_this_thread() {
    message::gather_on_this_thread();
}

/// Hands over what this thread gathered.
pub fn flush() {
    message::flush();
}

type Handle = Box<dyn FnMut(&Message, bool) + Send>;

/// A subscription without a bus: called with each message; true: the final one.
pub struct Listener {
    id: u64,
    handle: Serial<Option<Handle>>,
    late: AtomicU64,
    own: Option<(Buffer, Arc<lane::Lane<Self>>)>,
}

impl Listener {
    fn new(token: serial::TokenId, handle: impl FnMut(&Message, bool) + Send + 'static) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(Self { id, handle: Serial::new(token, Some(Box::new(handle))), late: AtomicU64::new(0), own: None })
    }
    /// Messages that came after the final one.
    pub fn late(&self) -> u64 {
        self.late.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Identified for Listener {
    type Post = Self;
    fn post(&self) -> &Self {
        self
    }
    fn id_of(post: &Self) -> u64 {
        post.id
    }
}

impl Member for Listener {
    type Call<'a> = &'a Message;

    fn call(message: &Message) -> &Message {
        message
    }
    fn deliver<'a>(self: &'a Arc<Self>, _post: &Self, token: &Token, call: &mut &'a Message) {
        match self.handle.enter(token).expect("entered once").as_mut() {
            Some(handle) => handle(call, false),
            None => drop(self.late.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
        }
    }
    /// With a mark all the same: models are to find out if it is not true.
    fn deliver_alone<'a>(self: &'a Arc<Self>, post: &Self, alone: Alone<'_>, call: &mut &'a Message) {
        self.deliver(post, &alone, call);
    }
    fn deliver_row<'a>(row: &'a [Entry<Self>], calls: &Calls<'_>, call: &mut &'a Message) -> ControlFlow<()> {
        row.iter().try_for_each(|entry| calls.deliver(entry, call))
    }
    fn panicked(self: &Arc<Self>, panic: Box<dyn Any + Send>) {
        std::panic::resume_unwind(panic);
    }
    fn finish(self: &Arc<Self>, token: &Token, message: &Message) {
        let mut entered = self.handle.enter(token).expect("entered once");
        entered.as_mut().expect("finished once")(message, true);
        let handle = entered.take();
        drop(entered);
        drop(handle);
        if let Some((_, lane)) = &self.own {
            lane.member_left();
        }
    }
    fn serve_next(self: &Arc<Self>, token: &Token) -> Turn {
        match self.own.as_ref().and_then(|(buffer, _)| buffer.next()) {
            None => return Turn::Over,
            Some(Next::Message(message)) => self.deliver(self, token, &mut &message),
            Some(Next::Notice(notice)) => notice.complete(),
            Some(Next::Final(message)) => {
                self.finish(token, &message);
                return Turn::Last;
            }
        }
        Turn::Served
    }
    fn goes_on(&self) -> bool {
        self.own.as_ref().is_some_and(|(buffer, _)| buffer.goes_on())
    }
    fn queue_turn(self: Arc<Self>) {
        if let Some((_, lane)) = &self.own {
            assert!(lane.control(Control::Serve(Arc::clone(&self))).is_ok(), "the lane waits for its members");
        }
    }
}

/// An inline subscription: the queue and its one member.
#[derive(Clone)]
pub struct Inline(Arc<(inline::InlineQueue, Arc<Listener>)>);

impl Inline {
    pub fn new(handle: impl FnMut(&Message, bool) + Send + 'static) -> Self {
        let queue = inline::InlineQueue::new(Arc::new(ring::Budget::new(1 << 20)));
        let listener = Listener::new(queue.token_id(), handle);
        Self(Arc::new((queue, listener)))
    }
    pub fn deliver(&self, message: &Message) {
        self.0.0.deliver(&self.0.1, message);
    }
    pub fn finish(&self, message: Message) {
        self.0.0.finish(&self.0.1, message);
    }
    pub fn late(&self) -> u64 {
        self.0.1.late()
    }
}

#[derive(Clone)]
pub struct Lane(Arc<lane::Lane<Listener>>);
pub struct LaneEnd(lane::LaneEnd<Listener>);

/// A lane with segments of two entries.
pub fn lane() -> (Lane, LaneEnd) {
    let size = lane::RingSize { slot_bits: 1, capacity: 4, most: 8 };
    let (lane, end) = lane::Lane::new("lane".to_owned(), size, Arc::new(ring::Budget::new(1 << 20)));
    (Lane(lane), LaneEnd(end))
}

impl LaneEnd {
    /// Serves the lane until it is stopped.
    pub fn run(self, reclaimer: &Reclaimer) {
        worker::Worker::new(self.0, WaitStrategy::Park.into(), Arc::clone(&reclaimer.0), None).run();
    }
}

/// A worker as its thread and a watchdog have it.
#[derive(Clone)]
pub struct Worker(Arc<worker::Worker<Listener>>);

impl LaneEnd {
    pub fn worker(self, reclaimer: &Reclaimer) -> Worker {
        Worker(worker::Worker::new(self.0, WaitStrategy::Park.into(), Arc::clone(&reclaimer.0), None))
    }
}

impl Worker {
    /// Serves the lane as its thread does, mailboxes too after a take-over; true: it was taken over.
    pub fn run(self) -> bool {
        let lost = Arc::clone(&self.0).run() == worker::Ended::Lost;
        self.0.serve_away();
        lost
    }
    /// The type of what a handler is given now, if one is and still is when it is looked at.
    pub fn peek(&self) -> Option<Option<Box<str>>> {
        self.0.describe(self.0.look()).map(|running| running.message_type)
    }
    /// Takes the lane over from the call that runs now, if one does.
    pub fn take_over(&self) -> Option<Self> {
        self.0.take_over(self.0.look(), Duration::ZERO).map(Self)
    }
}

impl Lane {
    pub fn listener(&self, handle: impl FnMut(&Message, bool) + Send + 'static) -> Arc<Listener> {
        Listener::new(self.0.token_id(), handle)
    }
    /// A listener with a queue of its own that this lane serves. Lanes end after its final message.
    pub fn queued(&self, limit: usize, handle: impl FnMut(&Message, bool) + Send + 'static) -> Arc<Listener> {
        Listener::with_queue(&self.0, limit, Box::new(handle))
    }
    /// Somebody counts as a member until [`member_left`](Self::member_left).
    pub fn member_joins(&self) {
        self.0.member_joins();
    }
    /// As a member does that has had its final message elsewhere.
    pub fn member_left(&self) {
        self.0.member_left();
    }
    /// A list of these members on this lane.
    pub fn part(&self, members: &[Arc<Listener>]) -> Part {
        let entries = members.iter().map(|member| Entry::new(Arc::clone(member), None)).collect();
        Part(part::Part::new(Arc::clone(&self.0), Audience::from_entries(entries)))
    }
    /// Queues the member's final message; false if the lane has ended.
    pub fn finish(&self, member: &Arc<Listener>, message: Message) -> bool {
        self.0.control(Control::Finish(Arc::clone(member), message)).is_ok()
    }
    /// Completes when everything before was served; at once if the lane has ended.
    pub fn notify(&self, member: &Arc<Listener>, completion: &Completion) {
        if self.0.control(Control::Notify(member.id(), Arc::clone(&completion.0))).is_err() {
            completion.complete();
        }
    }
    pub fn stop(&self) -> bool {
        self.0.control(Control::Stop).is_ok()
    }
}

#[derive(Clone)]
pub struct Part(part::Part<Listener>);

impl Part {
    pub fn push(&self, message: Message) {
        self.0.push(message);
    }
    /// As a publish to several lanes.
    pub fn push_each(parts: &[Self], message: Message) {
        let pushed = part::Part::push_each(&mut parts.iter().map(|part| &part.0), message);
        assert!(pushed.is_ok() || parts.is_empty());
    }
    pub fn push_through(&self, message: Message) -> bool {
        self.0.push_through(message)
    }
    /// Whether ordinary pushes should be refused.
    pub fn is_full(&self) -> bool {
        self.0.lane().is_full()
    }
}

/// A topic's hint, and the changes control makes to it.
pub struct Hint(subscribers::Hint);

impl Hint {
    pub fn new() -> Self {
        Self(subscribers::Hint::default())
    }
    /// From now on everything (`all`) or these types are accepted; `swap` happens in between.
    pub fn change(&self, all: bool, types: &[TypeId], swap: impl FnOnce()) {
        let mut interest = Interest { all, ..Interest::default() };
        types.iter().for_each(|&id| interest.types.insert(id));
        self.0.open();
        swap();
        self.0.set(&interest);
    }
    pub fn covers(&self, id: TypeId) -> bool {
        self.0.covers(id, Formatters::NONE)
    }
}
