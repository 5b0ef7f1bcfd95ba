//! A lane's part of a subscriber list, and the dispatch that carries it through the ring.
//!
//! ```text
//!   snapshot ─► Part (counted) ─┐
//!   snapshot ─► Part (counted) ─┴► Held: lane, audience ◄── dispatch in the ring (not counted)
//!   last Part dropped ─► Retire(Held) behind all those dispatches ─► freed by the lane
//! ```
//!
//! Publishers bump no count: a dispatch holds a bare pointer. That is sound by construction:
//! [`Part::push`] finishes its push while it borrows the part, so when the last `Part` is dropped
//! every dispatch that points to the list is in the ring or beside it; the retire entry then comes
//! behind all of them, and the lane frees the list only when it gets there. A worker
//! that is inside a handler (waiting, and helping out meanwhile) frees nothing: see `worker`.
//!
//! Guarantees: what a dispatch points to lives until the lane has passed it; cost of a push: none
//! beyond the ring's. Model: `loom-tests/tests/part.rs`.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::audience::Audience;
use super::lane::{Control, Lane, Member};
use crate::message::Message;
use crate::ring::Entry;
use crate::sync::{Arc, AtomicUsize, Ordering};

/// The list and its lane: where dispatches point.
pub(crate) struct Held<M: Member> {
    lane: Arc<Lane<M>>,
    audience: Audience<M>,
    /// `Part`s that name it.
    parts: AtomicUsize,
}

/// Lists whose lanes are given a place each before the first is filled: more than there are lanes.
const ROW: usize = 256;

/// A counted reference from a snapshot.
pub(crate) struct Part<M: Member>(Option<Arc<Held<M>>>);

impl<M: Member> Part<M> {
    /// A list on a lane.
    pub(crate) fn new(lane: Arc<Lane<M>>, audience: Audience<M>) -> Self {
        Self(Some(Arc::new(Held { lane, audience: audience.ready(), parts: AtomicUsize::new(1) })))
    }

    #[inline]
    fn held(&self) -> &Arc<Held<M>> {
        self.0.as_ref().expect("taken in drop only")
    }

    /// The lane.
    #[inline]
    pub(crate) fn lane(&self) -> &Arc<Lane<M>> {
        &self.held().lane
    }

    /// The list.
    #[inline]
    pub(crate) fn audience(&self) -> &Audience<M> {
        &self.held().audience
    }

    /// Queues the message for the list's members.
    #[inline(always)]
    pub(crate) fn push(&self, message: Message) {
        self.lane().push(self.dispatch(message));
    }

    /// As [`push`](Self::push), for what must get through: while the queue is full it goes beside it, at the
    /// same place in the order, because the end of a full ring has no room but what the worker makes. False: too
    /// many are beside it, it is lost. Keep a clone while pinned: the message may be dropped here.
    pub(crate) fn push_through(&self, message: Message) -> bool {
        if self.lane().is_full() {
            return self.lane().push_beside(self.dispatch(message));
        }
        self.push(message);
        true
    }

    /// Queues the message for the members of all these lists: what one of them publishes when it has got it comes
    /// behind it on all their lanes.
    ///
    /// All places are taken before the first is filled, so nobody has the message while it has no place in some
    /// lane's order. (Of more lists than [`ROW`]: a row after the other.) The message back: there are no lists. Model:
    /// `part.rs`, `an_answer_comes_behind_its_question`.
    #[inline]
    pub(crate) fn push_each<'a>(parts: &mut impl Iterator<Item = &'a Self>, message: Message) -> Result<(), Message> {
        let mut next = parts.next();
        while let Some(first) = next {
            let place = first.lane().claim();
            next = Self::push_row(parts, &message, ROW);
            if next.is_none() {
                first.lane().fill(place, first.dispatch(message));
                return Ok(());
            }
            first.lane().fill(place, first.dispatch(message.clone()));
        }
        Err(message)
    }

    /// The rest of a row, with its places on the stack; the first that is not in it.
    fn push_row<'a>(parts: &mut impl Iterator<Item = &'a Self>, message: &Message, left: usize) -> Option<&'a Self> {
        let part = parts.next()?;
        if left == 0 {
            return Some(part);
        }
        let place = part.lane().claim();
        let next = Self::push_row(parts, message, left - 1);
        part.lane().fill(place, part.dispatch(message.clone()));
        next
    }

    #[inline(always)]
    fn dispatch(&self, message: Message) -> Dispatch<M> {
        let held = NonNull::new(Arc::as_ptr(self.held()).cast_mut()).expect("an Arc is not null");
        Dispatch { message, held }
    }
}

impl<M: Member> Clone for Part<M> {
    fn clone(&self) -> Self {
        let held = self.held();
        held.parts.fetch_add(1, Ordering::Relaxed);
        Self(Some(Arc::clone(held)))
    }
}

impl<M: Member> Drop for Part<M> {
    fn drop(&mut self) {
        let Some(held) = self.0.take() else { return };
        // AcqRel: the pushes through other parts come before the retiring.
        if held.parts.fetch_sub(1, Ordering::AcqRel) == 1 {
            let lane = Arc::clone(&held.lane);
            // A closed lane has no dispatches left: what it hands back is dropped here.
            drop(lane.control(Control::Retire(held)));
        }
    }
}

/// A message on its way to one lane's members.
pub(crate) struct Dispatch<M: Member> {
    message: Message,
    /// Lives until the lane has passed this dispatch: see the module.
    held: NonNull<Held<M>>,
}

// SAFETY: a dispatch is a message and a reference to a `Held`, both shareable.
unsafe impl<M: Member> Send for Dispatch<M> {}

impl<M: Member> Entry for Dispatch<M> {
    #[inline]
    fn into_words(self) -> (NonNull<()>, *const ()) {
        (self.message.into_raw(), self.held.as_ptr().cast_const().cast())
    }

    #[inline]
    unsafe fn from_words(first: NonNull<()>, second: *const ()) -> Self {
        // SAFETY: `first` comes from the `into_raw` above, used once as the caller promises.
        let message = unsafe { Message::from_raw(first) };
        let held = NonNull::new(second.cast_mut().cast()).expect("a dispatch names its list");
        Self { message, held }
    }
}

impl<M: Member> Dispatch<M> {
    /// The message, and whom to give it to.
    #[inline]
    pub(super) fn open(self) -> (Message, Target<M>) {
        (self.message, Target(self.held))
    }
}

/// The list of a dispatch that its lane is working on.
pub(super) struct Target<M: Member>(NonNull<Held<M>>);

impl<M: Member> Clone for Target<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Member> Copy for Target<M> {}

impl<M: Member> Target<M> {
    /// The list.
    ///
    /// # Safety
    /// The caller is the lane's worker, and has freed no list retired behind the dispatch this
    /// came from.
    #[inline]
    pub(super) unsafe fn audience<'a>(self) -> &'a Audience<M> {
        // SAFETY: the module's argument; the caller promises the lane's half of it.
        unsafe { &(*self.0.as_ptr()).audience }
    }

    /// A counted reference to the list, for a worker that loses the lane in the middle of it.
    ///
    /// # Safety
    /// As [`audience`](Self::audience).
    pub(super) unsafe fn keep(self) -> Arc<Held<M>> {
        let held = self.0.as_ptr().cast_const();
        // SAFETY: the pointer is that of an `Arc` (`push`), alive as the caller promises.
        unsafe { Arc::increment_strong_count(held) };
        // SAFETY: as above; the count was taken for this reference.
        unsafe { Arc::from_raw(held) }
    }
}
