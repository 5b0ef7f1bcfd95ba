//! G12: a panic in a handler or a destructor is caught, counted, and hurts nobody else.
mod common;

use common::{DELIVERIES, Drops, Gate, Log, PATIENCE, Seen, bus, must_end, number};
use stasis_bus::{Delivery, MessageType, PanicPolicy};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Panics quietly: without the hook's output.
fn bang() -> ! {
    resume_unwind(Box::new("bang"))
}

#[test]
fn g12_a_panicking_handler_goes_on_with_the_next_message() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let (log, beside) = (Log::new(), Log::new());
        let write = log.clone();
        let subscription = topic
            .subscriber()
            .delivery(delivery)
            .accept(&kind)
            .subscribe(move |received| {
                write.write(received);
                if received.payload::<u64>().is_some_and(|n| n % 2 == 1) {
                    bang();
                }
            })
            .unwrap();
        let other = topic.subscriber().delivery(delivery).accept(&kind).subscribe(beside.handler()).unwrap();
        for n in 0..10 {
            topic.publish(kind.message(n)).unwrap();
        }
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        other.unsubscribe_and_join(PATIENCE).unwrap();
        log.assert_ended();
        for log in [&log, &beside] {
            assert!(log.values().into_iter().eq(0..10), "{delivery:?}");
        }
        assert_eq!((subscription.stats().panics, other.stats().panics, bus.stats().panics), (5, 0, 5));
    }
}

#[test]
fn g12_policy_end_ends_the_subscription_with_its_final_message() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let log = Log::new();
        let write = log.clone();
        let subscription = topic
            .subscriber()
            .delivery(delivery)
            .on_panic(PanicPolicy::End)
            .accept(&kind)
            .subscribe(move |received| {
                write.write(received);
                bang(); // on the final message too
            })
            .unwrap();
        topic.publish(kind.message(0)).unwrap();
        subscription.join_timeout(PATIENCE).unwrap();
        topic.publish(kind.message(1)).unwrap();
        assert_eq!(log.all(), [Seen::Value(0), Seen::Final], "{delivery:?}");
        assert!(!subscription.is_subscribed() && topic.subscribers() == 0);
        assert_eq!(bus.stats().panics, 2);
    }
}

#[test]
fn g12_a_panic_in_the_final_message_still_ends_it() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let drops = Drops::new();
        let token = drops.token();
        let topic = bus.topic("t").unwrap();
        let subscription = topic.subscriber().delivery(delivery).subscribe(move |received| {
            let _ = &token;
            if received.is_final() {
                bang();
            }
        });
        subscription.unwrap().unsubscribe_and_join(PATIENCE).unwrap();
        drops.assert_all_gone("handler");
        bus.shutdown(PATIENCE).unwrap();
    }
}

/// Panics when dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            bang();
        }
    }
}

#[test]
fn g12_a_handler_whose_drop_panics() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let log = Log::new();
        let other = topic.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()).unwrap();
        let bomb = Bomb;
        let subscription = topic.subscriber().delivery(delivery).subscribe(move |_| {
            let _ = &bomb;
        });
        let subscription = subscription.unwrap();
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        topic.publish_sync(kind.message(1), &other).unwrap();
        assert_eq!(log.values(), [1], "{delivery:?}");
        bus.shutdown(PATIENCE).unwrap();
    }
}

#[test]
fn g12_a_panic_that_carries_a_bomb() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let subscription = topic.subscriber().delivery(delivery).accept(&kind).subscribe(|received| {
            if !received.is_final() {
                resume_unwind(Box::new(Bomb));
            }
        });
        let subscription = subscription.unwrap();
        for n in 0..3 {
            topic.publish_sync(kind.message(n), &subscription).unwrap();
        }
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(subscription.stats().panics, 3, "{delivery:?}");
    }
}

#[test]
fn g12_a_payload_whose_drop_panics_on_the_lane() {
    for delivery in [Delivery::default(), Delivery::Dedicated] {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let (kind, bombs) = (number(&bus), MessageType::<Bomb>::new(&bus, "bomb").unwrap());
        let gate = Gate::new();
        let held = gate.clone();
        let log = Log::new();
        let write = log.clone();
        let accept = topic.subscriber().delivery(delivery).accept(&kind).accept(&bombs);
        let subscription = accept
            .subscribe(move |received| {
                held.pass(); // so that the lane has the last reference
                if received.payload::<Bomb>().is_none() {
                    write.write(received);
                }
            })
            .unwrap();
        for n in 0..5 {
            topic.publish(bombs.message(Bomb)).unwrap();
            topic.publish(kind.message(n)).unwrap();
        }
        gate.open();
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        assert!(log.values().into_iter().eq(0..5), "{delivery:?}");
        assert_eq!(subscription.stats().panics, 0, "it was not the handler");
    }
}

#[test]
fn g12_a_payload_whose_drop_panics_in_an_inline_queue() {
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let (kind, bombs) = (number(&bus), MessageType::<Bomb>::new(&bus, "bomb").unwrap());
        let log = Log::new();
        let accept = topic.subscriber().no_mailbox().accept(&kind).accept(&bombs);
        let subscription = accept.subscribe({
            let (log, topic, bombs) = (log.clone(), topic.clone(), bombs.clone());
            move |received| {
                if received.payload::<Bomb>().is_none() {
                    log.write(received);
                }
                if received.payload::<u64>() == Some(&1) {
                    topic.publish(bombs.message(Bomb)).unwrap(); // queued: the queue has the last reference
                }
            }
        });
        let subscription = subscription.unwrap();
        topic.publish(kind.message(1)).unwrap();
        topic.publish(kind.message(2)).unwrap();
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(log.all(), [Seen::Value(1), Seen::Value(2), Seen::Final]);
    });
}

#[test]
fn g12_a_payload_whose_drop_panics_in_the_publisher_is_the_publishers() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (kind, bombs) = (number(&bus), MessageType::<Bomb>::new(&bus, "bomb").unwrap());
    // Nobody wants it, so it dies where it was published.
    let died = catch_unwind(AssertUnwindSafe(|| topic.publish(bombs.message(Bomb))));
    assert!(died.is_err());
    // An inline subscriber has it, and the publisher drops the last reference after the handler.
    let log = Log::new();
    let write = log.clone();
    let subscription = topic.subscriber().no_mailbox().subscribe(move |received| {
        if received.payload::<u64>().is_some() {
            write.write(received);
        }
    });
    let subscription = subscription.unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| topic.publish(bombs.message(Bomb)))).is_err());
    topic.publish(kind.message(3)).unwrap();
    subscription.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(log.values(), [3]);
}

#[test]
fn g12_a_handler_that_panics_while_others_wait_for_it() {
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let accept = topic.subscriber().delivery(delivery).accept(&kind);
            let subscription = accept
                .subscribe(|received| {
                    if !received.is_final() {
                        bang()
                    }
                })
                .unwrap();
            topic.publish_sync(kind.message(1), &subscription).unwrap();
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(subscription.stats().panics, 1, "{delivery:?}");
        }
    });
}

#[test]
fn g12_a_panic_in_the_middle_of_a_wait_lets_the_lane_go_on() {
    // The handler waits (its worker helps), then panics: what was put off for it still comes, in order.
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let log = Log::new();
        let other = topic.subscriber().decline(&kind).subscribe(|_| ()).unwrap();
        let subscription = topic.subscriber().accept(&kind).subscribe({
            let (log, topic, kind) = (log.clone(), topic.clone(), kind.clone());
            move |received| {
                log.write(received);
                if received.payload::<u64>() == Some(&0) {
                    (1..5).for_each(|n| topic.publish(kind.message(n)).unwrap());
                    topic.publish_sync(kind.message(5), &other).unwrap();
                    bang();
                }
            }
        });
        let subscription = subscription.unwrap();
        topic.publish_sync(kind.message(0), &subscription).unwrap();
        topic.publish_sync(kind.message(6), &subscription).unwrap();
        assert!(log.values().into_iter().eq(0..=6), "{:?}", log.values());
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
    });
}

/// Panics when dropped, though another panic unwinds.
struct Rude;

impl Drop for Rude {
    fn drop(&mut self) {
        bang();
    }
}

/// The last message of a type takes the type's formatters with it.
#[test]
fn g12_destructors_of_payload_and_formatter_may_panic_at_once() {
    let bus = bus(1);
    let bomb = Rude;
    let kind = MessageType::<Rude>::builder("bomb")
        .to_json(move |_| {
            let _captured = &bomb;
            None
        })
        .create(&bus)
        .unwrap();
    let message = kind.message(Rude);
    drop(kind);
    // A second panic while the first unwinds would end the process.
    assert!(catch_unwind(AssertUnwindSafe(|| drop(message))).is_err(), "that of the payload");
}
