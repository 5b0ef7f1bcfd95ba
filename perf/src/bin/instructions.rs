//! Instructions per operation, counted by callgrind: a figure that a busy machine does not change.
//!
//! ```text
//!   for each case:  valgrind --toggle-collect=part ─ itself, N times     ─► instructions a ┐
//!                   valgrind --toggle-collect=part ─ itself, 3 N times   ─► instructions b ┴► (b - a) / 2 N
//! ```
//!
//! Counted are the instructions inside one part: sending (making and publishing), serving (delivering and freeing),
//! and what they call. Nothing runs beside: the bus is a `ManualBus`, served by the same thread in batches, so a
//! delivery is one by the production code of a lane, without the waiting and with the driver's step for each
//! dispatch.
//!
//! ```text
//! cargo run --release -p perf --bin instructions              # print, beside the committed figures
//! cargo run --release -p perf --bin instructions -- --check   # fail if a case is dearer than the file says
//! cargo run --release -p perf --bin instructions -- --write   # new figures into perf/instructions.json
//! ```

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use serde::{Deserialize, Serialize};
use stasis_bus::testing::ManualBus;
use stasis_bus::{Delivery, MessageType, Subscription, Topic};

type Payload = [u64; 8];

/// Messages published before they are delivered.
const BATCH: u64 = 64;

/// Functions whose instructions are counted, as callgrind writes their names.
const SEND: &str = "*Bench*send*";
const SERVE: &str = "*Bench*serve*";
const MAKE: &str = "*Bench*make*";
const CHURN: &str = "*Bench*churn*";

/// A case: which part of it is counted, how often it is done, and what to do.
struct Case {
    name: &'static str,
    part: &'static str,
    count: u64,
    run: fn(u64),
}

const fn case(name: &'static str, part: &'static str, count: u64, run: fn(u64)) -> Case {
    Case { name, part, count, run }
}

fn to_lanes(lanes: usize, subscribers: usize) -> Bench {
    Bench::new(lanes).subscribe(subscribers, Delivery::default())
}

/// Per message: of `1->8` and `1->1000` with all its deliveries.
const CASES: [Case; 16] = [
    case("make and free a message", MAKE, 6400, |n| Bench::new(1).make(n)),
    case("to nobody: publish", SEND, 6400, |n| Bench::new(1).publish(n)),
    case("filtered out: publish", SEND, 6400, |n| Bench::new(1).other(1).publish(n)),
    case("1->1: publish", SEND, 6400, |n| to_lanes(1, 1).publish(n)),
    case("1->1: deliver", SERVE, 6400, |n| to_lanes(1, 1).publish(n)),
    case("1->1 dedicated: publish", SEND, 6400, |n| Bench::new(1).subscribe(1, Delivery::Dedicated).publish(n)),
    case("1->1 dedicated: deliver", SERVE, 6400, |n| Bench::new(1).subscribe(1, Delivery::Dedicated).publish(n)),
    case("1->1 inline: publish", SEND, 6400, |n| Bench::new(1).subscribe(1, Delivery::Inline).publish(n)),
    case("three forwards: publish", SEND, 6400, |n| {
        Bench::new(1).forwards(3).subscribe(1, Delivery::default()).publish(n);
    }),
    case("1->8: publish", SEND, 6400, |n| to_lanes(1, 8).publish(n)),
    case("1->8: deliver", SERVE, 6400, |n| to_lanes(1, 8).publish(n)),
    case("1->64 on two lanes: publish", SEND, 6400, |n| to_lanes(2, 64).publish(n)),
    case("1->64 on two lanes: deliver", SERVE, 6400, |n| to_lanes(2, 64).publish(n)),
    case("1->1000: publish", SEND, 256, |n| to_lanes(1, 1000).publish(n)),
    case("1->1000: deliver", SERVE, 256, |n| to_lanes(1, 1000).publish(n)),
    case("subscribe and unsubscribe", CHURN, 300, |n| Bench::new(1).churn(n)),
];

/// A bus and what is needed to use it.
struct Bench {
    bus: ManualBus,
    kind: MessageType<Payload>,
    other: MessageType<Payload>,
    /// Published on.
    topic: Topic,
    /// Subscribed to; the same, but with forwards.
    end: Topic,
    kept: Vec<Subscription>,
}

impl Bench {
    fn new(lanes: usize) -> Self {
        let bus = ManualBus::builder().lanes(lanes).build().expect("the figures fit");
        let kind = MessageType::new(bus.bus(), "payload").expect("not declined");
        let other = MessageType::new(bus.bus(), "other").expect("not declined");
        let topic = bus.bus().topic("instructions").expect("the bus is open");
        let end = topic.clone();
        Self { bus, kind, other, topic, end, kept: Vec::new() }
    }

    fn add(&mut self, count: usize, delivery: Delivery, kind: &MessageType<Payload>) {
        for _ in 0..count {
            let mut sum = 0;
            let builder = self.end.subscriber().delivery(delivery).accept(kind);
            let subscription = builder.subscribe(move |received| {
                if let Some(payload) = received.payload::<Payload>() {
                    sum = black_box(payload[0] + payload[7] + sum);
                }
            });
            self.kept.push(subscription.expect("the bus is open"));
        }
    }

    fn subscribe(mut self, count: usize, delivery: Delivery) -> Self {
        let kind = self.kind.clone();
        self.add(count, delivery, &kind);
        self
    }

    /// Subscriptions that want something else.
    fn other(mut self, count: usize) -> Self {
        let other = self.other.clone();
        self.add(count, Delivery::default(), &other);
        self
    }

    fn forwards(mut self, depth: usize) -> Self {
        for level in 0..depth {
            let next = self.bus.bus().topic(format!("level {level}")).expect("the bus is open");
            // Kept by the process, which ends soon.
            std::mem::forget(self.end.forward_to(&next).expect("the bus is open"));
            self.end = next;
        }
        self
    }

    #[inline(never)]
    fn make(&self, count: u64) {
        for n in 0..count {
            drop(black_box(self.kind.message([n; 8])));
        }
    }

    #[inline(never)]
    fn send(&self, numbers: Range<u64>) {
        for n in numbers {
            self.topic.publish(self.kind.message([n; 8])).expect("there is room");
        }
    }

    #[inline(never)]
    fn serve(&self) {
        self.bus.run();
    }

    fn publish(&self, count: u64) {
        for n in (0..count).step_by(BATCH as usize) {
            self.send(n..n + BATCH);
            self.serve();
        }
    }

    #[inline(never)]
    fn churn(&self, count: u64) {
        for _ in 0..count {
            drop(self.topic.subscriber().accept(&self.kind).subscribe(|_| ()).expect("the bus is open"));
            self.bus.run();
        }
    }
}

/// The committed figures.
#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    /// Share by which a case may be dearer.
    tolerance: f64,
    /// Compiler they were counted with: another one makes other code.
    rustc: String,
    instructions: BTreeMap<String, f64>,
}

/// Instructions per operation.
#[derive(Debug, Parser)]
struct Options {
    /// Fail if a case takes more than the committed figure and the tolerance.
    #[arg(long, conflicts_with = "write")]
    check: bool,
    /// Write the figures into the committed file.
    #[arg(long)]
    write: bool,
    /// Only cases with this in their name.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// The file.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json"))]
    file: PathBuf,
    /// Run a case this many times and end: what valgrind is given.
    #[arg(long, num_args = 2, value_names = ["CASE", "COUNT"])]
    run: Option<Vec<String>>,
}

/// Instructions of the part that is counted in a process that runs a case.
fn collect(case: &Case, count: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={}", case.part))
        .arg(program)
        .args(["--run", case.name, &count.to_string()])
        .output()
        .map_err(|error| format!("valgrind cannot be started ({error}); install it: apt-get install valgrind"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split("Collected : ").nth(1)?.trim().parse().ok());
    collected
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("valgrind failed at \"{}\":\n{text}", case.name))
}

fn measure(case: &Case) -> Result<f64, String> {
    let few = collect(case, case.count)?;
    let many = collect(case, 3 * case.count)?;
    let each = many.saturating_sub(few) as f64 / (2 * case.count) as f64;
    Ok((each * 10.0).round() / 10.0)
}

fn run(options: &Options) -> Result<(), String> {
    if let Some([name, count]) = options.run.as_deref() {
        let case = CASES.iter().find(|case| case.name == name).ok_or_else(|| format!("no case \"{name}\""))?;
        (case.run)(count.parse().map_err(|_| format!("\"{count}\" is not a count"))?);
        return Ok(());
    }
    let committed: Option<Figures> =
        std::fs::read_to_string(&options.file).ok().and_then(|text| serde_json::from_str(&text).ok());
    if options.check && committed.is_none() {
        return Err(format!("{} cannot be read: nothing to compare with", options.file.display()));
    }
    let tolerance = committed.as_ref().map_or(0.03, |figures| figures.tolerance);
    let mut counted = committed.as_ref().map(|figures| figures.instructions.clone()).unwrap_or_default();
    let mut dearer = Vec::new();
    println!("{:28} {:>12} {:>12} {:>8}", "instructions", "now", "committed", "change");
    for case in CASES.iter().filter(|case| options.only.as_ref().is_none_or(|part| case.name.contains(part.as_str()))) {
        let now = measure(case)?;
        let before = committed.as_ref().and_then(|figures| figures.instructions.get(case.name)).copied();
        let change = before.map_or(0.0, |before| now / before - 1.0);
        let shown = before.map_or("-".into(), |before| format!("{before:.1}"));
        let mark = if change > tolerance { "  DEARER" } else { "" };
        println!("{:28} {now:>12.1} {shown:>12} {:>7.1} %{mark}", case.name, change * 100.0);
        if change > tolerance || before.is_none() && options.check {
            dearer.push(case.name);
        }
        counted.insert(case.name.into(), now);
    }
    if options.write {
        let figures = Figures { tolerance, rustc: env!("PERF_RUSTC").into(), instructions: counted };
        let text = serde_json::to_string_pretty(&figures).map_err(|error| error.to_string())?;
        std::fs::write(&options.file, text + "\n").map_err(|error| format!("{}: {error}", options.file.display()))?;
    }
    if options.check && !dearer.is_empty() {
        return Err(format!("dearer than {} allows: {}", options.file.display(), dearer.join(", ")));
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}
