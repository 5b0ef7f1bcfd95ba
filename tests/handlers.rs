//! Handlers of many types side by side in one list: neighbours of one type are called in one loop, and each gets what
//! it would get alone.
mod common;

use common::{Counted, DELIVERIES, Drops, Log, PATIENCE, Random, bus, number, stress};
use stasis_bus::{Bus, Delivery, Handler, Home, Pinning, Received, SubscribeError, SubscriberBuilder, Subscription};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

/// Handlers that differ in type only.
struct Plain<const N: usize>(Log, #[allow(dead_code)] Counted);
impl<const N: usize> Handler for Plain<N> {
    fn handle(&mut self, received: &Received<'_>) {
        self.0.write(received);
    }
}

/// Larger than what fits between others, and aligned.
#[repr(align(256))]
struct Wide([u8; 3000], Log, #[allow(dead_code)] Counted);
impl Handler for Wide {
    fn handle(&mut self, received: &Received<'_>) {
        assert!(
            self.0.iter().all(|&byte| byte == 7) && (&raw const *self).addr().is_multiple_of(256),
            "its own memory"
        );
        self.1.write(received);
    }
}

const TYPES: usize = 7;
/// The type that panics at each fifth message.
const PANICS: usize = 6;

/// Subscribes a handler of the n-th type.
fn subscribe(one: SubscriberBuilder<'_>, n: usize, log: &Log, drops: &Drops) -> Result<Subscription, SubscribeError> {
    let (log, counted) = (log.clone(), drops.token());
    match n {
        0 => one.subscribe_handler(Plain::<0>(log, counted)),
        1 => one.subscribe_handler(Plain::<1>(log, counted)),
        2 => one.subscribe_handler(Wide([7; 3000], log, counted)),
        3 => one.subscribe(move |received| {
            let _ = &counted;
            log.write(received);
        }),
        // The same code, but another type.
        4 => one.subscribe(move |received| {
            let _ = &counted;
            log.write(received);
        }),
        5 => {
            // One type for all, each with code of its own behind it.
            let boxed: Box<dyn FnMut(&Received<'_>) + Send> = Box::new(move |received| {
                let _ = &counted;
                log.write(received);
            });
            one.subscribe(boxed)
        }
        _ => one.subscribe(move |received| {
            let _ = &counted;
            log.write(received);
            if received.payload::<u64>().is_some_and(|n| n % 5 == 3) {
                resume_unwind(Box::new("on purpose"));
            }
        }),
    }
}

/// Promises G2, G3, G5, G12 for neighbours of all types, with holes between them, filters, and panics in the middle.
#[test]
fn g03_neighbours_of_many_types_each_get_all_of_it() {
    for (seed, delivery) in (0..stress(20)).zip(DELIVERIES.into_iter().cycle()) {
        let mut random = Random::new(seed as u64 + 1);
        let bus = bus(2);
        let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
        let other = stasis_bus::MessageType::<u64>::new(&bus, "other").unwrap();
        let drops = Drops::new();
        let count = if delivery == Delivery::Dedicated { 12 } else { 150 };
        // From and to which message, and which type.
        let (mut here, mut gone) = (Vec::new(), Vec::new());
        let (mut run, mut published) = (0, 0);
        for _ in 0..count {
            if random.below(4) == 0 {
                run = random.below(TYPES);
            }
            let delivery = if random.below(3) > 0 { delivery } else { Delivery::Lane(Home::Lane(0)) };
            let (log, takes_all) = (Log::new(), random.below(3) == 0);
            let one = topic.subscriber().delivery(delivery).accept(&kind);
            let one = if takes_all { one.accept(&other) } else { one };
            here.push((subscribe(one, run, &log, &drops).unwrap(), log, run, takes_all, published));
            if random.below(3) == 0 {
                for n in published..published + 7 {
                    topic.publish(if n % 3 == 0 { other.message(n) } else { kind.message(n) }).unwrap();
                }
                published += 7;
            }
            if random.below(3) == 0 {
                let leaves = here.swap_remove(random.below(here.len()));
                gone.push((leaves.0.unsubscribe(), leaves.1, leaves.2, leaves.3, leaves.4..published));
            }
        }
        gone.extend(here.into_iter().map(|one| (one.0.unsubscribe(), one.1, one.2, one.3, one.4..published)));
        let mut panics = 0;
        for (end, log, run, takes_all, range) in gone {
            end.wait_timeout(PATIENCE).unwrap();
            log.assert_ended();
            let expected: Vec<_> = range.filter(|n| takes_all || n % 3 != 0).collect();
            assert_eq!(log.values(), expected, "type {run}, seed {seed}");
            panics += expected.iter().filter(|&&n| run == PANICS && n % 5 == 3).count();
        }
        drops.await_all_gone("handlers");
        assert_eq!(bus.stats().panics, panics as u64);
    }
}

/// Promises G6, G7: a handler in the middle of a row publishes, takes its neighbours out, and waits; the row is served
/// once all the same.
#[test]
fn g06_a_handler_in_a_row_may_do_what_it_likes() {
    // Without a watchdog there are no spare threads: who waits serves the lane meanwhile.
    for (lanes, watchdog) in [(1, true), (2, true), (1, false), (2, false)] {
        let one = Bus::builder().lanes(lanes).pinning(Pinning::Off);
        let bus = if watchdog { one } else { one.watchdog(None) }.build().unwrap();
        let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
        let subscriptions = Arc::new(Mutex::new(Vec::new()));
        let logs: Vec<_> = (0..40).map(|_| Log::new()).collect();
        let listener = Log::new();
        let side = bus.topic("side").unwrap();
        let _side =
            side.subscriber().delivery(Delivery::Lane(Home::Lane(0))).accept(&kind).subscribe(listener.handler());
        for (at, log) in logs.iter().cloned().enumerate() {
            let (all, from, side, kind) = (Arc::clone(&subscriptions), topic.clone(), side.clone(), kind.clone());
            let accepted = kind.clone();
            let handler = move |received: &Received<'_>| {
                log.write(received);
                if at == 17 && received.payload::<u64>() == Some(&1) {
                    // What comes of it comes behind this message, for the rest of the row too.
                    from.publish(kind.message(2)).unwrap();
                    let neighbours: Vec<Subscription> = all.lock().unwrap().drain(15..20).collect();
                    neighbours.iter().for_each(|one| drop(one.unsubscribe()));
                    side.publish(kind.message(7)).unwrap();
                    neighbours[0].join_timeout(PATIENCE).unwrap();
                }
            };
            let lane = Delivery::Lane(Home::Lane(0));
            let one = topic.subscriber().delivery(lane).accept(&accepted).subscribe(handler).unwrap();
            subscriptions.lock().unwrap().push(one);
        }
        for n in [1, 3] {
            topic.publish(kind.message(n)).unwrap();
        }
        let left = loop {
            let mut all = subscriptions.lock().unwrap();
            if all.len() == 35 {
                break std::mem::take(&mut *all);
            }
            drop(all);
            std::thread::yield_now();
        };
        for one in left {
            one.unsubscribe_and_join(PATIENCE).unwrap();
        }
        common::eventually("final messages of all", || {
            logs.iter().all(|log| log.all().last() == Some(&common::Seen::Final))
        });
        for (at, log) in logs.iter().enumerate() {
            log.assert_ended();
            let mut values = log.values();
            // The other thread's message and the handler's come in any order, but after the first.
            values[1..].sort_unstable();
            if (15..20).contains(&at) {
                assert!([vec![1, 2], vec![1, 2, 3]].contains(&values), "{at}: {values:?}");
            } else {
                assert_eq!(values, [1, 2, 3], "{at}");
            }
        }
        assert_eq!(listener.values(), [7]);
    }
}
