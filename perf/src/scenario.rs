//! The scenarios, and how many messages each takes.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::contender::{CAPACITY, Mode, Shape};
use crate::plan::Plan;

/// Publishers, topics, subscribers, messages.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// Messages of a measured phase, of all publishers together: the same for every contender.
    pub(crate) messages: u64,
}

fn scenario(name: &'static str, publishers: usize, plan: Plan, mode: Mode, messages: u64) -> Scenario {
    Scenario { name, shape: Shape { publishers, plan: Arc::new(plan), mode, capacity: CAPACITY }, messages }
}

/// One topic, at full speed.
fn plain(name: &'static str, publishers: usize, subscribers: usize, messages: u64) -> Scenario {
    scenario(name, publishers, Plan::one(subscribers), Mode::Throughput, messages)
}

/// A second of `rate` messages.
fn paced(name: &'static str, rate: u64, subscribers: usize, spins: bool) -> Scenario {
    let mode = Mode::Latency { period: Duration::from_nanos(1_000_000_000 / rate), spins };
    scenario(name, 1, Plan::one(subscribers), mode, rate)
}

fn burst(name: &'static str, subscribers: usize, messages: u64) -> Scenario {
    scenario(name, 1, Plan::one(subscribers), Mode::Burst, messages).holding_all()
}

/// At full speed, where queues hold all that comes: nobody waits for room.
fn flood(name: &'static str, publishers: usize, subscribers: usize, messages: u64) -> Scenario {
    plain(name, publishers, subscribers, messages).holding_all()
}

fn recorded(name: &'static str, file: &str) -> Option<Scenario> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../traces")).join(file);
    match Plan::recorded(&path) {
        Ok(plan) => Some(scenario(name, 1, plan, Mode::Throughput, 1 << 18)),
        Err(error) => {
            eprintln!("perf: without scenario \"{name}\": {error}");
            None
        }
    }
}

/// All of them, in the order of the tables. At full speed a round is to last some tens of milliseconds for the fastest with
/// `--scale 0.4`: who runs on which core is the scheduler's choice for the first ten.
pub(crate) fn all() -> &'static [Scenario] {
    static ALL: LazyLock<Vec<Scenario>> = LazyLock::new(make);
    &ALL
}

fn make() -> Vec<Scenario> {
    let mut all = vec![
        plain("1->0", 1, 0, 8_000_000),
        scenario("filtered out", 1, Plan::one(1), Mode::Filtered, 8_000_000),
        plain("1->1", 1, 1, 4_000_000),
        plain("1->8", 1, 8, 2_000_000),
        plain("4->8", 4, 8, 2_000_000),
        plain("4->64", 4, 64, 200_000),
        plain("1->1000", 1, 1000, 60_000),
        plain("1->10000", 1, 10_000, 6_000),
        flood("flood 4->8", 4, 8, 400_000),
        scenario("1000 topics", 1, Plan::zipf(1000, 8), Mode::Throughput, 800_000),
        scenario("3 forwards", 1, Plan::one(8), Mode::Forwards(3), 800_000),
        scenario("churn", 1, Plan::one(8), Mode::Churn, 800_000),
    ];
    all.extend(recorded("calls burst", "calls-burst.jsonl.zst"));
    all.extend(recorded("calls steady", "calls-steady-600.jsonl.zst"));
    all.extend(recorded("queue", "queue.jsonl.zst"));
    all.extend([
        paced("1k/s", 1_000, 1, false),
        paced("20k/s", 20_000, 1, false),
        paced("200k/s", 200_000, 1, false),
        paced("20k/s to 8", 20_000, 8, false),
        paced("200k/s to 8", 200_000, 8, false),
        paced("1k/s spin", 1_000, 1, true),
        paced("20k/s spin", 20_000, 1, true),
        paced("200k/s spin", 200_000, 1, true),
        burst("burst 100000", 1, 100_000),
        burst("burst to 1", 1, 2_000),
        burst("burst to 8", 8, 2_000),
        burst("burst to 1000", 1000, 2_000),
        burst("burst to 10000", 10_000, 2_000),
    ]);
    all
}

impl Scenario {
    /// With queues that hold all messages. (The warm-up is over by then.)
    fn holding_all(mut self) -> Self {
        self.shape.capacity = (self.messages as usize).next_power_of_two();
        self
    }

    /// With `scale` times the messages, at least one for each publisher.
    pub(crate) fn scaled(&self, scale: f64) -> Self {
        let messages = ((self.messages as f64 * scale) as u64).max(self.shape.publishers as u64);
        Self { messages, ..self.clone() }
    }
}
