//! What the bus logs and the user should know: that a lane could not be pinned, and errors. Each once.

use crate::output::complain;
use std::collections::HashSet;
use std::fmt::{Debug, Write};
use std::sync::{Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Begins to show it on standard error.
pub(crate) fn show() {
    // Somebody else's log would do too.
    let _ = tracing::subscriber::set_global_default(Log(Mutex::default()));
}

struct Log(Mutex<HashSet<String>>);

impl Subscriber for Log {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        *about.level() == Level::ERROR || *about.level() == Level::WARN && about.target().ends_with("affinity")
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let line = format!("stasis: {}{}", text.message, text.fields);
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
            complain(line);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing into a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " ({name} {value:?})"),
        };
    }
}
