//! Ours: the engine as it comes, its queues bounded as the peers' are.
//!
//! As it comes means: a lane per core, pinned, adaptive waiting, subscriptions of a topic sixteen to
//! a lane, recycled message memory, a filter per subscription. `unpinned` lets lanes run where the
//! system likes, as the peers' threads do: what pinning costs on a machine that others use too.
//! `dedicated` gives each subscription a thread and a queue of its own, the peers' layout. A refused publish is tried
//! again with `Backoff::snooze`.

use std::ops::Range;
use std::time::Duration;

use crossbeam_utils::Backoff;
use stasis_bus::{Bus, Delivery, MessageType, Pinning, PublishError, Subscription, Topic};

use super::OURS;
use crate::contender::{CAPACITY, Contender, Publish, Running, Shape};
use crate::message::{Payload, payload};
use crate::subscriber::Subscriber;

/// Where the handlers run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    Lanes,
    Unpinned,
    Dedicated,
}

/// The contender.
pub(super) struct Stasis {
    pub(super) home: Threads,
}

struct Publisher {
    topic: Topic,
    kind: MessageType<Payload>,
}

impl Publish for Publisher {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            let mut message = self.kind.message(payload(n));
            let backoff = Backoff::new();
            while let Err(error) = self.topic.publish(message) {
                match error {
                    PublishError::Full(back) => message = back,
                    error => panic!("{error}"),
                }
                backoff.snooze();
            }
        }
    }
}

/// A bus that refuses a message when about [`CAPACITY`] wait in a queue of it.
fn bounded_bus(queues: usize, pinning: Pinning) -> Bus {
    /// Bytes a queued message takes.
    const ENTRY: usize = 16;
    let lanes = std::thread::available_parallelism().map_or(1, usize::from);
    Bus::builder()
        .lanes(lanes)
        .pinning(pinning)
        .ring_capacity(CAPACITY)
        .memory_budget((lanes + queues) * CAPACITY * ENTRY)
        .build()
        .expect("the figures fit")
}

fn subscribe(topic: &Topic, kind: &MessageType<Payload>, delivery: Delivery, mut to: Subscriber) -> Subscription {
    topic
        .subscriber()
        .delivery(delivery)
        .accept(kind)
        .subscribe(move |received| {
            if let Some(payload) = received.payload::<Payload>() {
                to.take(payload);
            }
        })
        .expect("the bus is open")
}

impl Contender for Stasis {
    fn name(&self) -> String {
        match self.home {
            Threads::Lanes => OURS.into(),
            Threads::Unpinned => format!("{OURS} unpinned"),
            Threads::Dedicated => format!("{OURS} dedicated"),
        }
    }

    fn fits(&self, shape: Shape) -> bool {
        match self.home {
            Threads::Lanes => true,
            Threads::Unpinned => shape.subscribers > 0,
            Threads::Dedicated => (1..=8).contains(&shape.subscribers),
        }
    }

    fn start(&self, shape: Shape, subscribers: Vec<Subscriber>) -> Running {
        let (delivery, queues, pinning) = match self.home {
            Threads::Lanes => (Delivery::default(), 0, Pinning::default()),
            Threads::Unpinned => (Delivery::default(), 0, Pinning::Off),
            Threads::Dedicated => (Delivery::Dedicated, shape.subscribers, Pinning::default()),
        };
        let bus = bounded_bus(queues, pinning);
        let topic = bus.topic("perf").expect("the bus is open");
        let kind = MessageType::<Payload>::new(&bus, "payload").expect("not declined");
        let subscriptions: Vec<_> =
            subscribers.into_iter().map(|subscriber| subscribe(&topic, &kind, delivery, subscriber)).collect();
        let publisher = || Publisher { topic: topic.clone(), kind: kind.clone() };
        let publishers = (0..shape.publishers).map(|_| Box::new(publisher()) as Box<dyn Publish>).collect();
        let stop = move || {
            let ends: Vec<_> = subscriptions.iter().map(Subscription::unsubscribe).collect();
            for end in ends {
                end.wait().expect("no handler waits here");
            }
            bus.shutdown(Duration::from_secs(10)).expect("all subscriptions have ended");
        };
        Running { publishers, stop: Box::new(stop) }
    }
}
