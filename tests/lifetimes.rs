//! G10: everything is dropped once, by whoever is the last to need it, under every order of drops that
//! can be forced; and memory that is used again never shows through a message that is kept (G1).
mod common;

use common::{Counted, DELIVERIES, Drops, Gate, OpenAtEnd, PATIENCE, bus, eventually, must_end, number, stress};
use stasis_bus::{Bus, Delivery, Message, MessageType, Received, Subscription, Topic};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

/// A bus with a topic, a type whose payloads and formatter are counted, and a counted subscription.
struct World {
    bus: Bus,
    topic: Topic,
    kind: MessageType<Counted>,
    subscription: Subscription,
    payloads: Drops,
    formatters: Drops,
    handlers: Drops,
}

impl World {
    fn new(delivery: Delivery) -> Self {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let (payloads, formatters, handlers) = (Drops::new(), Drops::new(), Drops::new());
        let capture = formatters.token();
        let format = move |_: &Counted| {
            let _ = &capture;
            Some(String::new())
        };
        let kind = MessageType::builder("counted").to_json(format).create(&bus).unwrap();
        let held = handlers.token();
        let subscription = topic
            .subscriber()
            .delivery(delivery)
            .accept(&kind)
            .subscribe(move |_| {
                let _ = &held;
            })
            .unwrap();
        Self { bus, topic, kind, subscription, payloads, formatters, handlers }
    }

    fn message(&self) -> Message {
        self.kind.message(self.payloads.token())
    }
}

/// One of the things that can be let go.
type Act = (&'static str, fn(&mut Parts));

/// What [`World`] has, taken apart.
struct Parts {
    bus: Option<Bus>,
    topic: Option<Topic>,
    kind: Option<MessageType<Counted>>,
    subscription: Option<Subscription>,
    kept: Option<Message>,
}

const ACTS: [Act; 5] = [
    ("bus", |parts| drop(parts.bus.take())),
    ("topic", |parts| drop(parts.topic.take())),
    ("type", |parts| drop(parts.kind.take())),
    ("subscription", |parts| drop(parts.subscription.take())),
    ("message", |parts| drop(parts.kept.take())),
];

fn orders<const N: usize>() -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for n in 0..N {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, n);
                    longer
                })
            })
            .collect();
    }
    all
}

fn let_go_in(order: &[usize], delivery: Delivery, blocked: bool) {
    let world = World::new(delivery);
    // With the lane held back, messages and the final one are still queued while things go.
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let held = gate.clone();
    let holder = blocked.then(|| world.topic.subscriber().delivery(delivery).subscribe(move |_| held.pass()).unwrap());
    let kept = world.message();
    for _ in 0..5 {
        if blocked && delivery == Delivery::Inline {
            break; // the holder would block this thread
        }
        world.topic.publish(world.message()).unwrap();
    }
    world.topic.publish(kept.clone()).unwrap_or(());
    let World { bus, topic, kind, subscription, payloads, formatters, handlers } = world;
    let end = subscription.completion();
    let bus_too = bus.clone();
    let mut parts = Parts {
        bus: Some(bus),
        topic: Some(topic),
        kind: Some(kind),
        subscription: Some(subscription),
        kept: Some(kept),
    };
    for act in order {
        ACTS[*act].1(&mut parts);
    }
    drop(holder);
    gate.open();
    drop(end);
    bus_too.shutdown(PATIENCE).unwrap();
    drop(bus_too);
    let names: Vec<_> = order.iter().map(|act| ACTS[*act].0).collect();
    handlers.await_all_gone(&format!("handler, {delivery:?}, {names:?}"));
    payloads.await_all_gone(&format!("payloads, {delivery:?}, {names:?}"));
    formatters.await_all_gone(&format!("formatters, {delivery:?}, {names:?}"));
}

#[test]
fn g10_everything_is_dropped_once_in_every_order() {
    must_end(|| {
        for order in orders::<5>() {
            for delivery in DELIVERIES {
                let_go_in(&order, delivery, false);
            }
        }
    });
}

#[test]
fn g10_everything_is_dropped_once_in_every_order_while_the_lane_is_held() {
    must_end(|| {
        for order in orders::<5>().into_iter().step_by(2) {
            for delivery in [Delivery::default(), Delivery::Dedicated] {
                let_go_in(&order, delivery, true);
            }
        }
    });
}

#[test]
fn g10_everything_is_dropped_once_when_all_goes_at_the_same_time() {
    must_end(|| {
        for round in 0..stress(150) {
            let delivery = DELIVERIES[round % 3];
            let world = World::new(delivery);
            let messages: Vec<_> = (0..10).map(|_| world.message()).collect();
            let World { bus, topic, kind, subscription, payloads, formatters, handlers } = world;
            let start = Barrier::new(5);
            let publisher = topic.clone();
            thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    messages.into_iter().for_each(|message| drop(publisher.publish(message)));
                    drop(publisher);
                });
                scope.spawn(|| {
                    start.wait();
                    drop(subscription);
                });
                scope.spawn(|| {
                    start.wait();
                    drop((topic, kind));
                });
                scope.spawn(|| {
                    start.wait();
                    drop(bus);
                });
                start.wait();
            });
            handlers.await_all_gone("handler");
            payloads.await_all_gone("payloads");
            formatters.await_all_gone("formatters");
        }
    });
}

#[test]
fn g10_the_handler_is_gone_when_the_end_is_told() {
    for delivery in DELIVERIES {
        let world = World::new(delivery);
        assert_eq!(world.handlers.dropped(), 0);
        world.subscription.unsubscribe_and_join(PATIENCE).unwrap();
        world.handlers.assert_all_gone("handler, with its handle still held");
    }
}

#[test]
fn g10_a_payload_goes_with_its_last_message_wherever_that_is() {
    for delivery in DELIVERIES {
        let World { bus, topic, kind, subscription, payloads, .. } = World::new(delivery);
        drop(kind.message(payloads.token()));
        payloads.assert_all_gone("never published");
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&kept);
        let keeper = topic.subscriber().delivery(delivery).accept(&kind).subscribe(move |received| {
            if !received.is_final() {
                keep.lock().unwrap().push(received.message().clone());
            }
        });
        let keeper = keeper.unwrap();
        for _ in 0..10 {
            topic.publish(kind.message(payloads.token())).unwrap();
        }
        keeper.unsubscribe_and_join(PATIENCE).unwrap();
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!((kept.lock().unwrap().len(), payloads.dropped()), (10, 1), "{delivery:?}");
        bus.shutdown(PATIENCE).unwrap();
        assert_eq!(payloads.dropped(), 1, "kept beyond the bus");
        kept.lock().unwrap().clear();
        payloads.assert_all_gone("kept ones");
        assert!(topic.publish(kind.message(payloads.token())).is_err());
        payloads.assert_all_gone("handed back and dropped");
    }
}

#[test]
fn g10_a_handler_that_owns_its_own_subscription_is_no_leak() {
    must_end(|| {
        for delivery in DELIVERIES {
            let drops = Drops::new();
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let own = Arc::new(Mutex::new(None::<Subscription>));
            let (token, slot, inner) = (drops.token(), Arc::clone(&own), topic.clone());
            let made = topic.subscriber().delivery(delivery).accept(&kind).subscribe(move |received| {
                let _ = (&token, &inner);
                if !received.is_final() {
                    drop(slot.lock().unwrap().as_ref().map(Subscription::unsubscribe));
                }
            });
            *own.lock().unwrap() = Some(made.unwrap());
            drop(own);
            topic.publish(kind.message(1)).unwrap();
            drops.await_all_gone("handler that owns its handle");
            drop((topic, kind));
            eventually("the topic went with the handler", || bus.topics().is_empty());
        }
    });
}

#[test]
fn g10_a_destructor_may_use_the_bus() {
    /// Publishes, subscribes and unsubscribes when dropped.
    struct Busy(Topic, MessageType<u64>, std::sync::mpsc::Sender<u64>);
    impl Drop for Busy {
        fn drop(&mut self) {
            let (topic, kind, tell) = (self.0.clone(), self.1.clone(), self.2.clone());
            let made = topic.subscriber().no_mailbox().accept(&kind).subscribe(move |received: &Received<'_>| {
                if let Some(n) = received.payload::<u64>() {
                    let _ = tell.send(*n);
                }
            });
            if let Ok(made) = made {
                let _ = topic.publish(kind.message(8));
                drop(made.unsubscribe());
            }
        }
    }
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(1);
            let (topic, quiet) = (bus.topic("t").unwrap(), bus.topic("quiet").unwrap());
            let kind = number(&bus);
            let busy_kind = MessageType::<Busy>::new(&bus, "busy").unwrap();
            let (tell, told) = channel();
            let busy = || Busy(quiet.clone(), kind.clone(), tell.clone());
            let captured = busy();
            let subscription = topic.subscriber().delivery(delivery).accept(&busy_kind).subscribe(move |_| {
                let _ = &captured;
            });
            for _ in 0..3 {
                topic.publish(busy_kind.message(busy())).unwrap();
            }
            subscription.unwrap().unsubscribe_and_join(PATIENCE).unwrap();
            for _ in 0..4 {
                assert_eq!(common::next(&told), 8, "{delivery:?}: three payloads and a handler");
            }
        }
    });
}

#[test]
fn g10_dropping_the_last_handle_in_the_middle_of_publishes() {
    // The publisher's own topic handle is the last one; the subscriptions go while it publishes.
    must_end(|| {
        for round in 0..stress(100) {
            let world = World::new(DELIVERIES[round % 3]);
            let World { bus, topic, kind, subscription, payloads, handlers, .. } = world;
            thread::scope(|scope| {
                let tokens = payloads.clone();
                scope.spawn(move || {
                    for _ in 0..50 {
                        let _ = topic.publish(kind.message(tokens.token()));
                    }
                });
                scope.spawn(|| drop(subscription));
            });
            assert!(bus.find_topic("t").is_none(), "nobody holds it any more");
            bus.shutdown(PATIENCE).unwrap();
            handlers.await_all_gone("handler");
            drop(bus);
            payloads.await_all_gone("payloads");
        }
    });
}

/// A payload that can be told to be itself: all words derive from the first.
fn pattern(seed: u64) -> [u64; 6] {
    std::array::from_fn(|n| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(n as u32 * 7) ^ seed)
}

#[test]
fn g01_a_kept_message_never_changes_while_its_neighbours_memory_is_used_again() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let kind = MessageType::<(u64, [u64; 6])>::new(&bus, "pattern").unwrap();
        let kept = Arc::new(Mutex::new(Vec::<Message>::new()));
        let keep = Arc::clone(&kept);
        let keeper = topic.subscriber().delivery(delivery).accept(&kind).subscribe(move |received| {
            if received.payload::<(u64, [u64; 6])>().is_some_and(|(seed, _)| seed % 7 == 0) {
                keep.lock().unwrap().push(received.message().clone());
            }
        });
        let check = |message: &Message| {
            let (seed, words) = message.payload::<(u64, [u64; 6])>().unwrap();
            assert_eq!(*words, pattern(*seed));
            *seed
        };
        let many = stress(3_000) as u64;
        thread::scope(|scope| {
            for at in 0..3 {
                let (topic, kind, kept) = (&topic, &kind, &kept);
                scope.spawn(move || {
                    for n in 0..many {
                        let seed = n * 3 + at;
                        while topic.publish(kind.message((seed, pattern(seed)))).is_err() {
                            thread::yield_now();
                        }
                        if n % 64 == 0 {
                            kept.lock().unwrap().iter().for_each(|message| {
                                check(message);
                            });
                        }
                        if n % 500 == 0 {
                            // Some go again, so their memory comes back to other threads' pools.
                            let mut kept = kept.lock().unwrap();
                            let half = kept.len() / 2;
                            let gone = kept.split_off(half);
                            drop(kept);
                            drop(gone);
                        }
                    }
                });
            }
        });
        keeper.unwrap().unsubscribe_and_join(PATIENCE).unwrap();
        let mut seeds: Vec<u64> = kept.lock().unwrap().iter().map(check).collect();
        let count = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), count, "each message once");
    }
}

#[test]
fn g10_messages_outlive_the_thread_that_made_them_and_threads_outlive_their_messages() {
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let payloads = Drops::new();
        let kind = MessageType::<Counted>::new(&bus, "counted").unwrap();
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let held = gate.clone();
        let subscription = topic.subscriber().accept(&kind).subscribe(move |_| held.pass()).unwrap();
        let publish = |count: usize| (0..count).for_each(|_| topic.publish(kind.message(payloads.token())).unwrap());
        // The publishers end first: the lane frees what belongs to no living thread.
        thread::scope(|scope| (0..20).for_each(|_| drop(scope.spawn(|| publish(100)))));
        // One lives on while the lane frees, publishes again from what came back, and ends last.
        let (go, going) = channel::<()>();
        let publish = &publish;
        thread::scope(|scope| {
            scope.spawn(move || {
                publish(500);
                going.recv().unwrap();
                publish(500);
            });
            gate.open();
            topic.publish_sync(kind.message(payloads.token()), &subscription).unwrap();
            go.send(()).unwrap();
        });
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        // The lane ends before this thread, which still has messages of its own.
        let kept: Vec<_> = (0..100).map(|_| kind.message(payloads.token())).collect();
        bus.shutdown(PATIENCE).unwrap();
        assert_eq!(payloads.made() - payloads.dropped(), 100);
        drop(kept);
        payloads.assert_all_gone("payloads");
    });
}

#[test]
fn g10_many_short_lived_publishers() {
    // Two threads a call, each with a few messages: the recorded traffic's habit.
    must_end(|| {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let payloads = Drops::new();
        let kind = MessageType::<Counted>::new(&bus, "counted").unwrap();
        let subscriptions =
            DELIVERIES.map(|it| topic.subscriber().delivery(it).accept(&kind).subscribe(|_| ()).unwrap());
        for _ in 0..stress(300) {
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..8).for_each(|_| topic.publish(kind.message(payloads.token())).unwrap()));
                }
            });
        }
        for subscription in &subscriptions {
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(subscription.stats().delivered, 32 * stress(300) as u64);
        }
        bus.shutdown(PATIENCE).unwrap();
        payloads.await_all_gone("payloads");
    });
}
