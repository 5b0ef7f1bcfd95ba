//! `stasis replay`: recorded traffic of the original bus, published again on this one and checked.
//!
//! ```text
//! input -> trace (line, check) -> plan (build) -> stage + recorded | threads -> verdict -> report
//! bytes    records                operations      the bus of one run             oracle
//! ```

mod build;
mod check;
mod clock;
mod figures;
mod input;
mod json;
mod line;
mod listener;
mod options;
mod oracle;
mod parts;
mod plan;
mod progress;
mod recorded;
mod report;
mod run;
mod schedule;
mod stage;
mod stats;
#[cfg(test)]
mod testing;
mod threads;
mod trace;
mod verdict;

pub(crate) use options::Options;

use crate::Exit;
use crate::output::{complain, may_write, show, unwritable};
use input::Source;
use plan::Plan;
use report::Report;
use std::sync::Arc;
use trace::Trace;

/// Replays the traces of the command line, one after the other. One that cannot be used does not keep the
/// others from being replayed, and makes the exit code 2.
pub(crate) fn main(options: &Options) -> Exit {
    crate::log::show();
    // A file that cannot be written is better known now than after a long run.
    if let Some(path) = &options.json
        && let Err(error) = may_write(path)
    {
        return unwritable(path, &error);
    }
    let sources = match options.traces.as_slice() {
        [] => vec![Source::Embedded],
        paths => paths.iter().map(|path| Source::of(path)).collect(),
    };
    let mut reports = Vec::new();
    let mut all_read = true;
    for source in sources {
        match replay(options, &source) {
            Ok(report) => {
                if let Err(error) = show(&report) {
                    complain(format_args!("stasis: the summary cannot be written: {error}"));
                    return Exit::BadInput;
                }
                reports.push(report);
            }
            Err(error) => {
                complain(format_args!("stasis: {error}"));
                all_read = false;
            }
        }
    }
    if let Some(path) = &options.json
        && let Err(error) = report::write_json(path, options.traces.len(), &reports)
    {
        return unwritable(path, &error);
    }
    match (all_read, reports.iter().all(Report::holds)) {
        (false, _) => Exit::BadInput,
        (true, true) => Exit::Good,
        (true, false) => Exit::Failed,
    }
}

#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error(transparent)]
    Input(#[from] input::InputError),
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
    #[error(transparent)]
    Run(#[from] run::RunError),
}

fn replay(options: &Options, source: &Source) -> Result<Report, ReplayError> {
    let text = source.read()?;
    let trace = Arc::new(Trace::parse(&source.name(), &text)?);
    drop(text);
    let plan = Arc::new(Plan::of(&trace));
    let mut report = Report::new(options, &plan);
    report.parts(parts::Parts::of(&plan).map_err(run::RunError::from)?);
    for round in 1..=options.repeat.get() {
        run::once(options, &plan, round, &mut report)?;
    }
    Ok(report)
}
