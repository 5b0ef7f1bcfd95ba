//! Conformance: publishing and waiting for one subscription (G7).
mod common;

use common::{DELIVERIES, Gate, Log, OpenAtEnd, PATIENCE, bus, must_end, next, number};
use stasis_bus::{Bus, Delivery, Home, Message, MessageType, Pinning, PublishSyncError, Received, Subscription, Topic};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex, OnceLock};

#[test]
fn it_returns_when_the_subscription_has_handled_the_message() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let seen = Arc::new(AtomicU64::new(0));
        let write = Arc::clone(&seen);
        let subscription = topic
            .subscriber()
            .delivery(delivery)
            .accept(&kind)
            .subscribe(move |received| write.store(received.payload::<u64>().copied().unwrap_or(0), Ordering::Relaxed))
            .unwrap();
        for n in 1..=500 {
            topic.publish_sync(kind.message(n), &subscription).unwrap();
            assert_eq!(seen.load(Ordering::Relaxed), n, "{delivery:?}");
        }
    }
}

#[test]
fn it_covers_what_others_published_before() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let (topic, other) = (bus.topic("t").unwrap(), bus.topic("other").unwrap());
        let kind = number(&bus);
        let log = Log::new();
        let subscription = topic.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()).unwrap();
        for n in 0..100 {
            topic.publish(kind.message(n)).unwrap();
        }
        // Published elsewhere: the subscription does not get it, but is waited for.
        other.publish_sync(kind.message(1000), &subscription).unwrap();
        assert!(log.values().into_iter().eq(0..100), "{delivery:?}");
    }
}

#[test]
fn a_message_it_does_not_accept_is_no_reason_to_wait_for_ever() {
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let (kind, unwanted) = (number(&bus), number(&bus));
            let subscription = topic.subscriber().delivery(delivery).accept(&kind).subscribe(|_| ()).unwrap();
            topic.publish_sync(unwanted.message(1), &subscription).unwrap();
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            topic.publish_sync(kind.message(1), &subscription).unwrap();
            assert_eq!(subscription.stats().delivered, 0);
        }
    });
}

#[test]
fn g07_in_the_own_handler_it_is_an_error_with_the_message() {
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let (tell, told) = channel();
            let own = Arc::new(OnceLock::<Subscription>::new());
            let inside = (topic.clone(), kind.clone(), Arc::downgrade(&own));
            let made = topic.subscriber().delivery(delivery).accept(&kind).subscribe(move |received| {
                if received.payload::<u64>() == Some(&1) {
                    let own = inside.2.upgrade().unwrap();
                    tell.send(inside.0.publish_sync(inside.1.message(2), own.get().unwrap())).unwrap();
                }
            });
            own.set(made.unwrap()).unwrap();
            topic.publish(kind.message(1)).unwrap();
            let error = next(&told).unwrap_err();
            assert!(matches!(error, PublishSyncError::OwnHandler(_)), "{delivery:?}: {error:?}");
            assert_eq!(error.into_message().payload::<u64>(), Some(&2));
            let own = own.get().unwrap();
            own.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(own.stats().delivered, 1, "it was not published");
        }
    });
}

/// A subscription whose handler does what it is told by the messages: `Ask`s of other subscriptions.
struct Asker {
    subscription: Arc<Subscription>,
    results: Receiver<Result<(), PublishSyncError>>,
}

/// "Publish this message on that topic and wait for that subscription", and a meeting before.
struct Ask {
    topic: Topic,
    message: Message,
    of: Arc<Subscription>,
    meet: Option<Arc<Barrier>>,
}

fn obey(received: &Received<'_>, results: &Sender<Result<(), PublishSyncError>>) {
    if let Some(slot) = received.payload::<Mutex<Option<Ask>>>() {
        let ask = slot.lock().unwrap().take().unwrap();
        if let Some(meet) = ask.meet {
            meet.wait();
        }
        let _ = results.send(ask.topic.publish_sync(ask.message, &ask.of));
    }
}

struct World {
    bus: Bus,
    topic: Topic,
    asks: MessageType<Mutex<Option<Ask>>>,
    number: MessageType<u64>,
}

impl World {
    fn new(lanes: usize) -> Self {
        let bus = bus(lanes);
        Self {
            topic: bus.topic("numbers").unwrap(),
            asks: MessageType::new(&bus, "ask").unwrap(),
            number: number(&bus),
            bus,
        }
    }

    /// An asker on a topic of its own.
    fn asker(&self, name: &str, delivery: Delivery) -> Asker {
        let (tell, results) = channel();
        let topic = self.bus.topic(name).unwrap();
        let made = topic.subscriber().delivery(delivery).accept(&self.asks).accept(&self.number);
        let subscription = Arc::new(made.subscribe(move |received| obey(received, &tell)).unwrap());
        Asker { subscription, results }
    }

    fn ask(&self, who: &Subscription, what: Ask) {
        who.topic().publish(self.asks.message(Mutex::new(Some(what)))).unwrap();
    }
}

const HOMES: [Delivery; 4] =
    [Delivery::Lane(Home::Lane(0)), Delivery::Lane(Home::Lane(1)), Delivery::Dedicated, Delivery::Inline];

#[test]
fn g07_in_a_handler_it_waits_for_any_other_subscription_the_same_lane_included() {
    must_end(|| {
        for from in HOMES {
            for to in HOMES {
                let world = World::new(2);
                let asker = world.asker("asker", from);
                let log = Log::new();
                let target = world.topic.subscriber().delivery(to).accept(&world.number).subscribe(log.handler());
                let target = Arc::new(target.unwrap());
                let ask = Ask {
                    topic: world.topic.clone(),
                    message: world.number.message(7),
                    of: Arc::clone(&target),
                    meet: None,
                };
                world.ask(&asker.subscription, ask);
                assert_eq!(next(&asker.results), Ok(()), "{from:?} -> {to:?}");
                assert_eq!(log.values(), [7]);
            }
        }
    });
}

#[test]
fn the_rest_of_the_lane_sees_the_message_that_made_the_handler_wait() {
    // Waiting in a handler, the worker serves the others first: each message still once, in order.
    must_end(|| {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let logs: Vec<Log> = (0..5).map(|_| Log::new()).collect();
        let later = Arc::new(OnceLock::<Subscription>::new());
        let before = topic.subscriber().accept(&kind).subscribe(logs[0].handler()).unwrap();
        let waiter = topic.subscriber().accept(&kind).subscribe({
            let (log, topic, kind, later) = (logs[1].clone(), topic.clone(), kind.clone(), Arc::clone(&later));
            move |received| {
                log.write(received);
                if let Some(n @ 1..=3) = received.payload::<u64>() {
                    topic.publish_sync(kind.message(n + 10), later.get().unwrap()).unwrap();
                }
            }
        });
        let waiter = waiter.unwrap();
        let after = topic.subscriber().accept(&kind).subscribe(logs[2].handler()).unwrap();
        assert!(later.set(topic.subscriber().accept(&kind).subscribe(logs[3].handler()).unwrap()).is_ok());
        for n in 1..=4 {
            topic.publish(kind.message(n)).unwrap();
        }
        topic.publish_sync(kind.message(5), &waiter).unwrap();
        for subscription in [&before, &after, &waiter] {
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
        }
        let seen = logs[0].values();
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [1, 2, 3, 4, 5, 11, 12, 13]);
        for (n, log) in logs.iter().enumerate().take(4) {
            assert_eq!(log.values(), seen, "subscription {n}: all see one order");
        }
        drop(later);
    });
}

#[test]
fn g07_circles_of_lanes_come_out() {
    // A on lane 0 waits for X on lane 1 while B on lane 1 waits for Y on lane 0.
    must_end(|| {
        for _ in 0..100 {
            let world = World::new(2);
            let (zero, one) = (HOMES[0], HOMES[1]);
            let (a, b) = (world.asker("a", zero), world.asker("b", one));
            let (x, y) = (world.asker("x", one), world.asker("y", zero));
            let meet = Some(Arc::new(Barrier::new(2)));
            let ask = |of: &Asker| Ask {
                topic: of.subscription.topic().clone(),
                message: world.number.message(1),
                of: Arc::clone(&of.subscription),
                meet: meet.clone(),
            };
            world.ask(&a.subscription, ask(&x));
            world.ask(&b.subscription, ask(&y));
            assert_eq!((next(&a.results), next(&b.results)), (Ok(()), Ok(())));
            assert_eq!((x.subscription.stats().delivered, y.subscription.stats().delivered), (1, 1));
        }
    });
}

#[test]
fn g07_a_true_circle_is_an_error_for_one_of_them() {
    must_end(|| {
        for homes in [[HOMES[0], HOMES[1]], [HOMES[2], HOMES[2]], [HOMES[0], HOMES[2]], [HOMES[3], HOMES[3]]] {
            for _ in 0..20 {
                let world = World::new(2);
                let pair = [world.asker("a", homes[0]), world.asker("b", homes[1])];
                let meet = Arc::new(Barrier::new(2));
                std::thread::scope(|scope| {
                    for (who, of) in [(0, 1), (1, 0)] {
                        let ask = Ask {
                            topic: pair[of].subscription.topic().clone(),
                            message: world.number.message(8),
                            of: Arc::clone(&pair[of].subscription),
                            meet: Some(Arc::clone(&meet)),
                        };
                        // An inline asker runs in the publisher: each needs a thread of its own.
                        let (world, who) = (&world, &*pair[who].subscription);
                        scope.spawn(move || world.ask(who, ask));
                    }
                });
                let mut results = pair.each_ref().map(|asker| next(&asker.results)).to_vec();
                results.sort_by_key(Result::is_err);
                // The one that came first waits; the other is told, and then the first comes out.
                assert_eq!(results[0], Ok(()), "{homes:?}");
                let error = results.pop().unwrap().unwrap_err();
                assert!(matches!(error, PublishSyncError::Circular(_)), "{homes:?}: {error:?}");
                assert_eq!(error.into_message().payload::<u64>(), Some(&8));
            }
        }
    });
}

#[test]
fn g07_a_circle_of_three_is_seen_too() {
    must_end(|| {
        let world = World::new(2);
        let three = [("a", HOMES[0]), ("b", HOMES[1]), ("c", HOMES[2])].map(|(name, home)| world.asker(name, home));
        let meet = Arc::new(Barrier::new(3));
        for who in 0..3 {
            let of = &three[(who + 1) % 3].subscription;
            let ask = Ask {
                topic: of.topic().clone(),
                message: world.number.message(1),
                of: Arc::clone(of),
                meet: Some(Arc::clone(&meet)),
            };
            world.ask(&three[who].subscription, ask);
        }
        let results: Vec<_> = three.iter().map(|asker| next(&asker.results)).collect();
        let circular = results.iter().filter(|result| matches!(result, Err(PublishSyncError::Circular(_)))).count();
        assert_eq!((circular, results.iter().filter(|result| result.is_ok()).count()), (1, 2), "{results:?}");
    });
}

#[test]
fn its_errors_hand_the_message_back() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let subscription = topic.subscribe(|_| ()).unwrap();
    bus.shutdown(PATIENCE).unwrap();
    let error = topic.publish_sync(kind.message(4), &subscription).unwrap_err();
    assert!(matches!(&error, PublishSyncError::Publish(error) if error.is_closed()));
    assert_eq!(error.into_message().payload::<u64>(), Some(&4));
}

#[test]
fn it_waits_for_a_handler_that_blocks() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let (tell, entered) = channel();
    let held = gate.clone();
    let subscription = topic
        .subscriber()
        .accept(&kind)
        .subscribe(move |_| {
            let _ = tell.send(());
            held.pass();
        })
        .unwrap();
    let returned = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            topic.publish_sync(kind.message(1), &subscription).unwrap();
            returned.store(1, Ordering::SeqCst);
        });
        next(&entered);
        assert_eq!(returned.load(Ordering::SeqCst), 0);
        gate.open();
    });
    assert_eq!(returned.load(Ordering::SeqCst), 1);
}

#[test]
fn g07_waits_nested_too_deep_on_one_lane_are_refused_not_overflowing() {
    // Each handler waits for the next subscription of its lane, whose handler runs on top of it.
    must_end(|| {
        const DEPTH: usize = 200;
        // A take-over in the middle (on a busy machine) would go on with an empty stack.
        let bus = stasis_bus::Bus::builder().lanes(1).pinning(stasis_bus::Pinning::Off).watchdog(None).build().unwrap();
        let kind = number(&bus);
        let chain: Arc<OnceLock<Vec<Subscription>>> = Arc::default();
        let (tell, told) = channel();
        let subscriptions = (0..DEPTH).map(|n| {
            let (chain, kind, tell) = (Arc::downgrade(&chain), kind.clone(), tell.clone());
            let topic = bus.topic(format!("level {n}")).unwrap();
            let accept = topic.subscriber().delivery(HOMES[0]).accept(&kind);
            let handler = move |received: &Received<'_>| {
                if received.is_final() {
                    return;
                }
                let chain = chain.upgrade().unwrap();
                if let Some(deeper) = chain.get().unwrap().get(n + 1) {
                    let result = deeper.topic().publish_sync(kind.message(n as u64), deeper);
                    tell.send((n, result)).unwrap();
                }
            };
            accept.subscribe(handler).unwrap()
        });
        chain.set(subscriptions.collect()).unwrap();
        let first = &chain.get().unwrap()[0];
        first.topic().publish_sync(kind.message(0), first).unwrap();
        // Innermost first: the one that was refused, then all that waited for it.
        let (deepest, refused) = next(&told);
        assert!(matches!(refused, Err(PublishSyncError::TooDeep(_))), "{refused:?}");
        assert!((10..DEPTH - 1).contains(&deepest), "{deepest}");
        for n in (0..deepest).rev() {
            assert_eq!(next(&told), (n, Ok(())));
        }
        assert!(chain.get().unwrap().iter().all(|subscription| subscription.stats().panics == 0));
    });
}

/// The rest of a walk goes on behind the member that waits, whatever waits further down the stack: here a final
/// handler, which no walk has called, and a member of a walk over the same list.
#[test]
fn g07_a_wait_inside_a_wait_goes_on_behind_the_right_member() {
    must_end(|| {
        // Helped by the waiting thread itself, and by a spare.
        for watchdog in [None, Some(PATIENCE)] {
            let bus = Bus::builder().lanes(1).watchdog(watchdog).build().unwrap();
            let [first, all, last] = ["first", "all", "last"].map(|name| bus.topic(name).unwrap());
            let kind = number(&bus);
            let wanted = kind.clone();
            let logs = [(); 4].map(|()| Log::new());
            let subscriptions = Arc::new(OnceLock::<[Subscription; 4]>::new());
            let ends = last.subscriber().accept(&kind).subscribe(logs[3].handler()).unwrap();
            // The first of the list waits in both messages, the second in the one that the first publishes.
            let waits = |index: usize, first: u64| {
                let (all, last, own) = (all.clone(), last.clone(), Arc::downgrade(&subscriptions));
                let (kind, topic) = (kind.clone(), all.clone());
                let mut log = logs[index].handler();
                let wait = move |received: &Received<'_>| {
                    log(received);
                    let value = received.payload::<u64>().copied().filter(|value| (first..3).contains(value));
                    let (Some(value), Some(others)) = (value, own.upgrade()) else { return };
                    let others = others.get().unwrap();
                    if value == 1 {
                        all.publish_sync(kind.message(2), &others[2]).unwrap();
                    }
                    last.publish_sync(kind.message(3), &others[3]).unwrap();
                };
                topic.subscriber().accept(&wanted).subscribe(wait).unwrap()
            };
            let (one, other) = (waits(0, 1), waits(1, 2));
            let third = all.subscriber().accept(&kind).subscribe(logs[2].handler()).unwrap();
            assert!(subscriptions.set([one, other, third, ends]).is_ok());
            let (own, to, message) = (Arc::downgrade(&subscriptions), all.clone(), kind.clone());
            let guest = first.subscribe(move |received| {
                let Some(others) = own.upgrade().filter(|_| received.is_final()) else { return };
                // To the last of the list: it has it only when the rest of the walk was done, inside.
                to.publish_sync(message.message(1), &others.get().unwrap()[2]).unwrap();
            });
            let guest = guest.unwrap();
            guest.unsubscribe().wait().unwrap();
            subscriptions.get().unwrap().iter().for_each(|all| all.unsubscribe().wait().unwrap());
            for (log, expected) in logs.iter().zip([&[1, 2][..], &[1, 2], &[1, 2], &[3, 3, 3]]) {
                assert_eq!(log.values(), expected, "{watchdog:?}");
                log.assert_ended();
            }
        }
    });
}

/// Publishes and waits when it is dropped.
struct Waits(Topic, Topic, MessageType<u64>, Arc<OnceLock<Subscription>>);
impl Drop for Waits {
    fn drop(&mut self) {
        let Some(target) = self.3.get() else { return };
        self.0.publish(self.2.message(1)).unwrap();
        self.1.publish_sync(self.2.message(2), target).unwrap();
    }
}

/// Foreign code that no walk has called waits below a walk.
#[test]
fn g07_a_destructor_that_waits_below_a_handler_that_waits() {
    must_end(|| {
        let bus = Bus::builder().lanes(1).pinning(Pinning::Off).watchdog(None).build().unwrap();
        let kind = number(&bus);
        let waits = MessageType::<Waits>::new(&bus, "waits").unwrap();
        let [t, side, start] = ["t", "side", "start"].map(|n| bus.topic(n).unwrap());
        let lane = Delivery::Lane(Home::Lane(0));
        let (log, log_b) = (Log::new(), Log::new());
        let target = Arc::new(OnceLock::new());
        let _ = target.set(side.subscriber().delivery(lane).accept(&kind).subscribe(log.handler()).unwrap());
        let (s, k, tg) = (side.clone(), kind.clone(), Arc::clone(&target));
        let a = t
            .subscriber()
            .delivery(lane)
            .accept(&kind)
            .subscribe(move |received| {
                if received.payload::<u64>() == Some(&1) {
                    s.publish_sync(k.message(3), tg.get().unwrap()).unwrap();
                }
            })
            .unwrap();
        let b = t.subscriber().delivery(lane).accept(&kind).subscribe(log_b.handler()).unwrap();
        let st = start.subscriber().delivery(lane).accept(&waits).subscribe(|_| ()).unwrap();
        start.publish(waits.message(Waits(t.clone(), side.clone(), kind.clone(), Arc::clone(&target)))).unwrap();
        st.unsubscribe_and_join(PATIENCE).unwrap();
        b.unsubscribe_and_join(PATIENCE).unwrap();
        // B has had message 1 and may end while A still waits for message 3.
        a.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(log_b.values(), [1]);
        assert_eq!(log.values(), [2, 3]);
    });
}
