//! Which core a thread runs on and which it may run on: the system calls behind lanes that step aside.
//!
//! core_affinity pins the calling thread to one core; letting another thread off its core takes more than that.
//! Guarantees: where the system has no such calls, and in models, nothing is known and nothing is done.
#![allow(unsafe_code)]

#[cfg(all(target_os = "linux", not(any(loom, miri, stasis_schedule))))]
mod linux {
    /// The core the calling thread runs on just now. Cost: some nanoseconds.
    pub(crate) fn current() -> Option<usize> {
        // SAFETY: takes nothing and touches no memory of ours.
        usize::try_from(unsafe { libc::sched_getcpu() }).ok()
    }

    /// A thread, and the cores it might run on when this was made.
    #[derive(Clone)]
    pub(crate) struct Freedom {
        thread: libc::pid_t,
        cores: libc::cpu_set_t,
    }

    impl Freedom {
        /// That of the calling thread.
        pub(crate) fn here() -> Option<Self> {
            // SAFETY: a set is plain bits, and all of them may be zero.
            let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: the set is ours and as large as said; 0 is the calling thread.
            let known = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut cores) } == 0;
            // SAFETY: takes nothing and touches no memory of ours. (`gettid` itself is not in older libraries.)
            let thread = unsafe { libc::syscall(libc::SYS_gettid) };
            known.then_some(Self { thread: libc::pid_t::try_from(thread).ok()?, cores })
        }

        fn give_to(&self, thread: libc::pid_t) -> bool {
            // SAFETY: the set is ours and as large as said.
            unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &raw const self.cores) == 0 }
        }

        /// Gives it back to the thread, which must not have ended. Cost: a system call.
        pub(crate) fn give_back(&self) -> bool {
            self.give_to(self.thread)
        }

        /// Gives the thread, which must not have ended, all of these cores but one; false: there is no other. Cost: a
        /// system call.
        pub(crate) fn keep_off(&self, core: usize) -> bool {
            let mut others = self.clone();
            if core < libc::CPU_SETSIZE as usize {
                // SAFETY: the number is one of the set's.
                unsafe { libc::CPU_CLR(core, &mut others.cores) };
            }
            others.give_back()
        }

        /// Gives it to the calling thread as well. Cost: a system call.
        pub(crate) fn give_to_this_thread(&self) -> bool {
            self.give_to(0)
        }
    }
}

#[cfg(not(all(target_os = "linux", not(any(loom, miri, stasis_schedule)))))]
mod linux {
    pub(crate) fn current() -> Option<usize> {
        None
    }

    #[derive(Clone)]
    pub(crate) struct Freedom;

    impl Freedom {
        pub(crate) fn here() -> Option<Self> {
            None
        }

        pub(crate) fn give_back(&self) -> bool {
            false
        }

        pub(crate) fn keep_off(&self, _core: usize) -> bool {
            false
        }

        pub(crate) fn give_to_this_thread(&self) -> bool {
            false
        }
    }
}

pub(crate) use linux::{Freedom, current};
