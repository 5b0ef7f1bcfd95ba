//! Conformance: where handlers run, and that publishing waits for none of them (G3, G4, G6, G7).
mod common;

use common::{DELIVERIES, Gate, Log, OpenAtEnd, PATIENCE, bus, must_end, next, number, stress};
use stasis_bus::{Bus, Delivery, Home, Pinning, Subscription, SubscriptionChange, Topic, WaitStrategy};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// A bus whose lanes stay with their threads, however slow the machine is.
fn steady_bus(lanes: usize) -> Bus {
    Bus::builder().name("test").lanes(lanes).pinning(Pinning::Off).watchdog(None).build().unwrap()
}

/// A subscription that tells the name of the thread it runs on.
fn where_it_runs(topic: &Topic, delivery: Delivery) -> (Subscription, Receiver<String>) {
    let (tell, told) = channel();
    let subscription = topic
        .subscriber()
        .delivery(delivery)
        .accept(SubscriptionChange::message_type())
        .subscribe(move |received| {
            if received.payload::<SubscriptionChange>().unwrap().subscription == received.subscription_id() {
                let _ = tell.send(thread::current().name().unwrap_or_default().to_owned());
            }
        })
        .unwrap();
    (subscription, told)
}

#[test]
fn g03_every_message_comes_once_and_in_order_whatever_the_delivery() {
    for wait in [WaitStrategy::BusySpin, WaitStrategy::Yield, WaitStrategy::Park, WaitStrategy::Adaptive] {
        let bus = Bus::builder().lanes(2).pinning(Pinning::Off).wait(wait).build().unwrap();
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let logs: Vec<_> = DELIVERIES
            .map(|delivery| {
                let log = Log::new();
                (topic.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()).unwrap(), log)
            })
            .into();
        let many = stress(5_000) as u64;
        for n in 0..many {
            topic.publish(kind.message(n)).unwrap();
        }
        for (subscription, log) in logs {
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            log.assert_ended();
            assert!(log.values().into_iter().eq(0..many), "{wait:?}");
            assert_eq!(subscription.stats().delivered, many);
        }
    }
}

#[test]
fn g04_a_handler_never_runs_on_two_threads_at_once() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let inside = AtomicBool::new(false);
        let subscription = topic
            .subscriber()
            .delivery(delivery)
            .subscribe(move |_| {
                assert!(!inside.swap(true, Ordering::SeqCst), "somebody is in the handler");
                std::hint::black_box((0..20).sum::<u64>());
                inside.store(false, Ordering::SeqCst);
            })
            .unwrap();
        let each = stress(3_000) as u64;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..each).for_each(|n| publish_at_last(&topic, || kind.message(n))));
            }
        });
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!((subscription.stats().panics, subscription.stats().delivered), (0, 4 * each + 1), "{delivery:?}");
    }
}

/// Publishes; tries again while an inline queue is full.
fn publish_at_last(topic: &Topic, message: impl Fn() -> stasis_bus::Message) {
    while let Err(error) = topic.publish(message()) {
        assert!(error.is_full());
        thread::yield_now();
    }
}

#[test]
fn a_given_lane_is_the_lane_it_runs_on() {
    let bus = steady_bus(2);
    let topic = bus.topic("t").unwrap();
    for lane in [0, 1, 1, 0] {
        let (_subscription, runs) = where_it_runs(&topic, Delivery::Lane(Home::Lane(lane)));
        assert_eq!(next(&runs), format!("test/{lane}"));
    }
}

#[test]
fn affinity_keeps_sixteen_of_a_topic_together_then_goes_on() {
    let bus = steady_bus(2);
    let topic = bus.topic("t").unwrap();
    let homes: Vec<_> = (0..40).map(|_| where_it_runs(&topic, Delivery::Lane(Home::Affinity))).collect();
    let lanes: Vec<String> = homes.iter().map(|(_, runs)| next(runs)).collect();
    let groups: Vec<&[String]> = lanes.chunks(16).collect();
    assert!(groups.iter().all(|group| group.iter().all(|lane| *lane == group[0])), "{lanes:?}");
    assert!(groups[0][0] != groups[1][0] && groups[0][0] == groups[2][0], "{lanes:?}");
}

#[test]
fn least_loaded_spreads_and_counts_those_that_left() {
    let bus = steady_bus(2);
    let topic = bus.topic("t").unwrap();
    let spread = |count: usize| {
        let homes: Vec<_> = (0..count).map(|_| where_it_runs(&topic, Delivery::Lane(Home::LeastLoaded))).collect();
        let mut lanes = BTreeMap::<String, usize>::new();
        homes.iter().for_each(|(_, runs)| *lanes.entry(next(runs)).or_default() += 1);
        (lanes.into_values().collect::<Vec<_>>(), homes)
    };
    assert_eq!(spread(10).0, [5, 5]);
    let on_first: Vec<_> = (0..6).map(|_| where_it_runs(&topic, Delivery::Lane(Home::Lane(0)))).collect();
    let (counts, _homes) = spread(8);
    assert_eq!(counts, [1, 7], "those that left no longer count, those on lane 0 do");
    drop(on_first);
}

#[test]
fn dedicated_runs_on_a_thread_of_its_own() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (tell, told) = channel();
    let two = [(); 2].map(|()| {
        let tell = tell.clone();
        topic
            .subscriber()
            .mailbox()
            .subscribe(move |_| drop(tell.send((thread::current().id(), thread::current().name().unwrap().to_owned()))))
            .unwrap()
    });
    let mut threads: Vec<_> = (0..3).map(|_| next(&told)).collect();
    assert!(threads.iter().all(|(_, name)| name.starts_with("own/t")), "{threads:?}");
    threads.sort_by_key(|(id, _)| format!("{id:?}"));
    threads.dedup();
    assert_eq!(threads.len(), 2);
    drop(two);
}

#[test]
fn g06_a_blocked_handler_blocks_no_publish_and_no_other_home() {
    for blocked in DELIVERIES {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let (tell, entered) = channel();
        let held = gate.clone();
        let home = if blocked == Delivery::default() { Delivery::Lane(Home::Lane(0)) } else { blocked };
        let stuck = topic
            .subscriber()
            .delivery(home)
            .accept(&kind)
            .subscribe(move |_| {
                let _ = tell.send(());
                held.pass();
            })
            .unwrap();
        let (heard, ears) = channel();
        let others = [Delivery::Lane(Home::Lane(1)), Delivery::Dedicated, Delivery::Inline].map(|delivery| {
            let heard = heard.clone();
            topic
                .subscriber()
                .delivery(delivery)
                .accept(&kind)
                .subscribe(move |received| {
                    let _ = heard.send(received.payload::<u64>().copied());
                })
                .unwrap()
        });
        let first = thread::spawn({
            let (topic, message) = (topic.clone(), kind.message(0));
            move || topic.publish(message).unwrap()
        });
        next(&entered);
        for n in 1..=100 {
            topic.publish(kind.message(n)).unwrap();
        }
        // An inline handler that blocks holds the one publisher it runs in; nobody else.
        let before = if blocked == Delivery::Inline { 300 } else { 303 };
        for _ in 0..before {
            assert!(next(&ears).is_some(), "{blocked:?}");
        }
        assert_eq!(stuck.stats().delivered, 1);
        gate.open();
        first.join().unwrap();
        stuck.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(stuck.stats().delivered, 101, "{blocked:?}");
        drop(others);
    }
}

#[test]
fn inline_runs_in_the_publisher_before_publish_returns() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let ran = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ran);
    let _subscription = topic
        .subscriber()
        .no_mailbox()
        .accept(&kind)
        .subscribe(move |received| {
            log.lock().unwrap().push((thread::current().id(), received.payload::<u64>().copied()))
        })
        .unwrap();
    topic.publish(kind.message(1)).unwrap();
    assert_eq!(*ran.lock().unwrap(), [(thread::current().id(), Some(1))]);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            topic.publish(kind.message(2)).unwrap();
            thread::current().id()
        });
        let other = other.join().unwrap();
        assert_eq!(ran.lock().unwrap()[1], (other, Some(2)));
    });
}

#[test]
fn g06_an_inline_handler_publishes_to_itself_a_thousand_deep() {
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let log = Log::new();
        let subscription = topic
            .subscriber()
            .no_mailbox()
            .accept(&kind)
            .subscribe({
                let (log, again, kind) = (log.clone(), topic.clone(), kind.clone());
                move |received| {
                    log.write(received);
                    if let Some(n @ 0..1000) = received.payload::<u64>() {
                        again.publish(kind.message(n + 1)).unwrap();
                        assert_eq!(log.values().last(), Some(n), "queued, not called from inside itself");
                    }
                }
            })
            .unwrap();
        topic.publish(kind.message(0)).unwrap();
        assert!(log.values().into_iter().eq(0..=1000), "all served before the outer publish returned");
        assert_eq!(subscription.stats().panics, 0);
    });
}

#[test]
fn g06_inline_handlers_publish_through_a_chain_of_a_thousand_topics() {
    must_end(|| {
        let bus = bus(1);
        let kind = number(&bus);
        let topics: Vec<Topic> = (0..1000).map(|n| bus.topic(format!("t{n}")).unwrap()).collect();
        let count = Arc::new(AtomicU64::new(0));
        let subscriptions: Vec<Subscription> = (0..1000)
            .map(|n| {
                let (count, kind, after) = (Arc::clone(&count), kind.clone(), topics.get(n + 1).cloned());
                let chain = topics[n].subscriber().no_mailbox().accept(&kind.clone());
                chain
                    .subscribe(move |received| {
                        if received.is_final() {
                            return;
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                        if let Some(after) = &after {
                            after.publish(kind.message(n as u64)).unwrap();
                        }
                    })
                    .unwrap()
            })
            .collect();
        topics[0].publish(kind.message(0)).unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 1000);
        drop(subscriptions);
    });
}

#[test]
fn g07_every_call_is_allowed_in_every_handler() {
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let (tell, told) = channel();
            let inside = (bus.clone(), topic.clone(), kind.clone());
            let subscription = topic
                .subscriber()
                .delivery(delivery)
                .accept(&kind)
                .subscribe(move |received| {
                    let (bus, topic, kind) = &inside;
                    if received.payload::<u64>() != Some(&1) {
                        return;
                    }
                    let other = bus.topic("made inside").unwrap();
                    let log = Log::new();
                    for nested in DELIVERIES {
                        let made = other.subscriber().delivery(nested).accept(kind).subscribe(log.handler()).unwrap();
                        let forward = topic.forward_to(&other).unwrap();
                        topic.publish(kind.message(2)).unwrap();
                        other.publish_sync(kind.message(3), &made).unwrap();
                        made.decline(kind);
                        topic.publish(kind.message(4)).unwrap();
                        forward.cancel();
                        made.unsubscribe_and_join(PATIENCE).unwrap();
                        assert_eq!(bus.topics().len(), 2);
                        assert!(bus.stats().published > 0);
                    }
                    tell.send(log.values()).unwrap();
                })
                .unwrap();
            topic.publish(kind.message(1)).unwrap();
            assert_eq!(next(&told), [2, 3, 2, 3, 2, 3], "{delivery:?}");
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            // Itself: 1, and twice three from inside.
            assert_eq!((subscription.stats().delivered, subscription.stats().panics), (7, 0), "{delivery:?}");
        }
    });
}

#[test]
fn more_than_one_lane_worth_of_subscribers_all_get_it() {
    let bus = bus(2);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let count = Arc::new(AtomicU64::new(0));
    let subscriptions: Vec<Subscription> = (0..1000)
        .map(|_| {
            let count = Arc::clone(&count);
            let add = move |received: &stasis_bus::Received<'_>| {
                if !received.is_final() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            };
            topic.subscriber().accept(&kind).subscribe(add).unwrap()
        })
        .collect();
    // Every second one goes, in an order that thins out all chunks of the list.
    let kept: Vec<Subscription> = subscriptions
        .into_iter()
        .enumerate()
        .filter_map(|(n, subscription)| (n % 2 == 0).then_some(subscription))
        .collect();
    assert_eq!(topic.subscribers(), 500);
    for n in 0..10 {
        topic.publish(kind.message(n)).unwrap();
    }
    let ends: Vec<_> = kept.iter().map(Subscription::unsubscribe).collect();
    ends.iter().for_each(|end| end.wait_timeout(PATIENCE).unwrap());
    assert_eq!(count.load(Ordering::Relaxed), 5000);
    assert_eq!(bus.stats().ended, 1000);
}
