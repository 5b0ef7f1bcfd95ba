//! Messages that have become too old are not delivered, and counted (pain 19: a stale backlog after a reconnect).
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{Log, number};
use stasis_bus::Overflow;
use stasis_bus::testing::ManualBus;
use std::thread;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_stale_backlog_is_not_delivered() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let (fresh, patient) = (Log::new(), Log::new());
    let short = topic.subscriber().accept(&kind).time_to_live(SHORT).subscribe(fresh.handler()).unwrap();
    let long = topic.subscriber().accept(&kind).time_to_live(LONG).subscribe(patient.handler()).unwrap();
    (0..1000).for_each(|n| topic.publish(kind.message(n)).unwrap());
    thread::sleep(2 * SHORT);
    manual.run();
    assert_eq!(fresh.values(), [0_u64; 0]);
    assert_eq!(patient.values().len(), 1000);
    let stats = short.stats();
    assert_eq!((stats.accepted, stats.delivered, stats.dropped.expired, stats.waiting), (1000, 0, 1000, 0));
    assert_eq!(long.stats().dropped.expired, 0);
    assert_eq!(manual.bus().stats().dropped.expired, 1000);
}

/// Age counts from when the message was made, not from when it was published.
#[test]
fn a_message_may_be_too_old_when_it_comes() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let log = Log::new();
    let feed = topic.subscriber().accept(&kind).time_to_live(SHORT).subscribe(log.handler()).unwrap();
    let stale = kind.message(1);
    thread::sleep(2 * SHORT);
    topic.publish(stale).unwrap();
    manual.run();
    assert_eq!((feed.stats().delivered, feed.stats().dropped.expired), (0, 1));
}

/// However old it is.
#[test]
fn the_final_message_and_notices_do_not_expire() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let log = Log::new();
    let feed = topic.subscriber().accept(&kind).time_to_live(Duration::ZERO).subscribe(log.handler()).unwrap();
    thread::sleep(Duration::from_millis(1));
    let stale = kind.message(1);
    thread::sleep(Duration::from_millis(1));
    topic.publish_sync(stale, &feed).unwrap();
    feed.unsubscribe();
    thread::sleep(Duration::from_millis(1));
    manual.run();
    log.assert_ended();
    assert_eq!((log.values().len(), feed.stats().dropped.expired), (0, 1));
}

/// When the queue is full, those that would not be delivered anyway make room.
#[test]
fn stale_messages_do_not_keep_fresh_ones_out() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let log = Log::new();
    let age = Duration::from_secs(1);
    let feed = topic.subscriber().accept(&kind).time_to_live(age).overflow(Overflow::DropNewest { limit: 3 });
    let feed = feed.subscribe(log.handler()).unwrap();
    (0..5).for_each(|n| topic.publish(kind.message(n)).unwrap());
    thread::sleep(age + SHORT);
    let fresh = kind.message(10);
    topic.publish(fresh).unwrap();
    let dropped = feed.stats().dropped;
    assert_eq!((dropped.newest, dropped.expired, feed.stats().waiting), (2, 3, 1));
    manual.run();
    assert_eq!(feed.stats().accepted, feed.stats().delivered + feed.stats().dropped.total());
}
