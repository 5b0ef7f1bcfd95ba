//! The one allocation of a message: header, then payload.
//!
//! ```text
//!   ┌ refs │ type │ payload vtable │ moment  │ owner pool │ next │ depth, eid … ┐┌ payload P … ┐
//!   └──────────────────────── 64 bytes ──────────────────────────────────────────┘└────────────┘
//! ```
//!
//! Invariants: `vtable` is that of the payload type the block was made with; `refs` counts the
//! [`BlockRef`]s; whoever takes it from one to zero owns the block alone and drops the payload, the
//! type's count, then the memory, in this order. `next` is used only by the recycler, and `moment` (the time of
//! creation) by it too, while the block carries no message.
//!
//! Guarantees: the payload is dropped once, on the thread of the last reference; a clone is one
//! atomic add, the drop of a sole reference none.
#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::any::TypeId as PayloadId;
use std::ptr::{self, NonNull};

use super::Eid;
use super::recycle::{self, Origin, Owner};
use super::types::{TypeId, TypeSlot};
use crate::clock::Timestamp;
use crate::message::Formatters;
use crate::sync::plain::AtomicU16;
use crate::sync::{AtomicUsize, Ordering, UnsafeCell, prefetch, scaled};

/// Payload behaviour, one static per payload type.
struct PayloadVtable {
    id: PayloadId,
    /// Bytes from the header to the payload.
    offset: usize,
    /// Of the whole block.
    layout: Layout,
    /// Drops the payload in place; `None`: there is nothing to do.
    drop: Option<unsafe fn(*mut u8)>,
}

struct VtableOf<P>(P);

impl<P: 'static> VtableOf<P> {
    const LAYOUT: (Layout, usize) = match Layout::new::<Header>().extend(Layout::new::<P>()) {
        Ok((layout, offset)) => (layout.pad_to_align(), offset),
        Err(_) => panic!("payload too large"),
    };
    const VTABLE: &'static PayloadVtable = &PayloadVtable {
        id: PayloadId::of::<P>(),
        offset: Self::LAYOUT.1,
        layout: Self::LAYOUT.0,
        drop: if std::mem::needs_drop::<P>() { Some(Self::drop_payload) } else { None },
    };

    /// # Safety
    /// `payload` points to a live `P` that nobody uses again.
    unsafe fn drop_payload(payload: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe { ptr::drop_in_place(payload.cast::<P>()) }
    }
}

/// Front of every block.
#[repr(C)]
pub(super) struct Header {
    refs: AtomicUsize,
    kind: &'static TypeSlot,
    vtable: &'static PayloadVtable,
    /// When the message was made ([`Timestamp::raw`]), or, in a chain on its way back, the address of a block further on.
    pub(super) moment: UnsafeCell<u64>,
    /// Pool the memory goes back to.
    pub(super) owner: Owner,
    /// Link in a pool's list; see the module.
    pub(super) next: UnsafeCell<*mut Header>,
    type_id: TypeId,
    /// See [`depth`](super::depth). Only grows.
    depth: AtomicU16,
    formatters: Formatters,
    /// Where the memory comes from.
    pub(super) origin: Origin,
    eid: Option<Eid>,
}

const _: () = assert!(size_of::<Header>() <= scaled(64, usize::MAX), "a line");

/// Counted reference to a block.
pub(super) struct BlockRef(NonNull<Header>);

// SAFETY: payloads are `Send + Sync` (bound of `BlockRef::new`), the header is immutable while
// references exist, but for the atomic count.
unsafe impl Send for BlockRef {}
// SAFETY: as above.
unsafe impl Sync for BlockRef {}

impl BlockRef {
    /// Asks for its first two lines. The first is written too, when a reference goes.
    #[inline]
    pub(super) fn expect(&self) {
        let first = self.0.as_ptr().cast_const().cast();
        prefetch::to_write(first);
        prefetch::to_read(first.wrapping_byte_add(size_of::<Header>()));
    }

    /// A block with one reference. Takes memory of this thread's pool if it has some.
    #[inline]
    pub(super) fn new<P: Send + Sync + 'static>(
        kind: &'static TypeSlot,
        formatters: Formatters,
        eid: Option<Eid>,
        payload: P,
    ) -> Self {
        let vtable = VtableOf::<P>::VTABLE;
        let (memory, owner, origin) = recycle::allocate(vtable.layout);
        let Some(memory) = memory else { handle_alloc_error(vtable.layout) };
        kind.enter();
        let header = Header {
            refs: AtomicUsize::new(1),
            kind,
            vtable,
            moment: UnsafeCell::new(Timestamp::now().raw()),
            owner,
            next: UnsafeCell::new(ptr::null_mut()),
            type_id: kind.id(),
            depth: AtomicU16::new(0),
            formatters,
            origin,
            eid,
        };
        // SAFETY: the memory is fresh, large and aligned enough for header and payload.
        unsafe { memory.write(header) };
        // SAFETY: `offset` lies within the block by construction of the layout.
        let place = unsafe { memory.as_ptr().byte_add(vtable.offset) };
        // SAFETY: as above; the place is aligned for `P`.
        unsafe { place.cast::<P>().write(payload) };
        Self(memory)
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: a counted reference keeps the block alive and its header initialised.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(super) fn type_id(&self) -> TypeId {
        self.header().type_id
    }

    #[inline]
    pub(super) fn formatters(&self) -> Formatters {
        self.header().formatters
    }

    #[inline]
    pub(super) fn created(&self) -> Timestamp {
        self.header().moment.with(|moment| {
            // SAFETY: nobody writes it while there are references.
            Timestamp::from_raw(unsafe { *moment })
        })
    }

    #[inline]
    pub(super) fn depth(&self) -> u16 {
        self.header().depth.load(Ordering::Relaxed)
    }

    /// Makes it at least so deep.
    #[inline]
    pub(super) fn deepen(&self, depth: u16) {
        // Relaxed: who publishes the message publishes its depth with it.
        self.header().depth.fetch_max(depth, Ordering::Relaxed);
    }

    pub(super) fn eid(&self) -> Option<Eid> {
        self.header().eid
    }

    #[inline]
    pub(super) fn kind(&self) -> &'static TypeSlot {
        self.header().kind
    }

    /// The payload, if it is a `P`.
    #[inline]
    pub(super) fn payload<P: 'static>(&self) -> Option<&P> {
        let header = self.header();
        // Nearly always the same static; one type may have several, though (one for each codegen unit).
        if !ptr::eq(header.vtable, VtableOf::<P>::VTABLE) && header.vtable.id != PayloadId::of::<P>() {
            return None;
        }
        // SAFETY: within the block: see `new`; the offset is the same for all blocks with a `P`.
        let place = unsafe { self.0.as_ptr().byte_add(VtableOf::<P>::LAYOUT.1) };
        // SAFETY: the vtable says it is a `P`; it lives as long as the reference.
        Some(unsafe { &*place.cast::<P>() })
    }

    /// Whether both are the same block.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Gives the reference up as a pointer.
    #[inline]
    pub(super) fn into_raw(self) -> NonNull<()> {
        let pointer = self.0.cast();
        std::mem::forget(self);
        pointer
    }

    /// Takes a reference back.
    ///
    /// # Safety
    /// The pointer comes from one `into_raw` and is used once.
    #[inline]
    pub(super) unsafe fn from_raw(pointer: NonNull<()>) -> Self {
        Self(pointer.cast())
    }

    /// The last reference is gone: drop payload, type count, memory.
    fn free(&mut self) {
        /// Gives the memory back even if the payload's destructor panics.
        struct Memory(NonNull<Header>);
        impl Drop for Memory {
            fn drop(&mut self) {
                // SAFETY: header still initialised; this is the sole owner.
                let header = unsafe { self.0.as_ref() };
                let layout = header.vtable.layout;
                header.kind.leave();
                // SAFETY: the block came from `recycle::allocate(layout)` and nothing refers to it.
                unsafe { recycle::release(self.0, layout) };
            }
        }
        let memory = Memory(self.0);
        let vtable = self.header().vtable;
        if let Some(drop) = vtable.drop {
            // SAFETY: within the block: see `new`.
            let place = unsafe { memory.0.as_ptr().byte_add(vtable.offset) };
            // SAFETY: sole owner, payload live, dropped here and nowhere else.
            unsafe { drop(place.cast::<u8>()) };
        }
    }
}

impl Clone for BlockRef {
    #[inline]
    fn clone(&self) -> Self {
        // Relaxed: a reference is made from a reference, as in `Arc`.
        self.header().refs.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Drop for BlockRef {
    #[inline]
    fn drop(&mut self) {
        let refs = &self.header().refs;
        // Acquire: one means nobody else is left who could add; meets the Release of those who left.
        if refs.load(Ordering::Acquire) != 1 {
            // AcqRel: Release for our uses of the payload, Acquire if we are the last after all.
            if refs.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
        }
        self.free();
    }
}
