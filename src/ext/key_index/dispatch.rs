//! The index's one subscription: its table, and the messages that change it.
//!
//! The table belongs to the handler; nobody else sees it. Who comes and goes says so by a message on the index
//! topic, which the bus delivers in order with the others; so nothing has to be locked or compared.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Core, Key, KeyHandler, KeyReceived, Ticket};
use crate::bus::{Handler, Received, give_back};
use crate::contain::{discard, quietly, report_panic};
use crate::message::{Message, MessageType};
use crate::sync::plain::Ordering;
use crate::sync::{Arc, Mutex, global, lock};

/// Payload of the messages that change a table: a `Joining<K>` or a `Leaving<K>`.
pub(super) struct Change(Box<dyn Any + Send + Sync>);

global! {
    static CHANGE: MessageType<Change> = MessageType::builder("stasis_key_index_change_type")
        .register(Arc::default())
        .unwrap_or_else(|error| panic!("cannot register the type of index changes: {error}"));
}

impl Change {
    pub(super) fn message_type() -> &'static MessageType<Self> {
        &CHANGE
    }

    pub(super) fn join<K: Key>(joining: Joining<K>) -> Message {
        CHANGE.message(Self(Box::new(joining)))
    }

    pub(super) fn leave<K: Key>(ticket: Arc<Ticket<K>>, last: Message) -> Message {
        CHANGE.message(Self(Box::new(Leaving { ticket, last })))
    }
}

/// A subscriber as the table has it.
pub(super) struct Seat<K> {
    pub(super) ticket: Arc<Ticket<K>>,
    pub(super) handler: Box<dyn KeyHandler<K>>,
}

impl<K: Key> Seat<K> {
    fn call(&mut self, core: &Arc<Core<K>>, message: &Message, is_final: bool) {
        let received = KeyReceived { message, ticket: &self.ticket, core, is_final };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.handler.handle(&received))) {
            core.panics.fetch_add(1, Ordering::Relaxed);
            report_panic("the handler of a key", &*panic);
            discard(panic);
        }
    }

    /// The final message, then the end.
    fn finish(mut self, core: &Arc<Core<K>>, last: &Message) {
        self.call(core, last, true);
        let Self { ticket, handler } = self;
        quietly(|| drop(handler));
        ticket.done.complete();
    }
}

/// A subscriber on its way into the table.
pub(super) struct Joining<K: Key> {
    /// Taken by the dispatcher.
    seat: Mutex<Option<Seat<K>>>,
    core: Arc<Core<K>>,
}

impl<K: Key> Joining<K> {
    pub(super) fn new(seat: Seat<K>, core: &Arc<Core<K>>) -> Self {
        Self { seat: Mutex::new(Some(seat)), core: Arc::clone(core) }
    }
}

impl<K: Key> Drop for Joining<K> {
    /// The index ended before it got there: it never began, so there is no final message.
    fn drop(&mut self) {
        if let Some(Seat { ticket, handler }) = lock(&self.seat).take() {
            if !ticket.left.swap(true, Ordering::AcqRel) {
                self.core.interest.remove(&ticket.key);
            }
            quietly(|| drop(handler));
            ticket.done.complete();
        }
    }
}

/// A subscriber that has unsubscribed; its final message.
struct Leaving<K> {
    ticket: Arc<Ticket<K>>,
    last: Message,
}

/// The handler of the index.
pub(super) struct Dispatcher<K> {
    core: Arc<Core<K>>,
    table: HashMap<K, Vec<Seat<K>>>,
}

impl<K: Key> Dispatcher<K> {
    pub(super) fn new(core: &Arc<Core<K>>) -> Self {
        Self { core: Arc::clone(core), table: HashMap::new() }
    }

    fn change(&mut self, change: &Change) {
        if let Some(joining) = change.0.downcast_ref::<Joining<K>>() {
            // Another index's topic may be forwarded to ours: its subscribers are not ours.
            let is_ours = Arc::ptr_eq(&joining.core, &self.core);
            let seat = if is_ours { lock(&joining.seat).take() } else { None };
            if let Some(seat) = seat {
                self.table.entry(seat.ticket.key.clone()).or_default().push(seat);
            }
        } else if let Some(leaving) = change.0.downcast_ref::<Leaving<K>>() {
            let key = &leaving.ticket.key;
            let Some(seats) = self.table.get_mut(key) else { return };
            let Some(at) = seats.iter().position(|seat| Arc::ptr_eq(&seat.ticket, &leaving.ticket)) else { return };
            let seat = seats.remove(at);
            if seats.is_empty() {
                self.table.remove(key);
                give_back(&mut self.table);
            }
            seat.finish(&self.core, &leaving.last);
        }
    }
}

impl<K: Key> Handler for Dispatcher<K> {
    fn handle(&mut self, received: &Received<'_>) {
        if received.is_final() {
            let mut seats: Vec<_> = std::mem::take(&mut self.table).into_values().flatten().collect();
            // In the order they came.
            seats.sort_unstable_by_key(|seat| seat.ticket.id);
            for seat in seats {
                if !seat.ticket.left.swap(true, Ordering::AcqRel) {
                    self.core.interest.remove(&seat.ticket.key);
                }
                seat.finish(&self.core, received);
            }
        } else if let Some(change) = received.payload::<Change>() {
            self.change(change);
        } else if let Some(key) = (self.core.key)(received)
            && let Some(seats) = self.table.get_mut(&key)
        {
            for seat in seats {
                seat.call(&self.core, received, false);
            }
        }
    }
}

impl<K> Drop for Dispatcher<K> {
    /// Without final message (a shutdown that ran out of time): who waits is told.
    fn drop(&mut self) {
        for seat in self.table.drain().flat_map(|(_, seats)| seats) {
            let Seat { ticket, handler } = seat;
            quietly(|| drop(handler));
            ticket.done.complete();
        }
    }
}
