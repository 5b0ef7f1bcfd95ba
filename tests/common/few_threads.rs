//! Makes the system refuse threads. For tests that are alone in their process: it limits what that may map.
#![allow(unsafe_code)]

/// Bytes of the stack of a thread made by `std`.
pub(crate) const STACK: u64 = 2 << 20;

/// While it lives the process may map so much more than it has.
pub(crate) struct FewThreads(libc::rlimit);

impl FewThreads {
    /// Not one: less than a stack.
    pub(crate) fn none() -> Self {
        let few = Self::with_room(STACK / 2);
        assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "threads can still be made");
        few
    }

    pub(crate) fn with_room(bytes: u64) -> Self {
        let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: fills the struct it is given.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut old) }, 0);
        let pages: u64 =
            std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
        let limit = libc::rlimit { rlim_cur: pages * 4096 + bytes, ..old };
        // SAFETY: reads the struct it is given.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
        Self(old)
    }
}

impl Drop for FewThreads {
    fn drop(&mut self) {
        // SAFETY: reads the struct it is given.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const self.0) }, 0);
    }
}
