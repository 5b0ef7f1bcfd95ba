//! Feedback: handlers that publish what makes them run again (pain 2: a reload whose answers are reloads).
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{DELIVERIES, Gate, PATIENCE, bus, eventually, next, number};
use stasis_bus::feedback::{FeedbackGuard, TooDeep, depth};
use stasis_bus::{Bus, Pinning, PublishError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

fn limited(limit: u16) -> Bus {
    Bus::builder().lanes(2).pinning(Pinning::Off).feedback_limit(limit).build().unwrap()
}

#[test]
fn a_chain_of_handlers_counts() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let kind = number(&bus);
        let topics: Vec<_> = (0..5).map(|n| bus.topic(format!("t{n}")).unwrap()).collect();
        let (sender, depths) = channel();
        let _links: Vec<_> = (0..5)
            .map(|n| {
                let (to, again, sender) = (topics.get(n + 1).cloned(), kind.clone(), sender.clone());
                let link = move |received: &stasis_bus::Received<'_>| {
                    let Some(number) = received.payload::<u64>() else { return };
                    sender.send((n, received.depth(), depth())).unwrap();
                    if let Some(to) = &to {
                        to.publish(again.message(*number)).unwrap();
                        assert_eq!(depth(), received.depth() + 1, "publishing within leaves this thread's depth");
                    }
                };
                topics[n].subscriber().accept(&kind).delivery(delivery).subscribe(link).unwrap()
            })
            .collect();
        assert_eq!(depth(), 0);
        topics[0].publish(kind.message(1)).unwrap();
        let mut seen: Vec<_> = (0..5).map(|_| next(&depths)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [(0, 0, 1), (1, 1, 2), (2, 2, 3), (3, 3, 4), (4, 4, 5)], "{delivery:?}");
        assert_eq!(depth(), 0);
    }
}

#[test]
fn a_loop_of_two_handlers_ends() {
    // As reported: device state makes a hint, the hint makes a device state, for ever.
    let bus = limited(32);
    let kind = number(&bus);
    let (states, hints) = (bus.topic("states").unwrap(), bus.topic("hints").unwrap());
    let answered = Arc::new(AtomicU64::new(0));
    let (refused, deepest) = channel();
    let answer = |to: &stasis_bus::Topic| {
        let (to, kind, answered, refused) = (to.clone(), kind.clone(), Arc::clone(&answered), refused.clone());
        move |received: &stasis_bus::Received<'_>| {
            let Some(number) = received.payload::<u64>() else { return };
            answered.fetch_add(1, Ordering::SeqCst);
            if let Err(error) = to.publish(kind.message(number + 1)) {
                assert!(error.is_feedback() && matches!(error, PublishError::Feedback(_)));
                assert!(!error.is_full() && !error.is_closed());
                refused.send((received.depth(), error.into_message())).unwrap();
            }
        }
    };
    let _a = states.subscriber().accept(&kind).subscribe(answer(&hints)).unwrap();
    let _b = hints.subscriber().accept(&kind).subscribe(answer(&states)).unwrap();
    states.publish(kind.message(0)).unwrap();
    let (depth, message) = next(&deepest);
    assert_eq!((depth, message.payload::<u64>()), (32, Some(&33)), "the message comes back");
    bus.shutdown(PATIENCE).unwrap();
    assert_eq!(answered.load(Ordering::SeqCst), 33);
    assert_eq!(bus.stats().feedback, 1);
}

#[test]
fn republishing_the_message_itself_is_feedback_too() {
    let bus = limited(10);
    let kind = number(&bus);
    let topic = bus.topic("t").unwrap();
    let to = topic.clone();
    let (refused, seen) = channel();
    let _echo = topic
        .subscriber()
        .accept(&kind)
        .subscribe(move |received| {
            if !received.is_final() && to.publish(received.message().clone()).is_err() {
                refused.send(received.depth()).unwrap();
            }
        })
        .unwrap();
    topic.publish(kind.message(1)).unwrap();
    assert_eq!(next(&seen), 10);
}

#[test]
fn inline_handlers_loop_no_further() {
    let bus = limited(20);
    let kind = number(&bus);
    let topic = bus.topic("t").unwrap();
    let (to, again) = (topic.clone(), kind.clone());
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let _echo = topic
        .subscriber()
        .accept(&kind)
        .no_mailbox()
        .subscribe(move |received| {
            if !received.is_final() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = to.publish(again.message(0));
            }
        })
        .unwrap();
    topic.publish(kind.message(1)).unwrap();
    assert_eq!((calls.load(Ordering::SeqCst), depth()), (21, 0));
}

#[test]
fn a_limit_of_nothing_forbids_publishing_in_handlers_and_nothing_else() {
    let bus = limited(0);
    let kind = number(&bus);
    let topic = bus.topic("t").unwrap();
    let (to, again) = (topic.clone(), kind.clone());
    let (outcome, seen) = channel();
    let feed = topic
        .subscriber()
        .accept(&kind)
        .subscribe(move |received| {
            if received.is_final() {
                // The final message is a handler's too.
                outcome.send(to.publish(again.message(1)).is_ok()).unwrap();
            } else {
                outcome.send(to.publish(again.message(1)).is_err_and(|error| error.is_feedback())).unwrap();
                // Subscribing says so on the topic; that is the bus's own message.
                drop(to.subscribe(|_| ()).unwrap());
            }
        })
        .unwrap();
    topic.publish(kind.message(1)).unwrap();
    assert!(next(&seen));
    feed.unsubscribe().wait().unwrap();
    assert!(next(&seen), "nobody wants it any more: nothing is refused");
}

#[test]
fn a_handler_whose_lane_was_taken_over_keeps_its_depth() {
    let bus = Bus::builder().lanes(1).pinning(Pinning::Off).watchdog(Duration::from_millis(1)).build().unwrap();
    let kind = number(&bus);
    let (slow, after) = (bus.topic("slow").unwrap(), bus.topic("after").unwrap());
    let gate = Gate::new();
    let (sender, seen) = channel();
    let _after = after.subscriber().accept(&kind).subscribe({
        let sender = sender.clone();
        move |received| {
            if !received.is_final() {
                sender.send(received.depth()).unwrap()
            }
        }
    });
    let _slow = slow.subscriber().accept(&kind).subscribe({
        let (gate, kind, after) = (gate.clone(), kind.clone(), after.clone());
        move |received| {
            if !received.is_final() {
                gate.pass();
                after.publish(kind.message(1)).unwrap();
            }
        }
    });
    slow.publish(kind.message(1)).unwrap();
    eventually("the lane is taken over", || bus.stats().takeovers > 0);
    after.publish(kind.message(2)).unwrap();
    assert_eq!(next(&seen), 0, "the spare's handlers are not inside the stuck one");
    gate.open();
    assert_eq!(next(&seen), 1);
}

#[test]
fn a_guard_refuses_or_tells_and_survives_its_callback() {
    for action in [TooDeep::Refuse, TooDeep::Warn] {
        let bus = bus(1);
        let kind = number(&bus);
        let topic = bus.topic("t").unwrap();
        let (told, notices) = channel();
        let guard = Arc::new(FeedbackGuard::new(&topic, 3, action, move |_, depth| {
            told.send(depth).unwrap();
            panic!("contained");
        }));
        let (inside, again) = (Arc::clone(&guard), kind.clone());
        let feed = topic.subscriber().accept(&kind).subscribe(move |received| {
            if let Some(left) = received.payload::<u64>().filter(|left| **left > 0) {
                let _ = inside.publish(again.message(left - 1));
            }
        });
        guard.publish(kind.message(6)).unwrap();
        assert_eq!(next(&notices), 4);
        if action == TooDeep::Warn {
            assert_eq!((next(&notices), next(&notices)), (5, 6));
        }
        eventually("all counted", || guard.too_deep() == if action == TooDeep::Warn { 3 } else { 1 });
        drop(feed);
    }
}
