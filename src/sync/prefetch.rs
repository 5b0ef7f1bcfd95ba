//! Asking for cache lines before they are needed: hints, without effect on what a program does.
//!
//! A line that another core wrote last takes 50-100 ns to come; who knows the address early asks early.
//!
//! Guarantees: any address may be asked for, also one that is not mapped; cost: an instruction; nothing where the
//! processor is neither x86-64 nor AArch64, nor in models.
#![allow(unsafe_code)]

/// Whether asking does anything here.
pub(crate) const WORKS: bool = cfg!(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(any(loom, miri))));

/// Asks for the line at an address, to read it.
#[inline(always)]
pub(crate) fn to_read(at: *const ()) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    // SAFETY: a hint: touches no memory, and takes any address.
    unsafe {
        std::arch::asm!("prefetcht0 [{0}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(loom, miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = at;
}

/// Asks for the line at an address, to write it.
#[inline(always)]
pub(crate) fn to_write(at: *const ()) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    // SAFETY: as above; processors without this instruction pass over it.
    unsafe {
        std::arch::asm!("prefetchw [{0}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(loom, miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = at;
}
