//! What the bus tells about itself: who runs, who is stuck, what waits; and that looking does no harm (G13).
#![allow(missing_docs)]
mod common;

use common::{Gate, Log, OpenAtEnd, PATIENCE, eventually, lock, must_end, number};
use stasis_bus::{
    Bus, BusBuilder, Delivery, Home, MessageType, Pinning, QueueHealth, QueueKind, Received, Stuck, StuckKind,
    Subscription,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const LANE: Delivery = Delivery::Lane(Home::Lane(0));

fn builder() -> BusBuilder {
    Bus::builder().name("test").lanes(1).pinning(Pinning::Off).watchdog(Duration::from_micros(500))
}

fn behind(
    bus: &Bus,
    topic: &str,
    name: &str,
    delivery: Delivery,
    kind: &MessageType<u64>,
    gate: &Gate,
) -> Subscription {
    let gate = gate.clone();
    let pass = move |received: &Received<'_>| {
        if !received.is_final() {
            gate.pass();
        }
    };
    let topic = bus.topic(topic).unwrap();
    topic.subscriber().name(name).delivery(delivery).accept(kind).subscribe(pass).unwrap()
}

fn row(bus: &Bus, is: impl Fn(&QueueHealth) -> bool) -> Option<QueueHealth> {
    bus.health().queues.into_iter().find(is)
}

/// What the host was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Stuck>>>);

impl Told {
    fn listen(&self, builder: BusBuilder) -> BusBuilder {
        let told = self.clone();
        builder.on_culprit(move |stuck| lock(&told.0).push(stuck.clone()))
    }

    fn kinds(&self) -> Vec<StuckKind> {
        lock(&self.0).iter().map(|stuck| stuck.kind).collect()
    }
}

/// Pain 5: nobody knows what a stuck consumer is executing.
#[test]
fn health_names_the_stuck_handler_its_message_and_what_waits_for_it() {
    must_end(|| {
        let told = Told::default();
        let bus = told.listen(builder()).build().unwrap();
        let kind = number(&bus);
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let stuck = behind(&bus, "calls", "slow records", LANE, &kind, &gate);
        let topic = bus.topic("calls").unwrap();
        for n in 0..3 {
            topic.publish(kind.message(n)).unwrap();
        }
        eventually("it is away with two waiting", || {
            row(&bus, |row| row.kind == QueueKind::Away).is_some_and(|row| row.depth == 2)
        });
        let away = row(&bus, |row| row.kind == QueueKind::Away).unwrap();
        let running = away.running.clone().expect("its handler runs");
        assert_eq!(away.name, format!("slow records ({})", stuck.unique_id()));
        assert_eq!((running.id, running.topic.as_str()), (stuck.id(), "calls"));
        assert_eq!(running.message_type.as_deref(), Some("number"));
        assert_eq!(running.location, stuck.location().to_string());
        assert_eq!((away.takeovers, stuck.stats().takeovers), (1, 1));
        let again = || row(&bus, |row| row.kind == QueueKind::Away).unwrap();
        eventually("the time goes on", || again().running.unwrap().running_for > running.running_for);
        eventually("what waits gets older", || again().oldest.unwrap() > away.oldest.unwrap());
        let table = bus.health().to_string();
        assert!(table.contains("slow records") && table.contains("'number'"), "{table}");
        let column = table.lines().next().unwrap().chars().count() - "running".len();
        for line in table.lines().skip(1).take(2) {
            let around: String = line.chars().skip(column - 1).take(2).collect();
            assert!(around.starts_with(' ') && !around.ends_with(' '), "not in line:\n{table}");
        }
        eventually("the host is told", || told.kinds() == [StuckKind::TakenOver]);
        assert_eq!(lock(&told.0)[0].executing.message_type.as_deref(), Some("number"));
        assert_eq!(lock(&told.0)[0].lane, "test/0");
        gate.open();
        eventually("and told again", || told.kinds() == [StuckKind::TakenOver, StuckKind::Returned]);
        assert_eq!(lock(&told.0)[1].executing.id, stuck.id());
        assert!(row(&bus, |row| row.kind == QueueKind::Away).is_none());
    });
}

#[test]
fn a_lane_that_is_not_taken_over_names_who_keeps_it() {
    must_end(|| {
        for builder in [builder().watchdog(None), builder().spare_threads(0)] {
            let told = Told::default();
            let bus = told.listen(builder).build().unwrap();
            let kind = number(&bus);
            let gate = Gate::new();
            let _open = OpenAtEnd(gate.clone());
            let stuck = behind(&bus, "calls", "blocks", LANE, &kind, &gate);
            let topic = bus.topic("calls").unwrap();
            topic.publish(kind.message(1)).unwrap();
            topic.publish(kind.message(2)).unwrap();
            eventually("the host is told", || told.kinds() == [StuckKind::KeepsLane]);
            let lane = row(&bus, |row| row.kind == QueueKind::Lane).unwrap();
            let running = lane.running.expect("it runs");
            assert_eq!((running.id, running.message_type.as_deref()), (stuck.id(), Some("number")));
            assert!(running.subscription.starts_with("blocks ("), "{running}");
            assert_eq!((lane.depth, lane.takeovers), (1, 0));
            gate.open();
            eventually("it is back", || told.kinds() == [StuckKind::KeepsLane, StuckKind::Returned]);
            // Being looked at has not hurt the worker.
            let log = Log::new();
            let _other = topic.subscriber().delivery(LANE).accept(&kind).subscribe(log.handler()).unwrap();
            topic.publish(kind.message(3)).unwrap();
            eventually("the lane goes on", || log.values() == [3]);
        }
    });
}

#[test]
fn a_dedicated_subscription_has_a_row_of_its_own() {
    must_end(|| {
        let told = Told::default();
        let bus = told.listen(builder()).build().unwrap();
        let kind = number(&bus);
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let records = behind(&bus, "cdr", "records", Delivery::Dedicated, &kind, &gate);
        for n in 0..5 {
            bus.topic("cdr").unwrap().publish(kind.message(n)).unwrap();
        }
        let find = || row(&bus, |row| row.kind == QueueKind::Dedicated);
        eventually("it is described", || {
            find().is_some_and(|row| row.running.is_some_and(|running| running.message_type.is_some()))
        });
        let own = find().unwrap();
        assert_eq!((own.depth, own.name), (4, format!("records ({})", records.unique_id())));
        gate.open();
        eventually("it has caught up", || find().unwrap().depth == 0 && find().unwrap().running.is_none());
        assert_eq!(find().unwrap().oldest, None);
        records.unsubscribe_and_join(PATIENCE).unwrap();
        assert!(find().is_none(), "its row goes with it");
        assert_eq!(told.kinds(), Vec::<StuckKind>::new(), "it has kept nobody from anything");
    });
}

#[test]
fn g12_a_callback_that_panics_or_blocks_does_not_hurt_the_watchdog() {
    must_end(|| {
        let (gate, calls) = (Gate::new(), Arc::new(AtomicU64::new(0)));
        let _open = OpenAtEnd(gate.clone());
        let (callback_gate, counted) = (gate.clone(), Arc::clone(&calls));
        let bus = builder()
            .on_culprit(move |_| {
                if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                    panic!("the first call of this callback panics: part of the test");
                }
                callback_gate.pass();
            })
            .build()
            .unwrap();
        let kind = number(&bus);
        let stuck: Vec<_> =
            ["a", "b", "c"].iter().map(|topic| behind(&bus, topic, topic, LANE, &kind, &gate)).collect();
        for (n, topic) in ["a", "b", "c"].iter().enumerate() {
            bus.topic(topic).unwrap().publish(kind.message(0)).unwrap();
            // The second and third while the callback for the second blocks.
            eventually("taken over", || bus.stats().takeovers > n as u64);
        }
        eventually("panicked once, blocks now", || calls.load(Ordering::SeqCst) == 2);
        gate.open();
        eventually("all are told: three got stuck, three came back", || calls.load(Ordering::SeqCst) >= 6);
        drop(stuck);
    });
}

#[test]
fn panics_count_for_the_lane() {
    let bus = builder().build().unwrap();
    let kind = number(&bus);
    let topic = bus.topic("t").unwrap();
    let panics = |received: &Received<'_>| assert!(received.is_final(), "this panic is part of the test");
    let subscription = topic.subscriber().delivery(LANE).accept(&kind).subscribe(panics).unwrap();
    topic.publish(kind.message(1)).unwrap();
    topic.publish(kind.message(2)).unwrap();
    subscription.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(row(&bus, |row| row.kind == QueueKind::Lane).unwrap().panics, 2);
}

/// Pain 8: `stasis show topics` freezes the live system.
#[test]
fn g13_publishing_and_making_topics_go_on_while_others_look() {
    must_end(|| {
        let bus = builder().lanes(2).build().unwrap();
        let kind = number(&bus);
        let many = if cfg!(miri) { 100 } else { 20_000 };
        let held: Vec<_> = (0..many).map(|n| bus.topic(format!("held/{n}")).unwrap()).collect();
        let (topic, log) = (bus.topic("busy").unwrap(), Log::new());
        let subscription = topic.subscriber().accept(&kind).subscribe(log.handler()).unwrap();
        let done = AtomicBool::new(false);
        let looks = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let topics = bus.topics();
                    assert!(topics.len() > many, "all that are held are listed");
                    assert!(topics.windows(2).all(|two| two[0].id() < two[1].id()), "the oldest first, each once");
                    assert_eq!(bus.health().queues.iter().filter(|row| row.kind == QueueKind::Lane).count(), 2);
                    assert!(bus.stats().topics > many);
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
            let mut n = 0;
            while looks.load(Ordering::Relaxed) < 3 {
                topic.publish(kind.message(n)).unwrap();
                // Topics come and go meanwhile.
                assert_eq!(bus.topic(format!("new/{n}")).unwrap().name(), format!("new/{n}"));
                n += 1;
                if n % 1000 == 0 {
                    eventually("the lane keeps up", || log.values().len() as u64 == n);
                }
            }
            done.store(true, Ordering::Relaxed);
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            assert!(log.values().into_iter().eq(0..n));
        });
        drop(held);
        assert_eq!(bus.topics().len(), 1, "names that are gone are not listed");
    });
}
