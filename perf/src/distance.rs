//! How far two cores are from each other just now: a line's way there and back.
//!
//! Machines that are rented move their cores: two that shared a cache at one moment do not at the next, and then all that
//! goes from core to core, of ours and of the peers, takes several times as long. So it is looked at before each
//! measurement, and stands below the table.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Ways there and back in one look: about a millisecond.
const WAYS: u64 = 3_000;
/// Above that the cores have no cache in common: 60 ns within one, 150 and more beyond.
const FAR: f64 = 150.0;

/// Waits until the number is there; gives the core away now and then, where there is but one.
fn wait_for(line: &AtomicU64, number: u64) {
    let mut looks = 0_u32;
    while line.load(Ordering::Acquire) != number {
        looks += 1;
        if looks.is_multiple_of(1 << 12) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Nanoseconds a line takes from one thread to another and back: the median of ten parts.
pub(crate) fn there_and_back() -> f64 {
    let line = AtomicU64::new(0);
    let mut parts = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..WAYS {
                wait_for(&line, 2 * n + 1);
                line.store(2 * n + 2, Ordering::Release);
            }
        });
        let mut began = Instant::now();
        for n in 0..WAYS {
            line.store(2 * n + 1, Ordering::Release);
            wait_for(&line, 2 * n + 2);
            if (n + 1).is_multiple_of(WAYS / 10) {
                parts.push(began.elapsed().as_nanos() as f64 / (WAYS / 10) as f64);
                began = Instant::now();
            }
        }
    });
    crate::report::median(&parts)
}

/// A line for the end of the table.
pub(crate) fn line(looks: &[f64]) -> String {
    let far = looks.iter().filter(|&&look| look > FAR).count();
    let (least, most) = looks.iter().fold((f64::MAX, 0.0_f64), |(low, high), &look| (low.min(look), high.max(look)));
    format!(
        "a line went from core to core and back in {:.0} ns ({least:.0}..{most:.0}; before {far} of {} measurements it took more than {FAR:.0})",
        crate::report::median(looks),
        looks.len()
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_takes_some_time_and_not_for_ever() {
        let look = super::there_and_back();
        assert!(look > 1.0 && look < 1e7, "{look} ns");
        let line = super::line(&[60.0, 310.0, 62.0]);
        assert!(line.contains("in 62 ns (60..310; before 1 of 3"), "{line}");
    }
}
