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
use report::Report;
use std::path::Path;

/// Soaks, prints the verdicts, writes what was asked for.
pub(crate) fn main(options: &Options) -> Exit {
    // Now, not after an hour.
    for path in [&options.report, &options.plot].into_iter().flatten() {
        if let Err(error) = std::fs::OpenOptions::new().append(true).create(true).open(path) {
            return bad_file(path, &error);
        }
    }
    let report = match run::soak(options) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("stasis: {error}\n  try --lanes 1");
            return Exit::BadInput;
        }
    };
    print!("{}", report.text());
    if let Some(path) = &options.report
        && let Err(error) = write_report(path, &report)
    {
        return bad_file(path, &error);
    }
    if let Some(path) = &options.plot
        && let Err(error) = std::fs::write(path, plot::svg(&report))
    {
        return bad_file(path, &error);
    }
    if report.holds() { Exit::Good } else { Exit::Failed }
}

fn write_report(path: &Path, report: &Report) -> std::io::Result<()> {
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    std::fs::write(path, if is_json { report.json() } else { report.markdown() })
}

fn bad_file(path: &Path, error: &std::io::Error) -> Exit {
    eprintln!("stasis: {} cannot be written: {error}\n  check the folder and its rights", path.display());
    Exit::BadInput
}
