//! What a run shows while it runs: a bar on a terminal, a line every few seconds elsewhere.

use crate::output::complain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Without a terminal a line is written this often, so that logs stay short.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress of one run, on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    what: String,
    total: u64,
    written: Cell<Instant>,
}

impl Progress {
    pub(crate) fn new(what: String, total: usize, quiet: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target =
            if terminal && !quiet { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        let template = "{msg} [{wide_bar}] {human_pos}/{human_len} operations, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.clone());
        Progress { bar, plain: !terminal && !quiet, what, total: total as u64, written: Cell::new(Instant::now()) }
    }

    pub(crate) fn at(&self, done: usize) {
        self.bar.set_position(done as u64);
        if self.plain && self.written.get().elapsed() > LINE_EVERY {
            self.written.set(Instant::now());
            complain(format_args!("{}: {done} of {} operations", self.what, self.total));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
