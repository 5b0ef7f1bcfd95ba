//! The table and the JSON file.

use std::fmt::Write as _;

use serde::Serialize;

use crate::contender::{CAPACITY, Layout, OWN_THREADS};
use crate::contenders::{OURS, PATTERN};
use crate::machine::Machine;
use crate::round::{Burst, Latency, Round};

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
    /// Subscriptions that came and went meanwhile, by round.
    pub(crate) churned: Vec<u64>,
    /// Paced scenarios, by round.
    pub(crate) latency: Vec<Latency>,
    /// Bursts, by round.
    pub(crate) burst: Vec<Burst>,
    /// Nanoseconds a line took from core to core and back before and after, by round.
    pub(crate) there_and_back: Vec<[f64; 2]>,
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
            churned: Vec::new(),
            latency: Vec::new(),
            burst: Vec::new(),
            there_and_back: Vec::new(),
        }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, round: Round, there_and_back: [f64; 2]) {
        self.there_and_back.push(there_and_back);
        let deliveries = round.deliveries.max(1) as f64;
        self.deliveries_per_second.push(deliveries / round.wall.as_secs_f64());
        self.cpu_ns_per_delivery.push(round.cpu.as_secs_f64() * 1e9 / deliveries);
        self.lost.push(round.lost);
        self.churned.push(round.churned);
        self.latency.extend(round.latency);
        self.burst.extend(round.burst);
    }

    /// Whether its consumer threads go through lists of subscribers that the program made: to the library, one
    /// subscriber is what is many here.
    fn walks_by_hand(&self) -> bool {
        let subscribers = self.scenario.split("->").nth(1).and_then(|many| many.parse().ok()).unwrap_or(1);
        match Layout::of(&self.contender) {
            Layout::Own => subscribers > OWN_THREADS,
            Layout::Shared => true,
            Layout::Queues => false,
        }
    }

    /// Median over the rounds of one figure of a paced scenario, in nanoseconds.
    pub(crate) fn latency(&self, figure: fn(&Latency) -> f64) -> f64 {
        median(&self.latency.iter().map(figure).collect::<Vec<_>>())
    }

    /// Median over the rounds of one figure of a burst.
    pub(crate) fn burst(&self, figure: fn(&Burst) -> f64) -> f64 {
        median(&self.burst.iter().map(figure).collect::<Vec<_>>())
    }

    pub(crate) fn is_rate(&self) -> bool {
        self.latency.is_empty() && self.burst.is_empty()
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

/// The least and the most.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(min, max), value| (f64::min(min, value), f64::max(max, value)))
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
          queues of {CAPACITY}; publishers wait (own blocking send; ours: publish_timeout)
          peers: a thread per subscriber up to 8, \"one thread\": one for all 8; of more, two threads serve half
          each from one queue, or go round a queue for each subscriber (\"a queue each\": the original's way)
          ours: a pinned lane per core, default placement; \"dedicated\": a thread each
          1->0, filtered out: publishes, not deliveries; CPU: user + system time of all threads
ratio     of {OURS} to the contender: rate by rate, and CPU by CPU; above 1 we are better, \"<\" marks where we lose
",
        machine.lines()
    )
}

/// "1.23", or "<0.87" where we lose.
pub(crate) fn ratio(value: f64) -> String {
    format!("{}{value:.2}", if value < 1.0 { "<" } else { "" })
}

/// The table.
pub(crate) fn table(rows: &[Row]) -> String {
    let rows: Vec<_> = rows.iter().filter(|row| row.is_rate()).collect();
    let width = rows.iter().map(|row| row.contender.len()).max().unwrap_or(0);
    let mut text = format!(
        "{:12}  {:width$} {:>8}  {:>17} {:>8} {:>8} {:>8}\n",
        "scenario", "contender", "M/s", "min..max", "CPU ns", "ratio", "CPU"
    );
    let mut last = "";
    for row in &rows {
        if row.scenario != last {
            text.push('\n');
            last = row.scenario;
        }
        let ours = rows.iter().find(|other| other.scenario == row.scenario && other.contender == OURS);
        let (rate, cpu) = (median(&row.deliveries_per_second), median(&row.cpu_ns_per_delivery));
        let (min, max) = range(row.deliveries_per_second.iter().copied());
        let spread = format!("{:.2}..{:.2}", min / 1e6, max / 1e6);
        let (by_rate, by_cpu) = match ours {
            Some(ours) if ours.contender != row.contender => {
                (ratio(median(&ours.deliveries_per_second) / rate), ratio(cpu / median(&ours.cpu_ns_per_delivery)))
            }
            _ => ("-".into(), "-".into()),
        };
        let lost = median(&row.lost);
        let mut note = if lost > 0.0 { format!("  lost {:.1} %", lost * 100.0) } else { String::new() };
        let churned = median(&row.churned.iter().map(|&count| count as f64).collect::<Vec<_>>());
        if churned > 0.0 {
            note = format!("  {churned:.0} came and went");
        }
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:12}  {:width$} {:>8.2}  {spread:>17} {cpu:>8.1} {by_rate:>8} {by_cpu:>8}{note}",
            row.scenario,
            row.contender,
            rate / 1e6,
        );
    }
    text
}

/// Ours of the same scenario; `None` for ours itself.
fn rival<'a>(rows: &[&'a Row], row: &Row) -> Option<&'a Row> {
    let ours = rows.iter().find(|other| other.scenario == row.scenario && other.contender == OURS)?;
    (ours.contender != row.contender).then_some(ours)
}

/// Columns after scenario and contender, with a blank line between scenarios.
pub(crate) fn columns(title: &str, rows: &[&Row], line: impl Fn(&Row, Option<&Row>) -> String) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let width = rows.iter().map(|row| row.contender.len()).max().unwrap_or(0);
    let mut text = format!("\n{:14}  {:width$} {title}\n", "scenario", "contender");
    let mut last = "";
    for row in rows {
        if row.scenario != last {
            text.push('\n');
            last = row.scenario;
        }
        let figures = line(row, rival(rows, row));
        let _ = writeln!(text, "{:14}  {:width$} {figures}", row.scenario, row.contender);
    }
    text
}

/// The paced scenarios: microseconds, and how many times ours the peer takes.
pub(crate) fn latencies(rows: &[Row]) -> String {
    let rows: Vec<_> = rows.iter().filter(|row| !row.latency.is_empty()).collect();
    let title = format!(
        "{:>9} {:>9} {:>9} {:>16} {:>9} {:>9} {:>8} {:>8} {:>8}",
        "p50 us", "p90 us", "p99 us", "min..max", "p99.9 us", "most us", "p50", "p99", "CPU ns"
    );
    columns(&title, &rows, |row, ours| {
        let figures: [fn(&Latency) -> f64; 5] = [|l| l.p50, |l| l.p90, |l| l.p99, |l| l.p999, |l| l.most];
        let mut line = String::new();
        let micros = |figure| row.latency(figure) / 1000.0;
        let [p50, p90, p99, p999, most] = figures.map(micros);
        let (min, max) = range(row.latency.iter().map(|latency| latency.p99));
        let spread = format!("{:.1}..{:.1}", min / 1000.0, max / 1000.0);
        let _ = write!(line, "{p50:>9.1} {p90:>9.1} {p99:>9.1} {spread:>16} {p999:>9.1} {most:>9.1} ");
        for figure in [figures[0], figures[2]] {
            let times = ours.map_or("-".into(), |ours| ratio(row.latency(figure) / ours.latency(figure)));
            let _ = write!(line, "{times:>8} ");
        }
        let _ = write!(line, "{:>8.0}", median(&row.cpu_ns_per_delivery));
        line
    })
}

/// The bursts: what a publish cost, what waiting took, how soon it was over.
pub(crate) fn bursts(rows: &[Row]) -> String {
    let rows: Vec<_> = rows.iter().filter(|row| !row.burst.is_empty()).collect();
    let title = format!(
        "{:>11} {:>13} {:>11} {:>8} {:>8} {:>8}",
        "publish ns", "bytes waiting", "recovery ms", "publish", "bytes", "recovery"
    );
    columns(&title, &rows, |row, ours| {
        let figures: [fn(&Burst) -> f64; 3] = [|b| b.publish, |b| b.memory, |b| b.recovery];
        let [publish, bytes, recovery] = figures.map(|figure| row.burst(figure));
        let mut line = format!("{publish:>11.1} {bytes:>13.1} {:>11.2}", recovery * 1e3);
        for figure in figures {
            let times = ours.map_or("-".into(), |ours| ratio(row.burst(figure) / ours.burst(figure)));
            let _ = write!(line, " {times:>8}");
        }
        line
    })
}

/// Where we lose, in words; stands below the tables.
pub(crate) fn losses(rows: &[Row]) -> String {
    let mut text = String::new();
    for ours in rows.iter().filter(|row| row.contender == OURS) {
        // More is worse.
        let (what, cost): (_, fn(&Row) -> f64) = match ours {
            _ if !ours.latency.is_empty() => ("sooner than", |row| row.latency(|l| l.p99)),
            _ if !ours.burst.is_empty() => ("recovers sooner than", |row| row.burst(|b| b.recovery)),
            _ => ("faster than", |row| 1.0 / median(&row.deliveries_per_second)),
        };
        let ahead: Vec<_> = rows
            .iter()
            .filter(|row| row.scenario == ours.scenario && cost(row) < cost(ours))
            .map(|row| format!("{} x{:.2}", row.contender, cost(ours) / cost(row)))
            .collect();
        let ahead = if ahead.is_empty() { "nobody".into() } else { ahead.join("; ") };
        let _ = writeln!(text, "{what} {OURS} at {:14} {ahead}", ours.scenario);
    }
    text
}

/// One of the goals that were set, and what became of it.
struct Goal {
    scenario: &'static str,
    what: String,
    goal: f64,
    got: f64,
}

/// The goals of the project that these figures can show; those whose rows were not measured are left out.
pub(crate) fn goals(rows: &[Row]) -> String {
    let find = |scenario: &str, contender: &str| {
        rows.iter().find(|row| row.scenario == scenario && row.contender == contender)
    };
    let rate = |row: &Row| median(&row.deliveries_per_second);
    let cpu = |row: &Row| median(&row.cpu_ns_per_delivery);
    let mut goals = Vec::new();
    for (scenario, pattern, goal) in [
        ("1->8", PATTERN.to_owned(), 6.0),
        ("4->8", PATTERN.to_owned(), 6.0),
        ("1->1000", format!("{PATTERN}, a queue each"), 12.0),
    ] {
        if let (Some(ours), Some(pattern)) = (find(scenario, OURS), find(scenario, &pattern)) {
            let what = format!("rate over {}", pattern.contender);
            goals.push(Goal { scenario, what, goal, got: rate(ours) / rate(pattern) });
        }
    }
    for (scenario, goal) in
        [("1->1", 1.0), ("1->8", 1.5), ("4->8", 1.5), ("4->64", 1.5), ("1->1000", 1.5), ("1->10000", 1.5)]
    {
        let counted = |row: &&Row| {
            row.scenario == scenario
                && !row.contender.starts_with(OURS)
                && !row.contender.contains("in place")
                && median(&row.lost) == 0.0
        };
        for (hand_made, of) in [(false, "whose subscribers subscribe"), (true, "with a list made by hand")] {
            let peers = rows.iter().filter(counted).filter(|row| row.walks_by_hand() == hand_made);
            let best = peers.max_by(|a, b| rate(a).total_cmp(&rate(b)));
            if let (Some(ours), Some(best)) = (find(scenario, OURS), best) {
                let what = format!("rate over the best {of}: {}", best.contender);
                goals.push(Goal { scenario, what, goal, got: rate(ours) / rate(best) });
            }
        }
        let place = |row: &&Row| row.scenario == scenario && row.contender.contains("in place");
        let place = rows.iter().filter(place).max_by(|a, b| rate(a).total_cmp(&rate(b)));
        if let (Some(ours), Some(place)) = (find(scenario, OURS), place) {
            let what = format!("stretch: rate over {}", place.contender);
            goals.push(Goal { scenario, what, goal: 1.0, got: rate(ours) / rate(place) });
        }
    }
    if let (Some(ours), Some(pattern)) = (find("1->8", OURS), find("1->8", PATTERN)) {
        goals.push(Goal {
            scenario: "1->8",
            what: "CPU a delivery below the pattern's".into(),
            goal: 5.0,
            got: cpu(pattern) / cpu(ours),
        });
    }
    for scenario in ["200k/s", "200k/s to 8"] {
        if let (Some(ours), Some(pattern)) = (find(scenario, OURS), find(scenario, PATTERN)) {
            let got = pattern.latency(|l| l.p99) / ours.latency(|l| l.p99);
            goals.push(Goal { scenario, what: "p99 below the pattern's".into(), goal: 2.0, got });
        }
    }
    if let (Some(one), Some(many)) = (find("burst to 1", OURS), find("burst to 10000", OURS)) {
        let got = one.burst(|b| b.publish) / many.burst(|b| b.publish);
        goals.push(Goal {
            scenario: "bursts",
            what: "publish to 1 over publish to 10000".into(),
            goal: 1.0 / 1.5,
            got,
        });
    }
    let mut text = String::new();
    if !goals.is_empty() {
        text.push_str("\ngoal           wanted     got\n");
    }
    for Goal { scenario, what, goal, got } in goals {
        let mark = if got < goal { "<" } else { " " };
        let _ = writeln!(text, "{scenario:12} {goal:>8.2} {mark}{got:>7.2}  {what}");
    }
    text
}
