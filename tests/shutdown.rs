//! G11: shutdown ends - drained, with final messages, or with the names of those who keep it.
mod common;

use common::{DELIVERIES, Gate, Log, OpenAtEnd, PATIENCE, Seen, bus, eventually, must_end, next, number, stress};
use stasis_bus::{Bus, Delivery, Home, Pinning, PublishError, ShutdownError, Subscription, Topic};
use std::cell::RefCell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn g11_what_was_accepted_is_delivered_then_the_final_messages() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let logs: Vec<Log> = (0..40).map(|_| Log::new()).collect();
        let accept = |log: &Log| topic.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()).unwrap();
        let subscriptions: Vec<Subscription> = logs.iter().map(accept).collect();
        for n in 0..200 {
            topic.publish(kind.message(n)).unwrap();
        }
        let report = bus.shutdown(PATIENCE).unwrap();
        assert_eq!((report.ended, report.reclaimed), (40, true), "{delivery:?}");
        assert!(subscriptions.iter().all(|subscription| subscription.is_done() && !subscription.is_subscribed()));
        for log in &logs {
            log.assert_ended();
            assert!(log.values().into_iter().eq(0..200));
        }
        let again = bus.shutdown(PATIENCE).unwrap();
        assert_eq!(again.ended, 0, "twice is harmless");
        assert!(bus.is_closed());
    }
}

#[test]
fn g11_after_shutdown_publishing_hands_the_message_back() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let _subscription = topic.subscriber().accept(&kind).subscribe(|_| ()).unwrap();
    bus.shutdown(PATIENCE).unwrap();
    for message in [kind.message(5), number(&bus).message(5)] {
        let error = topic.publish(message.clone()).unwrap_err();
        assert!(matches!(&error, PublishError::Closed(_)) && error.is_closed() && !error.is_full());
        assert!(error.into_message().same_as(&message));
    }
    assert!(topic.publish_with(&kind, || 5).unwrap_err().is_closed());
    assert!(!topic.wants(&kind));
}

/// A publisher is in the middle of calling inline handlers when shutdown begins: what it has yet to deliver it
/// delivers, before the final messages.
#[test]
fn g11_a_publish_among_inline_handlers_is_delivered_before_the_final_messages() {
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let (gate, log) = (Gate::new(), Log::new());
        let (tell, entered) = channel();
        let held = gate.clone();
        let inline = || topic.subscriber().delivery(Delivery::Inline).accept(&kind);
        let _first = inline().subscribe(move |received| {
            if !received.is_final() {
                tell.send(()).unwrap();
                held.pass();
            }
        });
        let second = inline().subscribe(log.handler()).unwrap();
        let publisher = {
            let (topic, message) = (topic.clone(), kind.message(1));
            thread::spawn(move || topic.publish(message))
        };
        next(&entered);
        let ending = {
            let bus = bus.clone();
            thread::spawn(move || bus.shutdown(PATIENCE))
        };
        eventually("closed", || bus.is_closed());
        // What would be wrong, would be done in this time, or not be found.
        (0..1000).for_each(|_| thread::yield_now());
        assert!(second.is_subscribed(), "taken off the list while a publisher still has to call it");
        gate.open();
        publisher.join().unwrap().unwrap();
        assert!(ending.join().unwrap().unwrap().reclaimed);
        assert_eq!((log.values(), second.stats().late), (vec![1], 0));
        log.assert_ended();
    });
}

/// An inline handler that blocks a publisher takes half of the time, not all of it.
#[test]
fn g11_a_stuck_inline_handler_is_the_only_culprit() {
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let (go, gone) = channel();
        let held = Gate::new();
        let _open = OpenAtEnd(held.clone());
        let kind = number(&bus);
        let hog = {
            let held = held.clone();
            topic.subscriber().name("hog").delivery(Delivery::Inline).accept(&kind).subscribe(move |received| {
                if !received.is_final() {
                    go.send(()).unwrap();
                    held.pass();
                }
            })
        };
        let hog = hog.unwrap();
        let log = Log::new();
        let lane = topic.subscriber().accept(&kind).subscribe(log.handler()).unwrap();
        let publisher = {
            let (topic, message) = (topic.clone(), kind.message(1));
            thread::spawn(move || topic.publish(message))
        };
        next(&gone);
        // Long enough for a lane on a machine that is busy.
        assert_eq!(named(bus.shutdown(10 * SHORT)), [(format!("hog ({})", hog.unique_id()), true)]);
        lane.join_timeout(PATIENCE).unwrap();
        assert_eq!(log.values(), [1]);
        held.open();
        publisher.join().unwrap().unwrap();
        hog.join_timeout(PATIENCE).unwrap();
    });
}

/// A subscription whose handler, entered, stays in it until the gate opens.
fn stuck(topic: &Topic, delivery: Delivery, name: &str) -> (Subscription, Gate) {
    let gate = Gate::new();
    let (tell, entered) = channel();
    let held = gate.clone();
    let subscription = topic
        .subscriber()
        .name(name)
        .delivery(delivery)
        .subscribe(move |_| {
            let _ = tell.send(());
            held.pass();
        })
        .unwrap();
    next(&entered); // with its own beginning
    (subscription, gate)
}

fn named(result: Result<stasis_bus::ShutdownReport, ShutdownError>) -> Vec<(String, bool)> {
    let error = result.expect_err("a handler is stuck");
    assert!(error.to_string().contains("did not end"), "{error}");
    assert!(error.culprits().iter().all(|culprit| culprit.location.contains(file!())), "{error}");
    let mut named: Vec<_> = error.culprits().iter().map(|it| (it.subscription.clone(), it.running)).collect();
    named.sort();
    named
}

#[test]
fn g11_after_the_deadline_the_culprits_are_named() {
    must_end(|| {
        // Without watchdog: those behind a culprit wait with it.
        let bus = Bus::builder().lanes(2).pinning(Pinning::Off).watchdog(None).build().unwrap();
        let topic = bus.topic("t").unwrap();
        let log = Log::new();
        let (hog, gate) = stuck(&topic, Delivery::Lane(Home::Lane(0)), "hog");
        let _open = OpenAtEnd(gate.clone());
        let behind = topic.subscriber().name("behind").delivery(Delivery::Lane(Home::Lane(0)));
        let behind = behind.subscribe(log.handler()).unwrap();
        let elsewhere = topic.subscriber().delivery(Delivery::Lane(Home::Lane(1))).subscribe(|_| ()).unwrap();
        let expected =
            [(format!("behind ({})", behind.unique_id()), false), (format!("hog ({})", hog.unique_id()), true)];
        assert_eq!(named(bus.shutdown(SHORT)), expected);
        assert!(elsewhere.is_done(), "those who can end do");
        assert_eq!(named(bus.shutdown(SHORT)), expected, "asked again while they are stuck");
        gate.open();
        // It goes on by itself: what was accepted, then the final messages.
        hog.join_timeout(PATIENCE).unwrap();
        behind.join_timeout(PATIENCE).unwrap();
        log.assert_ended();
        bus.shutdown(PATIENCE).unwrap();
    });
}

#[test]
fn g11_a_dedicated_culprit_is_named_too() {
    must_end(|| {
        let bus = bus(1);
        let (hog, gate) = stuck(&bus.topic("t").unwrap(), Delivery::Dedicated, "hog");
        let _open = OpenAtEnd(gate);
        assert_eq!(named(bus.shutdown(SHORT)), [(format!("hog ({})", hog.unique_id()), true)]);
    });
}

#[test]
fn g11_a_culprit_whose_handle_was_dropped_is_named_too() {
    must_end(|| {
        for delivery in [Delivery::default(), Delivery::Dedicated] {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let (hog, gate) = stuck(&topic, delivery, "hog");
            let _open = OpenAtEnd(gate);
            let name = format!("hog ({})", hog.unique_id());
            drop(hog);
            assert_eq!(named(bus.shutdown(SHORT)), [(name, true)], "{delivery:?}");
        }
    });
}

#[test]
fn g11_who_is_leaving_while_the_bus_ends_still_gets_the_final_message() {
    // An inline watcher holds the unsubscribing thread between "off the lists" and "final message queued".
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let log = Log::new();
        let leaver = topic.subscribe(log.handler()).unwrap();
        let (end, id) = (leaver.completion(), leaver.id());
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let (tell, entered) = channel();
        let held = gate.clone();
        let watcher = topic.subscriber().no_mailbox().subscribe(move |received| {
            let change = received.payload::<stasis_bus::SubscriptionChange>().unwrap();
            if change.subscription == id {
                tell.send(()).unwrap();
                held.pass();
            }
        });
        let watcher = watcher.unwrap();
        let leaving = thread::spawn(move || drop(leaver));
        next(&entered);
        drop(watcher.unsubscribe()); // so that the watcher itself is no reason to wait
        let (ended, report) = channel();
        let ending = thread::spawn({
            let bus = bus.clone();
            move || ended.send(bus.shutdown(PATIENCE)).unwrap()
        });
        // A bus that does not know of the leaver ends now. One that does waits for the gate.
        assert_eq!(report.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout), "it must wait");
        gate.open();
        next(&report).unwrap();
        end.wait_timeout(PATIENCE).unwrap();
        log.assert_ended();
        leaving.join().unwrap();
        ending.join().unwrap();
    });
}

#[test]
fn g11_every_subscription_ends_once_when_handles_are_dropped_during_shutdown() {
    for round in 0..stress(100) {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let logs: Vec<Log> = (0..12).map(|_| Log::new()).collect();
        let make =
            |(n, log): (usize, &Log)| topic.subscriber().delivery(DELIVERIES[n % 3]).subscribe(log.handler()).unwrap();
        let subscriptions: Vec<Subscription> = logs.iter().enumerate().map(make).collect();
        let ends: Vec<_> = subscriptions.iter().map(Subscription::completion).collect();
        thread::scope(|scope| {
            scope.spawn(|| drop(subscriptions));
            scope.spawn(|| (0..round % 7).for_each(|_| thread::yield_now()));
            bus.shutdown(PATIENCE).unwrap();
        });
        for (end, log) in ends.iter().zip(&logs) {
            end.wait_timeout(PATIENCE).unwrap();
            log.assert_ended();
        }
    }
}

#[test]
fn g11_shutdown_in_a_handler_names_that_handler_and_ends_the_rest() {
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(2);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let (tell, told) = channel();
            let inside = bus.clone();
            let accept = topic.subscriber().delivery(delivery).accept(&kind);
            let subscription = accept
                .subscribe(move |received| {
                    if !received.is_final() {
                        tell.send(inside.shutdown(PATIENCE)).unwrap();
                    }
                })
                .unwrap();
            let log = Log::new();
            let other = topic.subscribe(log.handler()).unwrap();
            topic.publish(kind.message(1)).unwrap();
            let error = next(&told).unwrap_err();
            let culprits: Vec<_> = error.culprits().iter().map(|culprit| culprit.subscription.clone()).collect();
            assert_eq!(culprits, [subscription.unique_id()], "{delivery:?}");
            subscription.join_timeout(PATIENCE).unwrap();
            other.join_timeout(PATIENCE).unwrap();
            log.assert_ended();
        }
    });
}

#[test]
fn g11_the_last_handle_dropped_ends_the_bus() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let log = Log::new();
    let subscription = topic.subscriber().accept(&kind).subscribe(log.handler()).unwrap();
    let copy = bus.clone();
    drop(bus);
    topic.publish(kind.message(1)).unwrap();
    drop(copy);
    assert!(subscription.is_done() && topic.publish(kind.message(2)).unwrap_err().is_closed());
    assert_eq!(log.all(), [Seen::Value(1), Seen::Final]);
}

/// A bus whose last handle is dropped by `delivery`'s handler while other messages wait; the log and the end.
fn last_handle_in_handler(delivery: Delivery) -> (Log, Receiver<()>, Subscription) {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let log = Log::new();
    let (tell, told) = channel();
    let slot = Arc::new(Mutex::new(None::<Bus>));
    let (write, last) = (log.clone(), Arc::clone(&slot));
    let accept = topic.subscriber().delivery(delivery).accept(&kind);
    let subscription = accept
        .subscribe(move |received| {
            let bus = last.lock().unwrap().take();
            if bus.is_some() {
                drop(bus);
                tell.send(()).unwrap();
            }
            write.write(received);
        })
        .unwrap();
    *slot.lock().unwrap() = Some(bus);
    topic.publish(kind.message(1)).unwrap();
    (log, told, subscription)
}

#[test]
fn g11_the_last_handle_dropped_in_a_handler() {
    must_end(|| {
        for delivery in DELIVERIES {
            let (log, dropped, subscription) = last_handle_in_handler(delivery);
            next(&dropped);
            subscription.join_timeout(PATIENCE).unwrap();
            assert_eq!(log.all(), [Seen::Value(1), Seen::Final], "{delivery:?}");
            drop(subscription);
        }
    });
}

/// Does something in a destructor that runs while its thread ends.
struct AtThreadEnd(RefCell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtThreadEnd {
    fn drop(&mut self) {
        if let Some(act) = self.0.get_mut().take() {
            act();
        }
    }
}

thread_local! {
    static EARLY: AtThreadEnd = const { AtThreadEnd(RefCell::new(None)) };
    static LATE: AtThreadEnd = const { AtThreadEnd(RefCell::new(None)) };
}

/// Runs `work` on a thread, then `act` while it ends: once from a thread-local made before the bus's own
/// ones (its destructor may run after or before theirs), once from one made after.
fn at_thread_end(work: impl Fn() + Send, act: impl Fn() + Send + Sync + 'static) {
    let act = Arc::new(act);
    thread::scope(|scope| {
        let ending = scope.spawn(move || {
            let (one, two) = (Arc::clone(&act), act);
            EARLY.with(|slot| *slot.0.borrow_mut() = Some(Box::new(move || one())));
            work();
            LATE.with(|slot| *slot.0.borrow_mut() = Some(Box::new(move || two())));
        });
        ending.join().unwrap(); // unlike the end of the scope this waits for the destructors too
    });
}

#[test]
fn an_ending_thread_may_publish_subscribe_and_wait() {
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let log = Log::new();
            let subscription = topic.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()).unwrap();
            let inside = (bus.clone(), topic.clone(), kind.clone());
            let act = move || {
                let (bus, topic, kind) = &inside;
                topic.publish(kind.message(2)).unwrap();
                let own = Log::new();
                let other = bus.topic("other").unwrap();
                let made = other.subscriber().delivery(delivery).accept(kind).subscribe(own.handler()).unwrap();
                other.publish_sync(kind.message(3), &made).unwrap();
                made.unsubscribe_and_join(PATIENCE).unwrap();
                assert_eq!(own.all(), [Seen::Value(3), Seen::Final]);
                topic.publish(kind.message(4)).unwrap();
            };
            at_thread_end(|| topic.publish(kind.message(1)).unwrap(), act);
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(log.values(), [1, 2, 4, 2, 4], "{delivery:?}");
        }
    });
}

#[test]
fn g11_an_ending_thread_may_drop_the_last_handle() {
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let log = Log::new();
            let subscription = topic.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()).unwrap();
            let end = subscription.completion();
            let last = Mutex::new(Some((subscription, bus)));
            at_thread_end(|| topic.publish(kind.message(1)).unwrap(), move || drop(last.lock().unwrap().take()));
            end.wait_timeout(PATIENCE).unwrap();
            assert_eq!(log.all(), [Seen::Value(1), Seen::Final], "{delivery:?}");
        }
    });
}

#[test]
fn g11_publishers_racing_with_shutdown_are_accepted_and_delivered_or_refused() {
    for _ in 0..stress(60) {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let logs = DELIVERIES.map(|delivery| {
            let log = Log::new();
            (topic.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()).unwrap(), log)
        });
        let accepted: u64 = thread::scope(|scope| {
            let publishers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut accepted = 0;
                        loop {
                            match topic.publish(kind.message(1)) {
                                Ok(()) => accepted += 1,
                                Err(PublishError::Closed(_)) => return accepted,
                                Err(_) => thread::yield_now(),
                            }
                        }
                    })
                })
                .collect();
            eventually("some are published", || bus.stats().published > 20);
            bus.shutdown(PATIENCE).unwrap();
            publishers.into_iter().map(|publisher| publisher.join().unwrap()).sum()
        });
        for (subscription, log) in &logs {
            log.assert_ended();
            assert_eq!((log.values().len() as u64, subscription.stats().late), (accepted, 0), "{subscription:?}");
        }
    }
}

#[test]
fn a_bus_that_ends_leaves_no_ring_memory_but_its_lanes() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let before = bus.stats().ring_bytes;
    let subscriptions: Vec<_> = (0..20).map(|_| topic.subscriber().mailbox().subscribe(|_| ()).unwrap()).collect();
    assert!(bus.stats().ring_bytes > before);
    drop(subscriptions);
    eventually("the rings of dedicated subscriptions are given back", || {
        let _ = topic.subscribe(|_| ()); // looks after retired lists
        bus.stats().ring_bytes == before
    });
    assert_eq!(bus.shutdown(PATIENCE).unwrap().ring_bytes, before);
}

/// Hosts use the library that our publishers are pinned with, too.
#[test]
fn g11_a_thread_that_a_host_has_pinned_may_end_the_bus() {
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let log = Log::new();
        let _pinned = crossbeam_epoch::pin();
        let _listener = topic.subscriber().accept(&kind).subscribe(log.handler()).unwrap();
        topic.publish(kind.message(1)).unwrap();
        assert!(bus.shutdown(2 * PATIENCE).unwrap().reclaimed);
        assert_eq!(log.all(), [Seen::Value(1), Seen::Final]);
    });
}

/// A publisher that is in an inline handler has yet to call the next one.
#[test]
fn g11_what_a_publisher_is_delivering_comes_before_the_final_messages() {
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let (log, gate) = (Log::new(), Gate::new());
        let open = OpenAtEnd(gate.clone());
        let (tell, entered) = channel();
        let first = topic.subscriber().no_mailbox().accept(&kind);
        let first = first.subscribe(move |received| {
            if !received.is_final() {
                tell.send(()).unwrap();
                gate.pass();
            }
        });
        let second = topic.subscriber().no_mailbox().accept(&kind).subscribe(log.handler()).unwrap();
        thread::scope(|scope| {
            let publisher = scope.spawn(|| topic.publish(kind.message(1)));
            next(&entered);
            let end = scope.spawn(|| bus.shutdown(PATIENCE));
            eventually("the bus closes", || bus.is_closed());
            // It has all the time it needs to send the final message too early.
            let too_early = (0..100).any(|_| {
                thread::sleep(Duration::from_millis(1));
                second.is_done()
            });
            open.0.open();
            assert!(!too_early, "publish has not returned");
            publisher.join().unwrap().unwrap();
            end.join().unwrap().unwrap();
        });
        assert_eq!(log.all(), [Seen::Value(1), Seen::Final]);
        drop(first);
    });
}

#[test]
fn g11_shutdown_does_not_wait_for_a_slow_watchdog() {
    must_end(|| {
        let bus = Bus::builder().lanes(2).watchdog(Some(4 * PATIENCE)).build().unwrap();
        let subscription = bus.topic("t").unwrap().subscribe(|_| ()).unwrap();
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        let began = Instant::now();
        bus.shutdown(4 * PATIENCE).unwrap();
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    });
}

#[test]
fn a_short_call_is_not_taken_over_while_other_lanes_end() {
    must_end(|| {
        let mut taken = 0;
        for _ in 0..20 {
            let bus = Bus::builder().lanes(4).pinning(Pinning::Off).watchdog(Duration::from_secs(20)).build().unwrap();
            let kind = number(&bus);
            let t = bus.topic("t").unwrap();
            let (tell, told) = std::sync::mpsc::channel();
            let sub = t
                .subscriber()
                .delivery(Delivery::Lane(Home::Lane(0)))
                .accept(&kind)
                .subscribe(move |received| {
                    if !received.is_final() {
                        tell.send(()).unwrap();
                        std::thread::sleep(Duration::from_millis(80));
                    }
                })
                .unwrap();
            t.publish(kind.message(1)).unwrap();
            told.recv().unwrap();
            let _ = bus.shutdown(Duration::from_millis(5));
            std::thread::sleep(Duration::from_millis(100));
            taken += bus.stats().lanes.iter().map(|l| l.takeovers).sum::<u64>();
            drop(sub);
        }
        assert_eq!(taken, 0);
    });
}
