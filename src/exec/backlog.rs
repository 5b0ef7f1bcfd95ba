//! How long the oldest entry of a queue has waited, from looks at two counters: the queue itself pays nothing.
//!
//! ```text
//!   looks:   10:00.000 pushed 40      10:00.001 pushed 90      now: taken 55
//!            entry 55 was not there ──┘       └── was there: it has waited since 10:00.001 at least
//! ```
//!
//! Guarantees: never says more than the entry has waited; less by the time between two looks, or by a part
//! ([`PART`]) of the greatest age this backlog has had. Memory: grows with the logarithm of the age, some 10 KiB
//! for an hour.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A look is remembered if it comes this part of the age after the last that is.
const PART: u32 = 32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// When a count of pushed entries was first seen, where entries still wait that it was first to see.
    seen: VecDeque<(Instant, u64)>,
}

impl Backlog {
    /// Notes what was ever pushed and taken; how long the oldest that waits has waited.
    pub(crate) fn look(&mut self, now: Instant, pushed: u64, taken: u64) -> Option<Duration> {
        while self.seen.front().is_some_and(|(_, pushed)| *pushed <= taken) {
            self.seen.pop_front();
        }
        if pushed <= taken {
            return None;
        }
        let since = |then: &(Instant, u64)| now.saturating_duration_since(then.0);
        let pause = self.seen.front().map_or(Duration::ZERO, since) / PART;
        // What comes in between counts from the next that is remembered: less, never more.
        if self.seen.back().is_none_or(|last| last.1 < pushed && since(last) >= pause) {
            self.seen.push_back((now, pushed));
        }
        Some(self.seen.front().map_or(Duration::ZERO, since))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_age_is_that_of_the_oldest_entry_that_waits() {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        assert_eq!(backlog.look(start, 0, 0), None);
        assert_eq!(backlog.look(start + 10 * MS, 5, 0), Some(Duration::ZERO), "pushed since the last look");
        assert_eq!(backlog.look(start + 15 * MS, 5, 0), Some(5 * MS));
        assert_eq!(backlog.look(start + 20 * MS, 9, 4), Some(10 * MS), "the fifth is still there");
        assert_eq!(backlog.look(start + 25 * MS, 9, 5), Some(5 * MS), "the sixth came later");
        assert_eq!(backlog.look(start + 30 * MS, 9, 9), None);
        assert_eq!(backlog.look(start + 90 * MS, 10, 9), Some(Duration::ZERO), "a rest is no wait");
    }

    #[test]
    fn a_queue_that_stands_still_for_an_hour_is_exact_and_small() {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        for n in 0..36_000_u32 {
            let age = backlog.look(start + n * 100 * MS, u64::from(n) + 1, 0);
            assert_eq!(age, Some(n * 100 * MS));
        }
        assert!(backlog.seen.len() <= 400, "{}", backlog.seen.len());
    }

    #[test]
    fn a_backlog_that_grows_for_long_stays_small_and_is_never_called_older_than_it_is() {
        let (mut backlog, start) = (Backlog::default(), Instant::now());
        for n in 1..=10_000_u32 {
            // Half as fast as they come: entry n/2 came at n/2 ms.
            let age = backlog.look(start + n * MS, u64::from(n), u64::from(n / 2)).unwrap();
            let true_age = (n - (n / 2 + 1)) * MS;
            assert!(age <= true_age && age + true_age / PART + 2 * MS >= true_age, "{n}: {age:?} of {true_age:?}");
            assert!(backlog.seen.len() <= 256);
        }
    }
}
