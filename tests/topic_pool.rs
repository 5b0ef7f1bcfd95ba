//! Topic pools: one name one topic, forwarded while the pool has it; no lock order to get wrong.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{DELIVERIES, Gate, Log, OpenAtEnd, PATIENCE, bus, eventually, must_end, next, number, stress};
use stasis_bus::MessageType;
use stasis_bus::topic_pool::{PoolError, TopicPool};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

#[test]
fn a_topic_is_named_under_the_pooled_one_and_forwarded_to_it() {
    let bus = bus(1);
    let kind = number(&bus);
    let (all, log) = (bus.topic("devices").unwrap(), Log::new());
    let listener = all.subscriber().accept(&kind).subscribe(log.handler()).unwrap();
    let pool = TopicPool::new(&bus, &all).unwrap();
    assert!(pool.is_empty() && pool.pooled_topic() == &all);
    let (a, b) = (pool.get("SIP/100").unwrap(), pool.get("SIP/200").unwrap());
    assert_eq!((a.name(), b.name(), pool.len()), ("devices/SIP/100", "devices/SIP/200", 2));
    a.publish(kind.message(1)).unwrap();
    b.publish(kind.message(2)).unwrap();
    all.publish(kind.message(3)).unwrap();
    listener.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(log.values(), [1, 2, 3]);
}

#[test]
fn the_same_name_gives_the_same_topic() {
    let bus = bus(1);
    let pool = TopicPool::new(&bus, &bus.topic("p").unwrap()).unwrap();
    let topic = pool.get("a").unwrap();
    assert!(pool.get("a").unwrap() == topic && pool.get("p/a").unwrap() == topic && pool.len() == 1);
    assert!(bus.topic("p/a").unwrap() == topic, "it is a topic of the bus like any other");
    assert!(pool.get("b").unwrap() != topic);
}

#[test]
fn short_and_qualified_names_mean_the_same() {
    let bus = bus(1);
    let pool = TopicPool::new(&bus, &bus.topic("p").unwrap()).unwrap();
    for (made, deleted) in [("a", "a"), ("a", "p/a"), ("p/a", "a"), ("p/a", "p/a")] {
        pool.get(made).unwrap();
        assert!(pool.exists("a") && pool.exists("p/a"));
        assert!(pool.delete(deleted), "{made} {deleted}");
        assert!(!pool.exists("a") && !pool.exists("p/a") && !pool.delete("a") && pool.is_empty());
    }
    // Only the whole name with its slash is a prefix.
    for name in ["phone", "p", "p-a", "pa", "/a", "é"] {
        let topic = pool.get(name).unwrap();
        assert_eq!(topic.name(), format!("p/{name}"));
        assert!(pool.exists(name) && pool.delete(name) && !pool.exists(name));
    }
}

#[test]
fn names_that_cannot_be() {
    let bus = bus(1);
    let pool = TopicPool::new(&bus, &bus.topic("p").unwrap()).unwrap();
    for name in ["", "p/"] {
        assert_eq!(pool.get(name).unwrap_err(), PoolError::NoName);
        assert!(!pool.exists(name) && !pool.delete(name));
    }
    assert!(bus.find_topic("p/").is_none());
    // A pooled topic without a name is a name too.
    let nameless = TopicPool::new(&bus, &bus.topic("").unwrap()).unwrap();
    assert_eq!(nameless.get("a").unwrap().name(), "/a");
    assert!(nameless.delete("/a"));
    let other = common::bus(1);
    assert_eq!(TopicPool::new(&bus, &other.topic("p").unwrap()).unwrap_err(), PoolError::OtherBus);
}

#[test]
fn deleting_cancels_the_forward_and_leaves_the_topic_to_its_listeners() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let kind = number(&bus);
        let all = bus.topic("all").unwrap();
        let pool = TopicPool::new(&bus, &all).unwrap();
        let (below, own) = (Log::new(), Log::new());
        let upper = all.subscriber().delivery(delivery).accept(&kind).subscribe(below.handler()).unwrap();
        let topic = pool.get("a").unwrap();
        let lower = topic.subscriber().delivery(delivery).accept(&kind).subscribe(own.handler()).unwrap();
        topic.publish(kind.message(1)).unwrap();
        assert!(pool.delete("a") && !pool.exists("a"));
        topic.publish(kind.message(2)).unwrap();
        // Asked for again while somebody listens: the same topic, forwarded again.
        assert!(pool.get("a").unwrap() == topic);
        topic.publish(kind.message(3)).unwrap();
        drop(topic);
        assert!(pool.delete("a"));
        lower.topic().publish(kind.message(4)).unwrap();
        lower.unsubscribe_and_join(PATIENCE).unwrap();
        upper.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!((own.values(), below.values()), (vec![1, 2, 3, 4], vec![1, 3]), "{delivery:?}");
        assert!(bus.find_topic("all/a").is_some(), "a subscription's handle keeps its topic");
        drop(lower);
        assert!(bus.find_topic("all/a").is_none());
    }
}

#[test]
fn g10_a_dropped_pool_cancels_its_forwards() {
    let bus = bus(1);
    let kind = number(&bus);
    let all = bus.topic("all").unwrap();
    let listener = all.subscriber().accept(&kind).subscribe(|_| ()).unwrap();
    let pool = TopicPool::new(&bus, &all).unwrap();
    let (kept, _) = (pool.get("kept").unwrap(), pool.get("left").unwrap());
    assert!(kept.wants(&kind));
    drop(pool);
    assert!(!kept.wants(&kind) && bus.find_topic("all/left").is_none());
    drop((listener, all));
    assert!(bus.find_topic("all").is_none(), "the pool does not keep the pooled topic any more");
}

#[test]
fn g10_a_pool_in_a_handler_keeps_no_bus_open() {
    must_end(|| {
        let (gone, ended) = channel::<()>();
        let bus = bus(1);
        let all = bus.topic("all").unwrap();
        let pool = TopicPool::new(&bus, &all).unwrap();
        let subscription = all
            .subscribe(move |_| {
                let _ = (&gone, pool.get("a"));
            })
            .unwrap();
        drop(bus); // the last handle: shuts down, with final messages
        assert!(subscription.is_done() && ended.recv().is_err());
        assert_eq!(subscription.stats().panics, 0);
    });
}

#[test]
fn after_shutdown() {
    let bus = bus(1);
    let pool = TopicPool::new(&bus, &bus.topic("p").unwrap()).unwrap();
    let topic = pool.get("a").unwrap();
    bus.shutdown(PATIENCE).unwrap();
    assert_eq!(pool.get("b").unwrap_err(), PoolError::Closed);
    assert!(pool.get("a").unwrap() == topic && !pool.exists("b") && pool.exists("a") && pool.delete("p/a"));
    assert_eq!(pool.get("a").unwrap_err(), PoolError::Closed);
}

#[test]
fn a_topic_that_exists_on_the_bus_is_taken_in() {
    let bus = bus(1);
    let kind = number(&bus);
    let all = bus.topic("p").unwrap();
    let log = Log::new();
    let listener = all.subscriber().accept(&kind).subscribe(log.handler()).unwrap();
    let before = bus.topic("p/a").unwrap();
    let pool = TopicPool::new(&bus, &all).unwrap();
    assert!(!pool.exists("a"));
    // Two pools over one topic: each forwards, a message comes once all the same.
    let second = TopicPool::new(&bus, &all).unwrap();
    assert!(pool.get("a").unwrap() == before && second.get("a").unwrap() == before);
    before.publish(kind.message(1)).unwrap();
    assert!(pool.delete("a") && second.exists("a"));
    before.publish(kind.message(2)).unwrap();
    drop(second);
    before.publish(kind.message(3)).unwrap();
    listener.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(log.values(), [1, 2]);
}

#[test]
fn g07_a_handler_uses_the_pool_that_feeds_it() {
    for delivery in DELIVERIES {
        must_end(move || {
            let bus = bus(1);
            let kind = number(&bus);
            let all = bus.topic("all").unwrap();
            let pool = Arc::new(TopicPool::new(&bus, &all).unwrap());
            let (done, told) = channel();
            let (inside, message) = (Arc::clone(&pool), kind.clone());
            let _listener = all
                .subscriber()
                .delivery(delivery)
                .accept(&kind)
                .subscribe(move |received| {
                    let Some(&n) = received.payload::<u64>() else { return };
                    assert!(inside.delete(format!("{n}")) && !inside.exists(format!("{n}")));
                    if n == 0 {
                        return done.send(()).unwrap();
                    }
                    inside.get(format!("{}", n - 1)).unwrap().publish(message.message(n - 1)).unwrap();
                })
                .unwrap();
            pool.get("20").unwrap().publish(kind.message(20)).unwrap();
            next(&told);
            assert!(pool.is_empty());
            assert_eq!(bus.stats().panics, 0);
        });
    }
}

#[test]
fn many_threads_get_delete_and_ask() {
    must_end(|| {
        let bus = bus(2);
        let kind = number(&bus);
        let all = bus.topic("all").unwrap();
        let pool = TopicPool::new(&bus, &all).unwrap();
        let log = Log::new();
        let listener = all.subscriber().accept(&kind).subscribe(log.handler()).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let (pool, kind, stop, all) = (&pool, &kind, &stop, &all);
            let workers: Vec<_> = (0..4)
                .map(|at| {
                    scope.spawn(move || {
                        for n in 0..stress(2_000) as u64 {
                            let shared = pool.get(format!("{}", n % 7)).unwrap();
                            assert_eq!(shared.name(), format!("all/{}", n % 7));
                            // A name of this thread alone: what it says is exact.
                            let own = format!("own{at}");
                            let topic = pool.get(&own).unwrap();
                            topic.publish(kind.message(at << 32 | n)).unwrap();
                            assert!(pool.exists(&own));
                            assert!(pool.delete(if n % 2 == 0 { own.clone() } else { format!("all/{own}") }));
                            assert!(!pool.exists(&own));
                            topic.publish(kind.message(u64::MAX)).unwrap();
                            if n % 3 == 0 {
                                pool.delete(shared.name());
                            }
                        }
                    })
                })
                .collect();
            // Meanwhile subscriptions and forwards on the pooled topic, and lists of everything.
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    drop((all.subscribe(|_| ()).unwrap(), all.forward_to(all).unwrap(), pool.len()));
                }
            });
            let ends: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            stop.store(true, Ordering::Relaxed);
            ends.into_iter().for_each(|end| end.unwrap());
        });
        listener.unsubscribe_and_join(PATIENCE).unwrap();
        let values = log.values();
        for at in 0..4 {
            let own = values.iter().copied().filter(|n| n >> 32 == at);
            assert!(own.eq((0..stress(2_000) as u64).map(|n| at << 32 | n)), "thread {at}");
        }
        assert_eq!(values.len(), 4 * stress(2_000), "nothing after delete");
        for n in 0..7 {
            pool.delete(format!("{n}"));
        }
        assert!(pool.is_empty());
        assert_eq!(bus.topics().len(), 1);
    });
}

#[test]
fn threads_that_race_for_a_name_get_one_topic_and_one_forward() {
    let bus = bus(1);
    let kind = number(&bus);
    let all = bus.topic("all").unwrap();
    let _listener = all.subscriber().accept(&kind).subscribe(|_| ()).unwrap();
    let pool = TopicPool::new(&bus, &all).unwrap();
    for n in 0..stress(300) {
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let topics: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        gate.pass();
                        pool.get(format!("{n}")).unwrap()
                    })
                })
                .collect();
            gate.open();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert!(topics.iter().all(|topic| *topic == topics[0] && topic.wants(&kind)));
        assert!(pool.delete(format!("{n}")) && !pool.delete(format!("{n}")));
        assert!(!topics[0].wants(&kind), "no forward is left");
    }
}

#[test]
fn g07_destructors_that_use_the_pool_find_no_lock_held() {
    must_end(|| {
        struct AsksThePool(Arc<TopicPool>, Arc<AtomicUsize>);
        impl Drop for AsksThePool {
            fn drop(&mut self) {
                self.0.get("x").unwrap();
                self.0.delete("x");
                self.1.fetch_add(1, Ordering::SeqCst);
            }
        }
        let bus = bus(1);
        let all = bus.topic("all").unwrap();
        // The lane is busy, so that what is retired is dropped by this thread, in the middle of its calls.
        let (gate, (told, entered)) = (Gate::new(), channel());
        let _open = OpenAtEnd(gate.clone());
        let busy = bus.topic("busy").unwrap();
        let _blocker = busy
            .subscribe(move |_| {
                told.send(()).unwrap();
                gate.pass();
            })
            .unwrap();
        next(&entered);
        let _listener = all.subscriber().no_mailbox().subscribe(|_| ()).unwrap();
        let (pool, gone) = (Arc::new(TopicPool::new(&bus, &all).unwrap()), Arc::new(AtomicUsize::new(0)));
        let many = stress(200);
        for n in 0..many {
            // A type that lives on in a filter, which goes with a retired list: at any change of a list.
            let held = AsksThePool(Arc::clone(&pool), Arc::clone(&gone));
            let kind = MessageType::<u64>::builder("brief")
                .to_json(move |_| {
                    let _ = &held;
                    None
                })
                .create(&bus)
                .unwrap();
            let topic = pool.get(format!("{n}")).unwrap();
            drop(topic.subscriber().no_mailbox().accept(&kind).subscribe(|_| ()).unwrap());
            drop(kind);
            assert!(pool.delete(format!("{n}")));
        }
        eventually("the types go", || {
            pool.get("z").unwrap();
            pool.delete("z");
            gone.load(Ordering::SeqCst) == many
        });
    });
}
