//! A handler of any type, and the loop that calls many of one type.
//!
//! ```text
//!   row of a list: A A B A A ─► loop of A: each A as a part of the loop, B through a table
//! ```
//!
//! Subscriptions made at one place of a program have handlers of one type. A loop that is made for the type needs no
//! table to call them, and their code stands in it: at 64 subscribers 15 % more deliveries. Long rows that begin and end
//! with one type are served so; others through the table.
//!
//! Guarantees: those of a walk (`exec/walk`); a handler is dropped once, as what it is. Cost: for a handler of another
//! type a comparison, and what a call through a table costs.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::ops::ControlFlow;
use std::ptr::{self, NonNull};

use super::subscriber::{Handler, Received, Subscriber};
use crate::exec::audience::Entry;
use crate::exec::calls::Calls;
use crate::exec::slab::{Placed, Unseen};

/// What is known of a type of handlers. No two types have the same; one type may have several.
struct Type {
    /// Looked at by nobody: makes those of two types differ, so that they do not share an address.
    _id: TypeId,
    serve: Serve,
    handle: unsafe fn(NonNull<()>, &Received<'_>),
    drop: unsafe fn(Unseen),
}

/// Hands a message to all of a row, by the loop of this type; break: nothing of the walk is left to do here.
type Serve =
    for<'a> unsafe fn(&'static Type, &'a [Entry<Subscriber>], &Calls<'_>, &mut Received<'a>) -> ControlFlow<()>;

impl Type {
    fn of<H: Handler>() -> &'static Self {
        const { &Self { _id: TypeId::of::<H>(), serve: serve::<H>, handle: handle::<H>, drop: drop_it::<H> } }
    }
}

/// See the module.
pub(super) struct AnyHandler {
    place: Unseen,
    of: &'static Type,
}

// SAFETY: handlers are `Send`.
unsafe impl Send for AnyHandler {}

impl AnyHandler {
    pub(super) fn new<H: Handler>(handler: Placed<H>) -> Self {
        Self { place: handler.unseen(), of: Type::of::<H>() }
    }

    /// Calls it.
    #[inline]
    pub(super) fn handle(&mut self, received: &Received<'_>) {
        // SAFETY: of this type (`new`), and borrowed mutably.
        unsafe { (self.of.handle)(self.place.address(), received) }
    }
}

impl Drop for AnyHandler {
    fn drop(&mut self) {
        // SAFETY: of this type, and not touched after that.
        unsafe { (self.of.drop)(self.place.take()) }
    }
}

/// # Safety
/// The address is that of a handler of this type, and nobody else uses it meanwhile.
unsafe fn handle<H: Handler>(handler: NonNull<()>, received: &Received<'_>) {
    // SAFETY: the caller's promise.
    unsafe { handler.cast::<H>().as_mut() }.handle(received);
}

/// # Safety
/// A handler of this type, not used after that.
unsafe fn drop_it<H: Handler>(handler: Unseen) {
    // SAFETY: the caller's promise.
    drop(unsafe { handler.seen::<H>() });
}

/// Hands a message to all of a row; break: nothing of the walk is left to do here.
pub(super) fn deliver_row<'a>(
    row: &'a [Entry<Subscriber>],
    calls: &Calls<'_>,
    received: &mut Received<'a>,
) -> ControlFlow<()> {
    // A guess: if both ends are of one type, most are.
    match (row.first().and_then(|first| type_of(first, calls)), row.last().and_then(|last| type_of(last, calls))) {
        // SAFETY: a loop and its own type.
        (Some(first), Some(last)) if ptr::eq(first, last) => unsafe { (first.serve)(first, row, calls, received) },
        _ => row.iter().try_for_each(|entry| calls.deliver(entry, received)),
    }
}

#[inline(always)]
fn type_of(entry: &Entry<Subscriber>, calls: &Calls<'_>) -> Option<&'static Type> {
    // SAFETY: entered for this look only.
    let entered = entry.post().handler.enter_alone(unsafe { calls.alone() });
    entered?.as_ref().map(|handler| handler.of)
}

/// To one of another type, out of the way of the loop.
#[cold]
fn deliver_other<'a>(entry: &'a Entry<Subscriber>, calls: &Calls<'_>, received: &mut Received<'a>) -> ControlFlow<()> {
    calls.deliver(entry, received)
}

/// See [`Serve`].
///
/// # Safety
/// `of` is a type of `H`.
unsafe fn serve<'a, H: Handler>(
    of: &'static Type,
    row: &'a [Entry<Subscriber>],
    calls: &Calls<'_>,
    received: &mut Received<'a>,
) -> ControlFlow<()> {
    row.iter().try_for_each(|entry| {
        let post = entry.post();
        // SAFETY: left again before `deliver_other` enters it, and before what comes after the call.
        let mut entered = post.handler.enter_alone(unsafe { calls.alone() });
        match entered.as_deref_mut() {
            Some(Some(handler)) if ptr::eq(handler.of, of) => {
                let mut handler = handler.place.address().cast::<H>();
                calls.make(post.id, || {
                    post.delivered.add(1);
                    received.goes_to(entry.member());
                    // SAFETY: of this type, and we are in it.
                    unsafe { handler.as_mut() }.handle(received);
                    drop(entered);
                })
            }
            _ => {
                drop(entered);
                deliver_other(entry, calls, received)
            }
        }
    })
}
