//! Water levels: by depth and by age, told once a crossing, by subsystem and criticality.
#![allow(missing_docs)]
mod common;

use common::{Gate, OpenAtEnd, PATIENCE, eventually, lock, must_end, number};
use stasis_bus::{
    Bus, BusBuilder, Criticality, Delivery, Home, LevelChange, MessageType, Overflow, Pinning, QueueKind, Received,
    Subscription, WaterMarks,
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn builder() -> BusBuilder {
    Bus::builder().name("test").lanes(1).pinning(Pinning::Off).watchdog(Duration::from_micros(500))
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<LevelChange>>>);

impl Told {
    fn listen(&self, builder: BusBuilder) -> BusBuilder {
        let told = self.clone();
        builder.on_congestion(move |change| lock(&told.0).push(change.clone()))
    }

    fn crossings(&self) -> Vec<bool> {
        lock(&self.0).iter().map(|change| change.is_congested).collect()
    }
}

/// A call-record writer: one message for each permit.
fn records(bus: &Bus, kind: &MessageType<u64>, delivery: Delivery) -> (Subscription, Sender<()>) {
    let (permits, wait): (_, Receiver<()>) = channel();
    let write = move |received: &Received<'_>| {
        if !received.is_final() {
            let _ = wait.recv_timeout(PATIENCE);
        }
    };
    let topic = bus.topic("cdr:all").unwrap();
    let builder = topic.subscriber().name("records").delivery(delivery).accept(kind);
    (builder.subsystem("cdr").criticality(Criticality::Low).subscribe(write).unwrap(), permits)
}

/// Pain 3: overload of any taskprocessor stops SIP intake.
#[test]
fn a_saturated_record_writer_does_not_stop_call_intake() {
    must_end(|| {
        for delivery in [Delivery::Dedicated, Delivery::Lane(Home::Lane(0))] {
            let bus = builder().water_marks(WaterMarks::stasis()).build().unwrap();
            let kind = number(&bus);
            let (subscription, permits) = records(&bus, &kind, delivery);
            let (cdr, intake) = (bus.congestion("cdr"), bus.congestion("pjsip"));
            assert_eq!((cdr.is_congested(), bus.congested_queues()), (false, 0));
            let topic = bus.topic("cdr:all").unwrap();
            (0..600).for_each(|n| topic.publish(kind.message(n)).unwrap());
            eventually("the subsystem is congested", || cdr.is_congested());
            eventually("nobody else, once the writer has lost the lane", || bus.congested_queues() == 1);
            assert_eq!((cdr.queues(), intake.queues()), (1, 0));
            assert!(bus.is_congested(Criticality::Low));
            assert!(!bus.is_congested(Criticality::Normal) && !bus.is_congested(Criticality::High));
            drop(permits);
            eventually("it recovers", || bus.congested_queues() == 0);
            assert!(!cdr.is_congested() && !bus.is_congested(Criticality::Low));
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
        }
    });
}

/// The same with an overflow policy: what waits in the subscription's own queue counts for it, on a shared lane as
/// on a thread of its own, whether its handler has lost the lane or keeps it.
#[test]
fn a_queue_of_its_own_is_congested_by_itself() {
    const LANE: Delivery = Delivery::Lane(Home::Lane(0));
    let cases = [
        (LANE, Some(Duration::from_micros(500)), QueueKind::Away),
        (LANE, None, QueueKind::Own),
        (Delivery::Dedicated, None, QueueKind::Dedicated),
    ];
    for (delivery, watchdog, kind_of_row) in cases {
        must_end(move || {
            let told = Told::default();
            let marks = WaterMarks::none().depth(50, 100);
            let bus = told.listen(builder()).watchdog(watchdog).water_marks(marks).build().unwrap();
            let (kind, topic) = (number(&bus), bus.topic("cdr:all").unwrap());
            let gate = Gate::new();
            let _open = OpenAtEnd(gate.clone());
            let pass = gate.clone();
            let records = topic.subscriber().name("records").delivery(delivery).accept(&kind);
            let records = records.subsystem("cdr").criticality(Criticality::Low).overflow(Overflow::Lag { limit: 500 });
            let records = records.subscribe(move |_| pass.pass()).unwrap();
            topic.publish(kind.message(0)).unwrap();
            eventually("the handler has the first", || records.stats().waiting == 0);
            (0..600).for_each(|n| topic.publish(kind.message(n)).unwrap());
            let cdr = bus.congestion("cdr");
            eventually("the subsystem is congested", || cdr.is_congested());
            assert_eq!((cdr.queues(), bus.congested_queues()), (1, 1));
            assert!(bus.is_congested(Criticality::Low) && !bus.is_congested(Criticality::Normal));
            let row = || bus.health().queues.into_iter().find(|row| row.name.starts_with("records"));
            eventually("one row tells of it", || row().is_some_and(|row| row.kind == kind_of_row));
            let found = row().unwrap();
            assert_eq!((found.depth, found.high_water, found.is_congested), (500, 500, true), "{found:?}");
            assert!(found.oldest.is_some() && found.subsystem == "cdr", "{found:?}");
            assert_eq!(bus.health().queues.iter().filter(|row| row.name.starts_with("records")).count(), 1);
            gate.open();
            eventually("it recovers", || !cdr.is_congested() && bus.congested_queues() == 0);
            eventually("each crossing is told once", || told.crossings() == [true, false]);
            records.unsubscribe_and_join(PATIENCE).unwrap();
            eventually("and is gone from the list", || row().is_none());
        });
    }
}

#[test]
fn each_crossing_is_told_once() {
    must_end(|| {
        let told = Told::default();
        let bus = told.listen(builder()).water_marks(WaterMarks::none().depth(10, 20)).build().unwrap();
        let kind = number(&bus);
        let (_subscription, permits) = records(&bus, &kind, Delivery::Dedicated);
        let topic = bus.topic("cdr:all").unwrap();
        let depth = || {
            let own = bus.health().queues.into_iter().find(|row| row.kind == QueueKind::Dedicated);
            own.map_or(0, |row| row.depth)
        };
        let let_through = |n| (0..n).for_each(|_| permits.send(()).unwrap());
        // One is with the handler.
        topic.publish(kind.message(0)).unwrap();
        let runs = || bus.health().queues.iter().any(|row| row.kind == QueueKind::Dedicated && row.running.is_some());
        eventually("the handler has the first", || runs() && depth() == 0);
        (0..19).for_each(|n| topic.publish(kind.message(n)).unwrap());
        eventually("19 wait", || depth() == 19);
        assert_eq!(told.crossings(), [false; 0], "one below the high level");
        topic.publish(kind.message(0)).unwrap();
        eventually("told", || told.crossings() == [true]);
        let change = lock(&told.0)[0].clone();
        assert_eq!((change.subsystem.as_str(), change.criticality), ("cdr", Criticality::Low));
        assert!(change.queue.starts_with("records (cdr:all-") && change.depth == 20, "{change:?}");
        // Between the levels nothing is told: down to 11 and up to 30.
        let_through(9);
        eventually("11 wait", || depth() == 11);
        (0..19).for_each(|n| topic.publish(kind.message(n)).unwrap());
        eventually("30 wait", || depth() == 30);
        assert_eq!((told.crossings().len(), bus.congested_queues()), (1, 1));
        let_through(20);
        eventually("told", || told.crossings() == [true, false]);
        assert_eq!(depth(), 10);
        (0..10).for_each(|n| topic.publish(kind.message(n)).unwrap());
        eventually("told again", || told.crossings() == [true, false, true]);
    });
}

/// Pain 4: "Why 500?" Levels by age, changed while it runs.
#[test]
fn one_old_message_is_congestion_by_age_and_levels_change_at_run_time() {
    must_end(|| {
        let bus = builder().water_marks(WaterMarks::none()).build().unwrap();
        let kind = number(&bus);
        let (_subscription, permits) = records(&bus, &kind, Delivery::Dedicated);
        let topic = bus.topic("cdr:all").unwrap();
        topic.publish(kind.message(1)).unwrap();
        topic.publish(kind.message(2)).unwrap();
        let old = Duration::from_millis(30);
        let oldest = || bus.health().queues.iter().filter_map(|row| row.oldest).max();
        eventually("it has waited", || oldest().is_some_and(|age| age > old));
        assert_eq!(bus.congested_queues(), 0, "no levels");
        let (all, cdr) = (WaterMarks::none().depth(1, 1000), WaterMarks::none().age(Duration::ZERO, old));
        bus.set_water_marks(all);
        bus.set_subsystem_water_marks("cdr", cdr);
        eventually("one that is old is enough", || bus.congestion("cdr").is_congested());
        bus.set_subsystem_water_marks("cdr", None);
        eventually("levels of the bus again", || bus.congested_queues() == 0);
        bus.set_subsystem_water_marks("cdr", cdr);
        eventually("and back", || bus.congested_queues() == 1);
        drop(permits);
        eventually("it recovers", || bus.congested_queues() == 0);
    });
}

#[test]
fn a_queue_that_goes_is_no_longer_congested() {
    must_end(|| {
        let told = Told::default();
        let bus = told.listen(builder()).water_marks(WaterMarks::none().depth(0, 5)).build().unwrap();
        let kind = number(&bus);
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let pass = gate.clone();
        let topic = bus.topic("t").unwrap();
        let handle = move |received: &Received<'_>| {
            if !received.is_final() {
                pass.pass();
            }
        };
        let subscription = topic.subscriber().delivery(Delivery::Dedicated).accept(&kind).subscribe(handle).unwrap();
        (0..20).for_each(|n| topic.publish(kind.message(n)).unwrap());
        eventually("congested", || bus.congested_queues() == 1);
        drop(subscription);
        gate.open();
        eventually("gone", || bus.congested_queues() == 0);
        eventually("told", || told.crossings() == [true, false]);
    });
}

#[test]
fn a_full_lane_is_critical_for_all() {
    must_end(|| {
        let bus = builder().watchdog(None).water_marks(WaterMarks::none().depth(5, 10)).build().unwrap();
        let kind = number(&bus);
        let (_subscription, permits) = records(&bus, &kind, Delivery::Lane(Home::Lane(0)));
        let topic = bus.topic("cdr:all").unwrap();
        (0..50).for_each(|n| topic.publish(kind.message(n)).unwrap());
        eventually("congested", || bus.is_congested(Criticality::High));
        assert!(!bus.congestion("cdr").is_congested(), "the lane is not the subsystem's");
        drop(permits);
        eventually("recovered", || !bus.is_congested(Criticality::Low));
    });
}

#[test]
fn levels_out_of_order_are_put_in_order() {
    assert_eq!(WaterMarks::none().depth(9, 5), WaterMarks::none().depth(4, 5));
    assert_eq!(WaterMarks::none().depth(9, 0), WaterMarks::none().depth(0, 1));
    let ms = Duration::from_millis;
    assert_eq!(WaterMarks::none().age(ms(9), ms(5)), WaterMarks::none().age(ms(5), ms(5)));
}
