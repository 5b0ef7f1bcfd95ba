//! What the replay publishes and who receives it: a payload that says which recorded publish it
//! is, and a handler that notes every call in a log of its own.

use super::plan::{Delivery, PublishId};
use super::stage::Stage;
use stasis_bus::{ChangeKind, Handler, Received, SubscriptionChange};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Payloads alive, spread over lines of their own: every publisher and every lane counts here.
static ALIVE: [Shard; 32] = [const { Shard(AtomicI64::new(0)) }; 32];

#[repr(align(128))]
struct Shard(AtomicI64);

/// Payloads that have been made and not been dropped.
pub(crate) fn payloads_alive() -> i64 {
    ALIVE.iter().map(|shard| shard.0.load(Relaxed)).sum()
}

/// A recorded message as it travels.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) publish: PublishId,
    pub(crate) message: u32,
    pub(crate) thread: u32,
    /// Place among the publishes of that thread.
    pub(crate) sequence: u32,
}

impl Payload {
    pub(crate) fn new(publish: PublishId, message: u32, thread: u32, sequence: u32) -> Self {
        ALIVE[publish as usize % ALIVE.len()].0.fetch_add(1, Relaxed);
        Payload { publish, message, thread, sequence }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        ALIVE[self.publish as usize % ALIVE.len()].0.fetch_sub(1, Relaxed);
    }
}

/// What a handler was called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Publish(PublishId),
    /// A subscription change of the bus, by its own subscription id.
    Subscribed(u64),
    Unsubscribed(u64),
    Final,
    /// Nothing that this replay published.
    Foreign,
}

/// One call of a handler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) key: Key,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The handler of one subscription. Dropped by the bus, it leaves its log with the stage.
pub(crate) struct Listener {
    stage: Arc<Stage>,
    sub: u32,
    log: Vec<Call>,
}

impl Listener {
    pub(crate) fn new(stage: Arc<Stage>, sub: u32) -> Self {
        let expected = stage.plan.expected[sub as usize] as usize;
        Listener { stage, sub, log: Vec::with_capacity(expected + expected / 4 + 16) }
    }

    /// Does what the original did when it got this message, as often as it got it.
    fn act(&self, received: &Received<'_>, key: Key, start: u64) {
        let stage = &self.stage;
        let plan = &stage.plan;
        let publish = match key {
            Key::Publish(publish) => publish,
            Key::Final => {
                plan.finals[self.sub as usize].iter().for_each(|delivery| self.repeat(delivery, start));
                return;
            }
            Key::Subscribed(_) | Key::Unsubscribed(_) if stage.settings.work || plan.changes_act => {
                let Some(publish) = received.payload().and_then(|change| stage.publish_of(change)) else { return };
                publish
            }
            _ => return,
        };
        let publish = &plan.publishes[publish as usize];
        if publish.has_callbacks || stage.settings.work {
            let ours = publish.recorded.iter().filter(|delivery| delivery.sub == self.sub);
            ours.for_each(|delivery| self.repeat(delivery, start));
        }
    }

    fn repeat(&self, delivery: &Delivery, start: u64) {
        if self.stage.settings.work {
            self.stage.spin(start, u64::from(delivery.busy));
        }
        if let Some(context) = delivery.callback {
            self.stage.callback(context);
        }
    }
}

impl Handler for Listener {
    fn handle(&mut self, received: &Received<'_>) {
        let start = self.stage.clock.now();
        let key = key_of(received);
        self.act(received, key, start);
        let end = self.stage.clock.now();
        self.log.push(Call { key, start, end });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stage.handler_dropped(self.sub, std::mem::take(&mut self.log));
    }
}

fn key_of(received: &Received<'_>) -> Key {
    if received.is_final() {
        Key::Final
    } else if let Some(payload) = received.payload::<Payload>() {
        Key::Publish(payload.publish)
    } else if let Some(change) = received.payload::<SubscriptionChange>() {
        match change.kind {
            ChangeKind::Subscribe => Key::Subscribed(change.subscription),
            ChangeKind::Unsubscribe => Key::Unsubscribed(change.subscription),
        }
    } else {
        Key::Foreign
    }
}
