//! Named full fences. `SeqCst` appears in this file and nowhere else.
//!
//! ```text
//!   side one: write X ── full() ── read Y        at least one side sees
//!   side two: write Y ── full() ── read X        the other's write
//! ```
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
