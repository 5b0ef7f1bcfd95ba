//! What models of whole buses share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stasis_bus::model::settle;
use stasis_bus::{Bus, Delivery, Pinning, Subscription, Topic, WaitStrategy};

use crate::Drops;

/// Time does not pass in a model: a limit that is not reached.
pub const LONG: Duration = Duration::from_secs(1000);

/// The number that stands for the final message in a [`Log`].
pub const FINAL: usize = 99;

/// What a handler saw.
pub type Log = Arc<Mutex<Vec<usize>>>;

/// A bus of one lane with a small ring, and no room beyond it.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn bus() -> Bus {
    bus_with_budget(128)
}

/// A bus of one lane with a small ring, and so many bytes for what waits.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn bus_with_budget(bytes: usize) -> Bus {
    Bus::builder()
        .watchdog(None)
        .lanes(1)
        .pinning(Pinning::Off)
        .wait(WaitStrategy::Park)
        .ring_capacity(4)
        .memory_budget(bytes)
        .build()
        .expect("a bus")
}

/// Lets the lane's worker do what there is and go to sleep; from here on everything is explored.
pub fn begin(bus: &Bus) {
    settle(bus);
    loom::explore();
}

/// Subscribes to numbers; the log gets them, and [`FINAL`].
///
/// # Panics
/// If the topic's bus is closed.
pub fn subscribe(topic: &Topic, delivery: Delivery, log: &Log, drops: &Drops) -> Subscription {
    let (log, probe) = (Arc::clone(log), drops.probe());
    topic
        .subscriber()
        .delivery(delivery)
        .subscribe(move |received| {
            let _ = &probe;
            if received.is_final() {
                log.lock().unwrap().push(FINAL);
            } else if let Some(&n) = received.payload::<usize>() {
                log.lock().unwrap().push(n);
            }
        })
        .expect("subscribed")
}
