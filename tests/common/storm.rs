//! Threads that do everything at once, from a seed, and what must be true of it all the same: nothing is
//! lost or doubled, each publisher's messages stay in order, the final message is the last.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use stasis_bus::{
    Bus, Completion, Delivery, FilterMode, Forward, Home, MessageType, Subscription, SubscriptionChange, Topic,
};

use super::{Log, PATIENCE, Random, bus, number};

/// How large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storm {
    pub(crate) seed: u64,
    pub(crate) publishers: usize,
    /// Messages of each.
    pub(crate) messages: u64,
    /// Changes made by each of two churning threads.
    pub(crate) changes: usize,
}

const TOPICS: usize = 6;
/// Publisher in the upper half, number in the lower.
const PUBLISHER: u32 = 32;

fn delivery(random: &mut Random) -> Delivery {
    match random.below(8) {
        0 => Delivery::Dedicated,
        1..=3 => Delivery::Inline,
        lane => Delivery::Lane(Home::Lane(lane % 2)),
    }
}

/// In order, and none twice, for each publisher.
fn assert_ordered(log: &Log, publishers: usize, what: &str) {
    for publisher in 0..publishers as u64 {
        let mut last = None;
        for n in log.values().into_iter().filter(|n| n >> PUBLISHER == publisher) {
            assert!(last < Some(n), "{what}: {n:x} after {last:x?}");
            last = Some(n);
        }
    }
}

/// A subscription that stays, on the last of the topics: whatever is published anywhere reaches it.
fn stays(sink: &Topic, delivery: Delivery, kind: &MessageType<u64>) -> (Subscription, Log) {
    let log = Log::new();
    (sink.subscriber().delivery(delivery).accept(kind).subscribe(log.handler()).expect("open"), log)
}

impl Storm {
    /// Runs it.
    ///
    /// # Panics
    /// If a promise is broken.
    pub(crate) fn run(self) {
        let bus = bus(2);
        let kind = number(&bus);
        let topics: Vec<Topic> = (0..TOPICS).map(|n| bus.topic(format!("t{n}")).expect("open")).collect();
        // These stand: every topic leads to the last one.
        let standing: Vec<Forward> =
            (0..TOPICS - 1).map(|n| topics[n].forward_to(&topics[n / 2 + TOPICS / 2]).expect("open")).collect();
        let homes =
            [Delivery::Lane(Home::Lane(0)), Delivery::Lane(Home::Lane(1)), Delivery::Dedicated, Delivery::Inline];
        let staying = homes.map(|delivery| stays(&topics[TOPICS - 1], delivery, &kind));
        let start = Barrier::new(self.publishers + 2);
        let publishing = AtomicBool::new(true);
        let left = thread::scope(|scope| {
            let publishers: Vec<_> = (0..self.publishers)
                .map(|at| {
                    let (topics, kind, start) = (&topics, &kind, &start);
                    scope.spawn(move || {
                        start.wait();
                        self.publish(at, topics, kind);
                    })
                })
                .collect();
            let churners: Vec<_> = (0..2)
                .map(|at| {
                    let (bus, topics, kind, start, publishing) = (&bus, &topics, &kind, &start, &publishing);
                    scope.spawn(move || {
                        start.wait();
                        self.churn(at, bus, topics, kind, publishing)
                    })
                })
                .collect();
            let publish_ends = publishers.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>();
            publishing.store(false, Ordering::Relaxed);
            let left: Vec<_> = churners.into_iter().map(|churner| churner.join().expect("a churner")).collect();
            publish_ends.into_iter().for_each(|end| end.expect("a publisher"));
            left
        });
        for (subscription, log) in &staying {
            subscription.unsubscribe_and_join(PATIENCE).expect("no handler blocks");
            log.assert_ended();
            assert_ordered(log, self.publishers, "staying");
            assert_eq!(log.values().len() as u64, self.messages * self.publishers as u64, "staying: {self:?}");
        }
        for (end, log) in left.into_iter().flatten() {
            end.wait_timeout(PATIENCE).expect("no handler blocks");
            log.assert_ended();
            assert_ordered(&log, self.publishers, "passing");
        }
        drop(standing);
        bus.shutdown(PATIENCE).expect("nothing is stuck");
    }

    fn publish(&self, at: usize, topics: &[Topic], kind: &MessageType<u64>) {
        let mut random = Random::new(self.seed ^ (at as u64 + 1) << 40);
        for n in 0..self.messages {
            let topic = &topics[random.below(TOPICS)];
            // An inline queue may be full for a moment; then nobody got it.
            while let Err(error) = topic.publish(kind.message((at as u64) << PUBLISHER | n)) {
                assert!(error.is_full());
                thread::yield_now();
            }
        }
    }

    /// Makes and ends subscriptions and forwards, changes filters; returns who has to end by itself.
    fn churn(
        &self,
        at: usize,
        bus: &Bus,
        topics: &[Topic],
        kind: &MessageType<u64>,
        publishing: &AtomicBool,
    ) -> Vec<(Completion, Log)> {
        let mut random = Random::new(self.seed.wrapping_add(at as u64 * 77));
        let (mut listeners, mut forwards, mut left) = (Vec::<(Subscription, Log)>::new(), Vec::new(), Vec::new());
        for _ in 0..self.changes {
            let pick = random.below(listeners.len().max(1));
            match random.below(10) {
                0..=3 if listeners.len() < 24 => {
                    let builder = topics[random.below(TOPICS)].subscriber().delivery(delivery(&mut random));
                    let log = Log::new();
                    let builder = if random.below(2) == 0 { builder.accept(kind) } else { builder };
                    listeners.push((builder.subscribe(log.handler()).expect("open"), log));
                }
                4 | 5 if !listeners.is_empty() => {
                    let (subscription, log) = listeners.swap_remove(pick);
                    left.push((subscription.completion(), log));
                    drop(subscription);
                }
                6 if !listeners.is_empty() => {
                    let subscription = &listeners[pick].0;
                    match random.below(4) {
                        0 => subscription.decline(kind),
                        1 => subscription.accept(kind),
                        2 => subscription.set_filter_mode(FilterMode::Selective),
                        _ => subscription.accept(SubscriptionChange::message_type()),
                    }
                }
                7 => {
                    forwards.push(topics[random.below(TOPICS)].forward_to(&topics[random.below(TOPICS)]).expect("open"))
                }
                8 if !forwards.is_empty() => drop(forwards.swap_remove(random.below(forwards.len()))),
                _ => drop((bus.stats(), bus.topics(), topics[random.below(TOPICS)].subscribers())),
            }
            if !publishing.load(Ordering::Relaxed) && left.len() > 50 {
                break;
            }
        }
        left.extend(listeners.into_iter().map(|(subscription, log)| (subscription.completion(), log)));
        left
    }
}
