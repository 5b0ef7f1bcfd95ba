//! Memory of messages, handed back to the thread that allocates and used again.
//!
//! ```text
//!   publishing thread                                lane (or whoever drops the last reference)
//!   ┌ Pool (thread-local) ┐                          ┌ Outbox (thread-local, lanes only) ┐
//!   │ free lists by class │◄── same thread: a list   │ up to 128 blocks per owner        │
//!   │ incoming chain      │                          └──────────────┬────────────────────┘
//!   └──────▲──────────────┘                                          │ one CAS a batch
//!          └── swap(null) ─────── Remote.returned ◄──────────────────┘
//! ```
//!
//! A message made here and freed elsewhere costs an allocator several times its usual price. So
//! blocks go back to the pool they came from, in batches, and are used again. New ones come from the
//! allocator in batches too, and are handed out crosswise (`Pool::grow`), while there are few; from then on side by side
//! ([`bulk`](super::bulk)).
//!
//! When the thread ends it closes `Remote.returned` and frees what it has; blocks still out are freed
//! by their last holders, and the last of these frees the `Remote` (`orphans` reaches zero once the
//! thread has added the number of blocks out and each of them was subtracted).
//!
//! Guarantees: a block is reused only after its last reference is gone; at most [`POOL_BYTES`] of blocks of a size wait
//! in a pool and as much again on their way to it, about (not counting gaps; what they keep besides: see `span`, `bulk`); a thread that ended leaves
//! nothing behind; no lock; threads whose thread-locals are gone use the allocator. Cost: a few
//! instructions per block on the owner, one exchange per batch on the lane; a publish that finds the pool empty calls the
//! allocator up to 32 times (some 10 us with the page faults, as often as it has grown). Models:
//! `loom-tests/tests/memory.rs`.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};

use super::block::Header;
use super::bulk::Supply;
use super::span::{self, ALIGN, Span};
use crate::sync::{AtomicIsize, AtomicPtr, AtomicUsize, Ordering, local, prefetch, scaled};

/// Block sizes that are recycled, in bytes, header included.
const CLASSES: [usize; 7] = [64, 128, 192, 256, 384, 512, 1024];
/// Blocks that come from the allocator together.
const SPAN: usize = scaled(8, 1);
/// Lines between two blocks that nobody uses: what a processor fetches because it lies beside. Without them everything
/// between distant cores takes twice as long; with one, 1->1 is 5 % slower.
const GAP: usize = 2 * ALIGN;
/// Bytes of blocks a pool keeps per size class; and of those that are made for it crosswise.
const POOL_BYTES: usize = 1 << 20;
/// Blocks a lane gathers for one owner before it hands them over.
const BATCH: usize = 128;
/// How many blocks ahead an owner asks for the lines of those that came back: the lane had them last.
const AHEAD: usize = 4;
/// Blocks a pool takes from the allocator at a time (a power of two), and at first; and bytes of
/// blocks at most, about.
const GROWTH: usize = scaled(256, 1);
const FIRST_GROWTH: usize = scaled(8, 1);
const GROWTH_BYTES: usize = 1 << 16;
/// Owners a lane gathers for at a time (by address, which a model must not depend on).
const OUTBOX: usize = scaled(8, 1);

/// Where a block's memory comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// The class, and whether it is in [`BULK`].
    kind: u8,
    /// Which one of its span.
    place: u8,
}

/// Mark of blocks from a span of [`bulk`](super::bulk).
const BULK: u8 = 1 << 6;

impl Origin {
    /// From the allocator, and straight back to it.
    const SYSTEM: Self = Self { kind: u8::MAX, place: 0 };

    #[inline]
    fn class(self) -> u8 {
        self.kind & !BULK
    }

    /// Bytes from the block to the next one of its span.
    fn stride(self) -> usize {
        if self.kind & BULK == 0 { class_stride(self.kind) } else { Supply::stride(CLASSES[self.class() as usize]) }
    }
}

fn class_of(layout: Layout) -> Option<u8> {
    if layout.align() > ALIGN {
        return None;
    }
    CLASSES.iter().position(|&size| layout.size() <= size).map(|class| class as u8)
}

/// Bytes from a block of the class to the next one of its span, if it was made crosswise.
fn class_stride(class: u8) -> usize {
    CLASSES[class as usize] + GAP
}

/// Blocks of the class that a pool keeps.
fn class_limit(class: u8) -> usize {
    const LIMITS: [usize; CLASSES.len()] = {
        let mut limits = CLASSES;
        let mut at = 0;
        while at < limits.len() {
            limits[at] = scaled(POOL_BYTES / CLASSES[at], 3);
            at += 1;
        }
        limits
    };
    LIMITS[class as usize]
}

/// Which pool a block belongs to; null: none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner(*const Remote);

impl Owner {
    const NONE: Self = Self(ptr::null());
}

/// The part of a pool that other threads reach. Lives until the thread has ended and every block of
/// the pool is back or freed.
struct Remote {
    /// Blocks on their way back, or [`closed`].
    returned: AtomicPtr<Header>,
    /// About how many that are.
    waiting: AtomicUsize,
    /// After closing: blocks still out. Before: minus those already freed by others.
    orphans: AtomicIsize,
}

fn closed() -> *mut Header {
    ptr::without_provenance_mut(1)
}

/// The owner's half.
struct Pool {
    remote: *const Remote,
    free: [Cell<*mut Header>; CLASSES.len()],
    counts: [Cell<usize>; CLASSES.len()],
    /// Blocks of each class that were made crosswise.
    made: [Cell<usize>; CLASSES.len()],
    bulk: [Supply; CLASSES.len()],
    incoming: Cell<*mut Header>,
    /// Blocks handed out and not come back.
    out: Cell<usize>,
}

/// Blocks of one owner, linked through `next`, and to the one [`AHEAD`] places further on through `ahead`.
#[derive(Clone, Copy)]
struct Chain {
    owner: Owner,
    head: *mut Header,
    tail: *mut Header,
    len: usize,
    /// Those added last.
    last: [*mut Header; AHEAD],
}

impl Chain {
    const EMPTY: Self = Self {
        owner: Owner::NONE,
        head: ptr::null_mut(),
        tail: ptr::null_mut(),
        len: 0,
        last: [ptr::null_mut(); AHEAD],
    };

    /// Adds a block of its owner in front.
    #[inline]
    fn add(&mut self, block: *mut Header) {
        link(block, self.head);
        set_ahead(block, std::mem::replace(&mut self.last[self.len % AHEAD], block));
        if self.len == 0 {
            self.tail = block;
        }
        self.head = block;
        self.len += 1;
    }
}

/// A lane's gathered blocks.
struct Outbox {
    on: Cell<bool>,
    chains: UnsafeCell<[Chain; OUTBOX]>,
}

local! {
    static POOL: Pool = Pool::new();
    static OUTBOX_OF_LANE: Outbox = const { Outbox { on: Cell::new(false), chains: UnsafeCell::new([Chain::EMPTY; OUTBOX]) } };
}

/// Memory for a block: pointer (`None`: out of memory), the pool it goes back to, where it comes from.
#[inline]
pub(super) fn allocate(layout: Layout) -> (Option<NonNull<Header>>, Owner, Origin) {
    if let Some(class) = class_of(layout)
        && let Ok((memory, owner)) = POOL.try_with(|pool| (pool.take(class), Owner(pool.remote)))
    {
        return (memory, owner, memory.map_or(Origin::SYSTEM, |block| origin_of(block.as_ptr())));
    }
    (system_allocate(layout), Owner::NONE, Origin::SYSTEM)
}

/// Gives a block's memory back.
///
/// # Safety
/// The block came from [`allocate`] with this layout, its header is initialised, nothing refers to it.
#[inline]
pub(super) unsafe fn release(block: NonNull<Header>, layout: Layout) {
    // SAFETY: initialised, as the caller promises.
    let header = unsafe { block.as_ref() };
    let owner = header.owner;
    if header.origin == Origin::SYSTEM {
        // SAFETY: allocated with its own layout.
        unsafe { system_free(block, layout) };
        return;
    }
    let is_ours = |pool: &Pool| Owner(pool.remote) == owner;
    if POOL.try_with(|pool| is_ours(pool).then(|| pool.keep(block)).is_some()).unwrap_or(false) {
        return;
    }
    let gathered = OUTBOX_OF_LANE.try_with(|outbox| outbox.gather(owner, block)).unwrap_or(false);
    if !gathered {
        let mut chain = Chain { owner, ..Chain::EMPTY };
        chain.add(block.as_ptr());
        chain.hand_over();
    }
}

/// From now on this thread hands blocks over in batches; it must call [`flush`] before it sleeps.
pub(crate) fn gather_on_this_thread() {
    OUTBOX_OF_LANE.with(|outbox| outbox.on.set(true));
}

/// Hands over all gathered blocks.
pub(crate) fn flush() {
    let _ = OUTBOX_OF_LANE.try_with(Outbox::flush);
}

fn system_allocate(layout: Layout) -> Option<NonNull<Header>> {
    // SAFETY: no layout of a block is empty: the header alone is 64 bytes.
    NonNull::new(unsafe { alloc::alloc(layout) }.cast())
}

/// # Safety
/// The block came from `system_allocate(layout)` and nothing refers to it.
unsafe fn system_free(block: NonNull<Header>, layout: Layout) {
    // SAFETY: as the caller promises.
    unsafe { alloc::dealloc(block.as_ptr().cast(), layout) }
}

/// # Safety
/// The block has a class and is not given up.
unsafe fn span_of(block: NonNull<Header>) -> Span {
    let origin = origin_of(block.as_ptr());
    // SAFETY: `grow` and `beyond` have written down which one of which span it is.
    unsafe { Span::of(block.cast(), usize::from(origin.place), origin.stride()) }
}

/// Of a block with a class. (Of one that was never used, this and the link are there, and nothing else.)
fn origin_of(block: *mut Header) -> Origin {
    // SAFETY: as in `next_of`.
    unsafe { (*block).origin }
}

/// Writes down where a fresh block, no smaller than a header, comes from: what a list needs of a header.
fn set_origin(block: *mut Header, origin: Origin) {
    // SAFETY: within the block, which is ours alone.
    let place = unsafe { &raw mut (*block).origin };
    // SAFETY: as above.
    unsafe { place.write(origin) };
}

/// Gives blocks up; how many they were.
///
/// # Safety
/// They have classes, nothing refers to them, and none is given up twice. Their links are read before they are handed over.
unsafe fn give_up(blocks: impl Iterator<Item = NonNull<Header>>) -> usize {
    let spans = blocks.map(|block| {
        // SAFETY: as the caller promises.
        unsafe { span_of(block) }
    });
    // SAFETY: as the caller promises.
    unsafe { span::give_up_all(spans) }
}

fn next_of(block: *mut Header) -> *mut Header {
    // SAFETY: blocks in lists keep their initialised header, and the list's holder owns them.
    let link = unsafe { &(*block).next };
    link.with(|next| {
        // SAFETY: as above.
        unsafe { *next }
    })
}

/// A block further on in the list than the next one, or null: an address to ask for.
fn ahead_of(block: *mut Header) -> *mut Header {
    // SAFETY: as in `next_of`.
    let moment = unsafe { &(*block).moment };
    moment.with(|ahead| {
        // SAFETY: as in `next_of`; what came back has it from `set_ahead`.
        ptr::without_provenance_mut(unsafe { *ahead } as usize)
    })
}

fn set_ahead(block: *mut Header, ahead: *mut Header) {
    // SAFETY: as in `next_of`.
    let moment = unsafe { &(*block).moment };
    moment.with_mut(|place| {
        // SAFETY: as in `next_of`.
        unsafe { *place = ahead.addr() as u64 };
    });
}

/// Asks for the first two lines of a block that is going to be written soon: somebody else had them last.
#[inline]
fn expect(block: *mut Header) {
    prefetch::to_write(block.cast_const().cast());
    prefetch::to_write(block.wrapping_byte_add(ALIGN).cast_const().cast());
}

fn link(block: *mut Header, next: *mut Header) {
    // SAFETY: as in `next_of`.
    let link = unsafe { &(*block).next };
    link.with_mut(|place| {
        // SAFETY: as in `next_of`.
        unsafe { *place = next };
    });
}

impl Pool {
    fn new() -> Self {
        let remote = Remote {
            returned: AtomicPtr::new(ptr::null_mut()),
            waiting: AtomicUsize::new(0),
            orphans: AtomicIsize::new(0),
        };
        Self {
            remote: Box::into_raw(Box::new(remote)),
            free: Default::default(),
            counts: Default::default(),
            made: Default::default(),
            bulk: CLASSES.map(Supply::new),
            incoming: Cell::new(ptr::null_mut()),
            out: Cell::new(0),
        }
    }

    fn remote(&self) -> &Remote {
        // SAFETY: lives at least as long as the pool: see `Remote`.
        unsafe { &*self.remote }
    }

    #[inline]
    fn take(&self, class: u8) -> Option<NonNull<Header>> {
        let list = &self.free[class as usize];
        let block = match NonNull::new(list.get()) {
            Some(block) => {
                let next = next_of(block.as_ptr());
                expect(next);
                list.set(next);
                let count = &self.counts[class as usize];
                count.set(count.get() - 1);
                block
            }
            None => match self.take_incoming(class) {
                Some(block) => block,
                None if self.made[class as usize].get() < class_limit(class) => self.grow(class)?,
                None => self.beyond(class)?,
            },
        };
        self.out.set(self.out.get() + 1);
        Some(block)
    }

    /// A new block, when there are many.
    #[cold]
    fn beyond(&self, class: u8) -> Option<NonNull<Header>> {
        let (block, place) = self.bulk[class as usize].take()?;
        let block = block.cast::<Header>();
        set_origin(block.as_ptr(), Origin { kind: class | BULK, place });
        Some(block)
    }

    /// A returned block of the class; others met on the way go to their lists. (Apart: inlined, it makes everything from 20 to
    /// 45 % slower, with fewer instructions.)
    #[inline(never)]
    fn take_incoming(&self, class: u8) -> Option<NonNull<Header>> {
        if self.incoming.get().is_null() {
            let remote = self.remote();
            if remote.returned.load(Ordering::Relaxed).is_null() {
                return None;
            }
            // Acquire: meets the Release in `hand_over`; the blocks are ours with all that was in them.
            self.incoming.set(remote.returned.swap(ptr::null_mut(), Ordering::Acquire));
            remote.waiting.store(0, Ordering::Relaxed);
        }
        while let Some(block) = NonNull::new(self.incoming.get()) {
            let next = next_of(block.as_ptr());
            // Where a chain ends nothing is known of the one behind it but its first block.
            let ahead = ahead_of(block.as_ptr());
            expect(if ahead.is_null() { next } else { ahead });
            self.incoming.set(next);
            if origin_of(block.as_ptr()).class() == class {
                self.out.set(self.out.get() - 1);
                return Some(block);
            }
            self.keep(block);
        }
        None
    }

    /// New blocks: one to use, the others for the list, crosswise.
    ///
    /// Processors fetch the neighbours of what is used: lines that another core is writing or reading just then, if
    /// messages made after each other lie side by side. Taken by bit-reversed numbers, neighbours are far from each
    /// other in time.
    #[cold]
    fn grow(&self, class: u8) -> Option<NonNull<Header>> {
        let most = if self.out.get() < FIRST_GROWTH { FIRST_GROWTH } else { GROWTH };
        let stride = class_stride(class);
        let mut blocks = [ptr::null_mut::<Header>(); GROWTH];
        let mut got = 0;
        while got < most.min(GROWTH_BYTES / CLASSES[class as usize])
            && let Some(first) = span::allocate(stride, SPAN)
        {
            for place in 0..SPAN {
                let block = first.cast::<Header>().as_ptr().wrapping_byte_add(place * stride);
                set_origin(block, Origin { kind: class, place: place as u8 });
                blocks[got + place] = block;
            }
            got += SPAN;
        }
        let first = NonNull::new(blocks[0])?;
        let list = &self.free[class as usize];
        for n in 1..GROWTH {
            let at = n.reverse_bits().wrapping_shr(usize::BITS - GROWTH.trailing_zeros());
            if at < got {
                let block = blocks[at];
                // SAFETY: fresh memory of the class, which is no smaller than a header.
                let its_next = unsafe { &raw mut (*block).next };
                // SAFETY: as above.
                unsafe { its_next.write(crate::sync::UnsafeCell::new(list.replace(block))) };
            }
        }
        let (made, count) = (&self.made[class as usize], &self.counts[class as usize]);
        made.set(made.get() + got);
        count.set(count.get() + got - 1);
        Some(first)
    }

    /// Puts a block that was out into its list, or gives it up if the list is long enough.
    #[inline]
    fn keep(&self, block: NonNull<Header>) {
        let class = origin_of(block.as_ptr()).class();
        let count = &self.counts[class as usize];
        self.out.set(self.out.get() - 1);
        if count.get() >= class_limit(class) {
            // SAFETY: classed, and ours.
            unsafe { give_up([block].into_iter()) };
        } else {
            link(block.as_ptr(), self.free[class as usize].replace(block.as_ptr()));
            count.set(count.get() + 1);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let free_list = |mut head: *mut Header| {
            let blocks = std::iter::from_fn(|| {
                let block = NonNull::new(head)?;
                head = next_of(head);
                Some(block)
            });
            // SAFETY: classed, and ours.
            unsafe { give_up(blocks) }
        };
        for list in &self.free {
            free_list(list.get());
        }
        // AcqRel: Acquire meets `hand_over`; Release: those who see "closed" see a whole `Remote`.
        let returned = self.remote().returned.swap(closed(), Ordering::AcqRel);
        let back = free_list(self.incoming.get()) + free_list(returned);
        let out = (self.out.get() - back) as isize;
        // AcqRel: whoever brings it to zero sees all others done. Zero can only be reached after this
        // add, since before it only subtractions happened.
        if self.remote().orphans.fetch_add(out, Ordering::AcqRel) + out == 0 {
            // SAFETY: no block of this pool exists any more, so nobody can come to the remote.
            drop(unsafe { Box::from_raw(self.remote.cast_mut()) });
        }
    }
}

impl Chain {
    /// Hands the blocks to their owner; gives them up if it has ended or has enough.
    fn hand_over(self) {
        // SAFETY: our blocks are out of that pool, which keeps its remote alive until they are
        // accounted for.
        let remote = unsafe { &*self.owner.0 };
        let mut head = remote.returned.load(Ordering::Relaxed);
        let class = origin_of(self.head).class();
        if head != closed() && remote.waiting.load(Ordering::Relaxed) < class_limit(class) {
            // Before the exchange: after it the remote may be gone.
            remote.waiting.fetch_add(self.len, Ordering::Relaxed);
            while head != closed() {
                link(self.tail, head);
                // Release: our last uses of the blocks; meets the swaps in `Pool`.
                match remote.returned.compare_exchange_weak(head, self.head, Ordering::Release, Ordering::Relaxed) {
                    Ok(_) => return,
                    Err(current) => head = current,
                }
            }
        }
        // The owner has ended, or has enough.
        self.free_blocks();
        self.settle(remote);
    }

    fn free_blocks(self) {
        let mut next = self.head;
        let blocks = (0..self.len).map(|_| {
            let block = NonNull::new(next).expect("a chain has `len` blocks");
            next = next_of(next);
            block
        });
        // SAFETY: classed, and ours.
        unsafe { give_up(blocks) };
    }

    /// Tells the remote that `len` blocks are gone for good; the last one frees it.
    fn settle(self, remote: &Remote) {
        let gone = self.len as isize;
        // AcqRel: see `Pool::drop`.
        if remote.orphans.fetch_sub(gone, Ordering::AcqRel) - gone == 0 {
            // SAFETY: see `Pool::drop`: zero means the thread ended and this was the last block.
            drop(unsafe { Box::from_raw(self.owner.0.cast_mut()) });
        }
    }
}

impl Outbox {
    /// Gathers a block; false if this thread does not gather.
    #[inline]
    fn gather(&self, owner: Owner, block: NonNull<Header>) -> bool {
        if !self.on.get() {
            return false;
        }
        // SAFETY: thread-local, and nothing below calls back into the outbox.
        let chains = unsafe { &mut *self.chains.get() };
        let at = (owner.0.addr() >> 5) % chains.len();
        let chain = &mut chains[at];
        if chain.owner != owner && chain.len > 0 {
            std::mem::replace(chain, Chain::EMPTY).hand_over();
        }
        chain.owner = owner;
        chain.add(block.as_ptr());
        if chain.len == BATCH {
            std::mem::replace(chain, Chain::EMPTY).hand_over();
        }
        true
    }

    fn flush(&self) {
        // SAFETY: as in `gather`.
        for chain in unsafe { &mut *self.chains.get() } {
            if chain.len > 0 {
                std::mem::replace(chain, Chain::EMPTY).hand_over();
            }
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.flush();
    }
}
