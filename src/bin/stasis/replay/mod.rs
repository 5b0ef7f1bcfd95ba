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
use input::Source;
use plan::Plan;
use report::Report;
use std::sync::Arc;
use trace::Trace;

/// Replays the traces of the command line, one after the other.
pub(crate) fn main(options: &Options) -> Exit {
    let sources = match options.traces.as_slice() {
        [] => vec![Source::Embedded],
        paths => paths.iter().map(|path| Source::of(path)).collect(),
    };
    let mut reports = Vec::new();
    for source in sources {
        match replay(options, &source) {
            Ok(report) => {
                print!("{report}");
                reports.push(report);
            }
            Err(error) => {
                eprintln!("stasis: {error}");
                return Exit::BadInput;
            }
        }
    }
    if let Some(path) = &options.json
        && let Err(error) = report::write_json(path, &reports)
    {
        eprintln!("stasis: {} cannot be written: {error}\n  check the folder and its rights", path.display());
        return Exit::BadInput;
    }
    if reports.iter().all(Report::holds) { Exit::Good } else { Exit::Failed }
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
