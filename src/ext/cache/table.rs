//! The table of a cache: how an entry is changed, and in which order changes are announced.
//!
//! ```text
//!   key ─► Slot ─► State { entry, phase, waiting }    one word, replaced whole (arc-swap)
//!
//!   change:  Quiet      ─ compare-and-swap ─► Announcing: this thread announces, then `settle`
//!            Announcing ─ compare-and-swap ─► Announcing, one more waiting: left to that thread
//!            Dead       ─ helps to remove the slot, begins again with a new one
//!   settle:  something waits? takes it, announces it, again; nothing: Quiet, or Dead if empty
//! ```
//!
//! Guarantees: changes of one entry are atomic, their versions grow, and announcements come in the
//! order of versions, one at a time, over removal and return of the entry too (`cache.rs`:
//! `updates_of_one_key_chain_over_two_caching_topics`; model: `loom-tests/tests/cache.rs`). A reader
//! never waits; a writer never waits for an announcement. What waits for an announcer is bounded: a change
//! past the bound is made and not announced, and counted before a later one is. No lock; user code (calculation,
//! announcement, destructors) runs between the steps, never inside one. An entry removed leaves an
//! empty slot for its announcement, then nothing. Cost of a change: two compare-and-swaps and two
//! small allocations, whatever the size of the table.

use super::entry::{CacheEntry, CacheKey, Entity, KeyRef};
use crate::ext::follow::Losses;
use crate::message::{Message, TypeId};
use crate::snapshot::SnapshotCell;
use crate::sync::map::SharedMap;
use crate::sync::{Arc, AtomicU64, Ordering, fence};

/// What a change did, for those who watch.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) entity: Entity,
    pub(super) old: Option<Message>,
    pub(super) new: Option<Message>,
    pub(super) before: Arc<CacheEntry>,
    pub(super) after: Arc<CacheEntry>,
    /// An aggregate that was calculated and is not the one before.
    pub(super) calculated: Option<Message>,
}

/// A change on its way to those who watch, by way of `to`.
#[derive(Debug)]
pub(super) struct Announcement<T> {
    pub(super) to: T,
    pub(super) change: Change,
    /// Whether another thread than the one that made the change announces it.
    pub(super) left: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Quiet,
    /// A thread is announcing, and will look for more.
    Announcing,
    /// Empty for ever, about to leave the map.
    Dead,
}

struct State<T> {
    entry: Arc<CacheEntry>,
    phase: Phase,
    waiting: Vec<Arc<Announcement<T>>>,
    /// A change that none of `waiting` tells of was made.
    lost: bool,
}

pub(super) struct Slot<T>(SnapshotCell<State<T>>);

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There was nothing to remove.
    Nothing,
    /// It was made, and announced by this thread.
    Announced,
    /// It was made; the thread that is announcing an earlier one announces it too.
    Left,
    /// It was made, and is announced by nobody: too many wait for the thread that is announcing.
    Lost,
}

/// What is to be changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    pub(super) kind: TypeId,
    pub(super) id: &'a str,
    pub(super) entity: Entity,
    pub(super) new: Option<&'a Message>,
    /// Id of the cached topic.
    pub(super) origin: u64,
}

/// Calculates the aggregate of an entry.
pub(super) type Calculate<'a> = dyn Fn(&CacheEntry, Option<&Message>) -> Option<Message> + Send + Sync + 'a;

pub(super) struct Table<T> {
    slots: SharedMap<CacheKey, Slot<T>>,
    /// Last version given out.
    versions: AtomicU64,
    /// Changes nobody is told of.
    losses: Losses,
}

/// Most changes of an entry that wait for the thread that announces an earlier one.
const MOST_WAITING: usize = 1024;

impl<T> Slot<T> {
    fn new(key: CacheKey) -> Arc<Self> {
        let entry = Arc::new(CacheEntry::empty(key));
        Arc::new(Self(SnapshotCell::new(Arc::new(State {
            entry,
            phase: Phase::Quiet,
            waiting: Vec::new(),
            lost: false,
        }))))
    }

    fn state(&self) -> Arc<State<T>> {
        Arc::clone(&*self.0.load())
    }
}

impl<T: Clone> Table<T> {
    pub(super) fn new() -> Self {
        Self { slots: SharedMap::new(), versions: AtomicU64::new(0), losses: Losses::new() }
    }

    /// The entry, if there is one.
    pub(super) fn get(&self, kind: TypeId, id: &str) -> Option<Arc<CacheEntry>> {
        let entry = Arc::clone(&self.slots.get(&KeyRef { kind, id })?.state().entry);
        (!entry.is_empty()).then_some(entry)
    }

    /// All entries. One that is there meanwhile is among them, in a version of that time.
    pub(super) fn entries(&self) -> Vec<Arc<CacheEntry>> {
        let entries = self.slots.values().into_iter().map(|slot| Arc::clone(&slot.state().entry));
        entries.filter(|entry| !entry.is_empty()).collect()
    }

    /// A version that is not below any that a reader has seen, and below all of changes still to come.
    pub(super) fn last_version(&self) -> u64 {
        // Relaxed: who saw an entry happens after its version was given out.
        self.versions.load(Ordering::Relaxed)
    }

    /// Changes nobody was or will be told of. Who is told of a later change of the same entry finds it counted.
    pub(super) fn losses(&self) -> &Losses {
        &self.losses
    }

    /// Slots, those of entries just removed too.
    pub(super) fn slots(&self) -> usize {
        self.slots.values().len()
    }

    /// Makes a change, and announces it unless another thread is announcing one of this entry: then that
    /// one does.
    pub(super) fn change(
        &self,
        order: Order<'_>,
        calculate: Option<&Calculate<'_>>,
        to: &T,
        announce: &dyn Fn(&Announcement<T>),
    ) -> Outcome {
        let key = KeyRef { kind: order.kind, id: order.id };
        loop {
            let slot = match (self.slots.get(&key), order.new) {
                (Some(slot), _) => slot,
                (None, None) => return Outcome::Nothing,
                (None, Some(_)) => {
                    let key = CacheKey::from_parts(order.kind, order.id);
                    self.slots.get_or_insert(key.clone(), Slot::new(key))
                }
            };
            if let Some(outcome) = self.change_slot(&slot, order, calculate, to, announce) {
                return outcome;
            }
        }
    }

    /// `None`: the slot is dead.
    fn change_slot(
        &self,
        slot: &Arc<Slot<T>>,
        order: Order<'_>,
        calculate: Option<&Calculate<'_>>,
        to: &T,
        announce: &dyn Fn(&Announcement<T>),
    ) -> Option<Outcome> {
        loop {
            let state = slot.state();
            if state.phase == Phase::Dead {
                self.slots.remove_same(state.entry.key(), slot);
                return None;
            }
            let old = state.entry.snapshot(order.entity).cloned();
            if old.is_none() && order.new.is_none() {
                return Some(Outcome::Nothing);
            }
            // Relaxed: the version of `state` was given out before we saw it, so ours is greater.
            let version = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
            let mut after = state.entry.with(order.entity, order.new, version, order.origin);
            let calculated = calculate.and_then(|calculate| calculate(&after, order.new));
            let kept = calculated.clone().filter(|_| !after.is_empty());
            after.set_aggregate(kept);
            let after = Arc::new(after);
            let change = Change {
                entity: order.entity,
                old,
                new: order.new.cloned(),
                before: Arc::clone(&state.entry),
                after: Arc::clone(&after),
                calculated: calculated.filter(|new| state.entry.aggregate().is_none_or(|old| !old.same_as(new))),
            };
            let left = state.phase == Phase::Announcing;
            let is_lost = state.waiting.len() >= MOST_WAITING;
            let announcement = Arc::new(Announcement { to: to.clone(), change, left });
            let mut waiting = state.waiting.clone();
            if left && !is_lost {
                waiting.push(Arc::clone(&announcement));
            }
            let next = Arc::new(State { entry: after, phase: Phase::Announcing, waiting, lost: state.lost || is_lost });
            if !slot.0.replace(&state, next) {
                continue;
            }
            // Meets the fence in `Follow::subscribe`: a follower finds this change, or its announcement the follower.
            fence::after_rmw();
            drop(state);
            if is_lost {
                self.losses.record();
                return Some(Outcome::Lost);
            }
            if left {
                return Some(Outcome::Left);
            }
            announce(&announcement);
            drop(announcement);
            self.settle(slot, announce);
            return Some(Outcome::Announced);
        }
    }

    /// Announces what others left meanwhile, then lets go of the slot.
    fn settle(&self, slot: &Arc<Slot<T>>, announce: &dyn Fn(&Announcement<T>)) {
        loop {
            let state = slot.state();
            let nothing_waits = state.waiting.is_empty();
            let phase = match (nothing_waits, state.entry.is_empty()) {
                (false, _) => Phase::Announcing,
                (true, false) => Phase::Quiet,
                (true, true) => Phase::Dead,
            };
            if state.lost {
                // Before anything that follows the lost change can be announced.
                self.losses.count();
            }
            let next = State { entry: Arc::clone(&state.entry), phase, waiting: Vec::new(), lost: false };
            let next = Arc::new(next);
            if !slot.0.replace(&state, next) {
                continue;
            }
            // As in `change_slot`, for the changes of others.
            fence::after_rmw();
            state.waiting.iter().for_each(|announcement| announce(announcement));
            if nothing_waits {
                if phase == Phase::Dead {
                    self.slots.remove_same(state.entry.key(), slot);
                }
                return;
            }
        }
    }
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}
