//! A telephone exchange on the bus: calls from several threads, and what each subscriber saw of them.
//!
//! Run it with `cargo run --example switchboard [SEED]`. It ends with 1 if something does not add up.

mod exchange;

use exchange::{Outcome, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let seed = match std::env::args().nth(1).map(|text| text.parse::<u64>()) {
        None => 1,
        Some(Ok(seed)) => seed,
        Some(Err(error)) => {
            eprintln!("switchboard: the seed is no number: {error}");
            return ExitCode::from(2);
        }
    };
    let outcome = match run(seed) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("switchboard: {error}");
            return ExitCode::FAILURE;
        }
    };
    print(&outcome);
    let faults = outcome.faults();
    for fault in &faults {
        println!("FAIL  {fault}");
    }
    if faults.is_empty() {
        println!("\neverything adds up");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

fn print(outcome: &Outcome) {
    let Outcome { calls, bridged, transferred, published, .. } = outcome;
    println!("callers         {calls} calls, {bridged} bridged, {transferred} transferred, {published} snapshots\n");
    println!("call records    {} (the first five)", outcome.records.len());
    println!("  call  legs  answered");
    for record in outcome.records.iter().take(5) {
        println!("  {:>4}  {:>4}  {}", record.call, record.legs, if record.is_answered { "yes" } else { "no" });
    }
    println!("\ndevice states\n  device    changes  last");
    for (device, (state, changes)) in &outcome.devices {
        println!("  {device}  {changes:>7}  {state}");
    }
    println!("\nJSON feed       {} events (the first four)", outcome.feed);
    for line in &outcome.feed_sample {
        println!("  {line}");
    }
    println!("\nendpoints       {} channel events arrived at the phones' own topics", outcome.endpoint_events);
    let late = &outcome.late;
    println!("late joiner     {} channels at first, then {} updates, {} gaps", late.current, late.updates, late.gaps);
    println!("caches          {} entries left", outcome.left_in_caches);
}
