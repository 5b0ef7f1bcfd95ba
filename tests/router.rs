//! Routers: by type, by the type inside, by default; changed while messages flow.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{
    DELIVERIES, Drops, Gate, Log, OpenAtEnd, PATIENCE, Random, Seen, bus, eventually, lock, must_end, next, number,
    stress,
};
use proptest::prelude::*;
use stasis_bus::cache::{Cache, CacheClear, CacheUpdate, CachingTopic};
use stasis_bus::router::{LimitsError, RouteError, Router};
use stasis_bus::{
    AnyMessageType, Bus, Delivery, Formatters, Home, JoinError, MessageType, PanicPolicy, PublishSyncError, Received,
    SubscriptionChange, Topic,
};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

/// Panics quietly: without the hook's output.
fn bang() -> ! {
    resume_unwind(Box::new("bang"))
}

/// Sets a flag when a test ends, by panic too, so that threads beside it end.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn kinds(bus: &Bus, count: usize) -> Vec<MessageType<u64>> {
    (0..count).map(|n| MessageType::new(bus, format!("kind{n}")).unwrap()).collect()
}

/// A type with a formatter.
fn with_json(bus: &Bus, name: &str) -> MessageType<u64> {
    MessageType::builder(name).to_json(|n: &u64| Some(n.to_string())).create(bus).unwrap()
}

fn with_ami(bus: &Bus, name: &str) -> MessageType<u64> {
    MessageType::builder(name).to_ami(|n: &u64| Some(n.to_string())).create(bus).unwrap()
}

fn router(topic: &Topic, delivery: Delivery) -> Router {
    Router::builder(topic).delivery(delivery).create().unwrap()
}

#[test]
fn a_message_goes_to_the_route_of_its_type_and_to_no_other() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let (kinds, logs) = (kinds(&bus, 3), [Log::new(), Log::new(), Log::new()]);
        let router = router(&topic, delivery);
        for (kind, log) in kinds.iter().zip(&logs) {
            router.add(kind, log.handler()).unwrap();
        }
        for n in 0..30 {
            topic.publish(kinds[n as usize % 3].message(n)).unwrap();
        }
        router.unsubscribe_and_join(PATIENCE).unwrap();
        for (at, log) in (0..).zip(&logs) {
            assert!(log.values().into_iter().eq((at..30).step_by(3)), "{delivery:?}: {at}");
        }
        assert_eq!((router.stats().delivered, router.unrouted()), (30, 0));
    }
}

#[test]
fn create_has_its_own_thread_and_create_pool_a_lane() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let (gate, (told, names)) = (Gate::new(), channel());
    let _open = OpenAtEnd(gate.clone());
    let (own, pool) = (Router::create(&topic).unwrap(), Router::create_pool(&topic).unwrap());
    let (pass, tell) = (gate.clone(), told.clone());
    own.add(&kind, move |_| {
        pass.pass();
        tell.send(thread::current().name().unwrap_or_default().to_owned()).unwrap();
    })
    .unwrap();
    pool.add(&kind, move |_| told.send(thread::current().name().unwrap_or_default().to_owned()).unwrap()).unwrap();
    topic.publish(kind.message(1)).unwrap();
    let on_lane = next(&names); // while the other is blocked
    gate.open();
    let on_own = next(&names);
    assert_ne!(on_lane, on_own);
    let inline = Router::builder(&topic).name("inline").no_mailbox().create().unwrap();
    assert_eq!((inline.name(), inline.topic() == &topic), (Some("inline"), true));
    let here = thread::current().id();
    let (tell, heard) = channel();
    inline.add(&kind, move |_| tell.send(thread::current().id()).unwrap()).unwrap();
    topic.publish(kind.message(2)).unwrap();
    assert_eq!(heard.try_recv(), Ok(here));
    let error = Router::builder(&topic).delivery(Delivery::Lane(Home::Lane(9))).create().unwrap_err();
    assert_eq!(error.to_string(), "there is no lane 9, the bus has 1");
}

#[test]
fn what_is_not_routed_is_not_wanted() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kinds = kinds(&bus, 2);
        let wanted =
            || (topic.wants(&kinds[0]), topic.wants(&kinds[1]), topic.wants(SubscriptionChange::message_type()));
        let router = router(&topic, delivery);
        assert_eq!(wanted(), (false, false, false), "nothing is accepted before the first route");
        router.add(&kinds[0], |_| ()).unwrap();
        assert_eq!(wanted(), (true, false, false));
        topic.publish(kinds[1].message(1)).unwrap();
        assert_eq!((bus.stats().published, bus.stats().unwanted), (0, 1));
        router.add(&kinds[1], |_| ()).unwrap();
        assert_eq!(wanted(), (true, true, false));
        assert!(router.remove(&kinds[0]) && !router.remove(&kinds[0]));
        assert_eq!(wanted(), (false, true, false));
        router.set_default(|_| ()).unwrap();
        assert_eq!(wanted(), (true, true, true));
        assert!(router.remove_default() && !router.remove_default());
        assert_eq!(wanted(), (false, true, false));
        router.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(wanted(), (false, false, false));
        assert_eq!(router.stats().delivered, 0);
    }
}

#[test]
fn the_default_route_gets_what_has_no_route() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kinds = kinds(&bus, 2);
        let (routed, other, later) = (Log::new(), Log::new(), Log::new());
        let router = router(&topic, delivery);
        router.add(&kinds[0], routed.handler()).unwrap();
        router.set_default(other.handler()).unwrap();
        let beside = topic.subscribe(|_| ()).unwrap();
        for n in 0..4 {
            topic.publish(kinds[n as usize % 2].message(n)).unwrap();
        }
        router.publish_sync(kinds[0].message(4)).unwrap();
        // Set again: in place of the one before.
        router.set_default(later.handler()).unwrap();
        topic.publish(kinds[1].message(5)).unwrap();
        router.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(routed.all(), [0, 2, 4].map(Seen::Value), "{delivery:?}");
        let change = Seen::Change(stasis_bus::ChangeKind::Subscribe, beside.id());
        assert_eq!(other.all(), [change, Seen::Value(1), Seen::Value(3)], "{delivery:?}");
        assert_eq!(later.all(), [Seen::Value(5), Seen::Final]);
    }
}

#[test]
fn a_default_route_with_formatters_gets_those_only_and_routes_are_not_limited() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let (plain, bare) = (number(&bus), MessageType::<u64>::new(&bus, "bare").unwrap());
        let (json, ami, json_routed) = (with_json(&bus, "json"), with_ami(&bus, "ami"), with_json(&bus, "routed"));
        let (routes, other) = (Log::new(), Log::new());
        let router = router(&topic, delivery);
        router.add(&plain, routes.handler()).unwrap();
        router.add(&json_routed, routes.handler()).unwrap();
        router.set_formatters_default(other.handler(), Formatters::JSON).unwrap();
        let publish = |from: u64| {
            for (n, kind) in (from..).zip([&plain, &bare, &json, &ami]) {
                topic.publish(kind.message(n)).unwrap();
            }
            // What waits is routed by the formatters of its turn, so let nothing wait.
            router.publish_sync(json_routed.message(from + 4)).unwrap();
        };
        assert!(topic.wants(&plain) && topic.wants(&json) && !topic.wants(&ami) && !topic.wants(&bare));
        publish(0);
        router.accept_formatters(Formatters::AMI | Formatters::EVENT);
        assert!(!topic.wants(&json) && topic.wants(&json_routed) && topic.wants(&ami));
        publish(10);
        // Kept for a default route that is set later, as in Stasis.
        router.set_default(other.handler()).unwrap();
        publish(20);
        router.set_formatters_default(other.handler(), Formatters::NONE).unwrap();
        publish(30);
        router.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(routes.values(), [0, 4, 10, 14, 20, 24, 30, 34], "{delivery:?}");
        assert_eq!(other.values(), [2, 13, 23, 31, 32, 33], "{delivery:?}");
    }
}

#[test]
fn formatters_without_a_default_route_let_nothing_in() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let json = with_json(&bus, "json");
    let router = Router::create_pool(&topic).unwrap();
    router.accept_formatters(Formatters::JSON);
    assert!(!topic.wants(&json));
    router.set_default(|_| ()).unwrap();
    assert!(topic.wants(&json));
    assert!(router.remove_default() && !topic.wants(&json));
}

#[test]
fn a_type_has_one_route() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (kind, log, drops) = (number(&bus), Log::new(), Drops::new());
    let router = Router::create_pool(&topic).unwrap();
    router.add(&kind, log.handler()).unwrap();
    let token = drops.token();
    let error = router.add(&kind, move |_| _ = hold(&token)).unwrap_err();
    assert_eq!(error, RouteError::Taken("number".into()));
    assert_eq!(error.to_string(), "message type 'number' has a route already");
    drops.assert_all_gone("the refused callback");
    // A cache route of the same type is another matter.
    router.add_cache_update(&kind, |_| ()).unwrap();
    assert_eq!(router.add_cache_update(&kind, |_| ()).unwrap_err(), RouteError::Taken("number".into()));
    assert!(router.remove_cache_update(&kind) && !router.remove_cache_update(&kind));
    router.publish_sync(kind.message(1)).unwrap();
    assert_eq!(log.values(), [1]);
}

#[test]
fn g05_the_final_message_goes_to_the_change_route_else_to_the_default_and_comes_last() {
    for delivery in DELIVERIES {
        for with_change_route in [false, true] {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let (typed, changes, other, drops) = (Log::new(), Log::new(), Log::new(), Drops::new());
            let router = router(&topic, delivery);
            let counted = |log: &Log| {
                let (log, token) = (log.clone(), drops.token());
                move |received: &Received<'_>| {
                    let _ = &token;
                    log.write(received);
                }
            };
            router.add(&kind, counted(&typed)).unwrap();
            // Limited to a formatter that changes do not have: it gets the final message all the same.
            router.set_formatters_default(counted(&other), Formatters::JSON).unwrap();
            if with_change_route {
                router.add(SubscriptionChange::message_type(), counted(&changes)).unwrap();
            }
            let many = stress(500) as u64;
            for n in 0..many {
                topic.publish(kind.message(n)).unwrap();
            }
            assert_eq!(drops.dropped(), 0);
            let end = router.unsubscribe();
            topic.publish(kind.message(u64::MAX)).unwrap();
            end.wait_timeout(PATIENCE).unwrap();
            drops.assert_all_gone("callbacks, before the router is done");
            assert!(router.is_done() && !router.is_subscribed());
            assert!(typed.all().into_iter().eq((0..many).map(Seen::Value)));
            let (with, without) = if with_change_route { (changes, other) } else { (other, changes) };
            assert_eq!((with.all(), without.all()), (vec![Seen::Final], vec![]), "{delivery:?}");
            assert_eq!(router.add(&kind, |_| ()), Err(RouteError::Ended));
            assert_eq!(router.set_default(|_| ()), Err(RouteError::Ended));
            assert!(!router.remove(&kind) && !router.remove_default());
            router.accept_formatters(Formatters::JSON);
            router.routes().unsubscribe();
        }
    }
}

#[test]
fn g05_dropping_the_router_ends_it() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let (kind, log, drops) = (number(&bus), Log::new(), Drops::new());
        let router = router(&topic, delivery);
        let (write, token) = (log.clone(), drops.token());
        router
            .set_default(move |received| {
                let _ = &token;
                write.write(received);
            })
            .unwrap();
        let (end, routes) = (router.completion(), router.routes());
        topic.publish(kind.message(1)).unwrap();
        drop(router);
        end.wait_timeout(PATIENCE).unwrap();
        assert_eq!(log.all(), [Seen::Value(1), Seen::Final]);
        drops.assert_all_gone("the callback");
        assert_eq!(routes.add(&kind, |_| ()), Err(RouteError::Ended));
        assert_eq!(topic.subscribers(), 0);
    }
}

#[test]
fn g10_a_callback_that_holds_its_routes_is_no_cycle() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (kind, drops) = (number(&bus), Drops::new());
    let router = Router::create_pool(&topic).unwrap();
    let held = (router.routes(), topic.clone(), drops.token());
    router.add(&kind, move |_| _ = hold(&held)).unwrap();
    let end = router.completion();
    drop((router, topic));
    end.wait_timeout(PATIENCE).unwrap();
    drops.assert_all_gone("the callback");
    eventually("the topic goes", || bus.find_topic("t").is_none());
}

#[test]
fn a_callback_removes_its_own_route_and_is_dropped_after_its_run() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let (kind, drops) = (number(&bus), Drops::new());
        let (routed, other) = (Log::new(), Log::new());
        let router = router(&topic, delivery);
        let (routes, token, write, own, count) =
            (router.routes(), drops.token(), routed.clone(), kind.clone(), drops.clone());
        router
            .add(&kind, move |received| {
                assert!(routes.remove(&own) && !routes.remove(&own));
                let _ = &token;
                assert_eq!(count.dropped(), 0, "not while it runs");
                write.write(received);
            })
            .unwrap();
        router.set_default(other.handler()).unwrap();
        topic.publish(kind.message(1)).unwrap();
        topic.publish(kind.message(2)).unwrap();
        router.publish_sync(kind.message(3)).unwrap();
        drops.assert_all_gone("the removed callback");
        router.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!((routed.values(), other.values()), (vec![1], vec![2, 3]), "{delivery:?}");
        assert_eq!(bus.stats().panics, 0);
    }
}

#[test]
fn a_callback_adds_routes_and_publishes_to_them() {
    for delivery in DELIVERIES {
        must_end(move || {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kinds = kinds(&bus, 10);
            let log = Log::new();
            let router = router(&topic, delivery);
            // Each callback adds the next one and publishes to it: nothing is lost in between.
            fn step(
                routes: &stasis_bus::router::Routes,
                topic: &Topic,
                kinds: &[MessageType<u64>],
                log: &Log,
                at: usize,
            ) {
                let (inside, to, rest, write) = (routes.clone(), topic.clone(), kinds.to_vec(), log.clone());
                let added = routes.add(&kinds[at], move |received| {
                    write.write(received);
                    if at + 1 < rest.len() && received.payload::<u64>() == Some(&(at as u64)) {
                        step(&inside, &to, &rest, &write, at + 1);
                        to.publish(rest[at + 1].message(at as u64 + 1)).unwrap();
                    }
                });
                added.unwrap();
            }
            step(&router.routes(), &topic, &kinds, &log, 0);
            topic.publish(kinds[0].message(0)).unwrap();
            eventually("the last route is reached", || log.values().len() == 10);
            router.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(bus.stats().panics, 0);
            assert!(log.values().into_iter().eq(0..10), "{delivery:?}");
        });
    }
}

#[test]
fn a_callback_replaces_the_default_route_it_is() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (kind, first, second) = (number(&bus), Log::new(), Log::new());
    let router = Router::create_pool(&topic).unwrap();
    let (routes, write, next) = (router.routes(), first.clone(), second.clone());
    router
        .set_default(move |received| {
            write.write(received);
            routes.set_default(next.handler()).unwrap();
        })
        .unwrap();
    (0..3).for_each(|n| topic.publish(kind.message(n)).unwrap());
    router.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!((first.values(), second.values()), (vec![0], vec![1, 2]));
    second.assert_ended();
}

#[test]
fn a_callback_unsubscribes_or_drops_its_router() {
    for delivery in DELIVERIES {
        for way in 0..3 {
            must_end(move || {
                let bus = bus(1);
                let topic = bus.topic("t").unwrap();
                let (kind, log) = (number(&bus), Log::new());
                let router = Arc::new(Mutex::new(Some(router(&topic, delivery))));
                let (end, routes) = {
                    let router = lock(&router);
                    let router = router.as_ref().unwrap();
                    (router.completion(), router.routes())
                };
                let (write, inside, holder, kind_inside) =
                    (log.clone(), routes.clone(), Arc::clone(&router), kind.clone());
                let callback = move |received: &Received<'_>| {
                    write.write(received);
                    if received.is_final() {
                        assert_eq!(inside.add(&kind_inside, |_| ()), Err(RouteError::Ended));
                        return;
                    }
                    match way {
                        0 => received.unsubscribe(),
                        1 => inside.unsubscribe(),
                        _ => {
                            let router = lock(&holder).take();
                            if let Some(router) = &router {
                                assert_eq!(router.join(), Err(JoinError::OwnHandler));
                                assert!(matches!(
                                    router.publish_sync(kind_inside.message(9)),
                                    Err(PublishSyncError::OwnHandler(_))
                                ));
                            }
                            drop(router);
                        }
                    }
                };
                routes.set_default(callback).unwrap();
                topic.publish(kind.message(1)).unwrap();
                end.wait_timeout(PATIENCE).unwrap();
                assert_eq!(log.all(), [Seen::Value(1), Seen::Final], "{delivery:?} {way}");
                assert_eq!(bus.stats().panics, 0, "asserts in the callback");
                assert_eq!(topic.subscribers(), 0);
            });
        }
    }
}

#[test]
fn g12_a_panicking_callback_hurts_no_other_route() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let (kinds, log, drops) = (kinds(&bus, 2), Log::new(), Drops::new());
        let router = router(&topic, delivery);
        let (routes, kind, token, calls) =
            (router.routes(), kinds[0].clone(), drops.token(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&calls);
        router
            .add(&kinds[0], move |_| {
                let _ = &token;
                if count.fetch_add(1, Ordering::Relaxed) == 2 {
                    routes.remove(&kind); // dropped while it unwinds
                }
                bang();
            })
            .unwrap();
        router.add(&kinds[1], log.handler()).unwrap();
        for n in 0..10 {
            topic.publish(kinds[0].message(n)).unwrap();
            router.publish_sync(kinds[1].message(n)).unwrap();
        }
        assert_eq!(calls.load(Ordering::Relaxed), 3, "its state is as it was after a panic");
        drops.assert_all_gone("the removed callback");
        router.unsubscribe_and_join(PATIENCE).unwrap();
        assert!(log.values().into_iter().eq(0..10), "{delivery:?}");
        assert_eq!(router.stats().panics, 3);
    }
}

#[test]
fn g12_policy_end_ends_the_router() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (kind, drops) = (number(&bus), Drops::new());
    let router = Router::builder(&topic).on_panic(PanicPolicy::End).create().unwrap();
    let (one, two) = (drops.token(), drops.token());
    router
        .add(&kind, move |_| {
            if hold(&one) {
                bang()
            }
        })
        .unwrap();
    // The final message panics too: all are dropped all the same.
    router
        .set_default(move |_| {
            if hold(&two) {
                bang()
            }
        })
        .unwrap();
    topic.publish(kind.message(1)).unwrap();
    router.join_timeout(PATIENCE).unwrap();
    drops.assert_all_gone("callbacks");
    assert_eq!(router.stats().panics, 2);
}

/// Keeps what a closure captures in use.
fn hold<T>(_: &T) -> bool {
    true
}

#[test]
fn g12_callbacks_whose_destructors_panic_or_use_the_router() {
    for delivery in DELIVERIES {
        must_end(move || {
            struct Bad(Option<stasis_bus::router::Routes>, MessageType<u64>, Topic, Arc<AtomicU64>);
            impl Drop for Bad {
                fn drop(&mut self) {
                    self.3.fetch_add(1, Ordering::SeqCst);
                    let Some(routes) = self.0.take() else { return };
                    // Would hang if a lock were held.
                    let _ = (routes.add(&self.1, |_| ()), routes.remove(&self.1));
                    drop(self.2.subscribe(|_| ()));
                    routes.unsubscribe();
                    bang();
                }
            }
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kinds = kinds(&bus, 3);
            let gone = Arc::new(AtomicU64::new(0));
            let router = router(&topic, delivery);
            let end = router.completion();
            let bad = || Bad(Some(router.routes()), kinds[2].clone(), topic.clone(), Arc::clone(&gone));
            for kind in &kinds[..2] {
                let bad = bad();
                router.add(kind, move |_| _ = hold(&bad)).unwrap();
            }
            let (refused, default) = (bad(), bad());
            assert!(router.is_subscribed());
            router.set_default(move |_| _ = hold(&default)).unwrap();
            assert!(router.remove(&kinds[0]), "its destructor unsubscribes the router, and panics");
            assert!(!router.is_subscribed());
            end.wait_timeout(PATIENCE).unwrap();
            assert_eq!(gone.load(Ordering::SeqCst), 3);
            let mut refused = refused;
            refused.0 = None;
            drop(refused);
        });
    }
}

#[test]
fn publish_sync_returns_when_the_route_has_handled_it() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let (kind, log, beside) = (number(&bus), Log::new(), Log::new());
        let router = router(&topic, delivery);
        router.add(&kind, log.handler()).unwrap();
        let other = topic.subscriber().accept(&kind).subscribe(beside.handler()).unwrap();
        for n in 0..100 {
            router.publish_sync(kind.message(n)).unwrap();
            assert_eq!(log.values().last(), Some(&n));
        }
        // Without a route it returns too.
        assert!(router.remove(&kind));
        router.publish_sync(kind.message(100)).unwrap();
        other.unsubscribe_and_join(PATIENCE).unwrap();
        assert!(log.values().into_iter().eq(0..100) && beside.values().into_iter().eq(0..101));
        bus.shutdown(PATIENCE).unwrap();
        assert!(matches!(router.publish_sync(kind.message(1)), Err(PublishSyncError::Publish(_))));
        assert!(router.is_done());
    }
}

#[test]
fn shutdown_ends_routers_and_refuses_new_ones() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (kind, log, drops) = (number(&bus), Log::new(), Drops::new());
    let router = Router::create_pool(&topic).unwrap();
    let (write, token) = (log.clone(), drops.token());
    router
        .set_default(move |received| {
            let _ = hold(&token);
            write.write(received);
        })
        .unwrap();
    topic.publish(kind.message(1)).unwrap();
    bus.shutdown(PATIENCE).unwrap();
    assert_eq!(log.all(), [Seen::Value(1), Seen::Final]);
    drops.assert_all_gone("the callback");
    assert_eq!(router.set_default(|_| ()), Err(RouteError::Ended));
    let error = Router::create(&topic).unwrap_err();
    assert_eq!(error.to_string(), "the bus is shut down");
}

#[test]
fn a_removed_route_gets_nothing_published_afterwards() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let router = router(&topic, delivery);
        // Other routes come and go, and others publish other types, meanwhile.
        let noise = kinds(&bus, 3);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for kind in &noise[..2] {
                let (router, topic, stop, unrouted) = (&router, &topic, &stop, &noise[2]);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        router.add(kind, |_| ()).unwrap();
                        let _ = topic.publish(unrouted.message(0));
                        assert!(router.remove(kind));
                    }
                });
            }
            let _stop = SetAtEnd(&stop);
            for round in 0..stress(300) as u64 {
                let log = Log::new();
                router.add(&kind, log.handler()).unwrap();
                topic.publish(kind.message(round)).unwrap();
                if round % 2 == 0 {
                    router.publish_sync(kind.message(round)).unwrap();
                    assert_eq!(log.values(), [round, round], "added before: reached");
                }
                assert!(router.remove(&kind));
                topic.publish(kind.message(u64::MAX)).unwrap();
                router.add(&kind, |_| ()).unwrap();
                topic.publish(kind.message(u64::MAX)).unwrap();
                router.publish_sync(noise[2].message(0)).unwrap();
                assert!(!log.values().contains(&u64::MAX), "{delivery:?}: {round}");
                assert!(router.remove(&kind));
            }
        });
    }
}

#[test]
fn the_filter_ends_as_the_routes_do_whoever_changed_them() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kinds = kinds(&bus, 3);
    let router = Router::create_pool(&topic).unwrap();
    for round in 0..stress(1_000) {
        thread::scope(|scope| {
            for kind in &kinds {
                let router = &router;
                scope.spawn(move || {
                    for _ in 0..3 {
                        router.add(kind, |_| ()).unwrap();
                        assert!(router.remove(kind));
                    }
                    if round % 2 == 0 {
                        router.add(kind, |_| ()).unwrap();
                    }
                });
            }
        });
        for kind in &kinds {
            assert_eq!(topic.wants(kind), round % 2 == 0, "{round}");
            assert_eq!(router.remove(kind), round % 2 == 0);
        }
    }
}

#[test]
fn a_message_whose_route_went_while_it_waited_goes_to_the_default_or_is_counted() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (kinds, log, other) = (kinds(&bus, 2), Log::new(), Log::new());
    let router = Router::create(&topic).unwrap();
    let (gate, (told, entered)) = (Gate::new(), channel());
    let _open = OpenAtEnd(gate.clone());
    let pass = gate.clone();
    router
        .add(&kinds[0], move |_| {
            told.send(()).unwrap();
            pass.pass();
        })
        .unwrap();
    router.add(&kinds[1], log.handler()).unwrap();
    topic.publish(kinds[0].message(0)).unwrap();
    next(&entered);
    topic.publish(kinds[1].message(1)).unwrap();
    assert!(router.remove(&kinds[1]));
    gate.open();
    router.publish_sync(kinds[0].message(2)).unwrap();
    assert_eq!((router.unrouted(), log.values()), (1, vec![]));
    router.set_default(other.handler()).unwrap();
    topic.publish(kinds[1].message(3)).unwrap();
    router.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!((other.values(), router.unrouted()), (vec![3], 1));
}

#[test]
fn a_default_route_is_not_given_a_waiting_message_without_its_formatters() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (kind, json, other) = (number(&bus), with_json(&bus, "json"), Log::new());
    let router = Router::create(&topic).unwrap();
    let (gate, (told, entered)) = (Gate::new(), channel());
    let _open = OpenAtEnd(gate.clone());
    let pass = gate.clone();
    router
        .add(&kind, move |_| {
            told.send(()).unwrap();
            pass.pass();
        })
        .unwrap();
    router.set_formatters_default(other.handler(), Formatters::JSON).unwrap();
    topic.publish(kind.message(0)).unwrap();
    next(&entered);
    topic.publish(kind.message(1)).unwrap();
    topic.publish(json.message(2)).unwrap();
    assert!(router.remove(&kind));
    gate.open();
    router.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!((other.all(), router.unrouted()), (vec![Seen::Value(2), Seen::Final], 1));
}

#[test]
fn g02_g04_order_and_one_at_a_time_over_routes_that_come_and_go() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let kinds = kinds(&bus, 4);
        let (log, running) = (Log::new(), Arc::new(AtomicBool::new(false)));
        let router = router(&topic, delivery);
        let callback = || {
            let (log, running) = (log.clone(), Arc::clone(&running));
            move |received: &Received<'_>| {
                assert!(!running.swap(true, Ordering::SeqCst), "on two threads at once");
                log.write(received);
                running.store(false, Ordering::SeqCst);
            }
        };
        // A message goes to its route or to the default: whatever changes, each comes once and in order.
        router.set_default(callback()).unwrap();
        let each = stress(3_000) as u64;
        let publishing = AtomicBool::new(true);
        thread::scope(|scope| {
            let publishers: Vec<_> = (0..2)
                .map(|at| {
                    let (topic, kinds) = (&topic, &kinds);
                    scope.spawn(move || {
                        for n in 0..each {
                            while topic.publish(kinds[n as usize % 4].message(at << 32 | n)).is_err() {
                                thread::yield_now(); // an inline queue may be full
                            }
                        }
                    })
                })
                .collect();
            for at in 0..2 {
                let (router, kinds, publishing, callback) = (&router, &kinds, &publishing, &callback);
                scope.spawn(move || {
                    let mut random = Random::new(at);
                    while publishing.load(Ordering::Relaxed) {
                        let kind = &kinds[random.below(4)];
                        match random.below(3) {
                            0 => drop(router.add(kind, callback())),
                            1 => _ = hold(&router.remove(kind)),
                            _ => router.set_default(callback()).unwrap(),
                        }
                    }
                });
            }
            let ends: Vec<_> = publishers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            publishing.store(false, Ordering::Relaxed);
            ends.into_iter().for_each(|end| end.unwrap());
        });
        router.unsubscribe_and_join(PATIENCE).unwrap();
        log.assert_ended();
        assert_eq!((router.stats().panics, router.unrouted()), (0, 0));
        for at in 0..2 {
            let own = log.values().into_iter().filter(|n| n >> 32 == at);
            assert!(own.eq((0..each).map(|n| at << 32 | n)), "{delivery:?}: publisher {at}");
        }
    }
}

#[test]
fn g05_callbacks_are_gone_when_the_router_is_done_though_routes_change_meanwhile() {
    let bus = bus(2);
    let topic = bus.topic("t").unwrap();
    let kinds = kinds(&bus, 3);
    for round in 0..stress(200) {
        let drops = Drops::new();
        let router = router(&topic, DELIVERIES[round % 3]);
        let kept = drops.token();
        router.add(&kinds[0], move |_| _ = hold(&kept)).unwrap();
        let routes = router.routes();
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20 {
                    let _ = (routes.add(&kinds[1], |_| ()), routes.remove(&kinds[1]));
                }
            });
            topic.publish(kinds[0].message(0)).unwrap();
            router.unsubscribe_and_join(PATIENCE).unwrap();
            drops.assert_all_gone("the callback that nobody removed");
        });
    }
}

#[test]
fn a_removed_callback_is_dropped_at_once_while_another_runs() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (kinds, drops) = (kinds(&bus, 2), Drops::new());
    let router = Router::create(&topic).unwrap();
    let (gate, (told, entered)) = (Gate::new(), channel());
    let _open = OpenAtEnd(gate.clone());
    let (pass, running, removed, default) = (gate.clone(), drops.token(), drops.token(), drops.token());
    router
        .add(&kinds[0], move |_| {
            told.send(()).unwrap();
            pass.pass();
            let _ = hold(&running);
        })
        .unwrap();
    router.add(&kinds[1], move |_| _ = hold(&removed)).unwrap();
    router.set_default(move |_| _ = hold(&default)).unwrap();
    topic.publish(kinds[0].message(0)).unwrap();
    next(&entered);
    assert!(router.remove(&kinds[1]));
    assert_eq!(drops.dropped(), 1);
    router.set_default(|_| ()).unwrap();
    assert_eq!(drops.dropped(), 2);
    assert!(router.remove(&kinds[0]));
    assert_eq!(drops.dropped(), 2, "not while it runs");
    gate.open();
    drops.await_all_gone("the callback that ran");
}

#[test]
fn congestion_limits() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let router = Router::create(&topic).unwrap();
    let (gate, (told, entered)) = (Gate::new(), channel());
    let _open = OpenAtEnd(gate.clone());
    let pass = gate.clone();
    router
        .add(&kind, move |_| {
            let _ = told.send(());
            pass.pass();
        })
        .unwrap();
    assert_eq!(router.set_congestion_limits(None, 0), Err(LimitsError { low: 0, high: 0 }));
    assert_eq!(router.set_congestion_limits(Some(3), 2), Err(LimitsError { low: 3, high: 2 }));
    assert!(!router.is_congested());
    topic.publish(kind.message(0)).unwrap();
    next(&entered);
    (0..2_000).for_each(|n| topic.publish(kind.message(n)).unwrap());
    assert!(!router.is_congested(), "without limits");
    router.set_congestion_limits(None, u64::MAX).unwrap();
    assert!(!router.is_congested());
    router.set_congestion_limits(None, 1_000).unwrap();
    assert!(router.is_congested() && router.stats().queue_depth >= 1_000);
    gate.open();
    eventually("the queue falls", || !router.is_congested());
    router.set_congestion_limits(Some(0), 1).unwrap();
    eventually("the queue is empty", || !router.is_congested());
}

#[test]
fn congestion_is_told_when_it_begins_and_when_it_ends() {
    for pool in [false, true] {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let builder = Router::builder(&topic);
        let router = if pool { builder.pool() } else { builder.mailbox() }.create().unwrap();
        let (gate, drops) = (Gate::new(), Drops::new());
        let _open = OpenAtEnd(gate.clone());
        let pass = gate.clone();
        router.add(&kind, move |_| pass.pass()).unwrap();
        router.set_congestion_limits(Some(10), 100).unwrap();
        let (told, story) = channel();
        let (token, routes) = (drops.token(), router.routes());
        router.on_congestion(|_| unreachable!("replaced"));
        router.on_congestion(move |congested| {
            let _ = hold(&token);
            routes.remove_default(); // no lock is held
            told.send(congested).unwrap();
            bang();
        });
        (0..2_000).for_each(|n| topic.publish(kind.message(n)).unwrap());
        gate.open();
        assert!(next(&story), "the queue is long");
        eventually("and gets short", || {
            topic.publish(kind.message(0)).unwrap();
            story.try_recv() == Ok(false)
        });
        assert_eq!(router.stats().panics, 0, "its panic is no route's");
        // Again, to the end.
        let gate = Gate::new();
        let pass = gate.clone();
        router.remove(&kind);
        router.add(&kind, move |_| pass.pass()).unwrap();
        (0..2_000).for_each(|n| topic.publish(kind.message(n)).unwrap());
        gate.open();
        assert!(next(&story));
        router.unsubscribe_and_join(PATIENCE).unwrap();
        assert!(!next(&story), "at the end");
        assert!(story.try_recv().is_err());
        drop(router);
        drops.await_all_gone("the callback");
    }
}

#[test]
fn a_router_that_ends_is_not_congested() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let router = Router::create(&topic).unwrap();
    let (told, story) = channel();
    router.on_congestion(move |congested| told.send(congested).unwrap());
    router.set_congestion_limits(Some(0), 1).unwrap();
    router.add(&kind, |_| ()).unwrap();
    (0..100).for_each(|n| topic.publish(kind.message(n)).unwrap());
    router.unsubscribe_and_join(PATIENCE).unwrap();
    let story: Vec<bool> = story.try_iter().collect();
    let alternates = story.iter().zip([true, false].into_iter().cycle()).all(|(told, expected)| *told == expected);
    assert!(alternates && story.last() != Some(&true), "{story:?}");
}

#[test]
fn types_are_kept_while_they_are_routed_and_no_longer() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let router = Router::create_pool(&topic).unwrap();
    let dropped = Drops::new();
    for _ in 0..stress(50) {
        let token = dropped.token();
        let kind = MessageType::<u64>::builder("brief")
            .to_json(move |_| {
                let _ = &token;
                None
            })
            .create(&bus)
            .unwrap();
        let any: AnyMessageType = kind.as_any().clone();
        router.add(&kind, |_| ()).unwrap();
        drop(kind);
        assert!(router.remove(&any));
    }
    drop(topic.subscribe(|_| ()));
    eventually("the types go", || {
        drop(topic.subscribe(|_| ()).unwrap());
        dropped.dropped() == dropped.made()
    });
}

/// What may be done to a router, for the model.
#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Remove(usize),
    SetDefault(Option<u8>),
    AcceptFormatters(u8),
    RemoveDefault,
    Publish(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = 0..4usize;
    prop_oneof![
        3 => kind.clone().prop_map(Step::Add),
        2 => kind.clone().prop_map(Step::Remove),
        1 => prop::option::of(0..8u8).prop_map(Step::SetDefault),
        1 => (0..8u8).prop_map(Step::AcceptFormatters),
        1 => Just(Step::RemoveDefault),
        8 => kind.prop_map(Step::Publish),
    ]
}

/// Runs the steps on a router and on maps; both have to agree on who got what, and who is wanted.
fn agree(steps: &[Step], delivery: Delivery) {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kinds = [
        number(&bus),
        with_json(&bus, "json"),
        with_ami(&bus, "ami"),
        MessageType::builder("both").to_json(|_: &u64| None).to_ami(|_| None).create(&bus).unwrap(),
    ];
    let bits = [0u8, 1, 2, 3];
    let router = router(&topic, delivery);
    // (number of the step that set the route, number of the step that published)
    let got = Arc::new(Mutex::new(Vec::new()));
    let callback = |at: usize| {
        let got = Arc::clone(&got);
        move |received: &Received<'_>| {
            if let Some(&n) = received.payload::<u64>() {
                lock(&got).push((at, n));
            }
        }
    };
    let (mut routes, mut default, mut formatters) = (BTreeMap::new(), None, 0u8);
    let mut expected = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        match *step {
            Step::Add(kind) => {
                let added = router.add(&kinds[kind], callback(at)).is_ok();
                assert_eq!(added, !routes.contains_key(&kind));
                routes.entry(kind).or_insert(at);
            }
            Step::Remove(kind) => assert_eq!(router.remove(&kinds[kind]), routes.remove(&kind).is_some()),
            Step::SetDefault(None) => {
                router.set_default(callback(at)).unwrap();
                default = Some(at);
            }
            Step::SetDefault(Some(bits)) => {
                router.set_formatters_default(callback(at), Formatters::from_bits(bits)).unwrap();
                (default, formatters) = (Some(at), bits);
            }
            Step::AcceptFormatters(bits) => {
                router.accept_formatters(Formatters::from_bits(bits));
                formatters = bits;
            }
            Step::RemoveDefault => assert_eq!(router.remove_default(), default.take().is_some()),
            Step::Publish(kind) => {
                let open = formatters == 0 || formatters & bits[kind] != 0;
                let to = routes.get(&kind).copied().or(default.filter(|_| open));
                assert_eq!(topic.wants(&kinds[kind]), to.is_some(), "{at}: {step:?}");
                router.publish_sync(kinds[kind].message(at as u64)).unwrap();
                expected.extend(to.map(|to| (to, at as u64)));
            }
        }
    }
    router.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(*lock(&got), expected);
    assert_eq!(router.unrouted(), 0);
    let senders: BTreeSet<u64> = expected.iter().map(|(_, n)| *n).collect();
    assert_eq!(senders.len(), expected.len(), "each message to one route");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: stress(150) as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_router_does_what_two_maps_say(steps in prop::collection::vec(step(), 0..40), delivery in 0..3usize) {
        agree(&steps, DELIVERIES[delivery]);
    }
}

/// A cache of numbers by their remainder, with its caching topic.
fn caching(original: &Topic) -> (Cache, CachingTopic) {
    let cache = Cache::builder().id(|message| Some(format!("{}", message.payload::<u64>()? % 10).into())).build();
    let caching = CachingTopic::new(original, &cache).unwrap();
    (cache, caching)
}

/// Writes down the new snapshots in updates, and whether it was the end.
fn updates(log: &Arc<Mutex<Vec<Option<u64>>>>) -> impl FnMut(&Received<'_>) + Send + 'static {
    let log = Arc::clone(log);
    move |received| {
        let update = received.payload::<CacheUpdate>();
        let new = update.and_then(|update| update.new_snapshot()?.payload::<u64>().copied());
        lock(&log).push(new);
    }
}

#[test]
fn cache_updates_go_by_the_type_inside() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let original = bus.topic("devices").unwrap();
        let kinds = kinds(&bus, 3);
        let (_cache, caching) = caching(&original);
        let topic = caching.topic();
        let logs: [Arc<Mutex<Vec<Option<u64>>>>; 4] = Default::default();
        let (plain, other) = (Log::new(), Log::new());
        let router = router(topic, delivery);
        let wants = || topic.wants(CacheUpdate::message_type());
        assert!(!wants());
        router.add_cache_update(&kinds[0], updates(&logs[0])).unwrap();
        router.add_cache_update(&kinds[1], updates(&logs[1])).unwrap();
        assert!(wants() && !topic.wants(&kinds[0]));
        // Messages of the type itself have a route of their own.
        router.add(&kinds[0], plain.handler()).unwrap();
        let publish = |from: u64| {
            for (n, kind) in (from..).zip(&kinds) {
                caching.publish_sync(kind.message(n)).unwrap();
            }
        };
        publish(0);
        topic.publish(kinds[0].message(100)).unwrap();
        // The rest of the updates, once their type is routed; those with a route of their own go there.
        router.publish_sync(kinds[1].message(0)).unwrap();
        router.add(CacheUpdate::message_type(), updates(&logs[2])).unwrap();
        publish(10);
        router.publish_sync(kinds[1].message(0)).unwrap();
        assert!(router.remove_cache_update(&kinds[0]));
        publish(20);
        router.publish_sync(kinds[1].message(0)).unwrap();
        assert!(router.remove(CacheUpdate::message_type()) && wants());
        publish(30);
        router.publish_sync(kinds[1].message(0)).unwrap();
        router.set_default(updates(&logs[3])).unwrap();
        publish(40);
        router.publish_sync(kinds[0].message(200)).unwrap();
        router.set_default(other.handler()).unwrap();
        assert!(router.remove_default());
        assert!(router.remove_cache_update(&kinds[1]) && !wants());
        router.unsubscribe_and_join(PATIENCE).unwrap();
        let logs: Vec<Vec<Option<u64>>> = logs.iter().map(|log| lock(log).clone()).collect();
        let some = |numbers: &[u64]| numbers.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(logs[0], some(&[0, 10]), "{delivery:?}");
        assert_eq!(logs[1], some(&[1, 11, 21, 31, 41]), "{delivery:?}");
        assert_eq!(logs[2], some(&[12, 20, 22]), "{delivery:?}");
        let changes = logs[3].iter().filter(|new| new.is_some());
        assert_eq!(changes.copied().collect::<Vec<_>>(), some(&[40, 42]), "{delivery:?}");
        assert_eq!(plain.values(), [100, 200]);
        assert_eq!(bus.stats().panics, 0);
    }
}

#[test]
fn removals_from_a_cache_are_routed_by_the_type_inside_too() {
    let bus = bus(1);
    let original = bus.topic("devices").unwrap();
    let kind = number(&bus);
    let (cache, caching) = caching(&original);
    let log = Arc::new(Mutex::new(Vec::new()));
    let router = Router::create_pool(caching.topic()).unwrap();
    router.add_cache_update(&kind, updates(&log)).unwrap();
    caching.publish_sync(kind.message(5)).unwrap();
    let known = cache.get(&kind, "5").unwrap();
    caching.publish_sync(CacheClear::message(known)).unwrap();
    router.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(*lock(&log), [Some(5), None]);
}
