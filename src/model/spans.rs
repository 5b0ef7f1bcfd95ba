//! The memory of message blocks.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::message::span::{self, ALIGN, Span};

/// A block of a span.
pub struct Block {
    first: NonNull<u8>,
    place: usize,
}

// SAFETY: one of them a block, and each gives its own up.
unsafe impl Send for Block {}

/// A span of two blocks.
pub fn span_of_two() -> [Block; 2] {
    let first = span::allocate(ALIGN, 2).expect("there is memory");
    [0, 1].map(|place| Block { first, place })
}

impl Block {
    /// True: it was the last one.
    pub fn give_up(self) -> bool {
        // SAFETY: in the span.
        let block = unsafe { self.first.add(self.place * ALIGN) };
        // SAFETY: it is at that place.
        let span = unsafe { Span::of(block, self.place, ALIGN) };
        // SAFETY: one of them a block, and this one is used up.
        unsafe { span.give_up(1) }
    }
}
