//! The health report as JSON, and what the log is told: seldom, and never over the bus.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{Gate, Log, OpenAtEnd, PATIENCE, eventually, lock, must_end, number};
use serde_json::Value;
use stasis_bus::{Bus, Criticality, Delivery, Home, Pinning, Received, StuckKind, WaterMarks};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata};

fn builder() -> stasis_bus::BusBuilder {
    Bus::builder().name("test").lanes(1).pinning(Pinning::Off).watchdog(Duration::from_micros(500))
}

#[test]
fn a_report_is_read_back_as_it_was() {
    must_end(|| {
        let bus = builder().water_marks(WaterMarks::none().depth(0, 2)).build().unwrap();
        let (kind, gate) = (number(&bus), Gate::new());
        let _open = OpenAtEnd(gate.clone());
        let topic = bus.topic("cdr").unwrap();
        let pass = gate.clone();
        let handle = move |received: &Received<'_>| {
            if !received.is_final() {
                pass.pass();
            }
        };
        let records = topic.subscriber().name("\"records\"").delivery(Delivery::Dedicated).accept(&kind);
        let records = records.subsystem("cdr").criticality(Criticality::Low).subscribe(handle).unwrap();
        (0..4).for_each(|n| topic.publish(kind.message(n)).unwrap());
        let own = |report: &stasis_bus::HealthReport| report.queues.get(1).cloned();
        let ready =
            |own: stasis_bus::QueueHealth| own.is_congested && own.running.is_some_and(|r| r.message_type.is_some());
        eventually("its call is described", || own(&bus.health()).is_some_and(ready));
        let report = bus.health();
        let own = own(&report).unwrap();
        let running = own.running.clone().unwrap();
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        let row = &json["queues"][1];
        assert_eq!(row["name"], format!("\"records\" ({})", records.unique_id()));
        assert_eq!(
            (&row["kind"], &row["subsystem"], &row["criticality"]),
            (&"dedicated".into(), &"cdr".into(), &"low".into())
        );
        assert_eq!(
            (&row["depth"], &row["high_water"], &row["is_congested"]),
            (&3.into(), &own.high_water.into(), &true.into())
        );
        assert_eq!(row["oldest_us"], own.oldest.unwrap().as_micros() as u64);
        assert_eq!(row["running"]["message_type"], "number");
        assert_eq!(row["running"]["location"], records.location().to_string());
        assert_eq!(row["running"]["running_for_us"], running.running_for.as_micros() as u64);
        assert_eq!((&json["congested"], &json["takeovers"]), (&1.into(), &0.into()));
        assert_eq!((&json["queues"][0]["running"], &json["queues"][0]["oldest_us"]), (&Value::Null, &Value::Null));
    });
}

/// Messages of the library for the log.
struct Told(Arc<Mutex<Vec<String>>>);

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl tracing::Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("stasis_bus")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut Text(&mut text));
        lock(&self.0).push(text);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Pain 18: messages about a full queue feed the same queue.
#[test]
fn a_flood_of_news_is_a_trickle_in_the_log_and_nothing_on_the_bus() {
    must_end(|| {
        let log = Arc::new(Mutex::new(Vec::new()));
        tracing::subscriber::set_global_default(Told(Arc::clone(&log))).unwrap();
        let began = Instant::now();
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let bus = builder().on_culprit(move |stuck| lock(&tell).push(stuck.kind)).build().unwrap();
        let kind = number(&bus);
        let seen = Log::new();
        let topic = bus.topic("t").unwrap();
        let _all = topic.subscriber().delivery(Delivery::Inline).subscribe(seen.handler()).unwrap();
        let before = seen.all().len();
        // Each of them is slow once, and is told of when it gets stuck and when it is back.
        for round in 1..=20 {
            let gate = Gate::new();
            let _open = OpenAtEnd(gate.clone());
            let pass = gate.clone();
            let handle = move |received: &Received<'_>| {
                if !received.is_final() {
                    pass.pass();
                }
            };
            let quiet = bus.topic(format!("slow/{round}")).unwrap();
            let slow =
                quiet.subscriber().delivery(Delivery::Lane(Home::Lane(0))).accept(&kind).subscribe(handle).unwrap();
            quiet.publish(kind.message(round)).unwrap();
            eventually("it is told", || lock(&told).len() as u64 == 2 * round - 1);
            gate.open();
            eventually("and told again", || lock(&told).len() as u64 == 2 * round);
            slow.unsubscribe_and_join(PATIENCE).unwrap();
        }
        assert_eq!(lock(&told).iter().filter(|kind| **kind == StuckKind::TakenOver).count(), 20);
        let (lines, seconds) = (lock(&log).clone(), began.elapsed().as_secs() as usize);
        let news: Vec<_> = lines.iter().filter(|line| line.contains("stuck handler")).collect();
        assert!(!news.is_empty() && news.len() <= seconds + 1, "{} in {seconds} s: {news:?}", news.len());
        assert!(news[0].contains("slow/1") && news[0].contains("'number'"), "{news:?}");
        assert_eq!(seen.all().len(), before, "nothing of it is on the bus");
    });
}
