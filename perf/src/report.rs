//! The table and the JSON file.

use std::fmt::Write as _;

use serde::Serialize;

use crate::contender::CAPACITY;
use crate::contenders::OURS;
use crate::machine::Machine;
use crate::round::Round;

/// Figures of one contender in one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) contender: String,
    /// Deliveries a second, by round.
    pub(crate) deliveries_per_second: Vec<f64>,
    /// CPU time of a delivery in nanoseconds, by round.
    pub(crate) cpu_ns_per_delivery: Vec<f64>,
    /// Share of the messages that were lost, by round.
    pub(crate) lost: Vec<f64>,
}

impl Row {
    /// A row without rounds.
    pub(crate) fn new(scenario: &'static str, contender: String) -> Self {
        Self {
            scenario,
            contender,
            deliveries_per_second: Vec::new(),
            cpu_ns_per_delivery: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, round: Round) {
        let deliveries = round.deliveries.max(1) as f64;
        self.deliveries_per_second.push(deliveries / round.wall.as_secs_f64());
        self.cpu_ns_per_delivery.push(round.cpu.as_secs_f64() * 1e9 / deliveries);
        self.lost.push(round.lost);
    }
}

/// The whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) scale: f64,
    pub(crate) capacity: usize,
    /// Share of the machine's CPU time that other programs had during the run.
    pub(crate) used_by_others: f64,
    pub(crate) rows: Vec<Row>,
}

/// The middle one; of an even number the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// How the figures came about; stands above the table.
pub(crate) fn head(machine: &Machine, rounds: usize, scale: f64) -> String {
    format!(
        "\
stasis-bus and its peers: how many deliveries a second

{}
method    {rounds} rounds over all contenders, each round beginning with another one; median, min..max
          {scale} x the same number of messages for all; a new start, a warm-up (a tenth) and a check every round
          measured: first message to last delivery; making, stamping (quanta), counting and freeing it included
          64 bytes; each subscriber reads two words, adds them up, counts: wrong count or sum fails the run
          queues of {CAPACITY}; publishers wait (own blocking send; ours: Backoff::snooze on Full)
          peers: a thread per subscriber up to 8, \"one thread\": one for all 8; of 1000, two threads serve 500
          each from one queue; ours: a pinned lane per core, default placement; \"dedicated\": a thread each
          1->0: publishes, not deliveries; CPU: user + system time of all threads
ratio     of {OURS} to the contender: rate by rate, and CPU by CPU; above 1 we are better, \"<\" marks where we lose
",
        machine.lines()
    )
}

/// "1.23", or "<0.87" where we lose.
fn ratio(value: f64) -> String {
    format!("{}{value:.2}", if value < 1.0 { "<" } else { "" })
}

/// The table.
pub(crate) fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.contender.len()).max().unwrap_or(0);
    let mut text = format!(
        "{:8}  {:width$} {:>8}  {:>17} {:>8} {:>8} {:>8}\n",
        "scenario", "contender", "M/s", "min..max", "CPU ns", "ratio", "CPU"
    );
    let mut last = "";
    for row in rows {
        if row.scenario != last {
            text.push('\n');
            last = row.scenario;
        }
        let ours = rows.iter().find(|other| other.scenario == row.scenario && other.contender == OURS);
        let (rate, cpu) = (median(&row.deliveries_per_second), median(&row.cpu_ns_per_delivery));
        let min = row.deliveries_per_second.iter().copied().fold(f64::INFINITY, f64::min);
        let max = row.deliveries_per_second.iter().copied().fold(0.0, f64::max);
        let spread = format!("{:.2}..{:.2}", min / 1e6, max / 1e6);
        let (by_rate, by_cpu) = match ours {
            Some(ours) if ours.contender != row.contender => {
                (ratio(median(&ours.deliveries_per_second) / rate), ratio(cpu / median(&ours.cpu_ns_per_delivery)))
            }
            _ => ("-".into(), "-".into()),
        };
        let lost = median(&row.lost);
        let note = if lost > 0.0 { format!("  lost {:.1} %", lost * 100.0) } else { String::new() };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:8}  {:width$} {:>8.2}  {spread:>17} {cpu:>8.1} {by_rate:>8} {by_cpu:>8}{note}",
            row.scenario,
            row.contender,
            rate / 1e6,
        );
    }
    text
}

/// Where we lose, in words; stands below the table.
pub(crate) fn losses(rows: &[Row]) -> String {
    let mut text = String::new();
    for ours in rows.iter().filter(|row| row.contender == OURS) {
        let rate = median(&ours.deliveries_per_second);
        let ahead: Vec<_> = rows
            .iter()
            .filter(|row| row.scenario == ours.scenario && median(&row.deliveries_per_second) > rate)
            .map(|row| format!("{} x{:.2}", row.contender, median(&row.deliveries_per_second) / rate))
            .collect();
        let ahead = if ahead.is_empty() { "nobody".into() } else { ahead.join("; ") };
        let _ = writeln!(text, "faster than {OURS} at {:8} {ahead}", ours.scenario);
    }
    text
}
