//! Snapshot-plus-updates: the present state first, then every later update.
//!
//! ```text
//!   topic of updates ──── forward, first ────► private topic ─► handler
//!             "the way is whole", then ──────►     │
//!   source: entries ─ then, as one message ──►     │
//!                                                  ▼
//!     before the first of these: updates are left out, the entries have what they tell;
//!     before the second: updates are kept;  at it: entries, Ready, kept updates that are newer;
//!     after it: updates, but for those the entries hold already
//! ```
//!
//! What is newer is decided key by key. Versions of a key grow, and its updates are published in that
//! order; the source says a version `upto` that everything numbered after it was read is above. So for
//! an update numbered above `upto` nothing has to be looked up. Of the others, one of a key that was
//! among the entries is newer if its version is; one of a key that was not is newer if its chain begins
//! after the way was whole: with an update that finds no entry (`begins`). (A chain that began before
//! it and whose key is not among the entries had ended when they were read. The forward reaches topics behind the followed
//! one one after the other: until it is whole some updates come and later ones of the same key do not.)
//!
//! Updates may be lost: the bus refuses them when its memory is used up. The source counts them before any
//! later update of the same key is published, so a follower sees the new count before it would give an
//! update that does not join on, and begins again. It reads the count, puts a mark into its own queue, leaves
//! out what comes before the mark, and at it gives `Restart`, the entries of then, `Ready`: behind the mark
//! nothing is lost but what is counted later. It does so soon though no update follows, because a loss is told
//! with a message that is never refused.
//!
//! A follower with a [`limit`](Follow::limit) loses updates of its own when its handler is too slow for them, the
//! oldest first ([`Overflow::Lag`]). It sees that with the next one, and begins again in the same way; if the mark
//! is lost too, what made it go is one more such message, and another mark is sent.
//!
//! Guarantees: no gap and no repeat, under any interleaving with publishers
//! (`a_follower_ends_with_what_the_cache_has`; model: `loom-tests/tests/follow.rs`), and a gap for lack of memory is
//! seen and closed (`a_follower_of_a_cache_whose_updates_were_refused_begins_again`); the rest as for any
//! subscription: serial, final message last, a panic costs that call only. On an error nothing is left
//! behind. Memory: one version per entry of the start, until that entry changes. Cost: one walk over the
//! entries at the start; then a lookup an update at most.
//!
//! It knows nothing of caches: anything that is a [`Source`] can be followed.

mod losses;

use std::any::Any;
use std::collections::HashMap;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

pub use self::losses::Losses;
use self::losses::{Ear, heard, is_mark};
use crate::bus::{Completion, Delivery, Forward, Handler, PanicPolicy, Received, Subscription, Topic};
use crate::contain::{discard, report_panic};
use crate::error::{Closed, JoinError, PublishError, SubscribeError};
use crate::exec::buffer::rules::Overflow;
use crate::message::{AnyMessageType, Message, MessageType};
use crate::sync::plain::{AtomicU64, Ordering};
use crate::sync::{Arc, AtomicBool, Weak, fence, global};

/// Something that has entries now, and a topic that tells of every change of them.
///
/// For each key: versions grow with each change, over removals too; updates are published in the order
/// of versions; an entry can be read before its update is published, not the other way round.
///
/// # Examples
/// ```
/// use stasis_bus::follow::{Current, CurrentEntry, Source, Step};
/// use stasis_bus::{AnyMessageType, Message, MessageType};
/// /// One number that only counts up.
/// struct Counter(MessageType<u64>, Message);
/// impl Source for Counter {
///     type Key = ();
///     fn update_type(&self) -> Option<&AnyMessageType> {
///         Some(self.0.as_any())
///     }
///     fn current(&self) -> Current<()> {
///         let now = self.1.clone();
///         let version = *now.payload::<u64>().unwrap();
///         Current { entries: vec![CurrentEntry { key: (), version, messages: vec![now] }], upto: version }
///     }
///     fn step(&self, message: &Message) -> Option<Step<()>> {
///         Some(Step { key: (), version: *message.payload::<u64>()?, begins: false })
///     }
/// }
/// ```
pub trait Source: Send + Sync + 'static {
    /// What entries are told apart by.
    type Key: Eq + Hash + Clone + Send + Sync + 'static;

    /// The type of all updates, if they are of one type: nothing else is queued then.
    fn update_type(&self) -> Option<&AnyMessageType>;

    /// The entries of now. Synchronised with the changes: by a lock that both take, or by a full fence
    /// (`std::sync::atomic::fence`, `SeqCst`) of those who change between a change and the publish of its update.
    fn current(&self) -> Current<Self::Key>;

    /// What a message on the topic says; `None`: it is no update.
    fn step(&self, message: &Message) -> Option<Step<Self::Key>>;

    /// Where updates are counted that were made and could not be published: followers begin again then.
    /// Default: `None`, no update is ever lost.
    fn losses(&self) -> Option<&Losses> {
        None
    }
}

/// Entries of one moment, or of one moment each.
#[derive(Clone, Debug)]
pub struct Current<K> {
    /// The entries.
    pub entries: Vec<CurrentEntry<K>>,
    /// Versions given out after the entries were read are above this one. [`u64::MAX`] if that cannot be
    /// said: then every key that changes is remembered.
    pub upto: u64,
}

/// An entry that can be followed.
#[derive(Clone, Debug)]
pub struct CurrentEntry<K> {
    /// Its key.
    pub key: K,
    /// Its version.
    pub version: u64,
    /// What the follower is given for it.
    pub messages: Vec<Message>,
}

/// What an update does.
#[derive(Clone, Debug)]
pub struct Step<K> {
    /// Key of the entry.
    pub key: K,
    /// Version of the entry after it.
    pub version: u64,
    /// Whether there was no entry before it.
    pub begins: bool,
}

/// Following did not begin; nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The bus is shut down.
    #[error("the bus is shut down")]
    Closed,
    /// The queue that should take the present entries is full, and the memory budget of the bus used up.
    #[error("a queue is full and the memory budget of the bus is used up")]
    Full,
    /// The bus declines the type of the updates: none will ever come.
    #[error("updates are of type '{0}', which is declined by the configuration of the bus")]
    Declined(Box<str>),
    /// The subscription was not made.
    #[error(transparent)]
    Subscribe(SubscribeError),
}

impl From<SubscribeError> for FollowError {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::Closed => Self::Closed,
            error => Self::Subscribe(error),
        }
    }
}

impl From<Closed> for FollowError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// What a follower is given.
///
/// # Examples
/// A copy of what is followed:
/// ```
/// use stasis_bus::cache::{CacheUpdate, Entity};
/// use stasis_bus::Message;
/// use stasis_bus::follow::Followed;
/// use std::collections::HashMap;
/// fn keep(copy: &mut HashMap<(String, Entity), Message>, followed: Followed<'_>) {
///     if matches!(followed, Followed::Restart) {
///         copy.clear(); // updates were lost: all of it comes again
///     }
///     let Some(update) = followed.message().and_then(Message::payload::<CacheUpdate>) else { return };
///     let key = (update.id().to_owned(), update.entity());
///     match update.new_snapshot() {
///         Some(snapshot) => copy.insert(key, snapshot.clone()),
///         None => copy.remove(&key),
///     };
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Followed<'a> {
    /// An entry as it was when following began.
    Current(&'a Message),
    /// All entries were given; from here on updates come.
    Ready,
    /// Updates were lost, for lack of memory or because more waited than the follower's [`limit`](Follow::limit):
    /// forget what was given, all entries of now come again, then [`Ready`](Self::Ready).
    Restart,
    /// An update, or, if asked for, another message of the topic.
    Update(&'a Message),
    /// The end: nothing comes after it.
    Final,
}

impl<'a> Followed<'a> {
    /// The message, if there is one.
    #[must_use]
    pub fn message(self) -> Option<&'a Message> {
        match self {
            Self::Current(message) | Self::Update(message) => Some(message),
            Self::Ready | Self::Restart | Self::Final => None,
        }
    }
}

/// The entries on their way to the handler (erased, so that one type does for all sources); none: the way is whole.
struct Start(Option<Box<dyn Any + Send + Sync>>);

global! {
    static START: MessageType<Start> = MessageType::builder("stasis_bus_follow_start")
        .register(Arc::default())
        .unwrap_or_else(|error| panic!("cannot register the type that starts followers: {error}"));
}

type Filter = dyn Fn(&Message) -> bool + Send;

/// Following in the making.
///
/// # Examples
/// ```
/// use stasis_bus::cache::{Cache, CacheUpdate, CachingTopic};
/// use stasis_bus::follow::Followed;
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<(&str, u32)>::new(&bus, "device_state")?;
/// let cache = Cache::builder().id(|message| Some(message.payload::<(&str, u32)>()?.0.into())).build();
/// let devices = bus.topic("device:all")?;
/// let caching = CachingTopic::new(&devices, &cache)?;
/// devices.publish(state.message(("SIP/100", 1)))?;
/// let following = caching.follow().subscribe(|_, followed| match followed {
///     Followed::Current(entry) => println!("is {:?}", entry.payload::<CacheUpdate>().unwrap().new_snapshot()),
///     Followed::Ready => println!("that was all"),
///     Followed::Update(update) => println!("becomes {:?}", update.payload::<CacheUpdate>().unwrap().new_snapshot()),
///     _ => println!("the end"),
/// })?;
/// devices.publish(state.message(("SIP/100", 2)))?;
/// following.unsubscribe().wait()?;
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until `subscribe`"]
pub struct Follow<S> {
    topic: Topic,
    source: S,
    name: Option<Box<str>>,
    delivery: Delivery,
    on_panic: PanicPolicy,
    filter: Option<Box<Filter>>,
    everything: bool,
    overflow: Overflow,
}

impl<S: Source> Follow<S> {
    /// Follows `source`, whose updates are published on `topic` (directly or over forwards).
    pub fn new(topic: &Topic, source: S) -> Self {
        Self {
            topic: topic.clone(),
            source,
            name: None,
            delivery: Delivery::default(),
            on_panic: PanicPolicy::default(),
            filter: None,
            everything: false,
            overflow: Overflow::Spill,
        }
    }

    /// Name for diagnostics.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Where the handler runs.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// What a panic of the handler leads to.
    pub fn on_panic(mut self, policy: PanicPolicy) -> Self {
        self.on_panic = policy;
        self
    }

    /// Gives entries and updates for which this is true only. Several filters: all of them.
    pub fn filter(mut self, filter: impl Fn(&Message) -> bool + Send + 'static) -> Self {
        self.filter = Some(match self.filter.take() {
            None => Box::new(filter),
            Some(before) => Box::new(move |message| before(message) && filter(message)),
        });
        self
    }

    /// Gives everything the topic carries, not just updates. What comes before the entries are read is given
    /// after them.
    pub fn everything(mut self) -> Self {
        self.everything = true;
        self
    }

    /// Lets `limit` messages wait at most, however slow the handler is. When more come the oldest are dropped, and
    /// the follower begins again with the entries of now: [`Followed::Restart`]. Its
    /// [`stats`](Subscription::stats) count what was dropped. Default: no limit, messages wait within the memory
    /// budget of the bus.
    ///
    /// For slow readers of state: a client behind a bad line, a browser. Entries are read by the handler's
    /// thread, so a limit well below the number of changes that come while all entries are handled makes it
    /// begin again for ever.
    ///
    /// # Examples
    /// ```
    /// use stasis_bus::cache::{Cache, CacheUpdate, CachingTopic};
    /// use stasis_bus::follow::Followed;
    /// use stasis_bus::{Bus, MessageType};
    /// use std::collections::HashMap;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::builder().lanes(1).build()?;
    /// let state = MessageType::<(&str, u32)>::new(&bus, "device_state")?;
    /// let cache = Cache::builder().id(|message| Some(message.payload::<(&str, u32)>()?.0.into())).build();
    /// let devices = bus.topic("device:all")?;
    /// let caching = CachingTopic::new(&devices, &cache)?;
    /// let mut shown = HashMap::new();
    /// let browser = caching.follow().limit(100).subscribe(move |_, followed| {
    ///     if matches!(followed, Followed::Restart) {
    ///         shown.clear(); // fell behind: everything comes again
    ///     }
    ///     let Some(update) = followed.message().and_then(|message| message.payload::<CacheUpdate>()) else { return };
    ///     match update.new_snapshot() {
    ///         Some(snapshot) => shown.insert(update.id().to_owned(), snapshot.clone()),
    ///         None => shown.remove(update.id()),
    ///     };
    /// })?;
    /// for n in 0..10_000 {
    ///     devices.publish(state.message(("SIP/100", n)))?; // never refused because of the browser
    /// }
    /// browser.unsubscribe().wait()?;
    /// # Ok(()) }
    /// ```
    pub fn limit(mut self, limit: usize) -> Self {
        self.overflow = Overflow::Lag { limit };
        self
    }

    /// Begins: reads the entries and has the handler called for each, then [`Followed::Ready`], then for
    /// every update. The handler gets what it runs for (to unsubscribe, for instance) and what came.
    ///
    /// Cost: a subscription, a topic, a forward, and O(entries).
    ///
    /// # Errors
    /// [`FollowError`]; the handler was not and will not be called then.
    #[track_caller]
    pub fn subscribe(
        self,
        handler: impl FnMut(&Received<'_>, Followed<'_>) + Send + 'static,
    ) -> Result<Following, FollowError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if let Some(kind) = self.source.update_type().filter(|kind| self.topic.0.declines(*kind)) {
            return Err(FollowError::Declined(kind.name().into()));
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let private = self.topic.sibling(format!("follow:{number}/{}", self.topic.name()))?;
        let source = Arc::new(self.source);
        let ear = Ear::new(&private);
        let is_whole = Arc::new(AtomicBool::new(false));
        let mut subscriber =
            private.subscriber().delivery(self.delivery).on_panic(self.on_panic).overflow(self.overflow);
        if let Some(name) = self.name {
            subscriber = subscriber.name(name);
        }
        if let Some(kind) = source.update_type().filter(|_| !self.everything) {
            subscriber = subscriber.accept(kind).accept(&*START).accept(losses::kind());
        }
        let follower = Follower {
            source: Arc::clone(&source),
            handler,
            filter: self.filter,
            everything: self.everything,
            stage: Stage::Waiting(Vec::new()),
            is_whole: Arc::clone(&is_whole),
            has_begun: false,
            // Before there is a way: no update that comes over it is older than what is counted here.
            lost: lost(&*source),
            told: ear.told(),
            ear: Arc::downgrade(&ear),
        };
        let subscription = subscriber.subscribe_handler(follower)?;
        // Now that it is heard; what was lost meanwhile is seen when the entries come.
        if let Some(losses) = source.losses() {
            losses.add(&ear);
        }
        let forward = self.topic.forward_to(&private)?;
        // From here on the follower may read the entries by itself, if it lags: meets the source's fence between a change and
        // the publish of its update.
        fence::full();
        is_whole.store(true, Ordering::Release);
        // From here on no update is missed, and the follower is told so; now the entries may be read.
        let whole = private.publish(START.message(Start(None)));
        // As above.
        fence::full();
        let started = whole.and_then(|()| private.publish(START.message(Start(Some(Box::new(source.current()))))));
        match started {
            Ok(()) => Ok(Following { subscription, _forward: forward, _ear: ear }),
            Err(PublishError::Closed(_)) => Err(FollowError::Closed),
            Err(PublishError::Full(_) | PublishError::Feedback(_)) => Err(FollowError::Full),
        }
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for Follow<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").field("topic", &self.topic).field("source", &self.source).finish_non_exhaustive()
    }
}

/// A follower. Dropping it unsubscribes, without waiting.
///
/// # Examples
/// ```
/// # use stasis_bus::cache::{Cache, CachingTopic};
/// # use stasis_bus::Bus;
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let bus = Bus::builder().lanes(1).build()?;
/// # let (devices, cache) = (bus.topic("device:all")?, Cache::builder().build());
/// let caching = CachingTopic::new(&devices, &cache)?;
/// let following = caching.follow().subscribe(|_, _| ())?;
/// assert!(following.subscription().is_subscribed());
/// following.unsubscribe_and_join(Duration::from_secs(1))?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropping a follower ends it"]
pub struct Following {
    // Dropped in this order: nothing comes any more, then the way is taken out.
    subscription: Subscription,
    _forward: Forward,
    _ear: Arc<Ear>,
}

impl Following {
    /// The subscription, to a private topic, that the handler runs for.
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Unsubscribes: what was published before still comes, then [`Followed::Final`], then nothing.
    pub fn unsubscribe(&self) -> Completion {
        self.subscription.unsubscribe()
    }

    /// Unsubscribes and waits, for `limit` at most.
    ///
    /// # Errors
    /// As [`Subscription::unsubscribe_and_join`].
    pub fn unsubscribe_and_join(&self, limit: Duration) -> Result<(), JoinError> {
        self.subscription.unsubscribe_and_join(limit)
    }
}

/// What is known of a key while versions up to `upto` may still come.
enum Known {
    /// It was among the entries, in this version.
    Entry(u64),
    /// Updates of it are being given.
    Live,
}

enum Stage<K> {
    /// The entries have not come: updates so far.
    Waiting(Vec<Message>),
    /// Updates were lost, this many before the mark was sent: nothing is given until it comes.
    Behind(u64),
    Following {
        upto: u64,
        known: HashMap<K, Known>,
    },
}

struct Follower<S: Source, H> {
    source: Arc<S>,
    handler: H,
    filter: Option<Box<Filter>>,
    everything: bool,
    stage: Stage<S::Key>,
    /// The forward has reached all topics.
    is_whole: Arc<AtomicBool>,
    /// Entries were given.
    has_begun: bool,
    /// What the source had lost before the first update that counts was published.
    lost: u64,
    /// To be cleared when a loss was told.
    told: Arc<AtomicBool>,
    /// Way to the own queue. Weak: the queue owns this.
    ear: Weak<Ear>,
}

fn lost<S: Source>(source: &S) -> u64 {
    source.losses().map_or(0, Losses::number)
}

impl<S: Source, H: FnMut(&Received<'_>, Followed<'_>) + Send + 'static> Follower<S, H> {
    fn passes(&self, message: &Message) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter(message))
    }

    /// Whether a message is one to give, after the entries have come.
    fn is_news(&mut self, message: &Message) -> bool {
        let Some(step) = self.source.step(message) else { return self.everything };
        let Stage::Following { upto, known } = &mut self.stage else { return false };
        if step.version > *upto {
            // All that follows for this key is above too.
            known.remove(&step.key);
            return true;
        }
        match known.get(&step.key) {
            Some(Known::Live) => true,
            Some(Known::Entry(version)) if step.version <= *version => false,
            None if !step.begins => false,
            _ => {
                known.insert(step.key, Known::Live);
                true
            }
        }
    }

    fn update(&mut self, received: &Received<'_>, message: &Message) {
        let is_told = heard(message, &self.told);
        self.look_for_losses();
        if !is_told && self.is_news(message) && self.passes(message) {
            (self.handler)(received, Followed::Update(message));
        }
    }

    fn look_for_losses(&mut self) {
        let lost = lost(&*self.source);
        if lost == self.lost || !matches!(self.stage, Stage::Following { .. }) {
            return;
        }
        // Without a follower's handle the end is near, and gives the entries.
        self.stage = Stage::Behind(lost);
        if let Some(ear) = self.ear.upgrade() {
            ear.mark();
        }
    }

    /// Whether updates were dropped before this message because the handler was too slow.
    fn look_for_lag(&mut self, received: &Received<'_>) {
        if received.lagged() == 0 {
            return;
        }
        // Whatever was on its way may be among what was dropped: what was told, and the mark.
        self.told.swap(false, Ordering::AcqRel);
        if !self.is_whole.load(Ordering::Acquire) {
            // Updates that come before that are left out anyway. Entries read now would miss what comes over topics that it has
            // not reached.
            self.leave_updates_out();
            return;
        }
        self.stage = Stage::Behind(lost(&*self.source));
        // A mark, be it one of an earlier loss, has the entries of now read, and they hold what was dropped before it.
        if let Some(ear) = self.ear.upgrade().filter(|_| !is_mark(received)) {
            ear.mark();
        }
    }

    /// The mark has come: all that was left out is in the entries of now. If reading them panics, the next update
    /// begins anew.
    fn restart(&mut self, received: &Received<'_>) {
        let Stage::Behind(lost) = self.stage else { return };
        self.stage = Stage::Following { upto: u64::MAX, known: HashMap::new() };
        // Until it is read, something is lost.
        self.lost = lost.wrapping_sub(1);
        let current = self.source.current();
        self.lost = lost;
        let mut panics = FirstPanic(None);
        if self.has_begun {
            panics.run(|| (self.handler)(received, Followed::Restart));
        }
        self.entries(received, &current, &mut panics);
        panics.go_on();
    }

    fn entries(&mut self, received: &Received<'_>, current: &Current<S::Key>, panics: &mut FirstPanic) {
        let known = current.entries.iter().map(|entry| (entry.key.clone(), Known::Entry(entry.version))).collect();
        self.stage = Stage::Following { upto: current.upto, known };
        self.has_begun = true;
        for message in current.entries.iter().flat_map(|entry| &entry.messages) {
            panics.run(|| {
                if self.passes(message) {
                    (self.handler)(received, Followed::Current(message));
                }
            });
        }
        panics.run(|| (self.handler)(received, Followed::Ready));
    }

    /// Updates before this moment came while the forward was there for some of the topics behind the followed one and not
    /// for others, so some may be missing among them. What they tell is in the entries, which are read later.
    fn leave_updates_out(&mut self) {
        let Stage::Waiting(kept) = &mut self.stage else { return };
        let mut panics = FirstPanic(None);
        for message in std::mem::take(kept) {
            // Who makes the source panic may be an update.
            let mut is_update = true;
            panics.run(|| is_update = self.source.step(&message).is_some());
            if !is_update {
                kept.push(message);
            }
        }
        panics.go_on();
    }

    /// The entries have come. A panic in one call does not keep the others from being made.
    fn start(&mut self, received: &Received<'_>, current: &Current<S::Key>) {
        let Stage::Waiting(kept) = &mut self.stage else { return };
        let kept = std::mem::take(kept);
        let mut panics = FirstPanic(None);
        self.entries(received, current, &mut panics);
        for message in kept {
            panics.run(|| self.update(received, &message));
        }
        self.look_for_losses();
        panics.go_on();
    }
}

impl<S: Source, H: FnMut(&Received<'_>, Followed<'_>) + Send + 'static> Handler for Follower<S, H> {
    fn handle(&mut self, received: &Received<'_>) {
        let message = received.message();
        self.look_for_lag(received);
        if received.is_final() {
            // The mark does not come any more.
            let mut panics = FirstPanic(None);
            panics.run(|| self.restart(received));
            if matches!(self.stage, Stage::Following { .. }) {
                panics.run(|| (self.handler)(received, Followed::Final));
            }
            panics.go_on();
        } else if let Some(Start(current)) = message.payload::<Start>() {
            match current {
                None => self.leave_updates_out(),
                Some(current) => current.downcast_ref().into_iter().for_each(|current| self.start(received, current)),
            }
        } else if is_mark(message) {
            self.restart(received);
        } else if let Stage::Waiting(kept) = &mut self.stage {
            if !heard(message, &self.told) {
                kept.push(message.clone());
            }
        } else {
            self.update(received, message);
        }
    }
}

/// Runs several calls though one panics, and panics with the first of them in the end.
struct FirstPanic(Option<Box<dyn Any + Send>>);

impl FirstPanic {
    fn run(&mut self, call: impl FnOnce()) {
        let Err(panic) = catch_unwind(AssertUnwindSafe(call)) else { return };
        if self.0.is_none() {
            self.0 = Some(panic);
        } else {
            report_panic("a follower", &*panic);
            discard(panic);
        }
    }

    fn go_on(self) {
        if let Some(panic) = self.0 {
            resume_unwind(panic);
        }
    }
}
