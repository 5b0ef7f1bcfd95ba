//! The contenders, one a file, and the channels that some of them fan out over.
//!
//! | file | contender |
//! |---|---|
//! | `stasis` | ours: on its lanes, pinned or not, and with a thread per subscriber |
//! | `mutex` | list behind a mutex that is held while sending: the original's pattern |
//! | `snapshot` | list behind arc-swap |
//! | `crossbeam`, `kanal`, `flume` | the channels under these lists |
//! | `bus`, `tokio`, `disruptor` | the crates of these names |

mod bus;
mod channel;
mod crossbeam;
mod disruptor;
mod flume;
mod kanal;
mod mutex;
mod snapshot;
mod stasis;
mod tokio;

use crate::contender::{Contender, Layout};
use disruptor::{Disruptor, Producers, Wait};

/// Name of the contender that the others are compared with.
pub(crate) const OURS: &str = "stasis-bus";

/// All contenders, ours first.
pub(crate) fn all() -> Vec<Box<dyn Contender>> {
    use Layout::{Own, Shared};
    vec![
        Box::new(stasis::Stasis { home: stasis::Threads::Lanes }),
        Box::new(stasis::Stasis { home: stasis::Threads::Unpinned }),
        Box::new(stasis::Stasis { home: stasis::Threads::Dedicated }),
        Box::new(mutex::Mutexed::<crossbeam::Crossbeam>::new(Own)),
        Box::new(mutex::Mutexed::<crossbeam::Crossbeam>::new(Shared)),
        Box::new(snapshot::Snapshot::<crossbeam::Crossbeam>::new(Own)),
        Box::new(snapshot::Snapshot::<kanal::Kanal>::new(Own)),
        Box::new(snapshot::Snapshot::<kanal::Kanal>::new(Shared)),
        Box::new(snapshot::Snapshot::<flume::Flume>::new(Own)),
        Box::new(bus::Bus),
        Box::new(tokio::Broadcast),
        Box::new(Disruptor { producers: Producers::Multi, wait: Wait::Spin, layout: Own }),
        Box::new(Disruptor { producers: Producers::Multi, wait: Wait::Yield, layout: Own }),
        Box::new(Disruptor { producers: Producers::Multi, wait: Wait::Yield, layout: Shared }),
        Box::new(Disruptor { producers: Producers::Multi, wait: Wait::Sleep, layout: Own }),
        Box::new(Disruptor { producers: Producers::Single, wait: Wait::Spin, layout: Own }),
        Box::new(Disruptor { producers: Producers::Single, wait: Wait::Yield, layout: Own }),
    ]
}
