//! Conformance: waiting for the end of a subscription (G7): deadlines, own handler, circles, tasks.
mod common;

use common::{DELIVERIES, Gate, OpenAtEnd, PATIENCE, bus, must_end, next, number};
use stasis_bus::{Completion, Delivery, Home, JoinError, Subscription, Topic};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

/// A subscription whose handler waits at the gate for each message.
fn blocked(topic: &Topic, delivery: Delivery) -> (Subscription, OpenAtEnd) {
    let gate = Gate::new();
    let held = gate.clone();
    (topic.subscriber().delivery(delivery).subscribe(move |_| held.pass()).unwrap(), OpenAtEnd(gate))
}

#[test]
fn g07_a_join_ends_with_its_deadline_and_may_be_tried_again() {
    for delivery in [Delivery::default(), Delivery::Dedicated] {
        let bus = bus(1);
        let (subscription, gate) = blocked(&bus.topic("t").unwrap(), delivery);
        assert_eq!(subscription.join_timeout(Duration::from_millis(1)), Err(JoinError::Timeout), "still subscribed");
        assert!(subscription.is_subscribed());
        assert_eq!(subscription.unsubscribe_and_join(Duration::from_millis(1)), Err(JoinError::Timeout));
        assert!(!subscription.is_subscribed() && !subscription.is_done());
        assert_eq!(subscription.join_timeout(Duration::ZERO), Err(JoinError::Timeout));
        gate.0.open();
        assert_eq!(subscription.join(), Ok(()));
        assert_eq!(subscription.join_timeout(Duration::ZERO), Ok(()), "what is done is done");
    }
}

#[test]
fn a_limit_may_be_as_long_as_one_likes() {
    let bus = bus(1);
    let subscription = bus.topic("t").unwrap().subscribe(|_| ()).unwrap();
    assert_eq!(subscription.unsubscribe_and_join(Duration::MAX), Ok(()));
    bus.shutdown(Duration::MAX).unwrap();
}

#[test]
fn g07_joining_from_the_own_handler_is_an_error() {
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(1);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let own = Arc::new(OnceLock::<Completion>::new());
            let (tell, told) = channel();
            let inside = Arc::clone(&own);
            let accept = topic.subscriber().delivery(delivery).accept(&kind);
            let subscription = accept
                .subscribe(move |received| {
                    if !received.is_final() {
                        received.unsubscribe();
                    }
                    tell.send((inside.get().unwrap().wait(), inside.get().unwrap().wait_timeout(PATIENCE))).unwrap();
                })
                .unwrap();
            own.set(subscription.completion()).unwrap();
            topic.publish(kind.message(1)).unwrap();
            let own_handler = Err(JoinError::OwnHandler);
            assert_eq!(next(&told), (own_handler, own_handler), "{delivery:?}: an ordinary message");
            assert_eq!(next(&told), (own_handler, own_handler), "{delivery:?}: the final message");
            subscription.join_timeout(PATIENCE).unwrap();
        }
    });
}

#[test]
fn g07_joining_another_from_a_handler_comes_out_on_the_same_lane_too() {
    must_end(|| {
        let homes =
            [Delivery::Lane(Home::Lane(0)), Delivery::Lane(Home::Lane(1)), Delivery::Dedicated, Delivery::Inline];
        for from in homes {
            for to in homes {
                let bus = bus(2);
                let (asks, topic) = (bus.topic("asks").unwrap(), bus.topic("t").unwrap());
                let kind = number(&bus);
                let target = topic.subscriber().delivery(to).accept(&kind).subscribe(|_| ()).unwrap();
                let (tell, told) = channel();
                let mut slot = Some((target, topic.clone(), kind.clone()));
                let asker = asks.subscriber().delivery(from).accept(&kind).subscribe(move |_| {
                    if let Some((target, topic, kind)) = slot.take() {
                        for n in 0..10 {
                            topic.publish(kind.message(n)).unwrap();
                        }
                        tell.send((target.unsubscribe_and_join(PATIENCE), target.stats().delivered)).unwrap();
                    }
                });
                asks.publish(kind.message(0)).unwrap();
                assert_eq!(next(&told), (Ok(()), 10), "{from:?} joins {to:?}");
                drop(asker);
            }
        }
    });
}

#[test]
fn g07_two_handlers_that_join_each_other_are_told() {
    must_end(|| {
        for homes in [[Home::Lane(0), Home::Lane(1)].map(Delivery::Lane), [Delivery::Dedicated; 2]] {
            let bus = bus(2);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let ends: Arc<[OnceLock<Completion>; 2]> = Arc::default();
            let meet = Arc::new(Barrier::new(2));
            let (tell, told) = channel();
            let pair = [0, 1].map(|own| {
                let (ends, meet, tell) = (Arc::clone(&ends), Arc::clone(&meet), tell.clone());
                let accept = topic.subscriber().delivery(homes[own]).accept(&kind);
                let handler = move |received: &stasis_bus::Received<'_>| {
                    if !received.is_final() {
                        received.unsubscribe();
                        meet.wait();
                        tell.send(ends[1 - own].get().unwrap().wait()).unwrap();
                    }
                };
                accept.subscribe(handler).unwrap()
            });
            for (end, subscription) in ends.iter().zip(&pair) {
                end.set(subscription.completion()).unwrap();
            }
            topic.publish(kind.message(1)).unwrap();
            let mut results = [next(&told), next(&told)];
            results.sort_by_key(Result::is_err);
            assert_eq!(results, [Ok(()), Err(JoinError::Circular)], "{homes:?}");
            pair.iter().for_each(|subscription| subscription.join_timeout(PATIENCE).unwrap());
        }
    });
}

#[test]
fn g07_a_deadline_holds_on_a_lane_that_never_rests() {
    // While the handler waits, its worker serves the lane - where another handler keeps publishing to itself.
    must_end(|| {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let (kind, go) = (number(&bus), number(&bus));
        let (never, _gate) = blocked(&bus.topic("blocked").unwrap(), Delivery::Lane(Home::Lane(1)));
        let end = never.unsubscribe();
        let returned = Arc::new(AtomicBool::new(false));
        let (stop, spins, again, own) = (Arc::clone(&returned), AtomicUsize::new(0), topic.clone(), kind.clone());
        let home = || topic.subscriber().delivery(Delivery::Lane(Home::Lane(0)));
        let restless = home().accept(&kind).subscribe(move |_| {
            // So often that a lane takes seconds for it: then the test fails instead of hanging.
            if !stop.load(Ordering::Relaxed) && spins.fetch_add(1, Ordering::Relaxed) < 3_000_000 {
                again.publish(own.message(0)).unwrap();
            }
        });
        let (tell, told) = channel();
        let flag = Arc::clone(&returned);
        let waiter = home().accept(&go).subscribe(move |received| {
            if !received.is_final() {
                tell.send(end.wait_timeout(Duration::from_millis(20))).unwrap();
                flag.store(true, Ordering::Relaxed);
            }
        });
        topic.publish(kind.message(0)).unwrap();
        topic.publish(go.message(0)).unwrap();
        assert_eq!(next(&told), Err(JoinError::Timeout));
        let restless = restless.unwrap();
        restless.unsubscribe_and_join(PATIENCE).unwrap();
        assert!(restless.stats().delivered < 3_000_000, "it waited until the lane came to rest");
        drop(waiter);
    });
}

/// Wakes the thread that made it, and counts.
struct ThreadWaker(thread::Thread, AtomicUsize);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(ThreadWaker(thread::current(), AtomicUsize::new(0))));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
    }
}

#[test]
fn g07_a_completion_can_be_awaited() {
    must_end(|| {
        for delivery in DELIVERIES {
            for _ in 0..100 {
                let bus = bus(1);
                let subscription = bus.topic("t").unwrap().subscriber().delivery(delivery).subscribe(|_| ()).unwrap();
                let end = subscription.completion();
                let waiters: Vec<_> = (0..2)
                    .map(|_| {
                        let end = end.clone();
                        thread::spawn(move || block_on(end))
                    })
                    .collect();
                drop(subscription);
                block_on(async { end.clone().await });
                assert!(end.is_done());
                waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
            }
        }
    });
}

#[test]
fn only_the_latest_waker_of_a_task_is_woken() {
    let bus = bus(1);
    let (subscription, gate) = blocked(&bus.topic("t").unwrap(), Delivery::default());
    let mut end = pin!(subscription.unsubscribe());
    let wakers = [(); 3].map(|()| Arc::new(ThreadWaker(thread::current(), AtomicUsize::new(0))));
    for waker in &wakers {
        let waker = Waker::from(Arc::clone(waker));
        assert_eq!(end.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    }
    gate.0.open();
    subscription.join().unwrap();
    // The joiner may be woken before the task is.
    common::eventually("the task is woken", || wakers[2].1.load(Ordering::SeqCst) == 1);
    assert_eq!(wakers.each_ref().map(|waker| waker.1.load(Ordering::SeqCst)), [0, 0, 1]);
    assert_eq!(end.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
    common::eventually("no waker is kept", || wakers.iter().all(|waker| Arc::strong_count(waker) == 1));
}

#[test]
fn many_threads_wait_for_one_end() {
    must_end(|| {
        let bus = bus(1);
        let (subscription, gate) = blocked(&bus.topic("t").unwrap(), Delivery::default());
        let end = subscription.unsubscribe();
        thread::scope(|scope| {
            let waiters: Vec<_> = (0..16).map(|_| scope.spawn(|| end.wait())).collect();
            gate.0.open();
            waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().unwrap(), Ok(())));
        });
    });
}
