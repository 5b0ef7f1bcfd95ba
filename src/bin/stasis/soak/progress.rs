//! What a soak shows while it runs: a bar on a terminal, a line every few seconds elsewhere.

use super::report::{mega, rate};
use super::sample::Sample;
use crate::output::complain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use stasis_bus::BusStats;

const LINE_EVERY: Duration = Duration::from_secs(10);

/// Progress of the soak, on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    length: Duration,
    written: Cell<Instant>,
}

impl Progress {
    pub(crate) fn new(length: Duration, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target =
            if terminal && !quiet { ProgressDrawTarget::stderr_with_hz(4) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length.as_secs()), target);
        if let Ok(style) = ProgressStyle::with_template("[{wide_bar}] {elapsed} of {len} s\n{msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, plain: !terminal && !quiet, length, written: Cell::new(Instant::now()) }
    }

    pub(crate) fn show(&self, before: Option<&Sample>, now: &Sample, stats: &BusStats) {
        let speed = before.map_or(0.0, |before| rate(before, now, |sample| sample.delivered));
        let verdict = match now.violations {
            0 => "all verdicts hold".to_owned(),
            violations => format!("{violations} VIOLATIONS"),
        };
        let message = format!(
            "{}, {} allocated | {speed:.0} deliveries/s | {} subscriptions | {} take-overs | {} panics | {verdict}",
            mega(now.rss as f64),
            mega(now.heap as f64),
            now.subscriptions,
            stats.takeovers,
            stats.panics,
        );
        self.bar.set_position(now.at.as_secs());
        self.bar.set_message(message.clone());
        if self.plain && self.written.get().elapsed() > LINE_EVERY {
            self.written.set(Instant::now());
            complain(format_args!("{:.0} of {:.0} s: {message}", now.at.as_secs_f64(), self.length.as_secs_f64()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
