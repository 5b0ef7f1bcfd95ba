//! G5: messages published before come, then exactly one final message, then nothing; then the handler
//! is dropped, once; the others are told.
mod common;

use common::{DELIVERIES, Drops, Log, PATIENCE, Seen, bus, eventually, must_end, next, number, stress};
use stasis_bus::{ChangeKind, Subscription, SubscriptionChange};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

#[test]
fn g05_final_message_is_last() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let log = Log::new();
        let subscription = topic.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()).unwrap();
        for n in 0..1000 {
            topic.publish(kind.message(n)).unwrap();
        }
        let end = subscription.unsubscribe();
        for n in 0..100 {
            topic.publish(kind.message(10_000 + n)).unwrap();
        }
        end.wait_timeout(PATIENCE).unwrap();
        log.assert_ended();
        assert!(log.values().into_iter().eq(0..1000), "{delivery:?}: all before, none after");
    }
}

#[test]
fn g05_final_message_is_last_while_others_publish() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // An inline queue may be full for a moment.
                        n += u64::from(topic.publish(kind.message(n)).is_ok());
                    }
                });
            }
            for _ in 0..stress(150) {
                let log = Log::new();
                let drops = Drops::new();
                let token = drops.token();
                let write = log.clone();
                let subscription = topic
                    .subscriber()
                    .delivery(delivery)
                    .accept(&kind)
                    .subscribe(move |received| {
                        let _ = &token;
                        write.write(received);
                    })
                    .unwrap();
                topic.publish(kind.message(u64::MAX)).map_err(|_| ()).unwrap_or(());
                subscription.unsubscribe_and_join(PATIENCE).unwrap();
                // Done means: the handler is gone, so nothing can come any more.
                drops.assert_all_gone("handler");
                log.assert_ended();
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn g05_others_see_the_change_before_the_leaver_sees_its_final_message() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let subscribe = |who: &'static str| {
            let order = Arc::clone(&order);
            let changes = topic.subscriber().delivery(delivery).accept(SubscriptionChange::message_type());
            changes.subscribe(move |received| {
                let change = received.payload::<SubscriptionChange>().unwrap();
                if change.kind == ChangeKind::Unsubscribe {
                    order.lock().unwrap().push((who, change.subscription, received.is_final()));
                }
            })
        };
        let (stays, leaves) = (subscribe("stays").unwrap(), subscribe("leaves").unwrap());
        let id = leaves.id();
        leaves.unsubscribe_and_join(PATIENCE).unwrap();
        stays.unsubscribe_and_join(PATIENCE).unwrap();
        let mut seen = order.lock().unwrap().clone();
        if delivery == stasis_bus::Delivery::Dedicated {
            seen.sort_by_key(|(_, subscription, is_final)| (*subscription != id, *is_final)); // two threads
        }
        assert_eq!(seen, [("stays", id, false), ("leaves", id, true), ("stays", stays.id(), true)], "{delivery:?}");
    }
}

#[test]
fn g05_unsubscribing_in_the_own_handler() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let log = Log::new();
        let write = log.clone();
        let subscription = topic
            .subscriber()
            .delivery(delivery)
            .accept(&kind)
            .subscribe(move |received| {
                write.write(received);
                if received.payload::<u64>() == Some(&2) {
                    received.unsubscribe();
                    received.unsubscribe(); // again is harmless
                }
            })
            .unwrap();
        for n in 0..2 {
            topic.publish(kind.message(n)).unwrap();
        }
        topic.publish(kind.message(2)).unwrap();
        subscription.join_timeout(PATIENCE).unwrap();
        topic.publish(kind.message(3)).unwrap();
        log.assert_ended();
        assert_eq!(log.values(), [0, 1, 2], "{delivery:?}");
        assert!(!subscription.is_subscribed() && topic.subscribers() == 0);
    }
}

#[test]
fn g05_what_the_handler_publishes_before_it_leaves_still_comes() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let log = Log::new();
        let subscription = topic.subscriber().delivery(delivery).accept(&kind).subscribe({
            let (log, topic, kind) = (log.clone(), topic.clone(), kind.clone());
            move |received| {
                log.write(received);
                if received.payload::<u64>() == Some(&0) {
                    topic.publish(kind.message(1)).unwrap();
                    received.unsubscribe();
                    topic.publish(kind.message(2)).unwrap();
                }
            }
        });
        let subscription = subscription.unwrap();
        topic.publish(kind.message(0)).unwrap();
        subscription.join_timeout(PATIENCE).unwrap();
        assert_eq!(log.all(), [Seen::Value(0), Seen::Value(1), Seen::Final], "{delivery:?}");
    }
}

#[test]
fn g05_dropping_the_own_handle_in_the_handler() {
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let log = Log::new();
            let own = Arc::new(Mutex::new(None::<Subscription>));
            let (write, slot) = (log.clone(), Arc::clone(&own));
            let made = topic.subscriber().delivery(delivery).accept(&kind).subscribe(move |received| {
                write.write(received);
                if received.payload::<u64>() == Some(&1) {
                    let handle = slot.lock().unwrap().take();
                    drop(handle);
                }
            });
            let made = made.unwrap();
            let end = made.completion();
            *own.lock().unwrap() = Some(made);
            topic.publish(kind.message(0)).unwrap();
            topic.publish(kind.message(1)).unwrap();
            end.wait_timeout(PATIENCE).unwrap();
            assert_eq!(log.all(), [Seen::Value(0), Seen::Value(1), Seen::Final], "{delivery:?}");
        }
    });
}

#[test]
fn g05_unsubscribing_another_of_the_same_message() {
    // The first handler takes the others off: they still get this message, which was published before.
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let victims = Arc::new(Mutex::new(Vec::<Subscription>::new()));
        let take = Arc::clone(&victims);
        let _first = topic
            .subscriber()
            .delivery(delivery)
            .accept(&kind)
            .subscribe(move |_| {
                let victims = std::mem::take(&mut *take.lock().unwrap());
                drop(victims);
            })
            .unwrap();
        let logs: Vec<Log> = (0..3).map(|_| Log::new()).collect();
        let made = logs.iter().map(|log| topic.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()));
        let made: Vec<Subscription> = made.map(Result::unwrap).collect();
        let ends: Vec<_> = made.iter().map(Subscription::completion).collect();
        *victims.lock().unwrap() = made;
        topic.publish(kind.message(5)).unwrap();
        for (end, log) in ends.iter().zip(&logs) {
            end.wait_timeout(PATIENCE).unwrap();
            // Inline handlers run one after another: those further on had their end before the message came.
            let late = delivery == stasis_bus::Delivery::Inline && log.values().is_empty();
            assert!(late || log.all() == [Seen::Value(5), Seen::Final], "{delivery:?}: {:?}", log.all());
            log.assert_ended();
        }
    }
}

#[test]
fn g05_many_threads_unsubscribe_one_subscription_once() {
    for delivery in DELIVERIES {
        for _ in 0..stress(50) {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let watch = Log::new();
            let watcher = topic.subscriber().no_mailbox().subscribe(watch.handler()).unwrap();
            let log = Log::new();
            let subscription = topic.subscriber().delivery(delivery).subscribe(log.handler()).unwrap();
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| subscription.unsubscribe().wait_timeout(PATIENCE).unwrap());
                }
            });
            log.assert_ended();
            watcher.unsubscribe_and_join(PATIENCE).unwrap();
            let left = Seen::Change(ChangeKind::Unsubscribe, subscription.id());
            assert_eq!(watch.all().iter().filter(|seen| **seen == left).count(), 1);
        }
    }
}

#[test]
fn late_messages_are_counted_and_not_delivered() {
    // Accepted by a subscription = delivered + late: whatever was pushed to it is in one of the two.
    let bus = bus(2);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let calls = Arc::new(AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    topic.publish(kind.message(1)).unwrap();
                }
            });
        }
        for _ in 0..stress(300) {
            let calls = Arc::clone(&calls);
            let count = move |received: &stasis_bus::Received<'_>| {
                if !received.is_final() {
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            };
            let subscription = topic.subscriber().accept(&kind).subscribe(count).unwrap();
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    bus.shutdown(PATIENCE).unwrap();
    let stats = bus.stats();
    eventually("all retired", || bus.stats().subscriptions == 0);
    assert_eq!(stats.delivered, calls.load(Ordering::Relaxed));
    assert!(stats.delivered + stats.late <= stats.published, "{stats:?}");
}

#[test]
fn the_end_can_be_told_to_another_thread() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (tell, told) = channel();
    let subscription = topic.subscribe(move |received| {
        if received.is_final() {
            tell.send(()).unwrap();
        }
    });
    let subscription = subscription.unwrap();
    let end = subscription.completion();
    let waiter = thread::spawn(move || end.wait());
    drop(subscription);
    next(&told);
    assert_eq!(waiter.join().unwrap(), Ok(()));
}
