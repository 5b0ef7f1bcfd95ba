//! Conformance: topics, their registry, and what is built for nobody (G14).
mod common;

use common::{Log, PATIENCE, bus, eventually, number};
use stasis_bus::{Closed, Timestamp};
use std::cell::Cell;

#[test]
fn the_same_name_is_the_same_topic() {
    let bus = bus(1);
    let (one, two) = (bus.topic("calls").unwrap(), bus.topic(String::from("calls")).unwrap());
    assert_eq!((one == two, one.id(), one.name()), (true, two.id(), "calls"));
    assert_ne!(one, bus.topic("other").unwrap());
    let other_bus = common::bus(1);
    assert_ne!(one, other_bus.topic("calls").unwrap(), "buses share no topics");
}

#[test]
fn a_topic_tells_name_detail_and_creation() {
    let bus = bus(1);
    let before = Timestamp::now();
    let topic = bus.topic_with_detail("bridge:1", "mixing").unwrap();
    assert_eq!((topic.name(), topic.detail()), ("bridge:1", Some("mixing")));
    assert!(topic.created() >= before && topic.created() <= Timestamp::now());
    assert_eq!(bus.topic_with_detail("bridge:1", "another").unwrap().detail(), Some("mixing"), "as first made");
    assert_eq!(bus.topic("plain").unwrap().detail(), None);
}

#[test]
fn a_topic_is_listed_while_somebody_holds_it() {
    let bus = bus(1);
    let (one, two) = (bus.topic("one").unwrap(), bus.topic("two").unwrap());
    let mut names: Vec<_> = bus.topics().iter().map(|topic| topic.name().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(bus.find_topic("one"), Some(one.clone()));
    assert_eq!(bus.stats().topics, 2);
    let id = one.id();
    drop(one);
    assert_eq!((bus.find_topic("one"), bus.topics()), (None, vec![two]));
    assert_ne!(bus.topic("one").unwrap().id(), id, "a new one of that name");
}

#[test]
fn g10_a_topic_lives_while_a_subscription_or_a_forward_needs_it() {
    let bus = bus(1);
    let subscription = bus.topic("subscribed").unwrap().subscribe(|_| ()).unwrap();
    assert_eq!(bus.find_topic("subscribed").as_ref(), Some(subscription.topic()));
    subscription.unsubscribe_and_join(PATIENCE).unwrap();
    drop(subscription);
    eventually("the topic went with its subscription", || bus.find_topic("subscribed").is_none());

    let forward = bus.topic("from").unwrap().forward_to(&bus.topic("to").unwrap()).unwrap();
    assert_eq!((forward.from().name(), forward.to().name()), ("from", "to"));
    assert_eq!(bus.topics().len(), 2);
    drop(forward);
    assert_eq!(bus.topics(), []);
}

#[test]
fn a_topic_made_on_many_threads_at_once_is_one() {
    let bus = bus(1);
    for round in 0..50 {
        let name = format!("t{round}");
        let ids: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| bus.topic(&name).unwrap())).collect();
            let topics: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            topics.iter().map(stasis_bus::Topic::id).collect()
        });
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
        assert!(bus.find_topic(&name).is_none());
    }
}

#[test]
fn a_closed_bus_makes_no_topics() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let report = bus.shutdown(PATIENCE).unwrap();
    assert_eq!(bus.topic("other"), Err(Closed));
    assert_eq!(bus.topic("t"), Err(Closed));
    assert_eq!(report.topics.iter().map(|alive| alive.name.as_str()).collect::<Vec<_>>(), [topic.name()]);
    assert!(report.topics[0].location.contains(file!()), "{}", report.topics[0].location);
}

#[test]
fn g14_wants_follows_the_filters() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (one, two) = (number(&bus), number(&bus));
    assert!(!topic.wants(&one));
    let picky = topic.subscriber().accept(&one).subscribe(|_| ()).unwrap();
    assert!(topic.wants(&one) && !topic.wants(&two));
    let open = topic.subscribe(|_| ()).unwrap();
    assert!(topic.wants(&one) && topic.wants(&two));
    drop(open);
    assert!(topic.wants(&one) && !topic.wants(&two));
    picky.accept(&two);
    picky.decline(&one);
    assert!(!topic.wants(&one) && topic.wants(&two));
    let upstream = bus.topic("up").unwrap();
    let forward = upstream.forward_to(&topic).unwrap();
    assert!(upstream.wants(&two) && !upstream.wants(&one));
    forward.cancel();
    assert!(!upstream.wants(&two));
}

#[test]
fn g14_nothing_is_built_for_nobody() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (wanted, unwanted) = (number(&bus), number(&bus));
    let log = Log::new();
    let subscription = topic.subscriber().accept(&wanted).subscribe(log.handler()).unwrap();
    let built = Cell::new(0);
    let build = || {
        built.set(built.get() + 1);
        42
    };
    assert_eq!(topic.publish_with(&unwanted, build), Ok(false));
    assert_eq!(built.get(), 0);
    let before = bus.stats();
    assert_eq!(topic.publish_with(&wanted, build), Ok(true));
    assert_eq!(built.get(), 1);
    topic.publish(unwanted.message(1)).unwrap();
    let after = bus.stats();
    assert_eq!((after.published - before.published, after.unwanted - before.unwanted), (1, 1));
    subscription.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(log.values(), [42]);
}

#[test]
fn publishes_of_nobodys_messages_are_counted_as_unwanted() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    for n in 0..10 {
        topic.publish(kind.message(n)).unwrap();
    }
    let stats = bus.stats();
    assert_eq!((stats.published, stats.unwanted, stats.delivered), (0, 10, 0));
}
