//! `stasis soak`: everything at once for minutes or hours, with every promise checked all the time.
//!
//! ```text
//!  publish (threads) ──► topics ─ forwards ─► topics ──► listeners (checker each): come and go (churn)
//!  echo (recursion) ──►                                  witnesses: stay, get everything
//!  extras: short-lived buses with caches, followers, routers, pools, state, taskprocessors
//!                         │ faults, counts
//!                         ▼
//!  run ─ sample (memory, rates) ─► progress; at the end: shutdown, verdicts (report), curves (plot)
//! ```

mod checker;
mod churn;
mod echo;
mod extras;
mod ledger;
mod listener;
mod options;
mod plot;
mod progress;
mod publish;
mod random;
mod report;
mod run;
mod sample;

pub(crate) use options::Options;

use crate::Exit;
use crate::output::{complain, may_write, show, unwritable};
use report::Report;
use std::path::Path;

/// Soaks, prints the verdicts, writes what was asked for.
pub(crate) fn main(options: &Options) -> Exit {
    // Now, not after an hour.
    for path in [&options.report, &options.plot].into_iter().flatten() {
        if let Err(error) = may_write(path) {
            return unwritable(path, &error);
        }
    }
    let report = match run::soak(options) {
        Ok(report) => report,
        Err(error) => {
            complain(format_args!("stasis: {error}\n  try --lanes 1"));
            return Exit::BadInput;
        }
    };
    if let Err(error) = show(report.text()) {
        complain(format_args!("stasis: the summary cannot be written: {error}"));
    }
    if let Some(path) = &options.report
        && let Err(error) = write_report(path, &report)
    {
        return unwritable(path, &error);
    }
    if let Some(path) = &options.plot
        && let Err(error) = std::fs::write(path, plot::svg(&report))
    {
        return unwritable(path, &error);
    }
    if report.holds() { Exit::Good } else { Exit::Failed }
}

fn write_report(path: &Path, report: &Report) -> std::io::Result<()> {
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    std::fs::write(path, if is_json { report.json() } else { report.markdown() })
}
