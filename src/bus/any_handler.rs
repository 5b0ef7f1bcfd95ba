//! A handler of any type, and the loop that calls neighbours of one type.
//!
//! ```text
//!   row of a list: A A A B A ─► loop of A: three calls ─► loop of B: one ─► loop of A: one
//! ```
//!
//! Subscriptions made at one place of a program have handlers of one type. A loop that is made for the type needs no
//! table to call them, and their code stands in it: at 64 subscribers 17 % more deliveries than a call through a table
//! for each.
//!
//! Guarantees: those of a walk (`exec/walk`); a handler is dropped once, as what it is. Cost: for a handler whose
//! neighbours have other types, that of a call through a table and a comparison.
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

/// Serves the first of a row and those behind it of its type: how many they were.
type Serve = for<'a> unsafe fn(&'a [Entry<Subscriber>], &Calls<'_>, &mut Received<'a>) -> ControlFlow<(), usize>;

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
#[inline]
pub(super) fn deliver<'a>(
    mut row: &'a [Entry<Subscriber>],
    calls: &Calls<'_>,
    received: &mut Received<'a>,
) -> ControlFlow<()> {
    while let Some(first) = row.first() {
        let served = match first.post().handler.enter_alone(calls.alone()) {
            // SAFETY: made for the type of the first one's handler.
            Some(Some(handler)) => unsafe { (handler.of.serve)(row, calls, received) }?,
            Some(None) => {
                first.post().note_late();
                1
            }
            None => 1,
        };
        row = row.get(served..).unwrap_or_default();
    }
    ControlFlow::Continue(())
}

/// See [`Serve`].
///
/// # Safety
/// The first of the row has a handler of the type `H`.
unsafe fn serve<'a, H: Handler>(
    row: &'a [Entry<Subscriber>],
    calls: &Calls<'_>,
    received: &mut Received<'a>,
) -> ControlFlow<(), usize> {
    let mut rest = row.iter();
    let mut first = None;
    while let Some(entry) = rest.next() {
        let post = entry.post();
        let of_that_type = match post.handler.enter_alone(calls.alone()) {
            Some(Some(handler)) if ptr::eq(*first.get_or_insert(handler.of), handler.of) => handler.place.address(),
            // Another type, or none: `deliver` goes on there.
            _ => return ControlFlow::Continue(row.len() - rest.len() - 1),
        };
        calls.make(post.id, || {
            post.delivered.add(1);
            received.goes_to(entry.member());
            // SAFETY: of the type of the first, and nobody is in (`calls`).
            unsafe { of_that_type.cast::<H>().as_mut() }.handle(received);
        })?;
    }
    ControlFlow::Continue(row.len())
}
