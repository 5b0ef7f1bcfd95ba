//! What the benches share: a bus that refuses when its queues are full, counting subscribers, and
//! publishers that wait until everything was delivered.
#![allow(dead_code)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::Backoff;
use stasis_bus::{Bus, Delivery, Home, Message, MessageType, PublishError, PublishSyncError, Subscription, Topic};

/// The payload of every bench: 64 bytes.
pub(crate) type Payload = [u8; 64];

/// A bus whose publishers are refused beyond about `capacity` queued entries a lane, as a bounded
/// channel of that size would.
pub(crate) fn bounded_bus(lanes: usize, capacity: usize) -> Bus {
    let entry = 16;
    Bus::builder()
        .lanes(lanes)
        .ring_capacity(capacity)
        .memory_budget(lanes * capacity.max(1024) * entry)
        .build()
        .expect("the figures fit")
}

/// Publishes, waiting while the queue is full.
#[inline]
pub(crate) fn publish(topic: &Topic, mut message: Message) {
    let backoff = Backoff::new();
    loop {
        match topic.publish(message) {
            Ok(()) => return,
            Err(PublishError::Full(back)) => {
                message = back;
                backoff.snooze();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// As [`publish`], and waits until the subscription has had it.
pub(crate) fn publish_sync(topic: &Topic, mut message: Message, subscription: &Subscription) {
    let backoff = Backoff::new();
    loop {
        match topic.publish_sync(message, subscription) {
            Ok(()) => return,
            Err(PublishSyncError::Publish(PublishError::Full(back))) => {
                message = back;
                backoff.snooze();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A topic with subscribers that count what they get.
pub(crate) struct Fanout {
    pub(crate) bus: Bus,
    pub(crate) topic: Topic,
    pub(crate) kind: MessageType<Payload>,
    expected: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
    subscriptions: Vec<Subscription>,
}

impl Fanout {
    pub(crate) fn new(bus: Bus, subscribers: usize, home: Home) -> Self {
        let topic = bus.topic("bench").expect("open");
        let kind = MessageType::<Payload>::new(&bus, "payload").expect("not declined");
        let expected = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicU64::new(0));
        let subscriptions = (0..subscribers)
            .map(|_| {
                let (expected, done) = (Arc::clone(&expected), Arc::clone(&done));
                let mut count = 0u64;
                topic
                    .subscriber()
                    .delivery(Delivery::Lane(home))
                    .accept(&kind)
                    .subscribe(move |received| {
                        if let Some(payload) = received.payload::<Payload>() {
                            black_box(payload[0]);
                            count += 1;
                            if count == expected.load(Ordering::Relaxed) {
                                count = 0;
                                done.fetch_add(1, Ordering::Release);
                            }
                        }
                    })
                    .expect("open")
            })
            .collect();
        Self { bus, topic, kind, expected, done, subscriptions }
    }

    /// Time from the first publish until the last delivery of `messages` messages, made by
    /// `publishers` threads.
    pub(crate) fn run(&self, publishers: usize, messages: u64) -> Duration {
        let each = messages / publishers as u64;
        self.expected.store(each * publishers as u64, Ordering::Relaxed);
        self.done.store(0, Ordering::Release);
        if each == 0 {
            return Duration::ZERO;
        }
        let work = || {
            for n in 0..each {
                publish(&self.topic, self.kind.message([n as u8; 64]));
            }
        };
        let start = Instant::now();
        if publishers == 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..publishers {
                    scope.spawn(work);
                }
            });
        }
        let backoff = Backoff::new();
        while self.done.load(Ordering::Acquire) < self.subscriptions.len() as u64 {
            backoff.snooze();
        }
        start.elapsed()
    }
}
