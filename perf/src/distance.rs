//! How far two cores are from each other just now: a line's way there and back.
//!
//! Machines that are rented move their cores: two that shared a cache at one moment do not at the next, and then all that
//! goes from core to core, of ours and of the peers, takes several times as long. So it is looked at before each
//! measurement, and stands below the table.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::report::{Row, columns, median, ratio};

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
    median(&parts)
}

/// Whether the cores were near or far all the time; `None`: now this, now that.
fn was_far([before, after]: [f64; 2]) -> Option<bool> {
    ((before > FAR) == (after > FAR)).then_some(before > FAR)
}

/// A line for the end of the tables.
pub(crate) fn line(rows: &[Row]) -> String {
    let looks: Vec<_> = rows.iter().flat_map(|row| &row.there_and_back).map(|[before, _]| *before).collect();
    let far = looks.iter().filter(|&&look| look > FAR).count();
    let (least, most) = looks.iter().fold((f64::MAX, 0.0_f64), |(low, high), &look| (low.min(look), high.max(look)));
    format!(
        "a line went from core to core and back in {:.0} ns ({least:.0}..{most:.0}; before {far} of {} measurements it took more than {FAR:.0})",
        median(&looks),
        looks.len()
    )
}

/// Rates of the rounds in which the cores were near, and far, and ours over theirs; empty if they always were the one.
pub(crate) fn table(rows: &[Row]) -> String {
    let rates = |row: &Row, far: bool| -> Vec<f64> {
        let rounds = row.there_and_back.iter().zip(&row.deliveries_per_second);
        rounds.filter(|(distance, _)| was_far(**distance) == Some(far)).map(|(_, rate)| *rate).collect()
    };
    let rows: Vec<_> = rows.iter().filter(|row| row.is_rate()).collect();
    if [false, true].iter().any(|&far| rows.iter().all(|row| rates(row, far).is_empty())) {
        return String::new();
    }
    let title = format!("{:>14} {:>8} {:>14} {:>8}", "near M/s", "ratio", "far M/s", "ratio");
    let text = columns(&title, &rows, |row, ours| {
        let figures = [false, true].map(|far| {
            let theirs = rates(row, far);
            let rate = match theirs.len() {
                0 => "-".into(),
                rounds => format!("{:.1} ({rounds})", median(&theirs) / 1e6),
            };
            let times = ours.map(|ours| median(&rates(ours, far)) / median(&theirs));
            let times = times.filter(|times| times.is_finite()).map_or("-".into(), ratio);
            format!("{rate:>14} {times:>8}")
        });
        figures.join(" ")
    });
    format!(
        "\nby distance: near, a line from core to core and back in less than {FAR:.0} ns, and far; (so many rounds)\n{text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenders::OURS;

    #[test]
    fn a_line_takes_some_time_and_not_for_ever() {
        let look = there_and_back();
        assert!(look > 1.0 && look < 1e7, "{look} ns");
    }

    fn row(contender: &str, rounds: &[(f64, [f64; 2])]) -> Row {
        let mut row = Row::new("1->8", contender.to_owned());
        for (rate, distance) in rounds {
            row.deliveries_per_second.push(rate * 1e6);
            row.there_and_back.push(*distance);
        }
        row
    }

    #[test]
    fn rounds_are_told_apart_by_distance() {
        let (near, far) = ([60.0, 62.0], [310.0, 320.0]);
        let ours = row(OURS, &[(100.0, near), (90.0, far), (110.0, near), (7.0, [60.0, 310.0])]);
        let theirs = row("theirs", &[(10.0, far), (50.0, near), (12.0, far)]);
        let rows = [ours, theirs];
        let text = table(&rows);
        let line = text.lines().find(|line| line.contains("theirs")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["1->8", "theirs", "50.0", "(1)", "2.10", "11.0", "(2)", "8.18"], "{text}");
        assert!(super::line(&rows).contains("before 3 of 7"), "{}", super::line(&rows));
        assert_eq!(table(&[row(OURS, &[(1.0, near)])]), "", "always near");
    }
}
