//! Delivery in the publisher: the handler runs before publish returns, unless it is running already.
//!
//! ```text
//!   publisher A: nobody in it ─► runs the handler ─► serves what came meanwhile ─► returns
//!   publisher B: A is in it   ─► queues the message ─► returns at once
//!   the handler itself publishing to itself: as B
//! ```
//!
//! Guarantees: serial (G4) and in order (G2) by the baton; publish never waits for a handler (G6);
//! cost without contention: two atomic operations a delivery. The queue is made at the first
//! contention and holds [`MOST`] messages, then publishers are refused; what the bus itself has to say is
//! queued up to [`END`]. Models:
//! `loom-tests/tests/baton.rs`.

use super::frames::InlineFrame;
use super::lane::Member;
use super::serial::{Baton, Holder, TokenId};
use crate::contain::quietly;
use crate::exec::completion::Completion;
use crate::message::Message;
use crate::ring::{Budget, Consumer, Entry, Position, Ring, ring};
use crate::sync::backoff::Backoff;
use crate::sync::{Arc, Mutex, OnceLock, lock, scaled};

/// Messages that may wait for one inline subscription.
const MOST: usize = scaled(4096, 8);
/// Messages beyond which even those that ask for no room are lost: the ring ends at 65,536, and there a
/// publisher would wait for the handler it may be called from.
const END: u64 = scaled(60_000, 12) as u64;
const SLOT_BITS: u32 = scaled(5, 1) as u32;

/// What waits, besides messages.
enum Extra {
    /// The message is the final one.
    Finish,
    /// The message does not matter: say that everything before it was served.
    Notify(Arc<Completion>),
}

struct Item {
    message: Message,
    extra: Option<Box<Extra>>,
}

mod item {
    #![allow(unsafe_code)]
    //! An item as the two words of a ring slot.
    use super::{Entry, Extra, Item, Message};
    use std::ptr::{self, NonNull};

    impl Entry for Item {
        fn into_words(self) -> (NonNull<()>, *const ()) {
            let extra = self.extra.map_or(ptr::null_mut(), Box::into_raw);
            (self.message.into_raw(), extra.cast_const().cast())
        }

        unsafe fn from_words(first: NonNull<()>, second: *const ()) -> Self {
            // SAFETY: from the `into_raw` above, once.
            let message = unsafe { Message::from_raw(first) };
            let extra = NonNull::new(second.cast_mut().cast::<Extra>());
            // SAFETY: from the `Box::into_raw` above, once.
            let extra = extra.map(|extra| unsafe { Box::from_raw(extra.as_ptr()) });
            Self { message, extra }
        }
    }
}

struct Waiting {
    ring: Arc<Ring<Item>>,
    /// Taken by the first holder that serves it.
    consumer: Mutex<Option<Consumer<Item>>>,
}

/// The queue of one inline member.
pub(crate) struct InlineQueue {
    baton: Baton<Option<Consumer<Item>>>,
    waiting: OnceLock<Waiting>,
    budget: Arc<Budget>,
}

impl InlineQueue {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { baton: Baton::new(None), waiting: OnceLock::new(), budget }
    }

    pub(crate) fn token_id(&self) -> TokenId {
        self.baton.token_id()
    }

    /// Whether ordinary messages should be refused now.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.get().is_some_and(|waiting| waiting.ring.is_full())
    }

    /// Most messages that waited, as sampled.
    pub(crate) fn high_water(&self) -> u64 {
        self.waiting.get().map_or(0, |waiting| waiting.ring.high_water())
    }

    /// Delivers now, or queues for the thread that is in the handler. False: lost, there is no end to what waits.
    pub(crate) fn deliver<M: Member>(&self, member: &Arc<M>, message: &Message) -> bool {
        let Some(mut holder) = self.baton.try_take() else {
            let has_room = self.waiting.get().is_none_or(|waiting| waiting.ring.depth() < END);
            if has_room {
                self.queue(member, message.clone(), None);
            }
            return has_room;
        };
        if !self.nothing_waits(&mut holder) {
            // Items are served by number: while a publisher is between queueing and announcing, what
            // was queued behind its item waits for its turn of the baton, and this message behind both.
            // Model: `baton.rs`, `a_nested_message_is_not_overtaken`.
            self.push(message.clone(), None);
            self.serve_rest(member, Some(holder));
            return true;
        }
        {
            let _frame = InlineFrame::enter(member.id());
            member.deliver_caught(holder.token(), message);
        }
        self.serve_rest(member, holder.done_one());
        true
    }

    /// Whether the queue is empty, of items not announced yet too.
    #[inline]
    fn nothing_waits(&self, holder: &mut Holder<'_, Option<Consumer<Item>>>) -> bool {
        let Some(waiting) = self.waiting.get() else { return true };
        let head = holder.with(|consumer| consumer.as_ref().map_or(Position::default(), Consumer::head));
        waiting.ring.tail() == head
    }

    /// Delivers the final message behind everything queued.
    pub(crate) fn finish<M: Member>(&self, member: &Arc<M>, message: Message) {
        self.queue(member, message, Some(Extra::Finish));
    }

    /// Completes when everything queued before was served.
    pub(crate) fn notify<M: Member>(&self, member: &Arc<M>, any: Message, completion: Arc<Completion>) {
        self.queue(member, any, Some(Extra::Notify(completion)));
    }

    fn waiting(&self) -> &Waiting {
        self.waiting.get_or_init(|| {
            let (ring, consumer) = ring(SLOT_BITS, 4 << SLOT_BITS, MOST, Arc::clone(&self.budget));
            Waiting { ring, consumer: Mutex::new(Some(consumer)) }
        })
    }

    fn queue<M: Member>(&self, member: &Arc<M>, message: Message, extra: Option<Extra>) {
        self.push(message, extra);
        let holder = self.baton.announce();
        self.serve_rest(member, holder);
    }

    fn push(&self, message: Message, extra: Option<Extra>) {
        // The consumer never sleeps, so nobody has to be woken.
        let _ = self.waiting().ring.push(Item { message, extra: extra.map(Box::new) });
    }

    /// Serves one queued item for each turn of the baton.
    fn serve_rest<M: Member>(&self, member: &Arc<M>, mut holder: Option<Holder<'_, Option<Consumer<Item>>>>) {
        while let Some(mut right) = holder {
            let item = right.with(|consumer| {
                let consumer =
                    consumer.get_or_insert_with(|| lock(&self.waiting().consumer).take().expect("taken by one holder"));
                let mut backoff = Backoff::new();
                loop {
                    match consumer.pop() {
                        Some(item) => break item,
                        // Announced, so it is there but for a producer between two instructions.
                        None => backoff.snooze(),
                    }
                }
            });
            {
                let _frame = InlineFrame::enter(member.id());
                match item.extra.map(|extra| *extra) {
                    None => member.deliver_caught(right.token(), &item.message),
                    Some(Extra::Finish) => member.finish(right.token(), &item.message),
                    Some(Extra::Notify(completion)) => completion.complete(),
                }
            }
            quietly(|| drop(item.message));
            holder = right.done_one();
        }
    }
}

impl std::fmt::Debug for InlineQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InlineQueue").finish_non_exhaustive()
    }
}
