//! A model of the coherence traffic: which cache lines move between cores, per message.
//!
//! ```text
//!   valgrind lackey: every load and store ─► whose turn it is (marks) ─► owner and readers of each line
//!                                                                          │
//!        a core touches a line another core wrote: moved;  writes one others have read: taken back
//! ```
//!
//! One publisher, one lane (a `ManualBus`, driven by the main thread), and as a third core another publisher
//! with a thread of its own. They take turns: a batch each. Caches are as large as need be; what moves, moves
//! because it is shared. Turns of one message are the worst case, turns of 64 a lane that is busy.
//!
//! `cargo run --release -p perf --bin coherence` prints lines per message. `docs/scaling.md` has the argument.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use stasis_bus::testing::ManualBus;
use stasis_bus::{MessageType, Topic};

type Payload = [u64; 8];

/// Stores to these say whose turn it is: publisher, lane, other publisher, nobody.
#[repr(align(64))]
struct Mark(AtomicU64);
static MARKS: [Mark; 4] = [const { Mark(AtomicU64::new(0)) }; 4];
const NOBODY: usize = 3;
const CORES: [&str; 3] = ["publisher", "lane", "publisher 2"];

/// Turns until everything is warm, and those that are counted.
const WARM: u64 = 40;
const COUNTED: u64 = 20;

fn turn(core: usize) {
    MARKS[core].0.store(1, Ordering::SeqCst);
}

fn send(topic: &Topic, kind: &MessageType<Payload>, batch: u64, core: usize) {
    turn(core);
    for n in 0..batch {
        topic.publish(kind.message([n; 8])).expect("there is room");
    }
    turn(NOBODY);
}

/// What is traced: turns of both publishers (if there are two) and of the lane.
fn work(subscribers: usize, batch: u64, publishers: usize) {
    let bus = ManualBus::builder().lanes(1).build().expect("the figures fit");
    let topic = bus.bus().topic("coherence").expect("the bus is open");
    let kind = MessageType::<Payload>::new(bus.bus(), "payload").expect("not declined");
    let subscribe = |_| {
        let mut sum = 0;
        let handler = move |received: &stasis_bus::Received<'_>| {
            if let Some(payload) = received.payload::<Payload>() {
                sum = black_box(sum + payload[0] + payload[7]);
            }
        };
        topic.subscriber().accept(&kind).subscribe(handler).expect("the bus is open")
    };
    let _subscriptions: Vec<_> = (0..subscribers).map(subscribe).collect();
    // Every publisher has a thread of its own, which has pools of its own; the lane is this thread.
    let mut helpers = Vec::new();
    for core in [0, 2].into_iter().take(publishers) {
        let (go, turns) = mpsc::channel::<()>();
        let (done, finished) = mpsc::channel::<()>();
        let (topic, kind) = (topic.clone(), kind.clone());
        let thread = thread::spawn(move || {
            while turns.recv().is_ok() {
                send(&topic, &kind, batch, core);
                done.send(()).expect("the lane waits");
            }
        });
        helpers.push((go, finished, thread));
    }
    for _ in 0..WARM + COUNTED {
        for (go, finished, _) in &helpers {
            go.send(()).expect("the helper waits");
            finished.recv().expect("the helper sends");
        }
        turn(1);
        bus.run();
        turn(NOBODY);
    }
    for (go, _, thread) in helpers {
        drop(go);
        thread.join().expect("no helper panics");
    }
}

/// Who has a line.
#[derive(Clone, Copy, Default)]
struct Line {
    /// The core that wrote it last, plus one.
    writer: usize,
    /// Cores with a valid copy, as bits.
    copies: u8,
}

/// Lines moved, by reading core and by writing core.
#[derive(Default)]
struct Traffic {
    read: [u64; 3],
    written: [u64; 3],
}

/// Follows the trace of one process.
fn follow(trace: impl BufRead, marks: [u64; 4]) -> Traffic {
    let mut lines: HashMap<u64, Line> = HashMap::new();
    let mut traffic = Traffic::default();
    let (mut core, mut lane_turns) = (NOBODY, 0);
    for text in trace.lines().map_while(Result::ok) {
        // " L addr,size", " S …", " M …": load, store, both.
        let kind = text.as_bytes().get(1).copied().unwrap_or(b' ');
        if text.as_bytes().first() != Some(&b' ') || !matches!(kind, b'L' | b'S' | b'M') {
            continue;
        }
        let Some((address, size)) = text[2..].trim().split_once(',') else { continue };
        let (Ok(address), Ok(size)) = (u64::from_str_radix(address, 16), size.parse::<u64>()) else { continue };
        if let Some(next) = marks.iter().position(|&mark| mark == address) {
            // An exchange is a load and a store.
            if next != core {
                core = next;
                lane_turns += u64::from(next == 1);
            }
            continue;
        }
        if core == NOBODY {
            continue;
        }
        // The lane's turn ends a round: what is counted begins with the publisher's turn after it.
        let counts = lane_turns >= WARM;
        for number in address / 64..=(address + size - 1) / 64 {
            let line = lines.entry(number).or_default();
            let has = line.copies & (1 << core) != 0;
            if kind != b'L' {
                let others = line.copies & !(1 << core) != 0;
                traffic.written[core] += u64::from(counts && others);
                *line = Line { writer: core + 1, copies: 1 << core };
            } else {
                let moved = !has && line.writer != 0;
                traffic.read[core] += u64::from(counts && moved);
                line.copies |= 1 << core;
            }
        }
    }
    traffic
}

fn measure(subscribers: usize, batch: u64, publishers: usize) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let arguments = ["run".to_owned(), subscribers.to_string(), batch.to_string(), publishers.to_string()];
    let mut child = Command::new("setarch")
        .args(["-R", "valgrind", "--tool=lackey", "--trace-mem=yes", "--log-fd=1"])
        .arg(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("setarch and valgrind are needed ({error}); apt-get install valgrind"))?;
    let mut trace = BufReader::new(child.stdout.take().ok_or("no output")?);
    // The process says first where its marks are.
    let mut marks = None;
    let mut text = String::new();
    while marks.is_none() && trace.read_line(&mut text).map_err(|error| error.to_string())? > 0 {
        if let Some(first) = text.split("marks at ").nth(1).and_then(|rest| u64::from_str_radix(rest.trim(), 16).ok()) {
            marks = Some([0, 1, 2, 3].map(|n| first + n * 64));
        }
        text.clear();
    }
    let traffic = follow(trace, marks.ok_or("valgrind did not run the program")?);
    child.wait().map_err(|error| error.to_string())?;
    let messages = (COUNTED * batch * publishers as u64) as f64;
    print!("{publishers} -> {subscribers:<5} turns of {batch:<3}");
    for (core, name) in CORES.iter().enumerate().filter(|&(core, _)| core < 2 || publishers > 1) {
        let own = messages / if core == 1 { 1.0 } else { publishers as f64 };
        let (read, written) = (traffic.read[core] as f64 / own, traffic.written[core] as f64 / own);
        print!("   {name}: {read:.2} read, {written:.2} written");
    }
    println!();
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, run, numbers @ ..] = arguments.as_slice()
        && run == "run"
    {
        println!("marks at {:x}", MARKS[0].0.as_ptr() as usize);
        let numbers: Vec<u64> = numbers.iter().filter_map(|text| text.parse().ok()).collect();
        let [subscribers, batch, publishers] = numbers[..] else { return ExitCode::FAILURE };
        work(subscribers as usize, batch, publishers as usize);
        return ExitCode::SUCCESS;
    }
    println!("cache lines moved per message: fetched because another core wrote them, and taken from others to write");
    for (subscribers, batch, publishers) in
        [(0, 64, 1), (1, 1, 1), (1, 64, 1), (8, 64, 1), (1000, 16, 1), (0, 64, 2), (1, 1, 2), (1, 64, 2), (8, 64, 2)]
    {
        if let Err(error) = measure(subscribers, batch, publishers) {
            eprintln!("coherence: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
