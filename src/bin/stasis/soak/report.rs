//! What came of a soak: for people, as Markdown and as JSON.

use super::ledger::{Ledger, Verdict};
use super::options::Options;
use super::sample::{Memory, Sample};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use stasis_bus::BusStats;

/// See the module.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    minutes: f64,
    setting: String,
    pub(crate) samples: Vec<Sample>,
    /// Of the bus, at its end.
    pub(crate) stats: Option<BusStats>,
    pub(crate) failures: Vec<String>,
    violations: [u64; Verdict::ALL.len()],
    counts: Vec<(&'static str, u64)>,
}

/// Bytes, readable.
pub(crate) fn mega(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

/// How much a count has moved in a second.
pub(crate) fn rate(before: &Sample, now: &Sample, count: impl Fn(&Sample) -> u64) -> f64 {
    (count(now) - count(before)) as f64 / (now.at - before.at).as_secs_f64().max(1e-9)
}

impl Report {
    pub(crate) fn new(options: &Options, seed: u64) -> Self {
        let mut setting =
            format!("--publishers {} --lanes {} --rate {}", options.publishers, options.lanes, options.rate);
        if let Some(plant) = options.plant {
            let _ = write!(setting, " --plant {plant:?}");
        }
        Self {
            seed,
            minutes: options.minutes,
            setting,
            samples: Vec::new(),
            stats: None,
            failures: Vec::new(),
            violations: Default::default(),
            counts: Vec::new(),
        }
    }

    /// Takes over what the ledger has.
    pub(crate) fn end(&mut self, ledger: &Ledger) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.violations = ledger.violations();
        self.failures.extend(ledger.examples().iter().cloned());
        self.counts = vec![
            ("messages accepted", of(&ledger.accepted)),
            ("publishes refused and tried again", of(&ledger.refused)),
            ("deliveries checked", of(&ledger.calls)),
            ("handlers made", of(&ledger.made)),
            ("changes (subscribe, end, forward, cancel, last handles)", of(&ledger.churned)),
            ("publishes checked that were made inside handlers or answered", of(&ledger.echoes)),
            ("handler panics", of(&ledger.panics)),
            ("rounds of the extensions, on a bus each", of(&ledger.rounds)),
        ];
        if let Some(stats) = &self.stats {
            self.counts.extend([
                ("take-overs of lanes", stats.takeovers),
                ("most spare threads", stats.spare_threads_high_water as u64),
                ("subscriptions ended", stats.ended),
                ("late messages (published while a subscription was leaving)", stats.late),
            ]);
        }
    }

    fn memory(&self) -> [(&'static str, Memory); 2] {
        [
            ("memory is flat (G9)", Memory::of_process(&self.samples)),
            ("what is allocated is flat (G9, G10)", Memory::of_heap(&self.samples)),
        ]
    }

    pub(crate) fn holds(&self) -> bool {
        self.violations.iter().all(|n| *n == 0)
            && self.failures.is_empty()
            && self.memory().iter().all(|(_, memory)| memory.is_flat())
    }

    /// Name, whether it holds, and what was found.
    fn verdicts(&self) -> Vec<(&'static str, bool, String)> {
        let counted = Verdict::ALL.iter().map(|(verdict, name, what)| {
            let found = self.violations[*verdict as usize];
            (*name, found == 0, format!("{found} {what}"))
        });
        let said = |memory: Memory| match memory {
            Memory::Unknown => "not judged: needs 20 samples in the second half, and 15 seconds".to_owned(),
            Memory::Judged { slope, growth, allowed } => format!(
                "{:+.3} MB a minute in the second half, {:+.1} MB in all ({} is still called flat)",
                slope * 60.0 / 1e6,
                growth / 1e6,
                mega(allowed)
            ),
        };
        let memory = self.memory().map(|(name, memory)| (name, memory.is_flat(), said(memory)));
        counted.chain(memory).collect()
    }

    /// Seconds, and memory in words.
    fn span(&self) -> (f64, String) {
        let last = self.samples.last().copied().unwrap_or_default();
        let most = |bytes: fn(&Sample) -> u64| mega(self.samples.iter().map(bytes).max().unwrap_or(0) as f64);
        let memory = format!(
            "{} at the end ({} of it allocated), {} at most ({})",
            mega(last.rss as f64),
            mega(last.heap as f64),
            most(|sample| sample.rss),
            most(|sample| sample.heap)
        );
        (last.at.as_secs_f64(), memory)
    }

    fn conclusion(&self) -> &'static str {
        if self.holds() { "all verdicts hold" } else { "FAIL: a verdict does not hold" }
    }

    pub(crate) fn text(&self) -> String {
        let (seconds, memory) = self.span();
        let mut text = format!("soak        {seconds:.0} s, seed {}, {}\n", self.seed, self.setting);
        let _ = writeln!(text, "memory      {memory}");
        for (name, count) in &self.counts {
            let _ = writeln!(text, "  {count:>12}  {name}");
        }
        for (name, holds, found) in self.verdicts() {
            let _ = writeln!(text, "  {}  {name}: {found}", if holds { "ok  " } else { "FAIL" });
        }
        for failure in &self.failures {
            let _ = writeln!(text, "    {failure}");
        }
        let _ = writeln!(text, "{}", self.conclusion());
        text
    }

    pub(crate) fn markdown(&self) -> String {
        let (seconds, memory) = self.span();
        let mut text =
            format!("# Soak\n\n`stasis soak --minutes {} --seed {} {}`", self.minutes, self.seed, self.setting);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        let _ = writeln!(text, ": {}.\n", self.conclusion());
        let _ = writeln!(text, "{seconds:.0} seconds on {cores} cores, {profile} build; memory {memory}.\n");
        let _ = writeln!(text, "| verdict | holds | found |\n|---|---|---|");
        for (name, holds, found) in self.verdicts() {
            let _ = writeln!(text, "| {name} | {} | {found} |", if holds { "yes" } else { "**no**" });
        }
        let _ = writeln!(text, "\n| what was done | how often |\n|---|---:|");
        for (name, count) in &self.counts {
            let _ = writeln!(text, "| {name} | {count} |");
        }
        if !self.failures.is_empty() {
            let _ = writeln!(text, "\nExamples of what went wrong:\n");
            for failure in &self.failures {
                let _ = writeln!(text, "- {failure}");
            }
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let verdicts = self
            .verdicts()
            .into_iter()
            .map(|(name, holds, found)| serde_json::json!({ "name": name, "holds": holds, "found": found }));
        let samples = self.samples.iter().map(|sample| {
            serde_json::json!([
                sample.at.as_secs_f64(),
                sample.rss,
                sample.heap,
                sample.violations,
                sample.published,
                sample.delivered,
                sample.subscriptions,
                sample.ring_bytes
            ])
        });
        let counts: serde_json::Map<_, _> =
            self.counts.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect();
        let report = serde_json::json!({
            "seed": self.seed,
            "minutes": self.minutes,
            "setting": self.setting,
            "holds": self.holds(),
            "verdicts": verdicts.collect::<Vec<_>>(),
            "counts": counts,
            "failures": self.failures,
            "sample_columns": ["seconds", "rss", "heap", "violations", "published", "delivered", "subscriptions", "ring_bytes"],
            "samples": samples.collect::<Vec<_>>(),
        });
        format!("{report:#}\n")
    }
}
