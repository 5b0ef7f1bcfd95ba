//! A lock-free stack that is taken whole and can be closed for good.
//!
//! ```text
//!   many threads: push(value) ─CAS─► head ─► node ─► node ─► null
//!   one taker:    take()      ─swap(null)───► all values, oldest first
//!   one closer:   close()     ─swap(CLOSED)─► all values; later pushes hand theirs back
//! ```
//!
//! Values are never popped one by one, so there is no ABA problem and nothing to reclaim late.
//! It carries control entries to a lane, waiters to a completion and retired snapshots to the
//! reclaimer: places where an allocation per value is affordable.
//!
//! Guarantees: order of pushes kept (`take` returns oldest first); push lock-free, take and close
//! wait-free; a push either is returned by exactly one `take`/`close` or hands the value back;
//! memory one node a value. Models: `loom-tests/tests/stack.rs`.
#![allow(unsafe_code)]

use std::ptr;

use super::{AtomicPtr, Ordering};

struct Node<T> {
    value: T,
    next: *mut Node<T>,
}

/// See the module.
pub(crate) struct ClosableStack<T> {
    /// Null, a list of nodes this stack owns, or [`Self::closed`].
    head: AtomicPtr<Node<T>>,
}

// SAFETY: the stack moves values between threads and never shares one.
unsafe impl<T: Send> Send for ClosableStack<T> {}
// SAFETY: as above; `&ClosableStack` only pushes values in and takes values out.
unsafe impl<T: Send> Sync for ClosableStack<T> {}

impl<T> ClosableStack<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The mark of a closed stack: an address no node has.
    fn closed() -> *mut Node<T> {
        ptr::without_provenance_mut(1)
    }

    /// Puts a value in, or hands it back if the stack is closed.
    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let node = Box::into_raw(Box::new(Node { value, next: ptr::null_mut() }));
        // Acquire (and on failure below): who is handed the value back sees what the closer did before.
        // Of other heads nothing is read. Model: `stack.rs`, `a_push_against_a_close_is_not_lost`.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            if head == Self::closed() {
                // SAFETY: `node` came from `Box::into_raw` above and was not published.
                let node = unsafe { Box::from_raw(node) };
                return Err(node.value);
            }
            // SAFETY: `node` is ours until the exchange below succeeds.
            unsafe { (*node).next = head };
            // Release: publishes the node to the Acquire swap in `take`/`close`; as a
            // read-modify-write it also passes on earlier pushes' release. Acquire on success is for
            // callers that pair a push with another word (lane sleep handshake).
            match self.head.compare_exchange_weak(head, node, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(current) => head = current,
            }
        }
    }

    /// Whether a take would find something (or the stack is closed). May be stale at once.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        // Acquire: pairs with `push`; a lane that sees the mark sees what came before the push.
        !self.head.load(Ordering::Acquire).is_null()
    }

    /// Whether [`close`](Self::close) was called. Sees everything the closer did before.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire: pairs with the Release half of the swap in `close`.
        self.head.load(Ordering::Acquire) == Self::closed()
    }

    /// Takes all values, oldest first. A closed stack stays closed and gives nothing.
    pub(crate) fn take(&self) -> Taken<T> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head.is_null() || head == Self::closed() {
                return Taken(ptr::null_mut());
            }
            // Acquire: meets the Release of every push in the list.
            match self.head.compare_exchange_weak(head, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(taken) => return Self::unlink(taken),
                Err(current) => head = current,
            }
        }
    }

    /// Closes the stack for good and takes what is in it, oldest first.
    pub(crate) fn close(&self) -> Taken<T> {
        // AcqRel: Acquire meets the pushes, Release lets `is_closed` stand for what came before.
        Self::unlink(self.head.swap(Self::closed(), Ordering::AcqRel))
    }

    /// Turns a list round that was swapped out.
    fn unlink(newest: *mut Node<T>) -> Taken<T> {
        let (mut head, mut oldest) = (newest, ptr::null_mut());
        while !head.is_null() && head != Self::closed() {
            // SAFETY: the list was swapped out whole, so this thread alone owns its nodes.
            let next = unsafe { std::mem::replace(&mut (*head).next, oldest) };
            (head, oldest) = (next, head);
        }
        Taken(oldest)
    }
}

/// Values taken out, oldest first; dropped with it if nobody asks for them.
pub(crate) struct Taken<T>(*mut Node<T>);

// SAFETY: it owns the values as a list would.
unsafe impl<T: Send> Send for Taken<T> {}

impl<T> Iterator for Taken<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: the nodes are ours (`unlink`), and each came from `Box::into_raw`.
        let node = unsafe { Box::from_raw(self.0) };
        self.0 = node.next;
        Some(node.value)
    }
}

impl<T> Drop for Taken<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl<T> Drop for ClosableStack<T> {
    fn drop(&mut self) {
        drop(self.close());
    }
}

impl<T> std::fmt::Debug for ClosableStack<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClosableStack").field("marked", &self.is_marked()).finish()
    }
}
