//! Ours: the engine as it comes, its queues bounded as the peers' are.
//!
//! As it comes means: a lane per core, pinned, adaptive waiting, subscriptions of a topic sixteen to
//! a lane, recycled message memory, a filter per subscription. `unpinned` lets lanes run where the
//! system likes, as the peers' threads do: what pinning costs on a machine that others use too.
//! `dedicated` gives each subscription a thread and a queue of its own, the peers' layout. A publisher waits for room
//! with `publish_timeout`, as peers do in their blocking sends. `lanes` is the number of lanes where that is the question.
//! Where consumers are to spin, one lane spins: with the publisher that makes two threads.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use stasis_bus::{Bus, Delivery, MessageType, Pinning, Subscription, Topic, WaitStrategy};

use super::OURS;
use crate::contender::{CAPACITY, Contender, Mode, OWN_THREADS, Publish, Running, Shape};
use crate::message::{Payload, payload};
use crate::plan::Plan;
use crate::subscriber::Subscriber;

const FOREVER: Duration = Duration::from_secs(3600);

/// Where the handlers run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    Lanes,
    Unpinned,
    Dedicated,
    /// That many lanes.
    Count(usize),
}

/// The contender.
pub(super) struct Stasis {
    pub(super) home: Threads,
}

struct Publisher {
    topics: Arc<Vec<Topic>>,
    plan: Arc<Plan>,
    kind: MessageType<Payload>,
}

impl Publish for Publisher {
    fn publish(&mut self, numbers: Range<u64>) {
        for n in numbers {
            let topic = &self.topics[self.plan.topic(n)];
            topic.publish_timeout(self.kind.message(payload(n)), FOREVER).expect("the bus is open");
        }
    }
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

impl Stasis {
    /// A bus that refuses a message when about the shape's capacity waits in a queue of it.
    fn bus(&self, shape: &Shape) -> Bus {
        /// Bytes a queued message takes.
        const ENTRY: usize = 16;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let lanes = match self.home {
            Threads::Count(lanes) => lanes,
            _ if shape.spins() => 1,
            _ => cores,
        };
        let queues = if self.home == Threads::Dedicated { shape.subscribers() } else { 0 };
        // A burst must be taken whole, also where a mailbox of a stalled handler needs more bytes.
        let room = if shape.mode == Mode::Burst { 64 } else { 1 };
        Bus::builder()
            .lanes(lanes)
            .pinning(if self.home == Threads::Unpinned { Pinning::Off } else { Pinning::default() })
            .wait(if shape.spins() { WaitStrategy::BusySpin } else { WaitStrategy::default() })
            .ring_capacity(shape.capacity.min(CAPACITY))
            .memory_budget((lanes + queues) * shape.capacity.max(CAPACITY) * ENTRY * room)
            .build()
            .expect("the figures fit")
    }
}

impl Contender for Stasis {
    fn name(&self) -> String {
        match self.home {
            Threads::Lanes => OURS.into(),
            Threads::Unpinned => format!("{OURS} unpinned"),
            Threads::Dedicated => format!("{OURS} dedicated"),
            Threads::Count(1) => format!("{OURS}, 1 lane"),
            Threads::Count(lanes) => format!("{OURS}, {lanes} lanes"),
        }
    }

    fn fits(&self, shape: &Shape) -> bool {
        let subscribers = shape.subscribers();
        match self.home {
            Threads::Lanes => true,
            Threads::Unpinned => subscribers > 0 && !shape.spins() && shape.mode != Mode::Burst,
            Threads::Dedicated => {
                (1..=OWN_THREADS).contains(&subscribers) && !shape.spins() && shape.mode != Mode::Filtered
            }
            Threads::Count(_) => shape.is_plain() && shape.publishers > 1 && subscribers > OWN_THREADS,
        }
    }

    fn start(&self, shape: &Shape, subscribers: Vec<Subscriber>) -> Running {
        let bus = self.bus(shape);
        let delivery = if self.home == Threads::Dedicated { Delivery::Dedicated } else { Delivery::default() };
        let kind = MessageType::<Payload>::new(&bus, "payload").expect("not declined");
        let wanted = match shape.mode {
            Mode::Filtered => MessageType::<Payload>::new(&bus, "other").expect("not declined"),
            _ => kind.clone(),
        };
        let topic = |n: usize| bus.topic(format!("perf {n}")).expect("the bus is open");
        let topics: Vec<_> = (0..shape.topics()).map(topic).collect();
        let mut ends = topics.clone();
        let mut forwards = Vec::new();
        if let Mode::Forwards(depth) = shape.mode {
            for level in 0..depth {
                for (n, end) in ends.iter_mut().enumerate() {
                    let next = bus.topic(format!("perf {n} level {level}")).expect("the bus is open");
                    forwards.push(end.forward_to(&next).expect("the bus is open"));
                    *end = next;
                }
            }
        }
        let subscribe = |subscriber: Subscriber| subscribe(&ends[subscriber.topic()], &wanted, delivery, subscriber);
        let subscriptions: Vec<_> = subscribers.into_iter().map(subscribe).collect();
        let churn = (shape.mode == Mode::Churn).then(|| {
            let (topic, kind) = (topics[0].clone(), kind.clone());
            let churn = move || drop(topic.subscriber().delivery(delivery).accept(&kind).subscribe(|_| ()));
            Box::new(churn) as Box<dyn FnMut() + Send>
        });
        let topics = Arc::new(topics);
        let publisher = || Publisher { topics: Arc::clone(&topics), plan: Arc::clone(&shape.plan), kind: kind.clone() };
        let publishers = (0..shape.publishers).map(|_| Box::new(publisher()) as Box<dyn Publish>).collect();
        let stop = move || {
            let ends: Vec<_> = subscriptions.iter().map(Subscription::unsubscribe).collect();
            for end in ends {
                end.wait().expect("no handler waits here");
            }
            drop(forwards);
            bus.shutdown(Duration::from_secs(10)).expect("all subscriptions have ended");
        };
        Running { publishers, churn, stop: Box::new(stop) }
    }
}
