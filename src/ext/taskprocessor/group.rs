//! Waiting for many serializers to end.
//!
//! ```text
//!   ShutdownGroup ◄─ member ─ serializer (leaves when it has ended and its last task is done)
//!        └─ join(limit): all gone, or who is not
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::{EndError, Unfinished};
use super::task;
use crate::sync::{Arc, Condvar, Mutex, lock, wait_while};

#[derive(Debug, Default)]
struct Inner {
    members: Mutex<BTreeMap<u64, Arc<str>>>,
    left: Condvar,
}

/// Serializers whose end somebody wants to wait for. Handles are cheap to clone. It ends nothing itself:
/// members end when their last handles are dropped.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::{ShutdownGroup, TaskPool};
/// use std::time::Duration;
/// let pool = TaskPool::builder("pjsip").build().unwrap();
/// let group = ShutdownGroup::new();
/// let serializer = pool.serializer_in("pjsip/default", &group).unwrap();
/// serializer.push(|| println!("work")).unwrap();
/// drop(serializer);
/// group.join(Duration::from_secs(5)).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct ShutdownGroup(Arc<Inner>);

impl ShutdownGroup {
    /// A group without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Members now.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.0.members).len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the members now, in order of joining.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        lock(&self.0.members).values().map(|name| name.to_string()).collect()
    }

    /// Waits until all members have ended. The wait blocks the calling thread: in a handler on a lane, its
    /// lane and the serializers there.
    ///
    /// # Errors
    /// [`EndError::Timeout`] naming those that had not: their number is that of
    /// [`unfinished`](EndError::unfinished). [`EndError::OwnTask`] at once from a member's task.
    pub fn join(&self, limit: Duration) -> Result<(), EndError> {
        let own = task::running_here();
        let members = lock(&self.0.members);
        if own.iter().any(|id| members.contains_key(id)) {
            return Err(EndError::OwnTask);
        }
        let members = wait_while(&self.0.left, members, limit, |members| !members.is_empty());
        if members.is_empty() {
            return Ok(());
        }
        let unfinished =
            members.values().map(|name| Unfinished { name: name.to_string(), running: None, waiting: 0 }).collect();
        Err(EndError::Timeout(unfinished))
    }

    pub(super) fn enter(&self, id: u64, name: Arc<str>) -> Member {
        lock(&self.0.members).insert(id, name);
        Member { group: self.clone(), id }
    }
}

/// Membership; ends when dropped.
#[derive(Debug)]
pub(super) struct Member {
    group: ShutdownGroup,
    id: u64,
}

impl Drop for Member {
    fn drop(&mut self) {
        lock(&self.group.0.members).remove(&self.id);
        self.group.0.left.notify_all();
    }
}
