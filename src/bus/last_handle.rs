//! What the handles of a bus share: when the last one is gone, the bus ends.

use std::time::Duration;

use super::{BusCore, shutdown};
use crate::exec::{affinity, frames};
use crate::sync::{Arc, thread};

/// How long a bus that is dropped without shutdown waits for its handlers.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// Shuts the bus down when the last handle is gone.
#[derive(Debug)]
pub(super) struct LastHandle(pub(super) Arc<BusCore>);

impl Drop for LastHandle {
    fn drop(&mut self) {
        let core = Arc::clone(&self.0);
        let end = move || {
            if let Err(error) = shutdown::shutdown(&core, DROP_LIMIT) {
                tracing::warn!(bus = core.name, %error, "a bus was dropped while handlers were running");
            }
        };
        if frames::is_worker_thread() {
            // In a handler: a lane cannot wait for its own end.
            if let Err(error) = thread::Builder::new().name("stasis-end".into()).spawn(affinity::unbound(end)) {
                tracing::error!(%error, "cannot start the thread that ends the bus; its lanes stay");
            }
        } else {
            end();
        }
    }
}
