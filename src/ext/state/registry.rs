//! Which states there are.
//!
//! ```text
//!   find: papaya, no lock ─► Weak ─upgrade─► Managed
//!   hold: find, or make topic and forward, then enter under the lock ─► life number
//!   Managed::drop ─► forget, if the entry is still its own
//! ```
//!
//! Guarantees: an id has one living state at a time; life numbers rise over all states of a manager, and
//! a snapshot holds exactly the living states with numbers up to its own. The lock is held for the map
//! alone: no topic is made, no message published and no state dropped under it. The map holds weak
//! references, so what it frees late is never a user's.

use super::error::StateError;
use super::follow::Note;
use super::managed::Managed;
use super::observer::Observers;
use crate::bus::{Bus, Topic};
use crate::error::PublishError;
use crate::message::{Message, MessageType};
use crate::sync::map::SharedMap;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Weak, lock};

/// What the states of a manager share.
pub(super) struct Registry {
    bus: Bus,
    all: Topic,
    /// Where followers listen. Its name is that of an empty id, which no state has.
    notes: Topic,
    note: MessageType<Note>,
    states: SharedMap<Arc<str>, Weak<Managed>>,
    /// Lives begun. Writers of `states` hold it.
    lives: Mutex<u64>,
    observers: Observers,
    /// Notes of removals that found a queue full.
    untold: Mutex<Vec<Message>>,
    /// Whether `untold` holds any.
    has_untold: AtomicBool,
}

impl Registry {
    pub(super) fn new(bus: &Bus, name: &str) -> Result<Self, StateError> {
        if name.is_empty() {
            return Err(StateError::NoName);
        }
        Ok(Self {
            all: bus.topic(name)?,
            notes: bus.topic_with_detail(format!("{name}/"), "notes for followers of states")?,
            note: MessageType::new(bus, "stasis_state_note_type")?,
            bus: bus.clone(),
            states: SharedMap::new(),
            lives: Mutex::new(0),
            observers: Observers::new(),
            untold: Mutex::default(),
            has_untold: AtomicBool::new(false),
        })
    }

    pub(super) fn all(&self) -> &Topic {
        &self.all
    }

    pub(super) fn notes(&self) -> &Topic {
        &self.notes
    }

    pub(super) fn note(&self) -> &MessageType<Note> {
        &self.note
    }

    pub(super) fn observers(&self) -> &Observers {
        &self.observers
    }

    pub(super) fn is_closed(&self) -> bool {
        self.bus.is_closed()
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// The state of this id, if there is one.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Managed>> {
        self.states.get(id)?.upgrade()
    }

    /// The state of this id, made if there is none.
    pub(super) fn hold(self: &Arc<Self>, id: &str) -> Result<Arc<Managed>, StateError> {
        if id.is_empty() {
            return Err(StateError::NoId);
        }
        if self.is_closed() {
            return Err(StateError::Closed);
        }
        if let Some(state) = self.find(id) {
            return Ok(state);
        }
        // Two threads may both come here: both forwards are the same way to the same topic, and the second
        // one goes again.
        let topic = self.bus.topic(format!("{}/{id}", self.all.name()))?;
        let forward = topic.forward_to(&self.all)?;
        let id: Arc<str> = id.into();
        let mut lives = lock(&self.lives);
        if let Some(state) = self.find(&id) {
            drop(lives);
            return Ok(state);
        }
        *lives += 1;
        let state = Arc::new(Managed::new(Arc::clone(self), Arc::clone(&id), *lives, topic, forward));
        self.states.insert(id, Arc::new(Arc::downgrade(&state)));
        drop(lives);
        Ok(state)
    }

    /// The state's last owner is gone.
    pub(super) fn forget(&self, state: &Managed) {
        let lives = lock(&self.lives);
        if let Some(entry) = self.states.get(state.id())
            && std::ptr::eq(entry.as_ptr(), state)
        {
            self.states.remove_same(state.id(), &entry);
        }
        drop(lives);
    }

    /// The living states, or the one of this id, and the number of lives begun so far.
    pub(super) fn snapshot(&self, only: Option<&str>) -> (Vec<Arc<Managed>>, u64) {
        let lives = lock(&self.lives);
        let states = match only {
            Some(id) => self.find(id).into_iter().collect(),
            None => self.states.values().iter().filter_map(|state| state.upgrade()).collect(),
        };
        (states, *lives)
    }

    /// Tells followers.
    pub(super) fn tell(&self, note: Note) -> Result<(), PublishError> {
        self.tell_untold();
        self.notes.publish(self.note.message(note))
    }

    /// As [`tell`](Self::tell); what finds a queue full is told before the next note.
    pub(super) fn tell_removal(&self, note: Note) {
        if let Err(PublishError::Full(message)) = self.tell(note) {
            lock(&self.untold).push(message);
            // Release: who sees it finds the message.
            self.has_untold.store(true, Ordering::Release);
        }
    }

    fn tell_untold(&self) {
        // Acquire: meets the Release in `tell_removal`. A note pushed but not seen yet waits for the next.
        if !self.has_untold.load(Ordering::Acquire) || !self.has_untold.swap(false, Ordering::AcqRel) {
            return;
        }
        let untold = std::mem::take(&mut *lock(&self.untold));
        for message in untold {
            if let Err(PublishError::Full(message)) = self.notes.publish(message) {
                lock(&self.untold).push(message);
                self.has_untold.store(true, Ordering::Release);
            }
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("all", &self.all.name()).field("states", &self.len()).finish_non_exhaustive()
    }
}
