//! G9 in small: a bus whose memory is used up refuses whole publishes, lets what must through, recovers.
mod common;

use common::{Gate, Log, OpenAtEnd, PATIENCE, Seen, bus, must_end, next, number};
use stasis_bus::{BuildError, Bus, BusBuilder, ChangeKind, Delivery, Home, Pinning, PublishError, Subscription, Topic};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

/// Two lanes of 1024 entries and not a byte more.
fn tight_builder() -> BusBuilder {
    Bus::builder().lanes(2).pinning(Pinning::Off).ring_capacity(1024).memory_budget(2 * 1024 * 16)
}

fn tight() -> Bus {
    tight_builder().build().unwrap()
}

const LANES: [Delivery; 2] = [Delivery::Lane(Home::Lane(0)), Delivery::Lane(Home::Lane(1))];

/// Publishes until it is refused; how many were taken, and the error.
fn fill(topic: &Topic, kind: &stasis_bus::MessageType<u64>) -> (u64, PublishError) {
    for n in 0..1_000_000 {
        if let Err(error) = topic.publish(kind.message(n)) {
            return (n, error);
        }
    }
    panic!("never full");
}

/// A subscription that waits at a gate in its handler, entered.
fn held(topic: &Topic, delivery: Delivery) -> (Subscription, OpenAtEnd) {
    let gate = Gate::new();
    let (tell, entered) = channel();
    let held = gate.clone();
    let subscription = topic.subscriber().delivery(delivery).subscribe(move |_| {
        let _ = tell.send(());
        held.pass();
    });
    next(&entered);
    (subscription.unwrap(), OpenAtEnd(gate))
}

#[test]
fn a_budget_below_the_lanes_is_refused() {
    let built = Bus::builder().lanes(2).ring_capacity(1024).memory_budget(2 * 1024 * 16 - 1).build();
    assert!(matches!(built, Err(BuildError::Budget { needed: 32768, .. })), "{built:?}");
    for lanes in [0, 257] {
        assert!(matches!(Bus::builder().lanes(lanes).build(), Err(BuildError::Lanes(n)) if n == lanes));
    }
}

#[test]
fn full_hands_the_message_back_and_nobody_got_it() {
    // A lane that is taken over from the stuck handler has room again.
    let bus = tight_builder().watchdog(None).build().unwrap();
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let (_stuck, gate) = held(&bus.topic("stuck").unwrap(), LANES[0]);
    let logs = [(); 3].map(|()| Log::new());
    let homes = [LANES[0], LANES[1], Delivery::Inline];
    let listeners: Vec<Subscription> = (0..3)
        .map(|n| topic.subscriber().delivery(homes[n]).accept(&kind).subscribe(logs[n].handler()).unwrap())
        .collect();
    let (taken, error) = fill(&topic, &kind);
    assert!(taken >= 512, "{taken}");
    assert!(error.is_full() && !error.is_closed());
    assert_eq!(error.into_message().payload(), Some(&taken), "the very message");
    for n in 0..50 {
        assert!(topic.publish(kind.message(1_000_000 + n)).unwrap_err().is_full(), "it stays full");
    }
    assert_eq!(bus.stats().refused, 51);
    gate.0.open();
    for (subscription, log) in listeners.iter().zip(&logs) {
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        log.assert_ended();
        assert!(log.values().into_iter().eq(0..taken), "all or nothing, on the lanes that had room too");
    }
}

#[test]
fn it_recovers_when_drained() {
    let bus = tight();
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let log = Log::new();
    let listener = topic.subscriber().delivery(LANES[0]).accept(&kind).subscribe(log.handler()).unwrap();
    let mut expected = Vec::new();
    for _ in 0..20 {
        let (stuck, gate) = held(&bus.topic("stuck").unwrap(), LANES[0]);
        let (taken, _) = fill(&topic, &kind);
        expected.extend(0..taken);
        gate.0.open();
        stuck.unsubscribe_and_join(PATIENCE).unwrap();
        common::eventually("room again", || {
            let refused = topic.publish(kind.message(777)).is_err();
            thread::yield_now();
            !refused
        });
        expected.push(777);
        topic.publish_sync(kind.message(778), &listener).unwrap();
        expected.push(778);
    }
    listener.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(log.values(), expected);
    assert_eq!(bus.stats().ring_bytes, 2 * 1024 * 16);
}

#[test]
fn g05_final_and_control_messages_get_through_a_full_lane() {
    must_end(|| {
        let bus = tight();
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let (stuck, gate) = held(&bus.topic("stuck").unwrap(), LANES[0]);
        let logs: Vec<Log> = (0..30).map(|_| Log::new()).collect();
        let subscribe =
            |log: &Log| topic.subscriber().delivery(LANES[0]).accept(&kind).subscribe(log.handler()).unwrap();
        let subscriptions: Vec<Subscription> = logs.iter().map(subscribe).collect();
        let (taken, _) = fill(&topic, &kind);
        // Subscribing, changing filters, forwarding and leaving need no room.
        let late = Log::new();
        let newcomer = subscribe(&late);
        newcomer.decline(&kind);
        let forward = topic.forward_to(&bus.topic("other").unwrap()).unwrap();
        forward.cancel();
        let ends: Vec<_> = subscriptions.iter().map(Subscription::unsubscribe).collect();
        let newcomers_end = newcomer.unsubscribe();
        gate.0.open();
        ends.iter().for_each(|end| end.wait_timeout(PATIENCE).unwrap());
        newcomers_end.wait_timeout(PATIENCE).unwrap();
        for log in &logs {
            log.assert_ended();
            assert!(log.values().into_iter().eq(0..taken));
        }
        assert_eq!(late.all().len(), 1, "only its final message");
        stuck.unsubscribe_and_join(PATIENCE).unwrap();
    });
}

#[test]
fn g06_publishing_from_a_handler_of_the_same_full_lane_never_waits() {
    must_end(|| {
        let bus = tight();
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let log = Log::new();
        let listener = topic.subscriber().delivery(LANES[0]).accept(&kind).subscribe(log.handler()).unwrap();
        let (tell, told) = channel();
        let flooder = bus.topic("go").unwrap();
        let (target, own) = (topic.clone(), kind.clone());
        let flood = flooder.subscriber().delivery(LANES[0]).accept(&kind).subscribe(move |received| {
            if !received.is_final() {
                tell.send(fill(&target, &own).0).unwrap();
            }
        });
        flooder.publish(kind.message(0)).unwrap();
        let taken = next(&told);
        assert!(taken > 0);
        listener.unsubscribe_and_join(PATIENCE).unwrap();
        assert!(log.values().into_iter().eq(0..taken));
        drop(flood);
    });
}

#[test]
fn g06_publishing_to_itself_until_an_inline_queue_is_full_never_waits() {
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let count = Arc::new(AtomicU64::new(0));
        let (tell, told) = channel();
        let (own, again, calls) = (topic.clone(), kind.clone(), Arc::clone(&count));
        let subscription = topic.subscriber().no_mailbox().accept(&kind).subscribe(move |received| {
            if !received.is_final() && calls.fetch_add(1, Ordering::Relaxed) == 0 {
                tell.send(fill(&own, &again).0).unwrap();
                received.unsubscribe(); // the final message has room
            }
        });
        topic.publish(kind.message(0)).unwrap();
        let taken = next(&told);
        assert!(taken >= 1000, "{taken}");
        assert_eq!(count.load(Ordering::Relaxed), 1 + taken, "all it took, before publish returned");
        assert!(subscription.unwrap().is_done());
    });
}

#[test]
fn g06_publishes_already_under_way_never_wait_for_a_full_inline_queue() {
    // Fifty topics deep, each publish has asked for room before the innermost handler fills the queue.
    // All of them run inside the queue's own handler: nobody else could make room.
    const DEPTH: usize = 50;
    must_end(|| {
        let bus = bus(1);
        let (kind, filling) = (number(&bus), number(&bus));
        let all = bus.topic("all").unwrap();
        let levels: Vec<Topic> = (0..DEPTH).map(|n| bus.topic(format!("level {n}")).unwrap()).collect();
        let mut chain = Vec::new();
        for (n, level) in levels.iter().enumerate() {
            let (deeper, all, kind, filling) = (levels.get(n + 1).cloned(), all.clone(), kind.clone(), filling.clone());
            let accept = level.subscriber().no_mailbox().accept(&kind);
            let handler = move |received: &stasis_bus::Received<'_>| match &deeper {
                _ if received.is_final() => {}
                Some(deeper) => drop(deeper.publish(kind.message(1))),
                None => drop(fill(&all, &filling)),
            };
            chain.push((accept.subscribe(handler).unwrap(), level.forward_to(&bus.topic("all").unwrap()).unwrap()));
        }
        let (first, again) = (levels[0].clone(), kind.clone());
        let accept = all.subscriber().no_mailbox().accept(&kind).accept(&filling);
        let subscription = accept.subscribe(move |received| {
            if received.payload::<u64>() == Some(&77) {
                first.publish(again.message(0)).unwrap();
            }
        });
        let subscription = subscription.unwrap();
        all.publish(kind.message(77)).unwrap();
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        assert!(subscription.stats().delivered > DEPTH as u64);
        drop(chain);
    });
}

#[test]
fn many_publishers_at_the_edge_lose_and_double_nothing() {
    must_end(|| {
        let bus = tight();
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let logs = [(); 2].map(|()| Log::new());
        let listeners =
            [0, 1].map(|n| topic.subscriber().delivery(LANES[n]).accept(&kind).subscribe(logs[n].handler()).unwrap());
        let start = Barrier::new(4);
        let taken: u64 = thread::scope(|scope| {
            let publishers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        (0..common::stress(20_000) as u64).filter(|n| topic.publish(kind.message(*n)).is_ok()).count()
                            as u64
                    })
                })
                .collect();
            publishers.into_iter().map(|publisher| publisher.join().unwrap()).sum()
        });
        for (listener, log) in listeners.iter().zip(&logs) {
            listener.unsubscribe_and_join(PATIENCE).unwrap();
            log.assert_ended();
            assert_eq!(log.values().len() as u64, taken);
        }
        let stats = bus.stats();
        assert_eq!((stats.published, stats.delivered), (taken, 2 * taken));
        assert_eq!(stats.published + stats.refused, 4 * common::stress(20_000) as u64);
    });
}

#[test]
fn beyond_the_capacity_a_lane_grows_within_the_budget_and_shrinks_again() {
    // Without watchdog: else the lane would go on beside the stuck handler.
    let builder = Bus::builder().lanes(1).pinning(Pinning::Off).watchdog(None);
    let bus = builder.ring_capacity(1024).memory_budget(1 << 20).build().unwrap();
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let log = Log::new();
    let listener = topic.subscriber().accept(&kind).subscribe(log.handler()).unwrap();
    let before = bus.stats().ring_bytes;
    let (stuck, gate) = held(&bus.topic("stuck").unwrap(), LANES[0]);
    for n in 0..30_000 {
        topic.publish(kind.message(n)).unwrap();
    }
    let grown = bus.stats();
    assert!(grown.ring_bytes >= 30_000 * 16 && grown.ring_bytes <= 1 << 20, "{grown:?}");
    assert!(grown.lanes[0].depth >= 30_000);
    gate.0.open();
    stuck.unsubscribe_and_join(PATIENCE).unwrap();
    listener.unsubscribe_and_join(PATIENCE).unwrap();
    assert!(log.values().into_iter().eq(0..30_000));
    let after = bus.stats();
    // One segment of 512 entries more than the base may stay.
    assert!(after.ring_bytes <= before + 512 * 16, "{after:?}");
    assert_eq!(after.refused, 0);
    assert!(after.lanes[0].high_water >= 29_000, "{after:?}");
}

/// What subscribing and unsubscribing tell the others goes beside a full queue.
#[test]
fn g06_subscribing_never_waits_for_a_full_queue() {
    const PAIRS: usize = 1000;
    must_end(|| {
        for (delivery, budget) in [(Delivery::Dedicated, 256 << 20), (LANES[0], 1 << 20)] {
            let bus = Bus::builder().lanes(1).pinning(Pinning::Off).memory_budget(budget).watchdog(None).build();
            let bus = bus.unwrap();
            let (kind, topic, log, gate) = (number(&bus), bus.topic("t").unwrap(), Log::new(), Gate::new());
            let (write, open) = (log.clone(), OpenAtEnd(gate.clone()));
            let stuck = topic.subscriber().delivery(delivery).subscribe(move |received| {
                gate.pass();
                write.write(received);
            });
            let stuck = stuck.unwrap();
            // To the very end: the budget is not what ends it.
            let (taken, _) = fill(&topic, &kind);
            for _ in 0..PAIRS {
                drop(topic.subscriber().no_mailbox().accept(&kind).subscribe(|_| ()).unwrap());
            }
            open.0.open();
            stuck.unsubscribe_and_join(PATIENCE).unwrap();
            log.assert_ended();
            let all = log.all();
            let (own, rest) = all.split_first().unwrap();
            assert_eq!(*own, Seen::Change(ChangeKind::Subscribe, stuck.id()));
            let (numbers, changes) = rest.split_at(taken as usize);
            assert!(numbers.iter().copied().eq((0..taken).map(Seen::Value)), "{delivery:?}");
            let changed = |seen: &Seen| match seen {
                Seen::Change(kind, id) => Some((*id, *kind == ChangeKind::Unsubscribe)),
                _ => None,
            };
            let changes: Vec<_> = changes.iter().filter_map(changed).collect();
            assert_eq!((changes.len(), changes.is_sorted()), (2 * PAIRS, true), "{delivery:?}");
        }
    });
}

#[test]
fn who_has_patience_gets_room_when_there_is_some() {
    // Without watchdog: it would take the lane, and make room.
    let built = Bus::builder().lanes(2).pinning(Pinning::Off).ring_capacity(1024).memory_budget(2 * 1024 * 16);
    let bus = built.watchdog(None).build().unwrap();
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let (_stuck, gate) = held(&bus.topic("stuck").unwrap(), LANES[0]);
    let log = Log::new();
    let listener = topic.subscriber().delivery(LANES[0]).accept(&kind).subscribe(log.handler()).unwrap();
    let (taken, error) = fill(&topic, &kind);
    let message = error.into_message();
    let refused = topic.publish_timeout(message, std::time::Duration::from_millis(20)).unwrap_err();
    assert!(refused.is_full(), "nobody has made room");
    let message = refused.into_message();
    assert_eq!(message.payload(), Some(&taken), "the very message");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| topic.publish_timeout(message, PATIENCE));
        gate.0.open();
        waiting.join().unwrap().unwrap();
    });
    for n in taken + 1..taken + 20_000 {
        topic.publish_timeout(kind.message(n), PATIENCE).unwrap();
    }
    listener.unsubscribe_and_join(PATIENCE).unwrap();
    log.assert_ended();
    assert!(log.values().into_iter().eq(0..taken + 20_000), "each once, in order");
    bus.shutdown(PATIENCE).unwrap();
    assert!(topic.publish_timeout(kind.message(0), PATIENCE).unwrap_err().is_closed(), "and at once");
}

#[test]
fn patience_inside_a_handler_is_none() {
    let bus = tight();
    let (topic, again) = (bus.topic("t").unwrap(), bus.topic("again").unwrap());
    let kind = number(&bus);
    let (tell, told) = channel();
    let (back, own) = (again.clone(), kind.clone());
    // Its lane is filled by itself: waiting for room could never end.
    let filler = topic.subscriber().delivery(LANES[0]).accept(&kind).subscribe(move |received| {
        if received.payload::<u64>().is_some() {
            let refused = (0..1_000_000).find_map(|n| back.publish_timeout(own.message(n), PATIENCE).err());
            tell.send(refused.is_some_and(|error| error.is_full())).unwrap();
        }
    });
    let listener = again.subscriber().delivery(LANES[0]).accept(&kind).subscribe(|_| ()).unwrap();
    topic.publish(kind.message(0)).unwrap();
    assert!(next(&told), "refused at once");
    filler.unwrap().unsubscribe_and_join(PATIENCE).unwrap();
    listener.unsubscribe_and_join(PATIENCE).unwrap();
}
