//! Implicit publishers: a state kept by id and node, until it is removed by them.
//!
//! ```text
//!   (eid, id) ─► Managed           listed, and removed by (id, eid) or by eid
//! ```
//!
//! Guarantees: publishing again by the same id and node takes no lock; states are dropped outside the
//! lock. Cost: one entry per id and node.

use std::collections::HashMap;

use super::error::{StateError, StatePublishError};
use super::managed::Managed;
use super::registry::Registry;
use crate::error::PublishError;
use crate::message::{Eid, Message};
use crate::sync::{Arc, Mutex, Weak, lock};

/// Somebody who publishes a state by its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ImplicitPublisher {
    /// Id of the state.
    pub id: Arc<str>,
    /// The node; `None` is this one.
    pub eid: Option<Eid>,
}

/// Key: node and id.
type Key = (Option<Eid>, Arc<str>);

/// What keeps the states of a node.
type ById = HashMap<Arc<str>, Arc<Managed>>;

#[derive(Debug, Default)]
pub(super) struct Implicit {
    nodes: Mutex<HashMap<Option<Eid>, ById>>,
    /// The same without owning, for publishers: read without the lock, written under it.
    known: papaya::HashMap<Key, Weak<Managed>>,
}

impl Implicit {
    pub(super) fn publish(
        &self,
        registry: &Arc<Registry>,
        id: &str,
        eid: Option<Eid>,
        message: Message,
    ) -> Result<(), StatePublishError> {
        // Found while it is being removed: this publish then counts as made before the removal.
        let state = match self.find(id, eid) {
            Some(state) => state,
            None => match registry.hold(id) {
                Ok(state) => {
                    self.enter(eid, &state);
                    state
                }
                Err(StateError::NoId) => return Err(StatePublishError::NoId(message)),
                Err(_) => return Err(PublishError::Closed(message).into()),
            },
        };
        Ok(state.publish(message)?)
    }

    fn find(&self, id: &str, eid: Option<Eid>) -> Option<Arc<Managed>> {
        self.known.pin().get(&KeyRef(eid, id)).and_then(Weak::upgrade)
    }

    fn enter(&self, eid: Option<Eid>, state: &Arc<Managed>) {
        let id = state.id();
        let mut nodes = lock(&self.nodes);
        // An entry that is there holds the living state of this id, which is this one.
        nodes.entry(eid).or_default().entry(Arc::clone(id)).or_insert_with(|| Arc::clone(state));
        self.known.pin().insert((eid, Arc::clone(id)), Arc::downgrade(state));
    }

    pub(super) fn remove(&self, id: &str, eid: Option<Eid>, message: Option<Message>) -> Result<(), StatePublishError> {
        let mut nodes = lock(&self.nodes);
        let removed = nodes.get_mut(&eid).and_then(|states| states.remove(id));
        if nodes.get(&eid).is_some_and(HashMap::is_empty) {
            nodes.remove(&eid);
        }
        if removed.is_some() {
            self.known.pin().remove(&KeyRef(eid, id));
        }
        drop(nodes);
        match (removed, message) {
            (Some(state), Some(message)) => Ok(state.publish(message)?),
            (Some(_), None) => Ok(()),
            (None, message) => Err(StatePublishError::NotPublishing(message)),
        }
    }

    pub(super) fn remove_node(&self, eid: Option<Eid>) -> usize {
        let mut nodes = lock(&self.nodes);
        let states = nodes.remove(&eid).unwrap_or_default();
        for id in states.keys() {
            self.known.pin().remove(&KeyRef(eid, id));
        }
        drop(nodes);
        states.len()
    }

    pub(super) fn list(&self) -> Vec<ImplicitPublisher> {
        let nodes = lock(&self.nodes);
        let all = nodes.iter().flat_map(|(eid, states)| states.keys().map(|id| (*eid, Arc::clone(id))));
        all.map(|(eid, id)| ImplicitPublisher { id, eid }).collect()
    }
}

/// A key that is looked up without owning it.
#[derive(Hash)]
struct KeyRef<'a>(Option<Eid>, &'a str);

impl papaya::Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}
