//! Updates that were lost, and those who have to know.
//!
//! ```text
//!   count() ─► number, looked at with every update ◄── follower: begins again if it has grown
//!   tell()  ─► each follower, unless one is on its way to it: a message that is never refused ─┘
//! ```
//!
//! Guarantees: a loss counted before a later update is published is seen by whoever gets that update; a loss
//! that was told is seen by every follower, at most one message each waiting for that
//! (model: `loom-tests/tests/follow.rs`, `a_loss_is_seen_before_the_next_update`). Cost: of a loss, O(followers); of an update, one load.

use crate::bus::Topic;
use crate::message::{Message, MessageType};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, Weak, global, lock};

enum Lost {
    /// Something was lost.
    Told,
    /// From here on it counts again.
    Mark,
}

global! {
    static LOST: MessageType<Lost> = MessageType::builder("stasis_bus_follow_lost")
        .register(Arc::default())
        .unwrap_or_else(|error| panic!("cannot register the type that tells followers of losses: {error}"));
}

/// The type of what is told.
pub(super) fn kind() -> &'static MessageType<impl Send + Sync + 'static> {
    &*LOST
}

/// Where a follower hears of losses.
pub(super) struct Ear {
    /// The follower's own.
    private: Topic,
    /// A message is on its way.
    told: Arc<AtomicBool>,
}

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ear").finish_non_exhaustive()
    }
}

impl Ear {
    pub(super) fn new(private: &Topic) -> Arc<Self> {
        Arc::new(Self { private: private.clone(), told: Arc::default() })
    }

    pub(super) fn told(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.told)
    }

    fn tell(&self) {
        // AcqRel: if one is on its way, its reader meets this and finds the loss counted.
        if !self.told.swap(true, Ordering::AcqRel) {
            // Refused after shutdown only: nothing is followed then.
            let _ = self.private.0.publish_control(LOST.message(Lost::Told));
        }
    }

    /// Puts a mark into the follower's queue.
    pub(super) fn mark(&self) {
        let _ = self.private.0.publish_control(LOST.message(Lost::Mark));
    }
}

/// If the message is what is told: the next loss is told anew, and those so far are found counted.
pub(super) fn heard(message: &Message, told: &AtomicBool) -> bool {
    let is_told = matches!(message.payload(), Some(Lost::Told));
    if is_told {
        told.swap(false, Ordering::AcqRel);
    }
    is_told
}

pub(super) fn is_mark(message: &Message) -> bool {
    matches!(message.payload(), Some(Lost::Mark))
}

/// Counts updates that a [`Source`](super::Source) made and could not publish, and has its followers begin again.
///
/// # Examples
/// ```
/// use stasis_bus::follow::Losses;
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let (topic, update) = (bus.topic("updates")?, MessageType::<u64>::new(&bus, "update")?);
/// let losses = Losses::new(); // kept where `Source::losses` finds it
/// if topic.publish(update.message(1)).is_err() {
///     losses.record(); // followers will read the entries again
/// }
/// assert_eq!(losses.number(), 0);
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct Losses {
    number: AtomicU64,
    /// A leaf: nothing is published or dropped under it.
    ears: Mutex<Vec<Weak<Ear>>>,
}

impl Losses {
    /// None so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many updates were lost.
    #[must_use]
    pub fn number(&self) -> u64 {
        // Acquire: meets the Release in `count`. Who then reads the entries finds what was lost.
        self.number.load(Ordering::Acquire)
    }

    /// An update was lost: followers begin again. To be called when the entry can be read as it is after the
    /// update, and before a later update of its key is published. Never waits. Cost: O(followers).
    pub fn record(&self) {
        self.count();
        self.tell();
    }

    /// The first half of [`record`](Self::record).
    pub(crate) fn count(&self) {
        self.number.fetch_add(1, Ordering::Release);
    }

    /// The second half.
    pub(crate) fn tell(&self) {
        let ears: Vec<_> = lock(&self.ears).iter().filter_map(Weak::upgrade).collect();
        ears.iter().for_each(|ear| ear.tell());
    }

    /// Tells this one, too, while it lives.
    pub(super) fn add(&self, ear: &Arc<Ear>) {
        let mut ears = lock(&self.ears);
        if ears.len() == ears.capacity() {
            ears.retain(|ear| ear.strong_count() > 0);
        }
        ears.push(Arc::downgrade(ear));
    }
}

impl std::fmt::Debug for Losses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Losses").field("number", &self.number()).finish_non_exhaustive()
    }
}
