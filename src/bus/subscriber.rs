//! The half of a subscription that queues and handlers know: handler, counters, where it runs.
//!
//! ```text
//!   Subscription (handle, user's) ──► Subscriber ◄── lists of topics, lanes
//!                                      handler: Some ─ final message ─► None
//! ```
//!
//! Guarantees: the handler runs one at a time (G4), is called with exactly one final message, last
//! (G5), and is dropped once, right after it, on the thread that delivered it; a panic in it is caught
//! and counted (G12). What comes later is counted as late and not delivered.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr;

use super::any_handler::{self, AnyHandler};
use super::congestion::Place;
use super::overflow::DropTotals;
use super::post::Post;
use super::route::Route;
use super::topic::TopicInner;
use crate::contain::{discard, quietly, report_panic};
use crate::exec::audience::{Entry, Identified};
use crate::exec::buffer::Next;
use crate::exec::calls::Calls;
use crate::exec::completion::Completion;
use crate::exec::lane::{Control, Member, Turn};
use crate::exec::serial::{Alone, Token};
use crate::exec::slab::Placed;
use crate::message::Message;
use crate::message::depth::InHandler;
use crate::sync::plain::AtomicU64;
use crate::sync::{Arc, Ordering, Weak};

/// Takes the messages of a subscription.
///
/// Closures that take `&Received` are handlers. The bus never calls a handler on two threads at
/// once, nor from inside itself; it may call it on different threads over time.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, Handler, MessageType, Received};
/// struct Count(u64);
/// impl Handler for Count {
///     fn handle(&mut self, received: &Received<'_>) {
///         if !received.is_final() {
///             self.0 += 1;
///         }
///     }
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let topic = bus.topic("calls")?;
/// let subscription = topic.subscriber().subscribe_handler(Count(0))?;
/// subscription.unsubscribe().wait()?;
/// # Ok(()) }
/// ```
pub trait Handler: Send + 'static {
    /// Called for each message, the final one included.
    fn handle(&mut self, received: &Received<'_>);
}

impl<F: FnMut(&Received<'_>) + Send + 'static> Handler for F {
    #[inline(always)]
    fn handle(&mut self, received: &Received<'_>) {
        self(received);
    }
}

/// A message as a handler gets it. Dereferences to the [`Message`]; clone that to keep it.
#[derive(Debug)]
pub struct Received<'a> {
    message: &'a Message,
    /// Set before a handler is called.
    subscriber: Option<&'a Arc<Subscriber>>,
    is_final: bool,
}

impl<'a> Received<'a> {
    /// The message.
    #[inline]
    #[must_use]
    pub fn message(&self) -> &'a Message {
        self.message
    }

    /// Whether this is the final message: nothing comes after it, and the handler is dropped when
    /// this call returns.
    #[inline]
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Whose handler is called next.
    #[inline(always)]
    pub(super) fn goes_to(&mut self, subscriber: &'a Arc<Subscriber>) {
        self.subscriber = Some(subscriber);
    }

    fn subscriber(&self) -> &'a Arc<Subscriber> {
        self.subscriber.expect("set before the call")
    }

    /// Id of the subscription that receives.
    #[must_use]
    pub fn subscription_id(&self) -> u64 {
        self.subscriber().post.id
    }

    /// Messages lost right before this one, where the subscription's policy is
    /// [`Overflow::Lag`](crate::Overflow::Lag); else 0. Of no meaning after the handler has returned.
    #[must_use]
    pub fn lagged(&self) -> u64 {
        match &self.subscriber().route {
            Route::Buffered(own) => own.buffer.lagged(),
            _ => 0,
        }
    }

    /// Unsubscribes the subscription that receives. What was published before still comes, then the
    /// final message. Cost: as [`Subscription::unsubscribe`](crate::Subscription::unsubscribe).
    pub fn unsubscribe(&self) {
        // A topic that is gone has no subscriptions any more.
        if let Some(topic) = self.subscriber().topic.upgrade() {
            topic.unsubscribe(self.subscriber());
        }
    }
}

impl std::ops::Deref for Received<'_> {
    type Target = Message;
    fn deref(&self) -> &Message {
        self.message
    }
}

/// What happens to a subscription whose handler panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PanicPolicy {
    /// The next message comes as if nothing had happened (default).
    #[default]
    Continue,
    /// The subscription is unsubscribed: what was published so far comes, then the final message.
    End,
}

/// Where totals of ended subscriptions go; one per bus.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Late ones not counted.
    pub(crate) accepted: AtomicU64,
    pub(crate) drops: DropTotals,
    pub(crate) delivered: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) ended: AtomicU64,
}

/// See the module.
pub(crate) struct Subscriber {
    /// Among those of its lane.
    pub(crate) post: Placed<Post>,
    pub(crate) route: Route,
    pub(crate) done: Completion,
    pub(crate) topic: Weak<TopicInner>,
    pub(crate) location: &'static Location<'static>,
    /// None: nothing was said.
    about: Option<Box<About>>,
    totals: Arc<Totals>,
}

/// What a subscription says of itself.
struct About {
    name: Option<Box<str>>,
    place: Place,
}

/// What a subscriber is made of.
pub(crate) struct SubscriberSetup {
    pub(crate) route: Route,
    pub(super) handler: AnyHandler,
    pub(crate) topic: Weak<TopicInner>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) name: Option<Box<str>>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) on_panic: PanicPolicy,
    pub(crate) place: Place,
}

impl Subscriber {
    /// A subscriber with the next id.
    pub(crate) fn new(setup: SubscriberSetup) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let post = Post::new(id, setup.route.token_id(), setup.handler, setup.on_panic);
        Arc::new(Self {
            post: setup.route.place(post),
            route: setup.route,
            done: Completion::new(),
            topic: setup.topic,
            location: setup.location,
            about: (setup.name.is_some() || !setup.place.is_default())
                .then(|| Box::new(About { name: setup.name, place: setup.place })),
            totals: setup.totals,
        })
    }

    /// Name for diagnostics.
    pub(crate) fn name(&self) -> Option<&str> {
        self.about.as_ref()?.name.as_deref()
    }

    /// Whether it is a subscription of this very topic.
    pub(crate) fn is_of(&self, topic: *const TopicInner) -> bool {
        ptr::eq(self.topic.as_ptr(), topic)
    }

    /// Where it belongs.
    pub(crate) fn place(&self) -> Place {
        self.about.as_ref().map(|about| about.place.clone()).unwrap_or_default()
    }

    /// Whether unsubscribing has begun.
    pub(crate) fn has_left(&self) -> bool {
        self.post.left.load(Ordering::Acquire)
    }

    /// Begins unsubscribing; true for the one caller that has to go through with it.
    pub(crate) fn leave(&self) -> bool {
        !self.post.left.swap(true, Ordering::AcqRel)
    }

    /// Queues the final message behind everything published before.
    pub(crate) fn queue_final(self: &Arc<Self>, message: Message) {
        match &self.route {
            Route::Inline(queue) => queue.finish(self, message),
            Route::Buffered(own) => {
                if own.buffer.finish(message) {
                    Arc::clone(self).queue_turn();
                }
                if own.dedicated {
                    let _ = own.lane.control(Control::Stop);
                }
            }
            Route::Lane(lane) | Route::Dedicated(lane) => {
                if lane.control(Control::Finish(Arc::clone(self), message)).is_err() {
                    // The lane has ended (a shutdown that ran out of time): nothing will be delivered.
                    self.done.complete();
                }
                if matches!(self.route, Route::Dedicated(_)) {
                    let _ = lane.control(Control::Stop);
                }
            }
        }
    }

    /// Takes back a subscription that never began: no message, no final one.
    pub(crate) fn abandon(&self) {
        self.leave();
        if let Some(lane) = self.route.lane() {
            lane.member_left();
            // The bus is closed: the lane may have waited for this member only.
            let _ = lane.control(Control::Stop);
        }
        self.done.complete();
    }

    /// Completes when everything published before was handled.
    pub(crate) fn queue_notice(self: &Arc<Self>, any: Message, notice: Arc<Completion>) {
        match &self.route {
            Route::Inline(queue) => queue.notify(self, any, notice),
            Route::Buffered(own) => {
                if own.buffer.notify(notice) {
                    Arc::clone(self).queue_turn();
                }
            }
            Route::Lane(lane) | Route::Dedicated(lane) => {
                if let Err(Control::Notify(_, notice)) = lane.control(Control::Notify(self.post.id, notice)) {
                    notice.complete();
                }
            }
        }
    }

    /// Makes sure that an ordinary message finds room; false: it is to be refused.
    #[inline]
    pub(crate) fn reserve(&self) -> bool {
        match &self.route {
            Route::Inline(queue) => !queue.is_full(),
            Route::Lane(lane) | Route::Dedicated(lane) => !lane.is_full(),
            Route::Buffered(own) => own.buffer.reserve(),
        }
    }

    /// Takes back what [`reserve`](Self::reserve) promised.
    pub(crate) fn release(&self) {
        if let Route::Buffered(own) = &self.route {
            own.buffer.release();
        }
    }

    /// Calls the handler in this thread, or leaves the message to the thread that is in it.
    ///
    /// Only for inline subscriptions. False: lost, its queue can take no more.
    pub(crate) fn deliver_inline(self: &Arc<Self>, message: &Message) -> bool {
        match &self.route {
            Route::Inline(queue) => queue.deliver(self, message),
            _ => true,
        }
    }

    /// Puts the message into the queue of its own, if it has one. `reserved`: after [`reserve`](Self::reserve).
    pub(crate) fn deliver_queued(self: &Arc<Self>, message: &Message, reserved: bool) {
        if let Route::Buffered(own) = &self.route
            && own.buffer.push(message.clone(), reserved)
        {
            Arc::clone(self).queue_turn();
        }
    }

    /// Calls the handler, if the final message has not taken it.
    #[inline(always)]
    fn give<'a>(self: &'a Arc<Self>, post: &Post, handler: Option<&mut AnyHandler>, call: &mut Received<'a>) {
        match handler {
            Some(handler) => {
                post.delivered.add(1);
                call.goes_to(self);
                handler.handle(call);
            }
            None => post.note_late(),
        }
    }

    /// Adds to the totals what they do not have yet.
    fn add_to_totals(&self) {
        let totals = &self.totals;
        totals.delivered.fetch_add(self.post.delivered(), Ordering::Relaxed);
        totals.panics.fetch_add(self.post.panics(), Ordering::Relaxed);
        match self.route.look() {
            Some((counts, _)) => {
                totals.accepted.fetch_add(counts.accepted - counts.late, Ordering::Relaxed);
                totals.drops.add(&counts);
            }
            None => drop(totals.accepted.fetch_add(self.post.delivered(), Ordering::Relaxed)),
        }
        totals.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Identified for Subscriber {
    type Post = Post;

    fn post(&self) -> &Post {
        &self.post
    }

    #[inline]
    fn id_of(post: &Post) -> u64 {
        post.id
    }
}

impl Member for Subscriber {
    type Call<'a> = Received<'a>;

    #[inline(always)]
    fn call(message: &Message) -> Received<'_> {
        Received { message, subscriber: None, is_final: false }
    }

    fn deliver<'a>(self: &'a Arc<Self>, post: &Post, token: &Token, call: &mut Received<'a>) {
        let entered = post.handler.enter(token);
        debug_assert!(entered.is_some(), "entered twice");
        if let Some(mut handler) = entered {
            self.give(post, handler.as_mut(), call);
        }
    }

    #[inline(always)]
    fn deliver_alone<'a>(self: &'a Arc<Self>, post: &Post, alone: Alone<'_>, call: &mut Received<'a>) {
        let entered = post.handler.enter_alone(alone);
        debug_assert!(entered.is_some(), "entered twice");
        if let Some(mut handler) = entered {
            self.give(post, handler.as_mut(), call);
        }
    }

    fn deliver_row<'a>(row: &'a [Entry<Self>], calls: &Calls<'_>, call: &mut Received<'a>) -> ControlFlow<()> {
        any_handler::deliver_row(row, calls, call)
    }

    #[cold]
    fn panicked(self: &Arc<Self>, panic: Box<dyn Any + Send>) {
        self.post.note_panic();
        if let Some(lane) = self.route.lane() {
            lane.note_panic();
        }
        report_panic(&format!("the handler subscribed at {}", self.location), &*panic);
        discard(panic);
        if self.post.on_panic == PanicPolicy::End
            && let Some(topic) = self.topic.upgrade()
        {
            topic.unsubscribe(self);
        }
    }

    fn finish(self: &Arc<Self>, token: &Token, message: &Message) {
        let Some(mut entered) = self.post.handler.enter(token) else { return };
        let _depth = InHandler::of(message);
        let call = Received { message, subscriber: Some(self), is_final: true };
        if let Some(handler) = entered.as_mut()
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| handler.handle(&call)))
        {
            // It is unsubscribed already, so the policy changes nothing.
            self.panicked(panic);
        }
        let handler = entered.take();
        drop(entered);
        quietly(|| drop(handler));
        self.add_to_totals();
        if let Some(lane) = self.route.lane() {
            lane.member_left();
        }
        self.done.complete();
    }

    fn serve_next(self: &Arc<Self>, token: &Token) -> Turn {
        let Route::Buffered(own) = &self.route else { return Turn::Over };
        match own.buffer.next() {
            None => return Turn::Over,
            Some(Next::Message(message)) => {
                self.deliver_caught(token, &message);
                quietly(|| drop(message));
            }
            Some(Next::Notice(notice)) => quietly(|| notice.complete()),
            Some(Next::Final(message)) => {
                self.finish(token, &message);
                quietly(|| drop(message));
                return Turn::Last;
            }
        }
        Turn::Served
    }

    fn serving(&self) -> Option<Box<str>> {
        let Route::Buffered(own) = &self.route else { return None };
        own.buffer.serving()
    }

    fn goes_on(&self) -> bool {
        matches!(&self.route, Route::Buffered(own) if own.buffer.goes_on())
    }

    fn queue_turn(self: Arc<Self>) {
        let Route::Buffered(own) = &self.route else { return };
        if own.lane.control(Control::Serve(Arc::clone(&self))).is_err() {
            // The lane has ended (a shutdown that ran out of time): nothing will be delivered.
            own.buffer.end();
            if self.has_left() && !self.done.is_done() {
                self.add_to_totals();
                self.done.complete();
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // Late messages come after the final one, so they are known only now.
        let late = self.route.look().map_or_else(|| self.post.late(), |(counts, _)| counts.late);
        self.totals.late.fetch_add(late, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber")
            .field("id", &self.post.id)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}
