//! Publishing with patience: waiting for room where the publisher can afford to.
//!
//! ```text
//!   publish ─► Full? ─► spin, yield ─► Full? ─► naps of 50 us ─► … ─► room, or the limit has passed
//! ```
//!
//! A publish never waits (G6). A source of bulk messages that finds the queues full mostly wants to wait, and a loop
//! of its own either burns a core that the lanes need or sleeps for too long.
//!
//! Guarantees: those of a publish; nothing waits inside a handler, whose lane may be the full one; cost while there is
//! room: that of a publish. Lanes do nothing for those who wait.

use std::time::{Duration, Instant};

use super::topic::Topic;
use crate::error::PublishError;
use crate::exec::frames;
use crate::message::{Message, depth};
use crate::sync::backoff::Backoff;
use crate::sync::thread;

/// Looks at the queues before the first nap: some microseconds.
const LOOKS: usize = 8;
/// A lane takes hundreds of messages in that time, and queues hold thousands.
const NAP: Duration = Duration::from_micros(50);

impl Topic {
    /// As [`publish`](Self::publish), waiting up to `limit` for room while a queue is full.
    ///
    /// Inside a handler, and on a thread that drives a bus without threads, it does not wait: the queue that is full
    /// may be the one that this thread serves. What others publish meanwhile may find room first.
    ///
    /// Cost: as [`publish`](Self::publish) while there is room; while there is none, some microseconds of spinning,
    /// then a nap of about 50 us between two looks.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); [`PublishError::Full`] when the time has passed.
    ///
    /// # Examples
    /// ```
    /// # use stasis_bus::{Bus, MessageType};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::builder().lanes(1).ring_capacity(1024).memory_budget(1024 * 16).build()?;
    /// let import = bus.topic("import")?;
    /// let row = MessageType::<u64>::new(&bus, "row")?;
    /// let rows = import.subscriber().accept(&row).subscribe(|_| ())?;
    /// for n in 0..10_000 {
    ///     import.publish_timeout(row.message(n), Duration::from_secs(10))?; // more than the queue holds
    /// }
    /// rows.unsubscribe().wait()?;
    /// # Ok(()) }
    /// ```
    pub fn publish_timeout(&self, message: Message, limit: Duration) -> Result<(), PublishError> {
        let message = match self.publish(message) {
            Err(PublishError::Full(message)) => message,
            done => return done,
        };
        if depth::current() != 0 || frames::is_worker_thread() || frames::is_driver_thread() {
            return Err(PublishError::Full(message));
        }
        self.publish_waiting(message, limit)
    }

    #[cold]
    fn publish_waiting(&self, mut message: Message, limit: Duration) -> Result<(), PublishError> {
        let begun = Instant::now();
        let mut backoff = Backoff::new();
        for look in 0.. {
            message = match self.publish(message) {
                Err(PublishError::Full(message)) => message,
                done => return done,
            };
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            if look < LOOKS {
                backoff.snooze();
            } else {
                thread::sleep(NAP.min(left));
            }
        }
        Err(PublishError::Full(message))
    }
}
