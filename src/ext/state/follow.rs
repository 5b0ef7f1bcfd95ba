//! Following all states, or one: the present ones first, then every later update.
//!
//! ```text
//!   follow():  subscribe to the notes ─► fence ─► snapshot ─► note "start" with it
//!   handler:   updates before "start" wait │ present states │ updates newer than what was seen
//! ```
//!
//! Guarantees: a state stored before the snapshot is in it; one stored later finds the follower
//! subscribed (the fences here and in `managed`). Versions of one life come in order (see `managed`), so
//! "newer than the last one seen" is each once. Lives are numbered over all ids: an update of a life that
//! began before the snapshot and is not in it belongs to a state that had gone, and is left out.
//! Bound: a map entry per id that lives; updates are kept only between subscribing and "start".

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::error::StateError;
use super::registry::Registry;
use crate::bus::{Received, SubscriberBuilder, Subscription};
use crate::contain::{discard, report_panic};
use crate::error::PublishError;
use crate::message::Message;
use crate::sync::plain::AtomicU64;
use crate::sync::{Arc, Ordering, fence};

/// A version of a state, on its way to followers.
#[derive(Clone, Debug)]
pub(super) struct Present {
    pub(super) id: Arc<str>,
    pub(super) life: u64,
    pub(super) version: u64,
    pub(super) message: Option<Message>,
}

/// What followers are told.
#[derive(Debug)]
pub(super) enum Note {
    /// For one follower: the snapshot, and the number of lives begun before it.
    Start { follower: u64, lives: u64, states: Vec<Present> },
    /// A state has a new version.
    Update(Present),
    /// A state's last owner is gone. The last note of this life.
    Removed { id: Arc<str>, life: u64 },
}

/// What a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateChangeKind {
    /// The state as it was when following began.
    Present,
    /// A later update.
    Update,
    /// The state is gone: nobody publishes or subscribes it any more.
    Removed,
}

/// What a follower of all states is told. See [`StateManager::follow`](super::StateManager::follow).
#[derive(Clone, Copy, Debug)]
pub struct StateChange<'a> {
    id: &'a str,
    kind: StateChangeKind,
    version: u64,
    message: Option<&'a Message>,
}

impl<'a> StateChange<'a> {
    /// Id of the state.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// What happened to it.
    #[must_use]
    pub fn kind(&self) -> StateChangeKind {
        self.kind
    }

    /// How many messages were published to the state since it was made, this one included. Follows without
    /// a gap from one change of an id to the next, and begins at 1 again after a removal.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The message; `None` for a removal.
    #[must_use]
    pub fn message(&self) -> Option<&'a Message> {
        self.message
    }
}

/// The handler's side.
struct Follower<F> {
    number: u64,
    handler: F,
    /// The one id that is followed; `None`: all.
    only: Option<Box<str>>,
    /// Lives begun before the snapshot; `None` before it came.
    lives: Option<u64>,
    /// Life and version last seen, of ids that live.
    seen: HashMap<Arc<str>, (u64, u64)>,
    /// Updates and removals that came before the snapshot.
    early: Vec<Message>,
    /// The first panic of the handler in this call.
    panic: Option<Box<dyn Any + Send>>,
}

impl<F: FnMut(&StateChange<'_>)> Follower<F> {
    fn receive(&mut self, message: &Message) {
        let Some(note) = message.payload::<Note>() else { return };
        match (note, self.lives) {
            (Note::Start { follower, lives, states }, None) if *follower == self.number => {
                self.lives = Some(*lives);
                for state in states {
                    self.seen.insert(Arc::clone(&state.id), (state.life, state.version));
                }
                states.iter().for_each(|state| self.call(StateChangeKind::Present, state));
                let early = std::mem::take(&mut self.early);
                early.iter().filter_map(Message::payload::<Note>).for_each(|note| self.change(note, *lives));
            }
            (Note::Start { .. }, _) => {}
            (Note::Update(state), None) if !self.follows(&state.id) => {}
            (_, None) => self.early.push(message.clone()),
            (note, Some(lives)) => self.change(note, lives),
        }
        if let Some(panic) = self.panic.take() {
            resume_unwind(panic);
        }
    }

    fn change(&mut self, note: &Note, lives: u64) {
        match note {
            Note::Start { .. } => {}
            Note::Update(state) if !self.follows(&state.id) => {}
            Note::Update(state) => {
                let is_new = match self.seen.get(&state.id) {
                    Some(&seen) => (state.life, state.version) > seen,
                    None => state.life > lives,
                };
                if is_new {
                    self.seen.insert(Arc::clone(&state.id), (state.life, state.version));
                    self.call(StateChangeKind::Update, state);
                }
            }
            Note::Removed { id, life } => {
                if let Some(&(seen, version)) = self.seen.get(id)
                    && seen == *life
                {
                    self.seen.remove(id);
                    let state = Present { id: Arc::clone(id), life: *life, version, message: None };
                    self.call(StateChangeKind::Removed, &state);
                }
            }
        }
    }

    fn follows(&self, id: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == id)
    }

    /// Calls the handler; the changes that come with this one are told even if it panics.
    fn call(&mut self, kind: StateChangeKind, state: &Present) {
        if state.version == 0 {
            return;
        }
        let change = StateChange { id: &state.id, kind, version: state.version, message: state.message.as_ref() };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.handler)(&change))) {
            if self.panic.is_none() {
                self.panic = Some(panic);
            } else {
                report_panic("a follower of states", &*panic);
                discard(panic);
            }
        }
    }
}

/// Subscribes a follower of all states, or of one id.
pub(super) fn follow(
    registry: &Arc<Registry>,
    only: Option<&str>,
    builder: SubscriberBuilder<'_>,
    handler: impl FnMut(&StateChange<'_>) + Send + 'static,
) -> Result<Subscription, StateError> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut follower = Follower {
        number,
        handler,
        only: only.map(Into::into),
        lives: None,
        seen: HashMap::new(),
        early: Vec::new(),
        panic: None,
    };
    let subscription =
        builder.accept(registry.note()).subscribe(move |received: &Received<'_>| follower.receive(received))?;
    // Meets the fence in `Managed::tell`.
    fence::full();
    let (states, lives) = registry.snapshot(only);
    let present = states.iter().map(|state| state.present()).collect();
    drop(states);
    match registry.tell(Note::Start { follower: number, lives, states: present }) {
        Ok(()) => Ok(subscription),
        Err(PublishError::Closed(_)) => Err(StateError::Closed),
        Err(PublishError::Full(_) | PublishError::Feedback(_)) => Err(StateError::Full),
    }
}
