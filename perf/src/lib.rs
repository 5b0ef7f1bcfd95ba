//! stasis-bus beside its peers: equal work, interleaved, exact counts.
//!
//! ```text
//!   scenario ─┐            ┌► subscribers (count, sum, tell the meter)
//!   contender ┴► round ────┤
//!                          └► publishers (make and publish)         rounds ─► report: table, JSON
//! ```
//!
//! See `README.md` for the method and how to read the table.

mod contender;
mod contenders;
mod distance;
mod machine;
mod message;
mod meter;
mod plan;
mod plots;
mod report;
mod round;
mod scenario;
mod subscriber;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;

use crate::contenders::OURS;
use crate::machine::{Machine, Ticks};
use crate::report::{Report, Row};

/// Name of the memory allocator, for the head of the table.
const ALLOCATOR: &str = if cfg!(feature = "mimalloc") { "mimalloc" } else { "the system's" };

/// stasis-bus beside its peers.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Options {
    /// Rounds over all contenders.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// One round of a tenth of the messages: about two minutes, and figures of little worth.
    #[arg(long, conflicts_with_all = ["rounds", "scale"])]
    quick: bool,
    /// Name the scenarios and who takes part, and end.
    #[arg(long)]
    list: bool,
    /// Only contenders with this in their name, and stasis-bus to compare with. May be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only this scenario (`--list` names them). May be repeated.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Times the usual number of messages.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Write all rounds to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the figures into this directory, as SVG and PNG.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

/// Writes to standard output. A reader that has gone (`perf --list | head`) is not an error.
fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        _ => Ok(()),
    }
}

/// Measures and prints.
///
/// # Errors
/// What went wrong: unknown names, a contender that did not deliver exactly or in time, a file that
/// cannot be written.
pub fn run(options: &Options) -> Result<(), String> {
    let contenders = contenders::all();
    let chosen = |name: &str| {
        options.only.is_empty() || name == OURS || options.only.iter().any(|part| name.contains(part.as_str()))
    };
    for name in &options.only {
        if !contenders.iter().any(|contender| contender.name().contains(name.as_str())) {
            return Err(format!("no contender has \"{name}\" in its name"));
        }
    }
    let scenarios = scenario::all();
    for name in &options.scenario {
        if !scenarios.iter().any(|scenario| scenario.name == name) {
            return Err(format!("there is no scenario \"{name}\""));
        }
    }
    let (rounds, scale) = if options.quick { (1, 0.1) } else { (options.rounds as usize, options.scale) };
    let mut runs = Vec::new();
    let mut rows = Vec::new();
    for scenario in scenarios {
        if options.scenario.is_empty() || options.scenario.iter().any(|name| name == scenario.name) {
            let scenario = scenario.scaled(scale);
            for contender in contenders.iter().filter(|one| chosen(&one.name()) && one.fits(&scenario.shape)) {
                runs.push((contender, scenario.clone()));
                rows.push(Row::new(scenario.name, contender.name()));
            }
        }
    }
    if options.list {
        let lines = rows.iter().map(|row| format!("{:14}  {}\n", row.scenario, row.contender));
        return say(&lines.collect::<String>());
    }
    let machine = Machine::this();
    say(&format!("{}\n", report::head(&machine, rounds, scale)))?;
    let (before, began) = (Ticks::now(), Instant::now());
    let mut distance = distance::there_and_back();
    for round in 0..rounds {
        for step in 0..runs.len() {
            // Another neighbour before each, every round.
            let at = (step + round * runs.len() / rounds) % runs.len();
            let (contender, scenario) = &runs[at];
            let (done, all) = (round * runs.len() + step, rounds * runs.len());
            let elapsed = began.elapsed().as_secs();
            let left = if done > 0 { elapsed * (all - done) as u64 / done as u64 } else { 0 };
            let name = contender.name();
            eprint!("\r\x1b[K{done}/{all}  {elapsed} s, {left} s left  round {}: {} {name}", round + 1, scenario.name);
            let earlier = distance;
            let round = round::run(contender.as_ref(), scenario)?;
            distance = distance::there_and_back();
            rows[at].add(round, [earlier, distance]);
        }
    }
    eprint!("\r\x1b[K");
    let used_by_others = Ticks::now().others_since(before);
    say(&format!("{}{}{}\n", report::table(&rows), report::latencies(&rows), report::bursts(&rows)))?;
    say(&format!("{}{}{}\n", distance::table(&rows), report::losses(&rows), report::goals(&rows)))?;
    say(&format!(
        "took {:.0} s\nother programs had {:.0} % of the machine's CPU time during the run\n{}\n",
        began.elapsed().as_secs_f64(),
        used_by_others * 100.0,
        distance::line(&rows)
    ))?;
    if let Some(directory) = &options.plots {
        plots::draw(directory, &rows).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    if let Some(path) = &options.json {
        let capacity = contender::CAPACITY;
        let report = Report { machine, rounds, scale, capacity, used_by_others, rows };
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::to_writer_pretty(BufWriter::new(file), &report).map_err(|error| error.to_string())?;
    }
    Ok(())
}
