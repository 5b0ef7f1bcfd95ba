//! Named full fences. `SeqCst` appears in this file and nowhere else.
//!
//! ```text
//!   side one: write X ── full() ── read Y        at least one side sees
//!   side two: write Y ── full() ── read X        the other's write
//! ```
//!
//! Where one side runs at every delivery and the other a few times a second, the first uses `light()` and the
//! second `heavy()`: together they are as two `full()` ones. `heavy()` makes every thread of the process
//! pass a full fence (Linux: membarrier), so that `light()` costs nothing; where the system has no such
//! call, both are full ones.
//!
//! Guarantees: two `full()` fences are totally ordered; progress wait-free; cost 6-20 ns each, so
//! they stand on slow paths only. Under ThreadSanitizer, which does not understand fences, a
//! read-modify-write of one shared word takes their place.

/// A full fence: see the picture above.
#[inline]
pub(crate) fn full() {
    #[cfg(not(stasis_tsan))]
    super::raw_fence(super::Ordering::SeqCst);
    #[cfg(stasis_tsan)]
    {
        use super::plain::{AtomicUsize, Ordering};
        static MEETING_POINT: AtomicUsize = AtomicUsize::new(0);
        MEETING_POINT.fetch_add(1, Ordering::AcqRel);
    }
}

/// A full fence right after a read-modify-write of this thread: the same as [`full`], but free
/// where such an instruction already is one (x86).
#[inline]
pub(crate) fn after_rmw() {
    #[cfg(all(target_arch = "x86_64", not(loom), not(stasis_tsan)))]
    std::sync::atomic::compiler_fence(super::Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(loom), not(stasis_tsan))))]
    full();
}

/// Whether [`light`] has to be followed by a full fence. Ask once for many of them. Cost: a load.
#[inline]
pub(crate) fn light_is_full() -> bool {
    #[cfg(any(loom, stasis_tsan))]
    return true;
    #[cfg(not(any(loom, stasis_tsan)))]
    {
        use std::sync::LazyLock;
        static REGISTERED: LazyLock<bool> = LazyLock::new(super::membarrier::register);
        !*REGISTERED
    }
}

/// The side of [`heavy`] that runs often; nothing but a bar to the compiler, so a [`full`] one has to follow where
/// [`light_is_full`] says so.
#[inline(always)]
pub(crate) fn light() {
    #[cfg(not(loom))]
    std::sync::atomic::compiler_fence(super::Ordering::SeqCst);
}

/// The side of [`light`] that runs seldom. Cost 1-10 us.
#[cold]
pub(crate) fn heavy() {
    #[cfg(not(any(loom, stasis_tsan)))]
    if !light_is_full() {
        assert!(super::membarrier::fence_all(), "membarrier was registered");
        return;
    }
    full();
}
