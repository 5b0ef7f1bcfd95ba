//! Subscriptions, forwards and topics that come and go, as fast as the pace allows.

use super::ledger::{TOPICS, Verdict};
use super::listener::{Habit, Item, Listener, Watch};
use super::random::Random;
use super::run::{PATIENCE, Slot, Stage, lock};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use stasis_bus::{Completion, Delivery, Forward, Home, PanicPolicy, Subscription, Topic};

/// Passing subscriptions at most.
const MOST: usize = 40;
const FORWARDS: usize = 8;
/// Ends that are waited for in one go.
const ENDS: usize = 64;

fn delivery(random: &mut Random) -> Delivery {
    match random.below(10) {
        0 => Delivery::Dedicated,
        1..=3 => Delivery::Inline,
        4 | 5 => Delivery::Lane(Home::LeastLoaded),
        _ => Delivery::Lane(Home::Affinity),
    }
}

/// Subscribes a checked handler.
pub(crate) fn subscribe(stage: &Stage, home: usize, habit: Habit, delivery: Delivery) -> Option<Slot> {
    let watch = Watch::new(home, habit);
    let listener = Listener::new(&watch, &stage.ledger, &stage.slots);
    let policy = if habit == Habit::PanicsToTheEnd { PanicPolicy::End } else { PanicPolicy::Continue };
    let builder = stage.topics[home].subscriber().delivery(delivery).on_panic(policy).accept(&stage.kind);
    match builder.subscribe_handler(listener) {
        Ok(subscription) => {
            let _ = watch.from.set(stage.ledger.begun(home));
            Some(Slot { subscription, watch })
        }
        Err(error) => {
            // Its handler is dropped without a final message, so this must not happen.
            stage.ledger.violated(Verdict::Stuck, 1, || format!("cannot subscribe: {error}"));
            None
        }
    }
}

/// Comes and goes until the soak stops.
pub(crate) fn churn(stage: &Arc<Stage>, mut random: Random) {
    let ledger = &stage.ledger;
    let mut forwards: Vec<Forward> = Vec::new();
    let mut ends: Vec<Completion> = Vec::new();
    while !ledger.stops() {
        ledger.churned.fetch_add(1, Ordering::Relaxed);
        match random.below(16) {
            0..=4 if lock(&stage.slots).len() < MOST => {
                let habit = Habit::PASSING[random.below(Habit::PASSING.len())];
                let mut delivery = delivery(&mut random);
                if habit == Habit::Blocks && delivery == Delivery::Inline {
                    // It would block the publishers.
                    delivery = Delivery::Lane(Home::Affinity);
                }
                let slot = subscribe(stage, random.below(TOPICS), habit, delivery);
                lock(&stage.slots).extend(slot);
            }
            5..=7 => {
                let slot = {
                    let mut slots = lock(&stage.slots);
                    let place = random.below(slots.len().max(1));
                    (!slots.is_empty()).then(|| slots.swap_remove(place))
                };
                ends.extend(slot.map(|slot| slot.end(ledger)));
            }
            8 | 9 if forwards.len() < FORWARDS => {
                let (from, to) = (random.below(TOPICS), random.below(TOPICS));
                forwards.extend(stage.topics[from].forward_to(&stage.topics[to]).ok());
            }
            10 | 11 if !forwards.is_empty() => drop(forwards.swap_remove(random.below(forwards.len()))),
            12 => last_handles(stage, &mut random),
            13 => drop((stage.bus.stats(), stage.bus.topics(), stage.topics[0].subscribers())),
            _ => thread::sleep(Duration::from_micros(300)),
        }
        if ends.len() >= ENDS {
            await_ends(stage, &mut ends);
        }
    }
    await_ends(stage, &mut ends);
}

fn await_ends(stage: &Stage, ends: &mut Vec<Completion>) {
    let stuck = ends.drain(..).filter(|end| end.wait_timeout(PATIENCE).is_err()).count();
    stage.ledger.violated(Verdict::Stuck, stuck as u64, || "subscriptions that did not end".to_owned());
}

/// The last handles of a topic and of its one subscription go inside the handler, in the middle of the
/// publish that calls it.
fn last_handles(stage: &Arc<Stage>, random: &mut Random) {
    type Cell = Arc<Mutex<Option<(Topic, Subscription)>>>;
    let ledger = &stage.ledger;
    let name = format!("short:{}", random.next());
    let Ok(topic) = stage.bus.topic(&name) else { return };
    let cell = Cell::default();
    let (inside, ledger_inside) = (Arc::clone(&cell), Arc::clone(ledger));
    let alive = Arc::new(());
    let (token, mut calls) = (Arc::clone(&alive), 0);
    let handler = move |received: &stasis_bus::Received<'_>| {
        let _lives_as_long_as_the_handler = &token;
        if !received.is_final() {
            calls += 1;
            ledger_inside.calls.fetch_add(1, Ordering::Relaxed);
        }
        let handles = lock(&inside).take();
        drop(handles);
        if received.is_final() && calls != 1 {
            ledger_inside.violated(Verdict::Lost, 1, || format!("{calls} calls of a handler that drops its handle"));
        }
    };
    let builder = topic.subscriber().delivery(delivery(random)).accept(&stage.kind);
    let Ok(subscription) = builder.subscribe(handler) else { return };
    let end = subscription.completion();
    let publishing = topic.clone();
    *lock(&cell) = Some((topic, subscription));
    let item = Item::new(super::checker::Mark { publisher: 0, topic: 0, number: 0, place: 0 }, ledger);
    let accepted = publishing.publish(stage.kind.message(item)).is_ok();
    drop(publishing);
    ledger.accepted.fetch_add(u64::from(accepted), Ordering::Relaxed);
    if !accepted {
        let handles = lock(&cell).take();
        drop(handles);
    }
    if end.wait_timeout(PATIENCE).is_err() {
        ledger.violated(Verdict::Stuck, 1, || "a handler that dropped its last handles did not end".to_owned());
    }
    let left = Arc::strong_count(&alive) - 1;
    ledger.violated(Verdict::Handlers, left as u64, || "a handler that dropped its last handles stays".to_owned());
}
