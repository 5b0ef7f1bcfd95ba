//! The system call behind [`super::fence::heavy`]: a full fence on every thread of the process.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod linux {
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: membarrier takes numbers only and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    /// Registers the process; false: the system has it not.
    pub(crate) fn register() -> bool {
        membarrier(REGISTER_PRIVATE_EXPEDITED)
    }

    /// The fence. Cost 1-10 us.
    pub(crate) fn fence_all() -> bool {
        membarrier(PRIVATE_EXPEDITED)
    }
}

#[cfg(not(target_os = "linux"))]
mod linux {
    pub(crate) fn register() -> bool {
        false
    }

    pub(crate) fn fence_all() -> bool {
        false
    }
}

pub(crate) use linux::{fence_all, register};
