//! The summary of all runs of one trace, for people.

use super::figures::{self, Figures, Times};
use super::json;
use super::options::{Mailbox, Options, Order, Speed, Work};
use super::parts::Parts;
use super::plan::Plan;
use super::schedule::Moved;
use super::stats::Stats;
use super::threads::Aside;
use super::trace::Trace;
use super::verdict::Findings;
use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::sync::Arc;

/// What was replayed, how, and what came of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) plan: Arc<Plan>,
    pub(crate) order: Order,
    pub(crate) speed: Speed,
    pub(crate) repeat: usize,
    work: Work,
    mailbox: Mailbox,
    publishers: usize,
    pub(crate) figures: Figures,
    pub(crate) findings: Findings,
    pub(crate) stats: Stats,
    moved: Moved,
    aside: Aside,
    pub(crate) parts: Parts,
}

impl Report {
    pub(crate) fn new(options: &Options, plan: &Arc<Plan>) -> Report {
        Report {
            plan: Arc::clone(plan),
            order: options.order,
            speed: options.speed,
            repeat: options.repeat.get(),
            work: options.work,
            mailbox: options.mailbox,
            publishers: options.publishers(),
            figures: Figures::default(),
            findings: Findings::default(),
            stats: Stats::default(),
            moved: Moved::default(),
            aside: Aside::default(),
            parts: Parts::default(),
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.findings.hold() && self.parts.differences() == 0
    }

    pub(crate) fn stats(&mut self, stats: &stasis_bus::BusStats) {
        self.stats.add(stats);
    }

    /// The order is the same in every run.
    pub(crate) fn moved(&mut self, moved: Moved) {
        self.moved = moved;
    }

    pub(crate) fn parts(&mut self, parts: Parts) {
        self.parts = parts;
    }

    pub(crate) fn aside(&mut self, aside: Aside) {
        self.aside.continued += aside.continued;
        self.aside.orphaned += aside.orphaned;
    }

    /// Deliveries of the original over as many runs; `None` if they were not recorded.
    pub(crate) fn recorded_deliveries(&self) -> Option<u64> {
        let recorded = || self.plan.recorded_deliveries() * self.repeat as u64;
        self.plan.trace.has_deliveries.then(recorded)
    }

    /// Each checked promise: its name, the number of violations, and what it means.
    pub(crate) fn verdicts(&self) -> Vec<(&'static str, u64, &'static str)> {
        let found = &self.findings;
        let mut verdicts = vec![
            ("lost", found.lost, "accepted for sure and not delivered"),
            ("duplicated", found.duplicated, "delivered to a subscription more than once"),
            ("reordered", found.reordered, "delivered after a message published later"),
            ("unexpected", found.unexpected, "delivered to a subscription that cannot have accepted"),
            ("after_final", found.after_final, "delivered after the final message"),
            ("finals_wrong", found.finals_wrong, "subscriptions without exactly one final message"),
            ("handlers_alive", found.handlers_alive, "handlers not dropped exactly once"),
            ("leaked", found.leaked, "messages, types and topics alive after shutdown"),
            ("miscounted", found.miscounted, "deliveries by which the bus's own count is off"),
        ];
        if self.order == Order::Recorded {
            verdicts.push(("disagreeing", found.disagreeing, "messages whose receivers differ from the recorded ones"));
        }
        verdicts.push((
            "caches",
            self.parts.cache_differences,
            "cache changes and look-ups that differ from the recorded ones",
        ));
        verdicts.push((
            "pools",
            self.parts.pool_differences,
            "topic pool operations that differ from the recorded ones",
        ));
        verdicts.push(("failures", found.failures, "operations that failed"));
        verdicts
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.heading(f)?;
        self.operations(f)?;
        self.times(f)?;
        self.latency_beside(f)?;
        self.busiest(f)?;
        self.order_notes(f)?;
        self.judgement(f)
    }
}

impl Report {
    fn heading(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let trace: &Trace = &self.plan.trace;
        let kind = if trace.has_deliveries {
            "with deliveries"
        } else {
            "without deliveries: they follow from lists and filters"
        };
        let threads = self.plan.contexts.iter().filter(|c| matches!(c.owner, super::plan::Owner::Thread(_))).count();
        writeln!(
            f,
            "trace       {}: {} lines, {} publishing or controlling threads, {kind}",
            trace.name,
            grouped(trace.records.len() as u64),
            grouped(threads as u64)
        )?;
        let order = if self.order == Order::Recorded { "recorded order" } else { "recorded threads side by side" };
        let speed = match self.speed {
            Speed::Max => "as fast as possible",
            Speed::Recorded => "at the recorded times",
            Speed::TenTimes => "ten times as fast as recorded",
        };
        let work = if self.work == Work::Recorded { "busy as recorded" } else { "taking notes" };
        let mailbox = if self.mailbox == Mailbox::Thread { "own threads" } else { "lanes" };
        let runs = if self.repeat > 1 { format!(", {} runs", self.repeat) } else { String::new() };
        writeln!(
            f,
            "run         {order}, {speed}{runs}; {} publishers, {} lanes, mailboxes on {mailbox}, handlers {work}",
            self.publishers, self.stats.lanes
        )
    }

    fn operations(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        writeln!(f, "\noperations")?;
        let all: Vec<String> =
            figures.operations.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
        for row in all.chunks(5) {
            let cells: Vec<String> = row.iter().map(|cell| format!("{cell:<24}")).collect();
            writeln!(f, "  {}", cells.join("").trim_end())?;
        }
        let asides = &self.plan.asides;
        let parts = &self.parts;
        writeln!(
            f,
            "  beside, in the order of lines: {} pools ({} made, {} deleted), {} caching topics ({} changes, {} look-ups)",
            grouped(asides.pools),
            grouped(asides.pool_creates),
            grouped(asides.pool_deletes),
            grouped(asides.caching_topics),
            grouped(parts.cache_changes),
            grouped(parts.cache_lookups)
        )?;
        writeln!(
            f,
            "  counted only: {} look-ups the trace says too little of, {} alert levels, {} messages never published",
            grouped(parts.cache_unknown),
            grouped(asides.levels),
            grouped(asides.unpublished)
        )?;
        if asides.closing > 0 {
            writeln!(
                f,
                "  the trace ends with objects alive: {} operations added to end them",
                grouped(asides.closing)
            )?;
        }
        let rate = |count: u64| grouped((count as f64 / figures.wall_s.max(1e-9)) as u64);
        writeln!(
            f,
            "\nmessages    {} published, {}/s, in {:.3} s",
            grouped(figures.published),
            rate(figures.published),
            figures.wall_s
        )?;
        let recorded = match self.recorded_deliveries() {
            Some(recorded) => format!(" (recorded: {})", grouped(recorded)),
            None => String::new(),
        };
        writeln!(
            f,
            "deliveries  {}{recorded}, {}/s, {} of them final",
            grouped(figures.delivered),
            rate(figures.delivered),
            grouped(figures.finals)
        )?;
        writeln!(f, "the bus     {}", self.stats)?;
        if figures.full > 0 {
            writeln!(f, "full        {} publishes tried again because a queue was full", grouped(figures.full))?;
        }
        Ok(())
    }

    fn times(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        writeln!(f, "\n{:<34}{:>10} {:>10} {:>10} {:>10} {:>10}", "times", "count", "p50", "p99", "p99.9", "max")?;
        let rows = [
            ("publish call, direct handlers in it", &figures.publish),
            ("publish to handler, all", &figures.latency),
            ("  direct", &figures.direct),
            ("  mailbox", &figures.mailbox),
            ("  pool", &figures.pool),
        ];
        for (name, times) in rows {
            let at = |quantile| human(times.value_at_quantile(quantile));
            writeln!(
                f,
                "  {name:<32}{:>10} {:>10} {:>10} {:>10} {:>10}",
                grouped(times.len()),
                at(0.5),
                at(0.99),
                at(0.999),
                human(times.max())
            )?;
        }
        Ok(())
    }

    /// At recorded pace our queueing can be put beside that of the original.
    fn latency_beside(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.speed != Speed::Recorded || !self.plan.trace.has_deliveries {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<34}{:>10} {:>10} {:>10} {:>10} {:>10}",
            "queueing, here beside the original", "count", "p50", "p95", "p99", "max"
        )?;
        let pairs = [
            ("mailbox", &self.figures.mailbox, &self.plan.mailbox_wait),
            ("pool", &self.figures.pool, &self.plan.pool_wait),
        ];
        for (name, ours, theirs) in pairs {
            let line = |f: &mut Formatter<'_>, name: String, times: &Times| {
                let at = |quantile| human(times.value_at_quantile(quantile));
                writeln!(
                    f,
                    "  {name:<32}{:>10} {:>10} {:>10} {:>10} {:>10}",
                    grouped(times.len()),
                    at(0.5),
                    at(0.95),
                    at(0.99),
                    human(times.max())
                )
            };
            line(f, format!("{name}, here"), ours)?;
            line(f, format!("{name}, original"), &figures::recorded(theirs))?;
        }
        writeln!(f, "  (here: start of the publish call to start of the handler; original: queue entry to callback)")
    }

    fn busiest(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nbusiest topics")?;
        for (name, count) in self.figures.busiest(5) {
            writeln!(f, "  {:>10}  {name}", grouped(count))?;
        }
        writeln!(f, "deepest queues (own threads)")?;
        for (name, most) in self.figures.deepest(5) {
            writeln!(f, "  {:>10}  {name}", grouped(most))?;
        }
        writeln!(f, "slowest handlers{:>28} {:>10} {:>10} {:>10}", "calls", "p50", "p99", "total")?;
        for (name, handler) in self.figures.slowest(5) {
            let at = |quantile| human(handler.times.value_at_quantile(quantile));
            writeln!(
                f,
                "  {:>42} {:>10} {:>10} {:>10}  {name}",
                grouped(handler.times.len()),
                at(0.5),
                at(0.99),
                human(handler.total)
            )?;
        }
        Ok(())
    }

    fn order_notes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (moved, found, aside) = (&self.moved, &self.findings, &self.aside);
        let recorded_order = [
            ("operations moved from their recorded place, of them", moved.total()),
            ("  made within the publish that called their handler", moved.within_publish),
            ("  put off: handlers get messages in the order of publishing", moved.handler_order),
            ("  put off until the handler they wait for was free", moved.awaited),
            ("  put off after something they need", moved.followed),
            ("  forced (callbacks made beside their handler)", moved.forced),
            ("callbacks made by a publisher: their message did not come", aside.orphaned),
            ("messages compared with the recording", found.compared),
            ("  differ: the original was half-way through a subscribe or forward", found.half_way),
            ("  differ: an operation was moved", found.moved),
            ("  differ: delivered twice over two ways in the original, once here (G3)", found.once),
        ];
        let threads = [
            ("callbacks continued by a publisher", aside.continued),
            ("callbacks made by a publisher: their message did not come (in time)", aside.orphaned),
        ];
        let both = [
            ("final messages for which the original skipped the handler", self.skipped_finals()),
            ("publishes beside an operation that decides about a receiver", found.ambiguous),
        ];
        let of_order: &[(&str, u64)] = if self.order == Order::Recorded { &recorded_order } else { &threads };
        writeln!(f, "\norder")?;
        for (what, count) in of_order.iter().chain(&both) {
            writeln!(f, "  {:>10}  {what}", grouped(*count))?;
        }
        if self.order == Order::Threads && self.recorded_deliveries().is_some_and(|all| all != self.figures.delivered) {
            writeln!(
                f,
                "  Subscriptions that come and go overlap other publishes here than in the recording, so the number"
            )?;
            writeln!(
                f,
                "  of deliveries differs; who must and who may get each message follows from this run's own order."
            )?;
        }
        Ok(())
    }

    pub(crate) fn skipped_finals(&self) -> u64 {
        self.plan.asides.skipped_finals * self.repeat as u64
    }

    fn judgement(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nverdicts")?;
        for (name, count, meaning) in self.verdicts() {
            let verdict = if count == 0 { "ok  " } else { "FAIL" };
            writeln!(f, "  {verdict} {name:<16}{:>10}  {meaning}", grouped(count))?;
        }
        for example in self.findings.examples.iter().chain(&self.parts.examples) {
            writeln!(f, "       {}", example.replace('\n', "\n       "))?;
        }
        writeln!(f, "{}\n", if self.holds() { "all verdicts hold" } else { "NOT all verdicts hold" })
    }
}

/// Writes one object for one trace on the command line, an array for several.
pub(crate) fn write_json(path: &Path, traces: usize, reports: &[Report]) -> std::io::Result<()> {
    let all: Vec<serde_json::Value> = reports.iter().map(json::of).collect();
    let value = match <[serde_json::Value; 1]>::try_from(all) {
        Ok([one]) if traces <= 1 => one,
        Ok(one) => serde_json::Value::Array(one.into()),
        Err(many) => serde_json::Value::Array(many),
    };
    std::fs::write(path, format!("{value:#}\n"))
}

/// 1234567 as 1,234,567.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds with a unit that keeps them short.
pub(crate) fn human(ns: u64) -> String {
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
