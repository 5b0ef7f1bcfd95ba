//! The end of a bus, in phases, with a deadline.
//!
//! ```text
//!   1 close intake   publishes and subscribes that begin from now on are refused
//!   2 grace          publishers that were in the middle are done (epoch, see `reclaim`; those that deliver
//!                    themselves: a count)
//!   3 final messages every subscription off the lists; what is queued is delivered, then the final one
//!   4 stop           lanes end behind all that, threads are joined, retired lists freed
//! ```
//!
//! Guarantees: it ends (G11): after the deadline it returns with the names of those who keep it; what
//! was accepted is delivered before the final messages; lanes that a culprit blocks end when it returns.
//! From a handler it works too: that handler's own subscription is the culprit.
//! Models: `loom-tests/tests/bus.rs`.

use std::time::{Duration, Instant};

use super::BusCore;
use super::change::{ChangeKind, SubscriptionChange, unique_id};
use super::subscriber::Subscriber;
use crate::error::{Culprit, ShutdownError};
use crate::exec::audience::Identified;
use crate::exec::frames::{self, WaitPlan};
use crate::exec::lane::Control;
use crate::reclaim;
use crate::sync::{Arc, thread};

/// What was left when the bus had ended.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Subscriptions that ended in this shutdown, those that were leaving already included.
    pub ended: usize,
    /// Topics that somebody still holds, with where they were made.
    pub topics: Vec<Alive>,
    /// Bytes of ring memory still in use, those of the bus's own lanes included.
    pub ring_bytes: usize,
    /// Whether all retired lists were freed within the deadline.
    pub reclaimed: bool,
    /// Threads of the bus that had not ended at the deadline; one if it was called in a handler, on that thread.
    pub threads: usize,
}

/// Something that outlives the shutdown, for a leak report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Name of the topic.
    pub name: String,
    /// Where it was made.
    pub location: String,
}

fn wait(subscriber: &Arc<Subscriber>, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    subscriber.done.is_done()
        || WaitPlan::announce(subscriber.id()).and_then(|plan| plan.wait(&subscriber.done, Some(left))).is_ok()
}

fn culprit(subscriber: &Subscriber) -> Culprit {
    let topic = subscriber.topic.upgrade().map_or_else(|| "(gone)".to_owned(), |topic| topic.name.to_string());
    let name = subscriber.name().map_or_else(
        || unique_id(&topic, subscriber.id()),
        |name| format!("{name} ({})", unique_id(&topic, subscriber.id())),
    );
    Culprit {
        subscription: name,
        topic,
        location: subscriber.location.to_string(),
        running: subscriber.route.lane().is_none_or(|lane| lane.is_running(subscriber.id())),
    }
}

/// The instant `limit` from now; a limit beyond what the clock can say is a century.
fn deadline_after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now + Duration::from_secs(100 * 365 * 24 * 3600))
}

/// Phases 1 and 2.
pub(crate) fn close_intake(bus: &BusCore, deadline: Instant) {
    bus.close();
    // Without the grace period a straggler's message may come after the final one: it is late then,
    // not lost.
    if reclaim::synchronize(deadline) {
        wait_for_deliveries(bus, deadline);
    }
}

/// Until inline handlers of publishers in the middle have returned; in such a handler not at all. One that takes
/// longer than half the time there is has its other subscriptions ended without it, else all of them would be late.
fn wait_for_deliveries(bus: &BusCore, deadline: Instant) {
    let began = Instant::now();
    let until = began + deadline.saturating_duration_since(began) / 2;
    let mut pause = Duration::from_micros(1);
    while !bus.counters.is_quiet() && !frames::is_in_inline_handler() && Instant::now() < until {
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
}

pub(super) fn shutdown(bus: &Arc<BusCore>, limit: Duration) -> Result<ShutdownReport, ShutdownError> {
    let deadline = deadline_after(limit);
    close_intake(bus, deadline);
    finish(bus, limit, deadline)
}

/// Phases 3 and 4.
pub(crate) fn finish(bus: &BusCore, limit: Duration, deadline: Instant) -> Result<ShutdownReport, ShutdownError> {
    let mut ended = bus.control.leaving().len();
    let topics = bus.topics_by_age();
    for topic in &topics {
        for subscriber in bus.control.evict(topic) {
            if subscriber.leave() {
                let message = SubscriptionChange::message(&topic.name, subscriber.id(), ChangeKind::Unsubscribe);
                subscriber.queue_final(message);
                ended += 1;
            }
        }
    }
    drop(topics);
    // Those just taken off the lists, and those that somebody else is taking off.
    let culprits: Vec<Culprit> = bus
        .control
        .leaving()
        .into_iter()
        .filter(|subscriber| !wait(subscriber, deadline))
        .map(|subscriber| culprit(&subscriber))
        .collect();

    for lane in &bus.homes.lanes {
        // Handed back by a lane that has ended already.
        let _ = lane.control(Control::Stop);
    }
    let threads = if culprits.is_empty() { bus.homes.join_threads(deadline) } else { 0 };
    // A bus without threads: its lanes end here.
    while frames::drive() {}
    while bus.reclaimer.is_pending() {
        bus.reclaimer.tick();
        if Instant::now() >= deadline {
            break;
        }
        // Somebody is pinned, or a lane has yet to free what it was told to.
        if !frames::drive() {
            thread::yield_now();
        }
    }
    if !culprits.is_empty() {
        return Err(ShutdownError { deadline: limit, culprits });
    }
    let topics = bus.topics_by_age();
    let topics = topics
        .iter()
        .map(|topic| Alive { name: topic.name.to_string(), location: topic.location.to_string() })
        .collect();
    Ok(ShutdownReport { ended, topics, ring_bytes: bus.budget.used(), reclaimed: !bus.reclaimer.is_pending(), threads })
}
