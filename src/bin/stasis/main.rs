//! The program `stasis`: the bus at work on the command line.
// The summary in JSON is one large macro call.
#![recursion_limit = "256"]

mod log;
mod output;
mod replay;
mod soak;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A Stasis message bus at work
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Replay(replay::Options),
    Soak(soak::Options),
}

/// How the program ends; clap itself ends with 2 on a bad command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Good,
    /// A promise was broken.
    Failed,
    BadInput,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Good => 0,
            Exit::Failed => 1,
            Exit::BadInput => 2,
        })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Replay(options)) => replay::main(&options),
        Some(Command::Soak(options)) => soak::main(&options),
        // Without a command: the main job, with its defaults.
        None => replay::main(&replay::Options::default()),
    }
    .into()
}
