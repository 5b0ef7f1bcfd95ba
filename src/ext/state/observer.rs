//! Observers: told who subscribes and unsubscribes states.
//!
//! Guarantees: called in the thread that subscribes or unsubscribes, without any lock, a panic contained;
//! an observer is dropped outside all locks.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::subscriber::StateSubscriber;
use crate::contain::{discard, quietly, report_panic};
use crate::snapshot::SnapshotCell;
use crate::sync::{Arc, Mutex, Weak, lock};

/// Watches the subscribers of a manager's states.
///
/// Called on several threads at once if several subscribe; may call back into the manager.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, state::{StateManager, StateObserver, StateSubscriber}};
/// struct Print;
/// impl StateObserver for Print {
///     fn on_subscribe(&self, id: &str, _: &StateSubscriber) {
///         println!("somebody watches {id}");
///     }
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let manager = StateManager::new(&bus, "mwi:all")?;
/// let observation = manager.add_observer(Print);
/// let subscriber = manager.add_subscriber("100")?;
/// drop(observation);
/// # Ok(()) }
/// ```
pub trait StateObserver: Send + Sync + 'static {
    /// A subscriber was added; its subscription, if it has one, is in place.
    fn on_subscribe(&self, id: &str, subscriber: &StateSubscriber) {
        let _ = (id, subscriber);
    }

    /// A subscriber goes. Its subscription, if any, is unsubscribed; the state is still there.
    fn on_unsubscribe(&self, id: &str, subscriber: &StateSubscriber) {
        let _ = (id, subscriber);
    }
}

type List = Vec<Arc<dyn StateObserver>>;

struct Shared {
    list: SnapshotCell<List>,
    /// Writers of `list` hold it.
    writing: Mutex<()>,
}

pub(super) struct Observers(Arc<Shared>);

/// An observer in place; dropping it removes the observer. Calls that have begun on other threads may
/// still be running then.
#[must_use = "dropping it removes the observer"]
pub struct StateObservation {
    observers: Weak<Shared>,
    observer: Option<Arc<dyn StateObserver>>,
}

impl Observers {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared { list: SnapshotCell::new(Arc::default()), writing: Mutex::new(()) }))
    }

    pub(super) fn add(&self, observer: impl StateObserver) -> StateObservation {
        let observer: Arc<dyn StateObserver> = Arc::new(observer);
        self.0.change(|list| list.push(Arc::clone(&observer)));
        StateObservation { observers: Arc::downgrade(&self.0), observer: Some(observer) }
    }

    pub(super) fn subscribed(&self, subscriber: &StateSubscriber) {
        self.each(|observer| observer.on_subscribe(subscriber.id(), subscriber));
    }

    pub(super) fn unsubscribed(&self, subscriber: &StateSubscriber) {
        self.each(|observer| observer.on_unsubscribe(subscriber.id(), subscriber));
    }

    fn each(&self, call: impl Fn(&dyn StateObserver)) {
        let list = Arc::clone(&self.0.list.load());
        for observer in list.iter() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(&**observer))) {
                report_panic("a state observer", &*panic);
                discard(panic);
            }
        }
        // Perhaps the last reference to observers that were removed meanwhile.
        quietly(|| drop(list));
    }
}

impl Shared {
    fn change(&self, edit: impl FnOnce(&mut List)) {
        let writing = lock(&self.writing);
        let mut list = List::clone(&self.list.load());
        edit(&mut list);
        let old = self.list.swap(Arc::new(list));
        drop(writing);
        quietly(|| drop(old));
    }
}

impl Drop for StateObservation {
    fn drop(&mut self) {
        let Some(observer) = self.observer.take() else { return };
        if let Some(observers) = self.observers.upgrade() {
            observers.change(|list| list.retain(|other| !Arc::ptr_eq(other, &observer)));
        }
        quietly(|| drop(observer));
    }
}

impl std::fmt::Debug for StateObservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateObservation").finish_non_exhaustive()
    }
}
