//! Suppression of unchanged state: a message of a key is published only if it says something new.
//!
//! ```text
//!   publish(state) ─► key ─► entry: last message, number, is it out? ─ equal and out ─► suppressed
//!                              │ else: becomes the last one
//!                              ▼
//!                     topic.publish ─► still the last one?  yes: it is out
//!                                                            no: publish the last one again
//! ```
//!
//! A reload that says every device's state again floods its subscribers with what they know; this ends it where
//! it begins.
//!
//! # Guarantees
//! - A state is suppressed only if an equal one of its key was published, successfully, and no other since
//!   (`a_refused_publish_is_not_remembered`).
//! - Threads publish states of one key at once: when all have returned, the last message every subscription got
//!   for the key equals [`last`](Distinct::last) (`subscribers_end_with_what_is_remembered`). Threads that
//!   overtake each other between deciding and publishing repeat the last one; so a subscriber may get an equal
//!   state twice, never a stale one last. No thread waits for another's publish.
//! - No lock is held while user code runs: keys, comparing, publishing, destructors (G7); publishing states of
//!   the same key from within an inline handler works.
//! - Memory: the last message of each key, until [`remove`](Distinct::remove).
//!
//! Cost: of a suppressed state no message is made; one look-up, one short lock of its own key, one comparison.

use std::fmt;
use std::hash::Hash;

use crate::bus::Topic;
use crate::error::PublishError;
use crate::message::{Message, MessageType};
use crate::sync::map::SharedMap;
use crate::sync::plain::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, lock};

#[derive(Default)]
struct State {
    /// None: nothing yet, or removed.
    last: Option<Message>,
    /// Of `last`; unique in the `Distinct`.
    number: u64,
    /// `last` was published, and nothing after it.
    is_out: bool,
    /// No longer in the map.
    removed: bool,
}

#[derive(Default)]
struct Entry(Mutex<State>);

/// What is to be published: made a message only when it is not known.
enum Draft<P> {
    State(P),
    Message(Message),
}

impl<P: PartialEq + Send + Sync + 'static> Draft<P> {
    fn state(&self) -> Option<&P> {
        match self {
            Self::State(state) => Some(state),
            Self::Message(message) => message.payload(),
        }
    }

    fn into_message(self, kind: &MessageType<P>) -> Message {
        match self {
            Self::State(state) => kind.message(state),
            Self::Message(message) => message,
        }
    }
}

/// What was published and what was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DistinctStats {
    /// States published.
    pub published: u64,
    /// States not published, because they said nothing new.
    pub suppressed: u64,
    /// Messages published again, because threads had overtaken each other.
    pub repeated: u64,
    /// Keys remembered.
    pub keys: usize,
}

/// A publisher that leaves out what is known: see the [module](self).
///
/// To be shared by all who publish these states: what goes past it is not known to it.
///
/// # Examples
/// ```
/// use stasis_bus::distinct::Distinct;
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #[derive(PartialEq)]
/// struct DeviceState(&'static str, u32);
/// let bus = Bus::builder().lanes(1).build()?;
/// let topic = bus.topic("devicestate:all")?;
/// let kind = MessageType::new(&bus, "device_state")?;
/// let states = Distinct::new(&topic, &kind, |state: &DeviceState| state.0);
/// assert!(states.publish(DeviceState("SIP/100", 1))?);
/// assert!(!states.publish(DeviceState("SIP/100", 1))?); // a reload says it again
/// assert!(states.publish(DeviceState("SIP/100", 2))?);
/// assert_eq!((states.stats().published, states.stats().suppressed), (2, 1));
/// # Ok(()) }
/// ```
pub struct Distinct<K, P> {
    topic: Topic,
    kind: MessageType<P>,
    key: Box<dyn Fn(&P) -> K + Send + Sync>,
    entries: SharedMap<K, Entry>,
    keys: AtomicUsize,
    numbers: AtomicU64,
    published: AtomicU64,
    suppressed: AtomicU64,
    repeated: AtomicU64,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, P: PartialEq + Send + Sync + 'static> Distinct<K, P> {
    /// A publisher on `topic` of messages of `kind`, that remembers one state for each key.
    pub fn new(topic: &Topic, kind: &MessageType<P>, key: impl Fn(&P) -> K + Send + Sync + 'static) -> Self {
        Self {
            topic: topic.clone(),
            kind: kind.clone(),
            key: Box::new(key),
            entries: SharedMap::new(),
            keys: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
            published: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
        }
    }

    /// Where it publishes.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Publishes a state unless it is equal to the last one published for its key. Whether it was published.
    ///
    /// # Errors
    /// As [`Topic::publish`]; then the next state of the key is published, whatever it is.
    pub fn publish(&self, state: P) -> Result<bool, PublishError> {
        let key = (self.key)(&state);
        let mut ours = Draft::State(state);
        let (number, message) = loop {
            let entry = self.entry(&key);
            let (last, seen) = {
                let state = lock(&entry.0);
                (state.last.clone(), (state.number, state.is_out))
            };
            // Compared without the lock; what was true is looked at again below.
            if seen.1 && last.as_ref().and_then(Message::payload::<P>) == ours.state() {
                self.suppressed.fetch_add(1, Ordering::Relaxed);
                return Ok(false);
            }
            drop(last);
            let message = ours.into_message(&self.kind);
            let mut state = lock(&entry.0);
            if !state.removed && (state.number, state.is_out) == seen {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
                let old = state.last.replace(message.clone());
                (state.number, state.is_out) = (number, false);
                drop(state);
                drop(old);
                break (number, message);
            }
            let removed = state.removed;
            drop(state);
            if removed {
                // Not waiting for who removes it.
                self.entries.remove_same(&key, &entry);
            }
            ours = Draft::Message(message);
        };
        if let Err(error) = self.topic.publish(message) {
            self.take_back(&key, number);
            return Err(error);
        }
        self.published.fetch_add(1, Ordering::Relaxed);
        self.settle(&key, number);
        Ok(true)
    }

    /// The message of this number was published. If it is not the last one any more, that one may have been
    /// overtaken by it, and is published again.
    fn settle(&self, key: &K, mut number: u64) {
        while let Some(entry) = self.entries.get(key) {
            let later = {
                let mut state = lock(&entry.0);
                if state.number == number {
                    state.is_out = true;
                    return;
                }
                // Out again only when the repetition is.
                state.is_out = false;
                state.last.clone().map(|last| (last, state.number))
            };
            let Some((last, its_number)) = later else { return };
            self.repeated.fetch_add(1, Ordering::Relaxed);
            if self.topic.publish(last).is_err() {
                return self.take_back(key, its_number);
            }
            number = its_number;
        }
    }

    /// The message of this number was not published: nothing is known of the key, unless there is a later one.
    fn take_back(&self, key: &K, number: u64) {
        let Some(entry) = self.entries.get(key) else { return };
        let last = {
            let mut state = lock(&entry.0);
            if state.number != number {
                return;
            }
            (state.number, state.is_out) = (self.numbers.fetch_add(1, Ordering::Relaxed) + 1, false);
            state.last.take()
        };
        drop(last);
    }

    fn entry(&self, key: &K) -> Arc<Entry> {
        if let Some(entry) = self.entries.get(key) {
            return entry;
        }
        let new = Arc::<Entry>::default();
        let entry = self.entries.get_or_insert(key.clone(), Arc::clone(&new));
        if Arc::ptr_eq(&entry, &new) {
            self.keys.fetch_add(1, Ordering::Relaxed);
        }
        entry
    }

    /// The last message remembered for a key. May be stale at once.
    #[must_use]
    pub fn last(&self, key: &K) -> Option<Message> {
        let entry = self.entries.get(key)?;
        let state = lock(&entry.0);
        state.last.clone()
    }

    /// Forgets a key: its next state is published, whatever it is. False if it was not known.
    pub fn remove(&self, key: &K) -> bool {
        let Some(entry) = self.entries.get(key) else { return false };
        let last = {
            let mut state = lock(&entry.0);
            if state.removed {
                return false;
            }
            state.removed = true;
            state.is_out = false;
            state.last.take()
        };
        // The map lets go of removed entries late; the message goes now.
        drop(last);
        self.entries.remove_same(key, &entry);
        self.keys.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Figures so far.
    #[must_use]
    pub fn stats(&self) -> DistinctStats {
        DistinctStats {
            published: self.published.load(Ordering::Relaxed),
            suppressed: self.suppressed.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
            keys: self.keys.load(Ordering::Relaxed),
        }
    }
}

impl<K, P> fmt::Debug for Distinct<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distinct").field("topic", &self.topic).field("keys", &self.keys).finish_non_exhaustive()
    }
}
