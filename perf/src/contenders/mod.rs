//! The contenders, one a file, and the channels that some of them fan out over.
//!
//! | file | contender |
//! |---|---|
//! | `stasis` | ours: on its lanes, pinned or not, and with a thread per subscriber |
//! | `lists` | list behind a mutex that is held while sending (the original's pattern), or behind arc-swap |
//! | `channel` | the channels under these lists: crossbeam-channel, flume, kanal, concurrent-queue + event-listener |
//! | `bus`, `tokio`, `async_broadcast`, `disruptor` | the crates of these names |

mod async_broadcast;
mod bus;
mod channel;
mod disruptor;
mod lists;
mod stasis;
mod tokio;

use crate::contender::{Contender, Layout};
use channel::{Channel, Crossbeam, Flume, Kanal, Notified};
use disruptor::{Disruptor, Producers, Wait};
use lists::{Entry, Lists, Locked, Swapped};
use stasis::{Stasis, Threads};

/// Name of the contender that the others are compared with.
pub(crate) const OURS: &str = "stasis-bus";
/// Name of the original's pattern.
pub(crate) const PATTERN: &str = "mutex + crossbeam-channel";

fn locked<C: Channel>(layout: Layout) -> Box<dyn Contender> {
    Box::new(Lists::<Locked<Entry<C::Sender>>, C>::new(layout))
}

fn swapped<C: Channel>(layout: Layout) -> Box<dyn Contender> {
    Box::new(Lists::<Swapped<Entry<C::Sender>>, C>::new(layout))
}

fn disruptor(producers: Producers, wait: Wait, layout: Layout, in_place: bool) -> Box<dyn Contender> {
    Box::new(Disruptor { producers, wait, layout, in_place })
}

/// All contenders, ours first.
pub(crate) fn all() -> Vec<Box<dyn Contender>> {
    use Layout::{Own, Queues, Shared};
    use Producers::{Multi, Single};
    use Wait::{Sleep, Spin, Yield};
    let ours = |home| Box::new(Stasis { home }) as Box<dyn Contender>;
    vec![
        ours(Threads::Lanes),
        ours(Threads::Unpinned),
        ours(Threads::Dedicated),
        ours(Threads::Count(1)),
        ours(Threads::Count(4)),
        ours(Threads::Count(8)),
        locked::<Crossbeam>(Own),
        locked::<Crossbeam>(Shared),
        locked::<Crossbeam>(Queues),
        swapped::<Crossbeam>(Own),
        swapped::<Crossbeam>(Queues),
        swapped::<Kanal>(Own),
        swapped::<Kanal>(Shared),
        swapped::<Flume>(Own),
        swapped::<Notified>(Own),
        Box::new(bus::Bus(Own)),
        Box::new(bus::Bus(Queues)),
        Box::new(tokio::Broadcast),
        Box::new(async_broadcast::AsyncBroadcast(Own)),
        Box::new(async_broadcast::AsyncBroadcast(Queues)),
        disruptor(Multi, Spin, Own, false),
        disruptor(Multi, Yield, Own, false),
        disruptor(Multi, Yield, Shared, false),
        disruptor(Multi, Sleep, Own, false),
        disruptor(Single, Spin, Own, false),
        disruptor(Single, Yield, Own, false),
        disruptor(Single, Sleep, Own, false),
        disruptor(Multi, Yield, Own, true),
        disruptor(Single, Yield, Own, true),
        disruptor(Single, Yield, Shared, true),
    ]
}
