//! The command line of `stasis soak`.

use clap::{Args, ValueEnum};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  stasis soak                                           one minute, a new seed
  stasis soak --minutes 60 --report soak.md --plot soak.svg
  stasis soak --minutes 5 --seed 42 --rate 0            the same choices again, without pace

The seed decides what each thread does; how threads meet is up to the machine.

Exit code: 0 all verdicts hold, 1 a verdict failed, 2 the command line is bad.";

/// A fault made on purpose, to show that its verdict can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plant {
    /// A witness does not look at one message
    Lose,
    /// A witness looks at one message twice
    Double,
    /// A witness looks at two messages in the wrong order
    Swap,
    /// A witness looks at a message after its final one
    Late,
    /// A handler is kept
    Keep,
    /// A message is kept
    Leak,
    /// A delivery is not counted
    Miscount,
    /// Memory grows by 4 MB a second
    Grow,
}

/// Mix everything the bus can do for minutes or hours, and check every promise all the time
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How long; parts of a minute are fine
    #[arg(long, value_name = "N", default_value = "1", value_parser = minutes)]
    pub(crate) minutes: f64,

    /// What the threads do follows from this number [default: from the clock]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,

    /// Messages a second, all publishers together; 0: as many as go
    #[arg(long, value_name = "N", default_value = "20000")]
    pub(crate) rate: u64,

    /// Lanes of the bus
    #[arg(long, value_name = "N", default_value = "2")]
    pub(crate) lanes: NonZeroUsize,

    /// Publishing threads
    #[arg(long, value_name = "N", default_value = "3", value_parser = publishers)]
    pub(crate) publishers: usize,

    /// Write the report to this file too: JSON if it is named so, else Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Draw memory and rate over time into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,

    /// No progress on standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,

    #[arg(long, hide = true, value_enum)]
    pub(crate) plant: Option<Plant>,
}

impl Options {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= 60.0 * 24.0 * 365.0 => Ok(minutes),
        _ => Err("give minutes above 0, such as 0.5 or 60; a year at most".to_owned()),
    }
}

fn publishers(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(publishers @ 1..=64) => Ok(publishers),
        _ => Err("give a number from 1 to 64".to_owned()),
    }
}
