//! The command line of `stasis replay`.

use super::stage::Settings;
use clap::{Args, ValueEnum};
use stasis_bus::{Pinning, WaitStrategy};
use std::num::NonZeroUsize;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  stasis replay                                   the built-in trace, as fast as possible
  stasis replay traces/calls-burst.jsonl.zst      500 calls offered at 250 per second
  stasis replay --order recorded traces/*.zst     in the recorded order, compared message by message
  stasis replay --speed 1x traces/queue.jsonl.zst at the recorded times, with the latencies side by side
  stasis replay --repeat 20 --json out.json       twenty times, figures added up, also as JSON
  xz -dc trace.jsonl.xz | stasis replay -         from standard input

Exit code: 0 all verdicts hold, 1 a verdict failed, 2 the input or the command line is bad.";

const ORDERS: &str = "\
In the recorded order one operation follows the other as in the recording, over all threads and \
handlers. Operations of direct handlers are made within the publish that calls them, and handlers \
get messages in the order of publishing (the original did not always); operations moved by this \
are counted. A synchronous publish waits for its handler unless that waits for turns itself.

With threads, the recorded threads run side by side on the publishing threads, each in its own \
order. They wait for: objects that must exist; before an object ends, those who used it in the \
recording; at the first operation of a thread, what the main thread had done by then; and before a \
subscription is ended outside a callback, all that was recorded before. Handlers never wait: what \
they cannot make at once is continued by a publishing thread.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Recorded line order across all threads; deliveries compared message by message
    Recorded,
    /// Recorded threads side by side, each in its own order; every promise checked
    Threads,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speed {
    /// As fast as possible
    Max,
    /// At the recorded times
    #[value(name = "1x")]
    Recorded,
    /// Ten times as fast as recorded
    #[value(name = "10x")]
    TenTimes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mailbox {
    /// A thread per subscription, as in the original
    Thread,
    /// The lanes of the bus, like pooled subscriptions
    Lane,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Handlers only take notes
    None,
    /// Handlers keep the processor busy as long as in the recording
    Recorded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    Adaptive,
    Spin,
    Yield,
    Park,
}

/// Replay recorded bus traffic and check every promise of the bus
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{ORDERS}\n\n{EXAMPLES}"))]
pub(crate) struct Options {
    /// Recorded traces (.jsonl, .jsonl.zst, .jsonl.xz, or - for standard input); none: the built-in one
    #[arg(value_name = "TRACE")]
    pub(crate) traces: Vec<PathBuf>,

    /// Order of the operations
    #[arg(long, value_enum, default_value = "threads")]
    pub(crate) order: Order,

    /// Pace of the operations
    #[arg(long, value_enum, default_value = "max")]
    pub(crate) speed: Speed,

    /// Replay each trace N times, on a fresh bus each, and add the figures up
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) repeat: NonZeroUsize,

    /// Lanes of the bus [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) lanes: Option<NonZeroUsize>,

    /// Pin lanes: cores, off, or a list of cores such as 0,2,4
    #[arg(long, value_name = "CORES", default_value = "cores", value_parser = pinning)]
    pub(crate) pin: Pinning,

    /// How an idle lane waits
    #[arg(long, value_enum, default_value = "adaptive")]
    pub(crate) wait: Wait,

    /// Publishing threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) publishers: Option<NonZeroUsize>,

    /// Delivery of subscriptions that had a queue and a thread of their own
    #[arg(long, value_enum, default_value = "thread")]
    pub(crate) mailbox: Mailbox,

    /// What handlers do
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) work: Work,

    /// Write the summary as JSON to this file too (an array if there are several traces)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// No progress on standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Default for Options {
    /// The options of a command line that gives none.
    fn default() -> Self {
        #[derive(Debug, clap::Parser)]
        struct Alone {
            #[command(flatten)]
            options: Options,
        }
        <Alone as clap::Parser>::parse_from(["replay"]).options
    }
}

impl Options {
    pub(crate) fn publishers(&self) -> usize {
        self.publishers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            work: self.work == Work::Recorded,
            mailbox_threads: self.mailbox == Mailbox::Thread,
            speed: match self.speed {
                Speed::Max => None,
                Speed::Recorded => Some(1.0),
                Speed::TenTimes => Some(10.0),
            },
        }
    }

    pub(crate) fn wait_strategy(&self) -> WaitStrategy {
        match self.wait {
            Wait::Adaptive => WaitStrategy::Adaptive,
            Wait::Spin => WaitStrategy::BusySpin,
            Wait::Yield => WaitStrategy::Yield,
            Wait::Park => WaitStrategy::Park,
        }
    }
}

fn pinning(text: &str) -> Result<Pinning, String> {
    match text {
        "cores" => Ok(Pinning::Cores),
        "off" => Ok(Pinning::Off),
        list => {
            let cores: Result<Vec<usize>, _> = list.split(',').map(|core| core.trim().parse()).collect();
            cores.map(Pinning::List).map_err(|_| "give cores, off, or numbers of cores such as 0,2,4".to_owned())
        }
    }
}
