//! A small number for each living thread, so that counters can be written without sharing a line.
//!
//! ```text
//!   thread A ─► slot 0 (its own)     127 slots of their own; a thread that finds none free
//!   thread B ─► slot 1 (its own)     shares slot 127 with others and counts with atomic adds
//! ```
//!
//! Guarantees: two living threads never both own one slot; a slot is given back when its thread
//! ends, and the next owner sees all its predecessor wrote (Acquire/Release on the bitmap). Cost:
//! one bit set per thread life, then a thread-local read. No registration, nothing to free.

use std::cell::Cell;

use super::plain::{AtomicU64, Ordering};

/// Number of slots; the last one is shared.
pub(crate) const SLOTS: usize = 128;
const SHARED: usize = SLOTS - 1;

static TAKEN: [AtomicU64; SLOTS / 64] = [const { AtomicU64::new(0) }; SLOTS / 64];

/// Where this thread counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

impl Slot {
    /// Position in an array of [`SLOTS`].
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// Whether no other living thread writes to this slot.
    #[inline]
    pub(crate) fn is_own(self) -> bool {
        self.0 != SHARED
    }
}

struct Lease(Slot);

impl Lease {
    fn take() -> Self {
        for (word, bits) in TAKEN.iter().enumerate() {
            let mut seen = bits.load(Ordering::Relaxed);
            loop {
                let bit = (!seen).trailing_zeros() as usize;
                let index = word * 64 + bit;
                if bit >= 64 || index >= SHARED {
                    break;
                }
                // Acquire: meets the Release in `drop`, so plain counting goes on where the
                // last owner of the slot stopped.
                match bits.compare_exchange_weak(seen, seen | 1 << bit, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => return Self(Slot(index)),
                    Err(current) => seen = current,
                }
            }
        }
        Self(Slot(SHARED))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Slot(index) = self.0;
        // What the thread counts while it ends goes to the shared one.
        let _ = CURRENT.try_with(|current| current.set(SHARED));
        if index != SHARED {
            // Release: see `take`.
            TAKEN[index / 64].fetch_and(!(1 << (index % 64)), Ordering::Release);
        }
    }
}

thread_local! {
    static LEASE: Lease = Lease::take();
    /// What `LEASE` says: a load to read, where that one asks whether it is alive.
    static CURRENT: Cell<usize> = const { Cell::new(SLOTS) };
}

/// The calling thread's slot; the shared one while the thread is ending.
#[inline]
pub(crate) fn current() -> Slot {
    let index = CURRENT.get();
    if index < SLOTS { Slot(index) } else { lease() }
}

#[cold]
fn lease() -> Slot {
    let slot = LEASE.try_with(|lease| lease.0).unwrap_or(Slot(SHARED));
    CURRENT.set(slot.0);
    slot
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn living_threads_never_share_an_own_slot() {
        let gate = Barrier::new(8);
        let mut seen: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let slot = current();
                        gate.wait();
                        slot
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).filter(|s| s.is_own()).map(Slot::index).collect()
        });
        let taken = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), taken);
    }

    #[test]
    fn a_slot_is_reused_after_its_thread_ended() {
        for _ in 0..4 * SLOTS {
            assert!(std::thread::spawn(current).join().unwrap().index() < SLOTS);
        }
        assert!(std::thread::spawn(current).join().unwrap().is_own());
    }
}
