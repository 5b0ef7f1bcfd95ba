//! Router: one subscription on a topic, a callback for each message type.
//!
//! ```text
//!   add, remove, set_default ─short lock─► new table ─swap─► Table { by type, by type inside, default }
//!                                └─ then the subscription's filter, in one step ─┐
//!   topic ──────────────────────────────────────────────────────► filter ─► subscription ─► Dispatcher
//!                                                        loads the table, calls the one route ◄──┘
//! ```
//!
//! A message goes to one callback: of the route for the type inside it, if it is a cache update and there is
//! such a route; else of the route for its type; else of the default route, if that takes it; else to nobody.
//! The routes of the moment of delivery count, as in Stasis, not those of the moment of publishing.
//!
//! # Guarantees
//! - A message without a route costs what a message nobody accepts costs: the subscription's filter follows
//!   the routes (`what_is_not_routed_is_not_wanted`), and holds before the first message.
//! - When `add` has returned, publishes that begin afterwards reach the route; when `remove` has returned,
//!   they do not (`a_removed_route_gets_nothing_published_afterwards`).
//! - Order (G2) and one at a time (G4) hold for all routes of a router together, because they are one
//!   subscription (`g02_*`, `g04_*`).
//! - The final message comes once, last (G5): to the route for [`SubscriptionChange`](crate::SubscriptionChange)
//!   if there is one, else to the default route whatever its formatters. Then all callbacks are dropped, before
//!   the router is done (`g05_*`).
//! - Callbacks may add and remove routes, their own too, and unsubscribe or drop the router. A removed callback
//!   is dropped by `remove`, or right after its run if it is running. No lock is held meanwhile (G7).
//! - A panic of a callback is contained and counted as one of a subscription's handler (G12).
//!
//! Cost: of a message, one load of the table, a binary search, a reference count nobody else touches; no lock.
//! Of a change, O(routes) plus a change of the filter.

mod table;

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use self::table::{Route, Table};
use crate::bus::{
    Completion, Delivery, Handler, PanicPolicy, Received, SubscriberBuilder, Subscription, SubscriptionStats, Topic,
};
use crate::contain::quietly;
use crate::error::{JoinError, PublishSyncError, SubscribeError};
use crate::exec::serial::{Token, TokenId};
use crate::message::{AnyMessageType, Filter, FilterMode, Formatters, Message};
use crate::snapshot::SnapshotCell;
use crate::sync::plain::{AtomicU64, Ordering};
use crate::sync::{Arc, AtomicBool, Mutex, OnceLock, Weak, lock};

/// A route was not set; the callback was dropped.
///
/// # Examples
/// ```
/// use stasis_bus::router::{RouteError, Router};
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let dial = MessageType::<()>::new(&bus, "dial")?;
/// let router = Router::create_pool(&bus.topic("channel:all")?)?;
/// router.add(&dial, |_| ())?;
/// assert_eq!(router.add(&dial, |_| ()), Err(RouteError::Taken("dial".into())));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The type of this name has a route. It stays.
    #[error("message type '{0}' has a route already")]
    Taken(Box<str>),
    /// The router has handled its final message, or is dropped.
    #[error("the router has ended")]
    Ended,
}

/// Congestion limits that cannot be; those set before stay.
///
/// # Examples
/// ```
/// # use stasis_bus::router::{LimitsError, Router};
/// # use stasis_bus::Bus;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let bus = Bus::builder().lanes(1).build()?;
/// let router = Router::create_pool(&bus.topic("channel:all")?)?;
/// assert_eq!(router.set_congestion_limits(Some(9), 5), Err(LimitsError { low: 9, high: 5 }));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("congestion limits need 0 < high and low <= high, not low {low} and high {high}")]
pub struct LimitsError {
    /// Low-water mark given.
    pub low: u64,
    /// High-water mark given.
    pub high: u64,
}

#[derive(Default)]
struct State {
    /// Of the newest table.
    filter: Filter,
    ended: bool,
}

type OnCongestion = dyn Fn(bool) + Send + Sync;

#[derive(Default)]
struct Congestion {
    low: u64,
    /// Zero: no limits.
    high: u64,
    congested: bool,
    tell: Option<Arc<OnCongestion>>,
}

impl Congestion {
    fn look(&mut self, depth: u64) -> bool {
        let reached = if self.congested { depth > self.low } else { depth >= self.high };
        self.congested = self.high > 0 && reached;
        self.congested
    }
}

/// Limits of a router's queue: set and asked by its handle, looked at with every message that is routed.
#[derive(Default)]
struct Watch {
    /// There are limits.
    looks: AtomicBool,
    /// A leaf.
    congestion: Mutex<Congestion>,
}

/// What the dispatcher and those who change routes share.
struct Shared {
    runner: TokenId,
    /// Swapped under `state`; loaded there and by the dispatcher, nowhere else.
    table: SnapshotCell<Table>,
    /// A leaf: nothing is locked, called or dropped under it that is not ours.
    state: Mutex<State>,
    /// Set before anybody can change routes. Weak: the subscription owns the dispatcher, which owns this.
    subscription: OnceLock<Weak<Subscription>>,
    /// The router's handle looks at it after the end too.
    unrouted: Arc<AtomicU64>,
    watch: Arc<Watch>,
}

impl Shared {
    /// Makes a new table. What `edit` takes out of it, it has to return.
    fn change<R>(&self, edit: impl FnOnce(&mut Table) -> Result<R, RouteError>) -> Result<R, RouteError> {
        let mut state = lock(&self.state);
        if state.ended {
            return Err(RouteError::Ended);
        }
        let mut table = Table::clone(&self.table.load());
        let outcome = edit(&mut table)?;
        let old_filter = std::mem::replace(&mut state.filter, table.filter());
        // No callback goes with the old table: each is in the new one or in `outcome`. And it goes under the
        // lock, so that nothing keeps callbacks when the final message has emptied the table.
        drop(self.table.swap(Arc::new(table)));
        drop(state);
        drop(old_filter);
        self.refilter();
        Ok(outcome)
    }

    /// Brings the subscription's filter up to the newest table. Whoever comes last brings the newest.
    fn refilter(&self) {
        if let Some(subscription) = self.subscription.get().and_then(Weak::upgrade) {
            subscription.refilter(|filter| *filter = lock(&self.state).filter.clone());
        }
    }

    /// Takes all routes out, for good.
    fn end(&self) -> Arc<Table> {
        let mut state = lock(&self.state);
        state.ended = true;
        self.table.swap(Arc::default())
    }
}

/// The subscription's handler.
struct Dispatcher {
    token: Token,
    shared: Arc<Shared>,
    /// What was told of congestion last.
    told: bool,
}

impl Dispatcher {
    /// Looks at the limits, and tells if the queue has crossed one.
    #[cold]
    fn watch(&mut self, has_ended: bool) {
        let subscription = self.shared.subscription.get().and_then(Weak::upgrade);
        let depth = subscription.filter(|_| !has_ended).map_or(0, |subscription| subscription.stats().queue_depth);
        let mut congestion = lock(&self.shared.watch.congestion);
        let congested = congestion.look(depth) && !has_ended;
        let tell = congestion.tell.clone();
        drop(congestion);
        if congested != self.told {
            self.told = congested;
            if let Some(tell) = tell {
                quietly(|| tell(congested));
                quietly(|| drop(tell));
            }
        }
    }
}

impl Handler for Dispatcher {
    fn handle(&mut self, received: &Received<'_>) {
        // Relaxed: limits hold soon, not at once.
        if self.shared.watch.looks.load(Ordering::Relaxed) {
            self.watch(received.is_final());
        }
        if received.is_final() {
            let table = self.shared.end();
            if let Some(route) = table.find(received, true) {
                route.call(&self.token, received);
            }
            return;
        }
        // The route alone is kept while it runs: others may be removed and dropped meanwhile.
        let route = self.shared.table.load().find(received, false).cloned();
        match route {
            Some(route) => route.call(&self.token, received),
            None => {
                self.shared.unrouted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The routes of a router. Cheap to clone, keeps nothing alive: callbacks may hold it to change routes and to
/// unsubscribe their own router.
///
/// # Examples
/// ```
/// use stasis_bus::router::Router;
/// use stasis_bus::{Bus, MessageType};
/// use std::sync::mpsc;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let topic = bus.topic("channel:1")?;
/// let answer = MessageType::<()>::new(&bus, "answer")?;
/// let router = Router::create_pool(&topic)?;
/// let (done, answered) = mpsc::channel();
/// let (routes, kind) = (router.routes(), answer.clone());
/// router.add(&answer, move |_| {
///     routes.remove(&kind); // once is enough
///     done.send(()).unwrap();
/// })?;
/// topic.publish(answer.message(()))?;
/// answered.recv()?;
/// assert!(!topic.wants(&answer));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Routes {
    shared: Weak<Shared>,
}

impl Routes {
    fn change<R>(&self, edit: impl FnOnce(&mut Table) -> Result<R, RouteError>) -> Result<R, RouteError> {
        self.shared.upgrade().ok_or(RouteError::Ended)?.change(edit)
    }

    fn make(
        &self,
        kind: Option<&AnyMessageType>,
        callback: impl FnMut(&Received<'_>) + Send + 'static,
    ) -> Result<Arc<Route>, RouteError> {
        let runner = self.shared.upgrade().ok_or(RouteError::Ended)?.runner;
        Ok(Route::new(runner, kind, callback))
    }

    /// Routes messages of a type to a callback. Publishes that begin afterwards reach it; of messages that wait
    /// already it gets those that were accepted for the default route.
    ///
    /// Routed to the type of [`CacheUpdate`](crate::cache::CacheUpdate), the callback gets the updates whose inside has no route
    /// of its own.
    ///
    /// # Errors
    /// [`RouteError::Taken`] if the type has a route, [`RouteError::Ended`]. The callback is dropped then.
    pub fn add(
        &self,
        kind: &impl AsRef<AnyMessageType>,
        callback: impl FnMut(&Received<'_>) + Send + 'static,
    ) -> Result<(), RouteError> {
        let kind = kind.as_ref();
        let route = self.make(Some(kind), callback)?;
        let taken = || RouteError::Taken(kind.name().into());
        self.change(|table| table.types.insert(kind.id(), &route).then_some(()).ok_or_else(taken))
    }

    /// Routes cache updates with this type inside to a callback. Distinct from [`add`](Self::add): a type may
    /// have both.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_cache_update(
        &self,
        kind: &impl AsRef<AnyMessageType>,
        callback: impl FnMut(&Received<'_>) + Send + 'static,
    ) -> Result<(), RouteError> {
        let kind = kind.as_ref();
        let route = self.make(Some(kind), callback)?;
        let taken = || RouteError::Taken(kind.name().into());
        self.change(|table| table.updates.insert(kind.id(), &route).then_some(()).ok_or_else(taken))
    }

    /// Takes the route of a type out; false if there was none. Publishes that begin afterwards do not reach it;
    /// messages that wait go to the default route if that takes them, else to nobody.
    pub fn remove(&self, kind: &impl AsRef<AnyMessageType>) -> bool {
        let id = kind.as_ref().id();
        matches!(self.change(|table| Ok(table.types.remove(id))), Ok(Some(_)))
    }

    /// Takes the route of cache updates with this type inside out. As [`remove`](Self::remove).
    pub fn remove_cache_update(&self, kind: &impl AsRef<AnyMessageType>) -> bool {
        let id = kind.as_ref().id();
        matches!(self.change(|table| Ok(table.updates.remove(id))), Ok(Some(_)))
    }

    /// Sets the callback for messages without a route of their own, in place of the one before. The router
    /// accepts every message then, unless formatters are set ([`accept_formatters`](Self::accept_formatters)).
    ///
    /// # Errors
    /// [`RouteError::Ended`]. The callback is dropped then.
    pub fn set_default(&self, callback: impl FnMut(&Received<'_>) + Send + 'static) -> Result<(), RouteError> {
        let route = self.make(None, callback)?;
        self.change(|table| Ok(table.default.replace(Arc::clone(&route)))).map(drop)
    }

    /// Sets the callback for messages without a route of their own whose type has one of these formatters
    /// (none given: for all). Routed types reach their routes whatever their formatters.
    ///
    /// # Errors
    /// [`RouteError::Ended`]. The callback is dropped then.
    pub fn set_formatters_default(
        &self,
        callback: impl FnMut(&Received<'_>) + Send + 'static,
        formatters: Formatters,
    ) -> Result<(), RouteError> {
        let route = self.make(None, callback)?;
        let edit = |table: &mut Table| {
            table.formatters = formatters;
            Ok(table.default.replace(Arc::clone(&route)))
        };
        self.change(edit).map(drop)
    }

    /// Limits the default route, that of now and those set later by [`set_default`](Self::set_default), to
    /// messages whose type has one of these formatters; none: no limit. It counts when a message's turn comes,
    /// for those that wait already too. Without effect after the end.
    pub fn accept_formatters(&self, formatters: Formatters) {
        let edit = |table: &mut Table| {
            table.formatters = formatters;
            Ok(())
        };
        let _ = self.change(edit);
    }

    /// Takes the default route out; false if there was none.
    pub fn remove_default(&self) -> bool {
        matches!(self.change(|table| Ok(table.default.take())), Ok(Some(_)))
    }

    /// Unsubscribes the router, if it still is: what was published before is still routed, then comes the
    /// final message. Returns at once.
    pub fn unsubscribe(&self) {
        let shared = self.shared.upgrade();
        if let Some(subscription) = shared.as_ref().and_then(|shared| shared.subscription.get()?.upgrade()) {
            drop(subscription.unsubscribe());
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

/// A router in the making. Made by [`Router::builder`].
///
/// # Examples
/// ```
/// use stasis_bus::router::Router;
/// use stasis_bus::{Bus, PanicPolicy};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let topic = bus.topic("bridge:all")?;
/// let router = Router::builder(&topic).name("bridges").mailbox().on_panic(PanicPolicy::End).create()?;
/// assert_eq!(router.name(), Some("bridges"));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `create`"]
pub struct RouterBuilder<'a>(SubscriberBuilder<'a>);

impl RouterBuilder<'_> {
    /// Name for diagnostics.
    pub fn name(self, name: impl Into<Box<str>>) -> Self {
        Self(self.0.name(name))
    }

    /// Where the callbacks run. Default: on a lane of the bus.
    pub fn delivery(self, delivery: Delivery) -> Self {
        Self(self.0.delivery(delivery))
    }

    /// On a lane of the bus (Stasis: `create_pool`).
    pub fn pool(self) -> Self {
        Self(self.0.pool())
    }

    /// On a thread of their own (Stasis: `create`).
    pub fn mailbox(self) -> Self {
        Self(self.0.mailbox())
    }

    /// In the publisher.
    pub fn no_mailbox(self) -> Self {
        Self(self.0.no_mailbox())
    }

    /// What a panic of a callback leads to.
    pub fn on_panic(self, policy: PanicPolicy) -> Self {
        Self(self.0.on_panic(policy))
    }

    /// Subscribes the router. It has no routes yet and accepts nothing, its own subscription change neither.
    ///
    /// # Errors
    /// As [`SubscriberBuilder::subscribe`].
    pub fn create(self) -> Result<Router, SubscribeError> {
        let token = Token::new();
        let unrouted = Arc::new(AtomicU64::new(0));
        let watch = Arc::<Watch>::default();
        let table = Table::default();
        let shared = Arc::new(Shared {
            runner: token.id(),
            state: Mutex::new(State { filter: table.filter(), ended: false }),
            table: SnapshotCell::new(Arc::new(table)),
            subscription: OnceLock::new(),
            unrouted: Arc::clone(&unrouted),
            watch: Arc::clone(&watch),
        });
        let dispatcher = Dispatcher { token, shared: Arc::clone(&shared), told: false };
        // Nothing is accepted before the first route, so the dispatcher is not called before this is complete.
        let subscription = Arc::new(self.0.filter_mode(FilterMode::Selective).subscribe_handler(dispatcher)?);
        let _ = shared.subscription.set(Arc::downgrade(&subscription));
        let routes = Routes { shared: Arc::downgrade(&shared) };
        Ok(Router { subscription, routes, watch, unrouted })
    }
}

/// A router: see the [module](self). Dropping it unsubscribes, without waiting.
///
/// Dereferences to its [`Routes`], which set and remove routes.
///
/// # Examples
/// ```
/// use stasis_bus::router::Router;
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let topic = bus.topic("channel:all")?;
/// let dial = MessageType::<String>::new(&bus, "dial")?;
/// let hangup = MessageType::<u32>::new(&bus, "hangup")?;
/// let router = Router::create_pool(&topic)?;
/// router.add(&dial, |received| println!("dialled {:?}", received.payload::<String>()))?;
/// router.add(&hangup, |received| println!("hung up, cause {:?}", received.payload::<u32>()))?;
/// topic.publish(dial.message("2001".into()))?;
/// router.publish_sync(hangup.message(16))?; // both were handled
/// assert!(router.remove(&dial) && !topic.wants(&dial));
/// router.unsubscribe().wait()?;
/// assert!(router.is_done());
/// # Ok(()) }
/// ```
#[must_use = "dropping a router unsubscribes it"]
pub struct Router {
    subscription: Arc<Subscription>,
    routes: Routes,
    watch: Arc<Watch>,
    unrouted: Arc<AtomicU64>,
}

impl Router {
    /// Starts making a router.
    #[track_caller]
    pub fn builder(topic: &Topic) -> RouterBuilder<'_> {
        RouterBuilder(topic.subscriber())
    }

    /// A router with a thread of its own.
    ///
    /// # Errors
    /// As [`RouterBuilder::create`].
    #[track_caller]
    pub fn create(topic: &Topic) -> Result<Self, SubscribeError> {
        Self::builder(topic).mailbox().create()
    }

    /// A router on a lane of the bus.
    ///
    /// # Errors
    /// As [`RouterBuilder::create`].
    #[track_caller]
    pub fn create_pool(topic: &Topic) -> Result<Self, SubscribeError> {
        Self::builder(topic).pool().create()
    }

    /// A handle on the routes, to keep in callbacks.
    #[must_use]
    pub fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// Number of its subscription, unique in the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.subscription.id()
    }

    /// Name given for diagnostics, if any.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.subscription.name()
    }

    /// The topic it listens to.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.subscription.topic()
    }

    /// Figures of its subscription. Messages without a route count as delivered there;
    /// [`unrouted`](Self::unrouted) says how many they are.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        self.subscription.stats()
    }

    /// Messages that had a route when published and none when their turn came, so far.
    #[must_use]
    pub fn unrouted(&self) -> u64 {
        self.unrouted.load(Ordering::Relaxed)
    }

    /// Publishes on the router's topic, and returns when the router has handled the message and all before it.
    /// Others who listen to the topic get it too.
    ///
    /// # Errors
    /// As [`Topic::publish_sync`]: from a callback of this router, [`PublishSyncError::OwnHandler`].
    pub fn publish_sync(&self, message: Message) -> Result<(), PublishSyncError> {
        self.topic().publish_sync(message, &self.subscription)
    }

    /// Sets low and high water marks of the queue for [`is_congested`](Self::is_congested) and
    /// [`on_congestion`](Self::on_congestion), in entries; no `low`: nine tenths of `high`. From then on, routing
    /// a message costs a look at the queue too.
    ///
    /// # Errors
    /// [`LimitsError`] if `high` is zero or `low` above it.
    pub fn set_congestion_limits(&self, low: Option<u64>, high: u64) -> Result<(), LimitsError> {
        let low = low.unwrap_or(high - high.div_ceil(10));
        if high == 0 || low > high {
            return Err(LimitsError { low, high });
        }
        let mut congestion = lock(&self.watch.congestion);
        (congestion.low, congestion.high, congestion.congested) = (low, high, false);
        self.watch.looks.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Has `tell` called with true when the queue has reached the high mark, and with false when it is at or below
    /// the low mark again, or the router ends; in place of the one before.
    ///
    /// The queue is looked at when the turn of a routed message comes, and counted roughly: while a callback
    /// blocks nothing is told, and that the queue is short again may be told with the first message after it was
    /// empty. [`is_congested`](Self::is_congested) can be asked at any time. `tell` runs where the callbacks do, before
    /// the one for that message, never twice at a time; a panic in it is contained.
    ///
    /// # Examples
    /// ```
    /// # use stasis_bus::router::Router;
    /// # use stasis_bus::Bus;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bus = Bus::builder().lanes(1).build()?;
    /// let router = Router::create(&bus.topic("channel:all")?)?;
    /// router.set_congestion_limits(Some(450), 500)?;
    /// router.on_congestion(|congested| println!("channel router congested: {congested}"));
    /// # Ok(()) }
    /// ```
    pub fn on_congestion(&self, tell: impl Fn(bool) + Send + Sync + 'static) {
        let tell: Arc<OnCongestion> = Arc::new(tell);
        let before = lock(&self.watch.congestion).tell.replace(tell);
        quietly(|| drop(before));
    }

    /// Whether its queue has reached the high mark, and has not been seen at or below the low mark since. It is
    /// looked at when a routed message's turn comes, and now. The queue is that of its thread, or of the lane it
    /// shares with others, and counted roughly. Without limits, and for an inline router, false.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        let depth = self.stats().queue_depth;
        lock(&self.watch.congestion).look(depth)
    }

    /// Whether nobody has unsubscribed it yet.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.subscription.is_subscribed()
    }

    /// Whether the final message was handled and all callbacks dropped.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.subscription.is_done()
    }

    /// Unsubscribes: what was published before is still routed, then comes the final message, then nothing.
    /// Returns at once; wait for the result, or await it. Calling it again is harmless.
    pub fn unsubscribe(&self) -> Completion {
        self.subscription.unsubscribe()
    }

    /// The end of the router, whoever unsubscribes it.
    #[must_use]
    pub fn completion(&self) -> Completion {
        self.subscription.completion()
    }

    /// Waits until the final message was handled. Somebody has to unsubscribe.
    ///
    /// # Errors
    /// As [`Subscription::join`].
    pub fn join(&self) -> Result<(), JoinError> {
        self.subscription.join()
    }

    /// As [`join`](Self::join), for `limit` at most.
    ///
    /// # Errors
    /// As [`Subscription::join_timeout`].
    pub fn join_timeout(&self, limit: Duration) -> Result<(), JoinError> {
        self.subscription.join_timeout(limit)
    }

    /// Unsubscribes and waits, for `limit` at most.
    ///
    /// # Errors
    /// As [`join_timeout`](Self::join_timeout); it is unsubscribed in any case.
    pub fn unsubscribe_and_join(&self, limit: Duration) -> Result<(), JoinError> {
        self.subscription.unsubscribe_and_join(limit)
    }
}

impl Deref for Router {
    type Target = Routes;
    fn deref(&self) -> &Routes {
        &self.routes
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}
