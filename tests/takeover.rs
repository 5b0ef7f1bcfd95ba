//! G8: a handler that blocks, loops or is slow delays its own subscription only.
#![allow(missing_docs)]
mod common;

use common::{Drops, Gate, Log, OpenAtEnd, PATIENCE, Random, Seen, eventually, lock, must_end, next, number, stress};
use stasis_bus::{
    Bus, BusBuilder, Delivery, Home, MessageType, Overflow, PanicPolicy, Pinning, Received, Subscription, Topic,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const LANE: Delivery = Delivery::Lane(Home::Lane(0));
const PERIOD: Duration = Duration::from_micros(500);

fn builder() -> BusBuilder {
    Bus::builder().name("test").lanes(1).pinning(Pinning::Off).watchdog(PERIOD)
}

fn one_lane() -> Bus {
    builder().build().unwrap()
}

/// A subscription whose handler waits at the gate when it gets `at`, and writes down what it gets. It accepts
/// numbers only.
fn stuck_at(topic: &Topic, kind: &MessageType<u64>, at: u64, gate: &Gate, log: &Log) -> Subscription {
    let (gate, log) = (gate.clone(), log.clone());
    let handle = move |received: &Received<'_>| {
        if received.payload::<u64>() == Some(&at) {
            gate.pass();
        }
        log.write(received);
    };
    topic.subscriber().delivery(LANE).accept(kind).subscribe(handle).unwrap()
}

#[test]
fn g08_the_others_of_the_lane_go_on_while_a_handler_is_stuck() {
    must_end(|| {
        let bus = one_lane();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let logs = [(); 8].map(|()| Log::new());
        // The third is stuck: those before and behind it in the list, and later messages, go on.
        let subscriptions: Vec<_> = logs
            .iter()
            .enumerate()
            .map(|(n, log)| stuck_at(&topic, &kind, if n == 3 { 10 } else { u64::MAX }, &gate, log))
            .collect();
        for n in 0..1000 {
            topic.publish(kind.message(n)).unwrap();
        }
        for (n, log) in logs.iter().enumerate().filter(|(n, _)| *n != 3) {
            eventually(&format!("subscription {n} gets all"), || log.values().len() == 1000);
        }
        assert_eq!(logs[3].values(), (0..10).collect::<Vec<_>>(), "the stuck one has what came before");
        assert!(bus.stats().takeovers >= 1);
        gate.open();
        eventually("the stuck one catches up", || logs[3].values().len() == 1000);
        for (subscription, log) in subscriptions.iter().zip(&logs) {
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            log.assert_ended();
            assert!(log.values().into_iter().eq(0..1000), "in order (G2), each once (G3)");
        }
        let stats = bus.stats();
        assert_eq!((stats.published, stats.delivered, stats.late), (1000, 8000, 0));
    });
}

/// No call lasts, but together they keep the lane: the others wait all the same. On queues of the lane's, and with
/// queues of the subscriptions' own.
#[test]
fn g08_a_slow_handler_loses_the_lane_though_none_of_its_calls_lasts() {
    for own_queues in [false, true] {
        must_end(move || {
            // A call is a thirtieth of the period: no look finds the same one again.
            let bus = builder().watchdog(Duration::from_millis(90)).build().unwrap();
            let kind = number(&bus);
            let topic = bus.topic("t").unwrap();
            let logs = [(); 4].map(|()| Log::new());
            let (gate, lost) = (Gate::new(), Arc::new(AtomicBool::new(false)));
            let _open = OpenAtEnd(gate.clone());
            let subscriptions: Vec<_> = logs
                .iter()
                .enumerate()
                .map(|(n, log)| {
                    let (log, lost, gate) = (log.clone(), Arc::clone(&lost), gate.clone());
                    let mut builder = topic.subscriber().delivery(LANE).accept(&kind);
                    if own_queues {
                        builder = builder.overflow(Overflow::Fail { limit: 1 << 20 });
                    }
                    let handle = move |received: &Received<'_>| {
                        if n == 1 && !received.is_final() {
                            if lost.load(Ordering::SeqCst) {
                                gate.pass();
                            } else {
                                thread::sleep(Duration::from_millis(3));
                            }
                        }
                        log.write(received);
                    };
                    builder.subscribe(handle).unwrap()
                })
                .collect();
            let count = AtomicUsize::new(0);
            eventually("the slow one loses the lane", || {
                for _ in 0..3 {
                    topic.publish(kind.message(count.fetch_add(1, Ordering::SeqCst) as u64)).unwrap();
                }
                bus.stats().takeovers > 0
            });
            lost.store(true, Ordering::SeqCst);
            let all = count.into_inner();
            for (n, log) in logs.iter().enumerate().filter(|(n, _)| *n != 1) {
                eventually(&format!("subscription {n} has all"), || log.values().len() == all);
            }
            assert!(logs[1].values().len() < all, "the slow one has not");
            gate.open();
            for (subscription, log) in subscriptions.iter().zip(&logs) {
                subscription.unsubscribe_and_join(PATIENCE).unwrap();
                log.assert_ended();
                assert!(log.values().into_iter().eq(0..all as u64), "in order (G2), each once (G3)");
            }
        });
    }
}

#[test]
fn g08_without_watchdog_they_wait() {
    must_end(|| {
        let bus = builder().watchdog(None).build().unwrap();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let (gate, log, other) = (Gate::new(), Log::new(), Log::new());
        let _open = OpenAtEnd(gate.clone());
        let _stuck = stuck_at(&topic, &kind, 0, &gate, &log);
        let _behind = stuck_at(&topic, &kind, u64::MAX, &gate, &other);
        topic.publish(kind.message(0)).unwrap();
        thread::sleep(Duration::from_millis(20));
        assert_eq!((other.values(), bus.stats().takeovers), (Vec::<u64>::new(), 0));
        gate.open();
        eventually("it comes in the end", || other.values() == [0]);
    });
}

#[test]
fn g05_the_final_message_of_a_stuck_subscription_is_last() {
    must_end(|| {
        let bus = one_lane();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let (gate, log, other) = (Gate::new(), Log::new(), Log::new());
        let _open = OpenAtEnd(gate.clone());
        let stuck = stuck_at(&topic, &kind, 0, &gate, &log);
        let free = stuck_at(&topic, &kind, u64::MAX, &gate, &other);
        for n in 0..3 {
            topic.publish(kind.message(n)).unwrap();
        }
        let end = stuck.unsubscribe();
        topic.publish(kind.message(3)).unwrap();
        free.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(other.values(), [0, 1, 2, 3]);
        assert!(!end.is_done());
        gate.open();
        end.wait_timeout(PATIENCE).unwrap();
        log.assert_ended();
        assert_eq!(log.values(), [0, 1, 2]);
    });
}

#[test]
fn g08_many_stuck_at_once_leave_the_lane_to_the_rest() {
    must_end(|| {
        let bus = one_lane();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let logs: Vec<_> = (0..12).map(|_| Log::new()).collect();
        let all: Vec<_> = (0..12)
            .map(|n| stuck_at(&topic, &kind, if n % 2 == 0 { n as u64 } else { u64::MAX }, &gate, &logs[n]))
            .collect();
        for n in 0..100 {
            topic.publish(kind.message(n)).unwrap();
        }
        for n in (1..12).step_by(2) {
            eventually("the free ones get all", || logs[n].values().len() == 100);
        }
        let stats = bus.stats();
        assert!(stats.takeovers >= 6 && stats.spare_threads >= 6, "{stats:?}");
        gate.open();
        for (subscription, log) in all.iter().zip(&logs) {
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            log.assert_ended();
            assert!(log.values().into_iter().eq(0..100));
        }
    });
}

#[test]
fn g09_spare_threads_are_bounded_and_that_is_reported() {
    must_end(|| {
        let bus = builder().spare_threads(2).build().unwrap();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let logs: Vec<_> = (0..5).map(|_| Log::new()).collect();
        let all: Vec<_> =
            (0..5).map(|n| stuck_at(&topic, &kind, if n < 4 { 0 } else { u64::MAX }, &gate, &logs[n])).collect();
        topic.publish(kind.message(0)).unwrap();
        eventually("it is said that there is no thread left", || bus.stats().takeovers_refused > 0);
        let stats = bus.stats();
        assert_eq!((stats.takeovers, stats.spare_threads_high_water), (2, 2), "{stats:?}");
        assert_eq!(logs[4].values(), [0_u64; 0], "behind the third stuck one, for which there is no thread");
        gate.open();
        for (subscription, log) in all.iter().zip(&logs) {
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(log.values(), [0]);
        }
    });
}

/// More handlers stuck than there are threads for, now and then, in final messages too, while others publish and some
/// leave.
#[test]
fn g02_g03_g05_hold_with_more_stuck_ones_than_spare_threads() {
    must_end(|| {
        for seed in 0..stress(3) as u64 {
            let bus = builder().watchdog(Duration::from_micros(100)).spare_threads(2).build().unwrap();
            let kind = number(&bus);
            let topic = bus.topic("t").unwrap();
            let logs: Vec<_> = (0..12).map(|_| Log::new()).collect();
            let handler = |n: u64| {
                let (log, mut random) = (logs[n as usize].clone(), Random::new(seed * 100 + n));
                move |received: &Received<'_>| {
                    let stuck = if received.is_final() { n.is_multiple_of(2) } else { random.below(60) == 0 };
                    if stuck {
                        thread::sleep(Duration::from_micros(random.below(1500) as u64));
                    }
                    log.write(received);
                }
            };
            let subscribe = |n| topic.subscriber().delivery(LANE).accept(&kind).subscribe(handler(n)).unwrap();
            let all: Vec<_> = (0..12).map(subscribe).collect();
            thread::scope(|scope| {
                for publisher in 0..2u64 {
                    let (topic, kind) = (&topic, &kind);
                    scope.spawn(move || {
                        (0..600).for_each(|n| topic.publish(kind.message(publisher << 32 | n)).unwrap())
                    });
                }
                for (n, subscription) in all.iter().enumerate().take(5) {
                    eventually("it has some", || logs[n].values().len() > 50 * n);
                    drop(subscription.unsubscribe());
                }
            });
            for (n, (subscription, log)) in all.iter().zip(&logs).enumerate() {
                subscription.unsubscribe_and_join(PATIENCE).unwrap();
                log.assert_ended();
                for publisher in 0..2u64 {
                    let values = log.values().into_iter().filter(|value| value >> 32 == publisher);
                    let values: Vec<_> = values.map(|value| value & 0xffff_ffff).collect();
                    assert!(values.iter().copied().eq(0..values.len() as u64), "{n}: in order, each once: {values:?}");
                    assert!(n < 5 || values.len() == 600, "{n}, who stayed, has {} of {publisher}", values.len());
                }
            }
            let stats = bus.stats();
            assert_eq!(stats.delivered, logs.iter().map(|log| log.values().len() as u64).sum::<u64>());
            assert!(stats.spare_threads_high_water <= 2, "{stats:?}");
            bus.shutdown(PATIENCE).unwrap();
        }
    });
}

#[test]
fn g08_a_handler_may_get_stuck_in_its_final_message() {
    must_end(|| {
        let bus = one_lane();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let (gate, log, other) = (Gate::new(), Log::new(), Log::new());
        let _open = OpenAtEnd(gate.clone());
        let drops = Drops::new();
        let (pass, write, token) = (gate.clone(), log.clone(), drops.token());
        let handle = move |received: &Received<'_>| {
            let _held = &token;
            if received.is_final() {
                pass.pass();
            }
            write.write(received);
        };
        let stuck = topic.subscriber().delivery(LANE).accept(&kind).subscribe(handle).unwrap();
        let free = stuck_at(&topic, &kind, u64::MAX, &gate, &other);
        topic.publish(kind.message(0)).unwrap();
        let end = stuck.unsubscribe();
        eventually("it is stuck", || bus.stats().takeovers == 1);
        topic.publish(kind.message(1)).unwrap();
        eventually("the other one goes on", || other.values() == [0, 1]);
        let error = bus.shutdown(Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.culprits().len(), 1, "{error}");
        assert!(free.is_done() && !end.is_done());
        assert_eq!(drops.dropped(), 0, "its handler runs");
        gate.open();
        end.wait_timeout(PATIENCE).unwrap();
        log.assert_ended();
        assert_eq!((log.values(), drops.dropped()), (vec![0], 1));
        bus.shutdown(PATIENCE).unwrap();
    });
}

#[test]
fn g08_a_looping_handler_is_a_stuck_one() {
    must_end(|| {
        let bus = one_lane();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let go = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&go);
        let spinning = topic
            .subscriber()
            .delivery(LANE)
            .accept(&kind)
            .subscribe(move |received| {
                while !received.is_final() && !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
            .unwrap();
        let log = Log::new();
        let _free = stuck_at(&topic, &kind, u64::MAX, &Gate::new(), &log);
        (0..10).for_each(|n| topic.publish(kind.message(n)).unwrap());
        eventually("the other gets all", || log.values().len() == 10);
        go.store(true, Ordering::Relaxed);
        spinning.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(spinning.stats().delivered, 10);
    });
}

#[test]
fn g08_it_comes_back_to_its_lane_when_it_is_quick_again() {
    must_end(|| {
        // A long period: on a busy machine quick handlers too are put aside for a while.
        let bus = builder().watchdog(Duration::from_millis(20)).build().unwrap();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let (gate, log) = (Gate::new(), Log::new());
        let threads = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&threads);
        let witness = topic
            .subscriber()
            .delivery(LANE)
            .accept(&kind)
            .subscribe(move |_| lock(&record).push(thread::current().id()))
            .unwrap();
        let own = Arc::new(Mutex::new(Vec::new()));
        let (record, pass, write) = (Arc::clone(&own), gate.clone(), log.clone());
        let stuck = topic
            .subscriber()
            .delivery(LANE)
            .accept(&kind)
            .subscribe(move |received| {
                if received.payload::<u64>() == Some(&0) {
                    pass.pass();
                }
                lock(&record).push(thread::current().id());
                write.write(received);
            })
            .unwrap();
        topic.publish(kind.message(0)).unwrap();
        eventually("the lane goes on", || bus.stats().takeovers == 1);
        gate.open();
        // Quick from now on: sooner or later both are called by one thread again.
        eventually("it is back", || {
            (0..50).for_each(|_| topic.publish(kind.message(2)).unwrap());
            topic.publish_sync(kind.message(1), &stuck).unwrap();
            topic.publish_sync(kind.message(1), &witness).unwrap();
            lock(&own).last() == lock(&threads).last()
        });
        assert_eq!(log.values()[0], 0);
    });
}

#[test]
fn g07_a_stuck_handler_may_wait_for_the_lane_it_lost() {
    must_end(|| {
        let bus = one_lane();
        let kind = number(&bus);
        let (topic, side) = (bus.topic("t").unwrap(), bus.topic("side").unwrap());
        let (gate, log) = (Gate::new(), Log::new());
        let _open = OpenAtEnd(gate.clone());
        let other = Arc::new(stuck_at(&side, &kind, u64::MAX, &gate, &log));
        let (done, ended) = channel();
        let (pass, publish, target, made) = (gate.clone(), side.clone(), Arc::clone(&other), kind.clone());
        let stuck = topic
            .subscriber()
            .delivery(LANE)
            .accept(&kind)
            .subscribe(move |received| {
                if !received.is_final() {
                    pass.pass();
                    // The lane is another thread's by now.
                    publish.publish_sync(made.message(7), &target).unwrap();
                    done.send(target.stats().delivered).unwrap();
                }
            })
            .unwrap();
        topic.publish(kind.message(0)).unwrap();
        eventually("taken over", || bus.stats().takeovers == 1);
        gate.open();
        assert_eq!(next(&ended), 1);
        assert_eq!(log.values(), [7]);
        stuck.unsubscribe_and_join(PATIENCE).unwrap();
    });
}

#[test]
fn g08_what_helps_below_a_stuck_handler_is_taken_over_too() {
    must_end(|| {
        // `waiter` waits for `stuck` inside its handler and helps its lane; the helped call gets stuck.
        let bus = one_lane();
        let kind = number(&bus);
        let (topic, side, rest) = (bus.topic("t").unwrap(), bus.topic("side").unwrap(), bus.topic("rest").unwrap());
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let (log, free, waits) = (Log::new(), Log::new(), Log::new());
        let stuck = Arc::new(stuck_at(&side, &kind, 1, &gate, &log));
        let _free = stuck_at(&rest, &kind, u64::MAX, &gate, &free);
        let (publish, target, made, write) = (side.clone(), Arc::clone(&stuck), kind.clone(), waits.clone());
        let waiter = topic
            .subscriber()
            .delivery(LANE)
            .accept(&kind)
            .subscribe(move |received| {
                if received.payload::<u64>() == Some(&0) {
                    publish.publish_sync(made.message(1), &target).unwrap();
                }
                write.write(received);
            })
            .unwrap();
        let behind = Log::new();
        let _behind = stuck_at(&topic, &kind, u64::MAX, &gate, &behind);
        topic.publish(kind.message(0)).unwrap();
        topic.publish(kind.message(2)).unwrap();
        rest.publish(kind.message(3)).unwrap();
        eventually("others go on", || free.values() == [3] && behind.values() == [0, 2]);
        assert_eq!(waits.values(), [0_u64; 0]);
        gate.open();
        eventually("the waiter comes out", || waits.values() == [0, 2]);
        assert_eq!(log.values(), [1]);
        waiter.unsubscribe_and_join(PATIENCE).unwrap();
        waits.assert_ended();
    });
}

#[test]
fn g10_a_list_that_is_replaced_while_a_handler_is_stuck_in_it() {
    must_end(|| {
        let bus = one_lane();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let (gate, log, drops) = (Gate::new(), Log::new(), Drops::new());
        let _open = OpenAtEnd(gate.clone());
        let stuck = stuck_at(&topic, &kind, 0, &gate, &log);
        let others: Vec<_> = (0..100)
            .map(|_| {
                let token = drops.token();
                let handle = move |_: &Received<'_>| {
                    let _ = &token;
                };
                topic.subscriber().delivery(LANE).accept(&kind).subscribe(handle).unwrap()
            })
            .collect();
        topic.publish(kind.message(0)).unwrap();
        eventually("taken over", || bus.stats().takeovers >= 1);
        // All lists the stuck walk knows are retired and freed while it stands in one of them.
        for other in others {
            other.unsubscribe_and_join(PATIENCE).unwrap();
        }
        drops.await_all_gone("their handlers");
        for _ in 0..200 {
            let short = topic.subscriber().delivery(LANE).accept(&kind).subscribe(|_| ()).unwrap();
            topic.publish(kind.message(1)).unwrap();
            short.unsubscribe_and_join(PATIENCE).unwrap();
        }
        gate.open();
        stuck.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(log.values().len(), 201);
        log.assert_ended();
    });
}

#[test]
fn g11_a_bus_with_a_stuck_handler_ends_when_it_returns() {
    must_end(|| {
        let bus = one_lane();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let (gate, log, other) = (Gate::new(), Log::new(), Log::new());
        let _open = OpenAtEnd(gate.clone());
        let stuck = stuck_at(&topic, &kind, 0, &gate, &log);
        let free = stuck_at(&topic, &kind, u64::MAX, &gate, &other);
        (0..5).for_each(|n| topic.publish(kind.message(n)).unwrap());
        let error = bus.shutdown(Duration::from_millis(300)).unwrap_err();
        let named: Vec<_> = error.culprits().iter().map(|it| (it.subscription.clone(), it.running)).collect();
        assert_eq!(named, [(stuck.unique_id(), true)], "the others have ended");
        assert!(free.is_done());
        assert_eq!(other.values(), [0, 1, 2, 3, 4]);
        gate.open();
        stuck.join_timeout(PATIENCE).unwrap();
        log.assert_ended();
        assert_eq!(log.values(), [0, 1, 2, 3, 4]);
        bus.shutdown(PATIENCE).unwrap();
    });
}

#[test]
fn g12_a_panic_after_a_take_over_is_contained() {
    must_end(|| {
        for policy in [PanicPolicy::Continue, PanicPolicy::End] {
            let bus = one_lane();
            let kind = number(&bus);
            let topic = bus.topic("t").unwrap();
            let (gate, calls) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
            let _open = OpenAtEnd(gate.clone());
            let (pass, count) = (gate.clone(), Arc::clone(&calls));
            let stuck = topic
                .subscriber()
                .delivery(LANE)
                .accept(&kind)
                .on_panic(policy)
                .subscribe(move |received| {
                    count.fetch_add(1, Ordering::SeqCst);
                    if received.payload::<u64>() == Some(&0) {
                        pass.pass();
                        panic!("planned");
                    }
                })
                .unwrap();
            let log = Log::new();
            let _free = stuck_at(&topic, &kind, u64::MAX, &gate, &log);
            topic.publish(kind.message(0)).unwrap();
            topic.publish(kind.message(1)).unwrap();
            eventually("the other goes on", || log.values() == [0, 1]);
            gate.open();
            eventually("the panic is counted", || stuck.stats().panics == 1);
            stuck.unsubscribe_and_join(PATIENCE).unwrap();
            // Both messages and the final one: what was published before the end counts.
            assert_eq!(calls.load(Ordering::SeqCst), 3, "{policy:?}");
        }
    });
}

#[test]
fn g02_g03_g04_g05_hold_for_handlers_that_are_slow_now_and_then() {
    must_end(|| {
        for seed in 0..stress(6) as u64 {
            let bus =
                Bus::builder().lanes(2).pinning(Pinning::Off).watchdog(Duration::from_micros(100)).build().unwrap();
            let kind = number(&bus);
            let topics: Vec<_> = (0..3).map(|n| bus.topic(format!("t{n}")).unwrap()).collect();
            let _forward = topics[0].forward_to(&topics[2]).unwrap();
            let _forward2 = topics[1].forward_to(&topics[2]).unwrap();
            let logs: Vec<_> = (0..24).map(|_| Log::new()).collect();
            let inside: Vec<_> = (0..24).map(|_| Arc::new(AtomicBool::new(false))).collect();
            let subscriptions: Vec<_> = (0..24)
                .map(|n| {
                    let (log, inside) = (logs[n].clone(), Arc::clone(&inside[n]));
                    let mut random = Random::new(seed * 100 + n as u64);
                    let handle = move |received: &Received<'_>| {
                        assert!(!inside.swap(true, Ordering::SeqCst), "G4: one at a time");
                        if n % 3 == 0 && random.below(100) == 0 {
                            thread::sleep(Duration::from_micros(random.below(600) as u64));
                        }
                        log.write(received);
                        inside.store(false, Ordering::SeqCst);
                    };
                    let home = Delivery::Lane(Home::Lane(n % 2));
                    topics[n % 3].subscriber().delivery(home).accept(&kind).subscribe(handle).unwrap()
                })
                .collect();
            thread::scope(|scope| {
                for publisher in 0..2u64 {
                    let (topics, kind) = (&topics, &kind);
                    scope.spawn(move || {
                        for n in 0..1000 {
                            topics[publisher as usize].publish(kind.message(publisher << 32 | n)).unwrap();
                        }
                    });
                }
            });
            for (n, (subscription, log)) in subscriptions.iter().zip(&logs).enumerate() {
                subscription.unsubscribe_and_join(PATIENCE).unwrap();
                log.assert_ended();
                for publisher in 0..2u64 {
                    let got: Vec<_> =
                        log.values().into_iter().filter(|v| v >> 32 == publisher).map(|v| v & 0xffff_ffff).collect();
                    let expected = if n % 3 == 2 || n % 3 == publisher as usize { 1000 } else { 0 };
                    assert!(got.into_iter().eq(0..expected), "subscription {n}, publisher {publisher}, seed {seed}");
                }
            }
            let stats = bus.stats();
            bus.shutdown(PATIENCE).unwrap();
            assert_eq!(stats.delivered, 2 * 8 * 1000 + 8 * 2000, "{stats:?}");
        }
    });
}

#[test]
fn g09_a_mailbox_counts_towards_the_budget() {
    must_end(|| {
        let bus = builder().ring_capacity(1024).memory_budget(64 << 10).build().unwrap();
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let (gate, log) = (Gate::new(), Log::new());
        let _open = OpenAtEnd(gate.clone());
        let stuck = stuck_at(&topic, &kind, 0, &gate, &log);
        topic.publish(kind.message(0)).unwrap();
        eventually("taken over", || bus.stats().takeovers == 1);
        let mut taken = 1;
        eventually("publishes are refused", || match topic.publish(kind.message(1)) {
            Ok(()) => {
                COUNT.fetch_add(1, Ordering::SeqCst);
                false
            }
            Err(error) => error.is_full(),
        });
        taken += COUNT.load(Ordering::SeqCst);
        assert!(taken < 100_000, "{taken} messages in 64 KiB");
        gate.open();
        eventually("and taken again", || topic.publish(kind.message(2)).is_ok());
        stuck.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(log.values().len(), taken + 1);
        assert_eq!(log.all().last(), Some(&Seen::Final));
        static COUNT: AtomicUsize = AtomicUsize::new(0);
    });
}
