//! Forwards: everything published on one topic goes to the subscribers of another too.
//!
//! Resolved when made: downstream subscribers are entered into the lists upstream (see `control`), so
//! a publish walks one list whatever the depth.

use super::topic::Topic;
use crate::error::Closed;

/// A forward. Keeps both topics alive; dropping it cancels it.
///
/// # Examples
/// ```
/// use stasis_bus::Bus;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let (one, all) = (bus.topic("channel:1")?, bus.topic("channel:all")?);
/// let _subscription = all.subscribe(|_| ())?;
/// let forward = one.forward_to(&all)?;
/// assert_eq!(one.subscribers(), 1);
/// forward.cancel();
/// assert_eq!(one.subscribers(), 0);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropping a forward cancels it"]
pub struct Forward {
    from: Topic,
    to: Topic,
    id: u64,
}

impl Forward {
    pub(super) fn new(from: &Topic, to: &Topic) -> Result<Self, Closed> {
        let id = from.0.bus.control.forward(&from.0, &to.0).ok_or(Closed)?;
        Ok(Self { from: from.clone(), to: to.clone(), id })
    }

    /// The topic that is forwarded.
    #[must_use]
    pub fn from(&self) -> &Topic {
        &self.from
    }

    /// The topic whose subscribers get it.
    #[must_use]
    pub fn to(&self) -> &Topic {
        &self.to
    }

    /// Takes the forward out. Publishes that began before may still use it. The same as dropping it.
    pub fn cancel(self) {
        drop(self);
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.from.0.bus.control.cancel(&self.from.0, &self.to.0, self.id);
    }
}
