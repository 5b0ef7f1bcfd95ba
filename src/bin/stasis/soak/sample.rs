//! Samples of memory and counts, and the judgement whether memory is flat.

use std::time::Duration;

/// Below this many samples or seconds memory is not judged: the start is in them.
const LEAST: (usize, f64) = (20, 15.0);
/// Growth within the second half that is still called flat: this, or this part of the mean.
const FLAT_BYTES: f64 = 8e6;
const FLAT_PART: f64 = 0.05;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Bytes of the process in memory; zero where the system does not say.
    pub(crate) rss: u64,
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) subscriptions: usize,
    pub(crate) ring_bytes: usize,
}

/// Bytes of this process that are in memory; zero where the system does not say.
pub(crate) fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    kilobytes.map_or(0, |n: u64| n * 1024)
}

/// What became of memory in the second half.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Memory {
    /// Too short a run, or a system that does not say.
    Unknown,
    /// Bytes a second (least squares), bytes over the second half, and bytes that are still called flat.
    Judged { slope: f64, growth: f64, allowed: f64 },
}

impl Memory {
    pub(crate) fn of(samples: &[Sample]) -> Self {
        let end = samples.last().map_or(0.0, |last| last.at.as_secs_f64());
        let half: Vec<(f64, f64)> = samples
            .iter()
            .map(|sample| (sample.at.as_secs_f64(), sample.rss as f64))
            .filter(|(at, rss)| *at >= end / 2.0 && *rss > 0.0)
            .collect();
        if half.len() < LEAST.0 || end < LEAST.1 {
            return Self::Unknown;
        }
        let count = half.len() as f64;
        let mean_at = half.iter().map(|(at, _)| at).sum::<f64>() / count;
        let mean = half.iter().map(|(_, rss)| rss).sum::<f64>() / count;
        let covariance: f64 = half.iter().map(|(at, rss)| (at - mean_at) * (rss - mean)).sum();
        let variance: f64 = half.iter().map(|(at, _)| (at - mean_at).powi(2)).sum();
        let slope = covariance / variance;
        Self::Judged { slope, growth: slope * end / 2.0, allowed: FLAT_BYTES.max(mean * FLAT_PART) }
    }

    pub(crate) fn is_flat(self) -> bool {
        match self {
            Self::Unknown => true,
            Self::Judged { growth, allowed, .. } => growth <= allowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: u64, rss: impl Fn(u64) -> u64) -> Memory {
        let sample = |n| Sample { at: Duration::from_millis(n * 500), rss: rss(n), ..Sample::default() };
        Memory::of(&(0..seconds * 2).map(sample).collect::<Vec<_>>())
    }

    #[test]
    fn a_saw_tooth_is_flat_and_so_is_growth_at_the_start_only() {
        assert!(run(60, |n| 50_000_000 + n % 7 * 1_000_000).is_flat());
        assert!(run(60, |n| 50_000_000 + n.min(40) * 2_000_000).is_flat());
        assert!(run(60, |n| 90_000_000 - n * 100_000).is_flat());
    }

    #[test]
    fn steady_growth_is_not_flat() {
        let memory = run(60, |n| 50_000_000 + n * 500_000);
        assert!(!memory.is_flat(), "{memory:?}");
        let Memory::Judged { slope, .. } = memory else { unreachable!() };
        assert!((slope - 1e6).abs() < 1.0, "half a megabyte each half second: {slope}");
    }

    #[test]
    fn a_short_run_says_nothing() {
        assert_eq!(run(10, |n| n * 50_000_000), Memory::Unknown);
        assert_eq!(run(60, |_| 0), Memory::Unknown);
    }

    #[test]
    fn this_process_has_memory() {
        if cfg!(target_os = "linux") {
            assert!(rss() > 100_000);
        }
    }
}
