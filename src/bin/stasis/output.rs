//! Text for the user. Unlike `print!`, a reader that has gone (`stasis replay | head`) is no reason to panic.

use crate::Exit;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Writes to standard output. A reader that has gone is not an error.
pub(crate) fn show(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes a line to standard error; if that does not go, there is nobody to tell.
pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether a file can be written, before hours have gone into what it will hold. What it holds now is left alone.
pub(crate) fn may_write(path: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new().append(true).create(true).open(path).map(drop)
}

/// Says that it cannot.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Exit {
    complain(format_args!("stasis: {} cannot be written: {error}\n  check the folder and its rights", path.display()));
    Exit::BadInput
}
