//! Conformance: forwards (G3 over several ways, Delicate point 8).
mod common;

use common::{DELIVERIES, Log, PATIENCE, bus, number, stress};
use stasis_bus::{Bus, Closed, Delivery, Forward, MessageType, Subscription, Topic};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn topics<const N: usize>(bus: &Bus) -> [Topic; N] {
    std::array::from_fn(|n| bus.topic(format!("t{n}")).unwrap())
}

fn listen(topic: &Topic, kind: &MessageType<u64>, delivery: Delivery) -> (Subscription, Log) {
    let log = Log::new();
    (topic.subscriber().delivery(delivery).accept(kind).subscribe(log.handler()).unwrap(), log)
}

/// Which of the topics a message arrives from, published once on each.
fn arrivals(topics: &[Topic], kind: &MessageType<u64>, (subscription, log): &(Subscription, Log)) -> Vec<u64> {
    // Others may have published before: numbers from here on are this call's.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let base = NEXT.fetch_add(topics.len() as u64, Ordering::Relaxed);
    for (n, topic) in (base..).zip(topics) {
        topic.publish_sync(kind.message(n), subscription).unwrap();
    }
    log.values().into_iter().filter_map(|n| n.checked_sub(base)).collect()
}

#[test]
fn a_forward_goes_one_way_and_any_depth() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let kind = number(&bus);
        let line = topics::<6>(&bus);
        let early = listen(&line[5], &kind, delivery);
        let _forwards: Vec<Forward> = line.windows(2).map(|pair| pair[0].forward_to(&pair[1]).unwrap()).collect();
        let late = listen(&line[5], &kind, delivery);
        let middle = listen(&line[2], &kind, delivery);
        for listener in [&early, &late] {
            assert_eq!(arrivals(&line, &kind, listener), [0, 1, 2, 3, 4, 5], "{delivery:?}");
        }
        assert_eq!(arrivals(&line, &kind, &middle), [0, 1, 2]);
        assert_eq!(line.each_ref().map(Topic::subscribers), [3, 3, 3, 2, 2, 2]);
    }
}

#[test]
fn forwards_made_from_the_far_end_first_reach_as_well() {
    let bus = bus(1);
    let kind = number(&bus);
    let line = topics::<6>(&bus);
    let listener = listen(&line[5], &kind, Delivery::default());
    let mut forwards: Vec<Forward> = line.windows(2).rev().map(|pair| pair[0].forward_to(&pair[1]).unwrap()).collect();
    assert_eq!(arrivals(&line, &kind, &listener), [0, 1, 2, 3, 4, 5]);
    forwards.remove(2).cancel(); // t2 -> t3
    assert_eq!(arrivals(&line, &kind, &listener), [3, 4, 5]);
    forwards.push(line[2].forward_to(&line[3]).unwrap());
    assert_eq!(arrivals(&line, &kind, &listener), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn g03_a_diamond_delivers_once() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let kind = number(&bus);
        let [top, left, right, bottom] = topics(&bus);
        let listener = listen(&bottom, &kind, delivery);
        let forwards = [(&top, &left), (&top, &right), (&left, &bottom), (&right, &bottom)]
            .map(|(from, to)| from.forward_to(to).unwrap());
        let all = [top, left, right, bottom];
        assert_eq!(arrivals(&all, &kind, &listener), [0, 1, 2, 3], "{delivery:?}");
        let [top_left, top_right, left_bottom, right_bottom] = forwards;
        drop(left_bottom);
        assert_eq!(arrivals(&all, &kind, &listener), [0, 2, 3], "the way on the right is left");
        drop(top_right);
        assert_eq!(arrivals(&all, &kind, &listener), [2, 3]);
        drop((top_left, right_bottom));
        assert_eq!(arrivals(&all, &kind, &listener), [3]);
    }
}

#[test]
fn g03_a_forward_made_twice_delivers_once_and_needs_cancelling_twice() {
    let bus = bus(1);
    let kind = number(&bus);
    let [from, to] = topics(&bus);
    let listener = listen(&to, &kind, Delivery::default());
    let (one, two) = (from.forward_to(&to).unwrap(), from.forward_to(&to).unwrap());
    let both = [from, to];
    assert_eq!(arrivals(&both, &kind, &listener), [0, 1]);
    one.cancel();
    assert_eq!(arrivals(&both, &kind, &listener), [0, 1]);
    two.cancel();
    assert_eq!(arrivals(&both, &kind, &listener), [1]);
}

#[test]
fn g03_cycles_and_self_forwards_are_harmless() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let kind = number(&bus);
        let ring = topics::<4>(&bus);
        let listeners = ring.each_ref().map(|topic| listen(topic, &kind, delivery));
        let _selves = ring.each_ref().map(|topic| topic.forward_to(topic).unwrap());
        for (n, listener) in (0..).zip(&listeners) {
            assert_eq!(arrivals(&ring, &kind, listener), [n], "{delivery:?}: to itself once");
        }
        let mut forwards: Vec<Forward> = (0..4).map(|n| ring[n].forward_to(&ring[(n + 1) % 4]).unwrap()).collect();
        for listener in &listeners {
            assert_eq!(arrivals(&ring, &kind, listener), [0, 1, 2, 3], "{delivery:?}");
        }
        let late = listen(&ring[2], &kind, delivery);
        assert_eq!(arrivals(&ring, &kind, &late), [0, 1, 2, 3]);
        forwards.remove(0).cancel(); // 0 -> 1: what is left is the line 1 2 3 0
        assert_eq!(arrivals(&ring, &kind, &listeners[0]), [0, 1, 2, 3]);
        assert_eq!(arrivals(&ring, &kind, &listeners[1]), [1]);
        assert_eq!(arrivals(&ring, &kind, &late), [1, 2]);
    }
}

#[test]
fn cancelling_takes_out_exactly_what_the_forward_put_in() {
    let bus = bus(1);
    let kind = number(&bus);
    let [from, to, other] = topics(&bus);
    let own = listen(&from, &kind, Delivery::default());
    let over = listen(&to, &kind, Delivery::Inline);
    let through_other = listen(&other, &kind, Delivery::Dedicated);
    let forward = from.forward_to(&to).unwrap();
    let _keep = from.forward_to(&other).unwrap();
    let added_later = listen(&to, &kind, Delivery::default());
    let all = [from, to, other];
    assert_eq!(all[0].subscribers(), 4);
    forward.cancel();
    assert_eq!(all[0].subscribers(), 2);
    assert_eq!(arrivals(&all, &kind, &own), [0]);
    assert_eq!(arrivals(&all, &kind, &over), [1]);
    assert_eq!(arrivals(&all, &kind, &added_later), [1]);
    assert_eq!(arrivals(&all, &kind, &through_other), [0, 2]);
}

#[test]
fn unsubscribing_takes_a_subscription_off_all_topics_upstream() {
    let bus = bus(1);
    let line = topics::<3>(&bus);
    let _forwards: Vec<Forward> = line.windows(2).map(|pair| pair[0].forward_to(&pair[1]).unwrap()).collect();
    let subscription = line[2].subscribe(|_| ()).unwrap();
    assert_eq!(line.each_ref().map(Topic::subscribers), [1, 1, 1]);
    subscription.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(line.each_ref().map(Topic::subscribers), [0, 0, 0]);
}

#[test]
fn a_closed_bus_makes_no_forwards_and_cancels_old_ones_quietly() {
    let bus = bus(1);
    let [from, to] = topics(&bus);
    let forward = from.forward_to(&to).unwrap();
    bus.shutdown(PATIENCE).unwrap();
    assert_eq!(from.forward_to(&to).unwrap_err(), Closed);
    forward.cancel();
}

#[test]
fn g03_forwards_made_and_cancelled_while_publishing_never_double_or_lose() {
    // Two ways lead from `top` to `bottom`; one always stands while the other comes and goes.
    for delivery in DELIVERIES {
        let bus = bus(2);
        let kind = number(&bus);
        let [top, left, right, bottom] = topics(&bus);
        let (subscription, log) = listen(&bottom, &kind, delivery);
        let _below = [left.forward_to(&bottom).unwrap(), right.forward_to(&bottom).unwrap()];
        let stop = AtomicBool::new(false);
        let mut sent = 0;
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) && n < 100_000 {
                    top.publish(kind.message(n)).unwrap();
                    n += 1;
                }
                n
            });
            let mut standing = top.forward_to(&left).unwrap();
            let first = log.values().len();
            for round in 0..stress(400) {
                let other = if round % 2 == 0 { &right } else { &left };
                standing = top.forward_to(other).unwrap(); // the old one goes after the new one came
            }
            stop.store(true, Ordering::Relaxed);
            sent = publisher.join().unwrap();
            drop((standing, first));
        });
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        let values = log.values();
        // Before the first forward stood, messages went nowhere; from then on all arrive, once, in order.
        let first = values.first().copied().unwrap_or(sent);
        assert!(values.into_iter().eq(first..sent), "{delivery:?}");
    }
}
