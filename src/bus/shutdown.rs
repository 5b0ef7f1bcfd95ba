//! The end of a bus, in phases, with a deadline.
//!
//! ```text
//!   1 close intake   publishes and subscribes that begin from now on are refused
//!   2 grace          publishers that were in the middle are done (epoch, see `reclaim`)
//!   3 final messages every subscription off the lists; what is queued is delivered, then the final one
//!   4 stop           lanes end behind all that, threads are joined, retired lists freed
//! ```
//!
//! Guarantees: it ends (G11): after the deadline it returns with the names of those who keep it; what
//! was accepted is delivered before the final messages; lanes that a culprit blocks end when it returns.
//! From a handler it works too: that handler's own subscription is the culprit.

use std::time::{Duration, Instant};

use super::BusCore;
use super::change::{ChangeKind, SubscriptionChange, unique_id};
use super::subscriber::Subscriber;
use super::subscribers::Subscribers;
use crate::error::{Culprit, ShutdownError};
use crate::exec::audience::Identified;
use crate::exec::frames::WaitPlan;
use crate::exec::lane::Control;
use crate::reclaim;
use crate::sync::{Arc, thread};

/// What was left when the bus had ended.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Subscriptions that got their final message in this shutdown.
    pub ended: usize,
    /// Topics that somebody still holds, with where they were made.
    pub topics: Vec<Alive>,
    /// Bytes of ring memory still in use, those of the bus's own lanes included.
    pub ring_bytes: usize,
    /// Whether all retired lists were freed within the deadline.
    pub reclaimed: bool,
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
    let name = subscriber.name.as_deref().map_or_else(
        || unique_id(&topic, subscriber.id()),
        |name| format!("{name} ({})", unique_id(&topic, subscriber.id())),
    );
    Culprit {
        subscription: name,
        topic,
        location: subscriber.location.to_string(),
        running: subscriber.route.lane().is_none_or(|lane| lane.running() == Some(subscriber.id())),
    }
}

pub(super) fn shutdown(bus: &Arc<BusCore>, limit: Duration) -> Result<ShutdownReport, ShutdownError> {
    let deadline = Instant::now() + limit;
    bus.close();
    // Without the grace period a straggler's message may come after the final one: it is late then,
    // not lost. The lanes' memory is counted, so nothing is freed under it.
    let _ = reclaim::synchronize(deadline);

    let topics = bus.live_topics();
    let mut leaving = Vec::new();
    for topic in &topics {
        for subscriber in bus.control.evict(topic) {
            if subscriber.leave() {
                let message = SubscriptionChange::message(&topic.name, subscriber.id(), ChangeKind::Unsubscribe);
                subscriber.queue_final(message);
            }
            leaving.push(subscriber);
        }
    }
    drop(topics);
    let late: Vec<_> = leaving.iter().filter(|subscriber| !wait(subscriber, deadline)).collect();
    let culprits: Vec<Culprit> = late.into_iter().map(|subscriber| culprit(subscriber)).collect();
    let ended = leaving.len();
    drop(leaving);

    for lane in &bus.homes.lanes {
        // Handed back by a lane that has ended already.
        let _ = lane.control(Control::Stop);
    }
    let threads = bus.homes.take_threads();
    while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline && culprits.is_empty() {
        thread::sleep(Duration::from_micros(50));
    }
    for thread in threads {
        if thread.is_finished() {
            let _ = thread.join();
        } else {
            bus.homes.adopt(thread);
        }
    }
    while bus.reclaimer.is_pending() {
        bus.reclaimer.tick();
        if Instant::now() >= deadline {
            break;
        }
    }
    if !culprits.is_empty() {
        return Err(ShutdownError { deadline: limit, culprits });
    }
    let topics = bus.live_topics();
    let topics = topics
        .iter()
        .map(|topic| Alive { name: topic.name.to_string(), location: topic.location.to_string() })
        .collect();
    Ok(ShutdownReport { ended, topics, ring_bytes: bus.budget.used(), reclaimed: !bus.reclaimer.is_pending() })
}

impl Subscribers {
    /// Those subscribed to this very topic.
    fn own(&self, topic_id: u64) -> Vec<Arc<Subscriber>> {
        self.iter().map(|entry| &entry.member).filter(|member| member.topic_id == topic_id).cloned().collect()
    }
}

impl super::control::ControlPath {
    /// Empties a topic's list; returns the topic's own subscriptions.
    fn evict(&self, topic: &super::topic::TopicInner) -> Vec<Arc<Subscriber>> {
        let own = topic.list.load().own(topic.id);
        self.clear(topic);
        own
    }
}
