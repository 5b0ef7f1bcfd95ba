//! Samples of memory and counts, and the judgement whether memory is flat.
//!
//! Two figures: what the system has given to the process (RSS), and what of it the program has allocated and not
//! freed. The first one is what an operator sees, and follows the worst moment so far, since allocators keep what was
//! freed in pieces; the second one is what a leak would show in.

use std::time::Duration;

/// Below this many samples or seconds memory is not judged: the start is in them.
const LEAST: (usize, f64) = (20, 15.0);
/// Growth within the second half that is still called flat: this, or this part of the mean.
const FLAT_RSS: f64 = 8e6;
const FLAT_HEAP: f64 = 4e6;
const FLAT_PART: f64 = 0.05;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Bytes of the process in memory; zero where the system does not say.
    pub(crate) rss: u64,
    /// Bytes allocated and not freed; zero where the allocator does not say.
    pub(crate) heap: u64,
    /// Broken promises so far.
    pub(crate) violations: u64,
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

/// Bytes that are allocated and not freed; zero where the allocator does not say. Cost: a short lock of each arena.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn heap() -> u64 {
    // SAFETY: has no conditions. (`mallinfo2` is not in every glibc that is still in use.)
    let info = unsafe { libc::mallinfo() };
    // Counts of 32 bits: beyond 4 GB they begin again.
    [info.uordblks, info.hblkhd].iter().map(|&bytes| u64::from(bytes.cast_unsigned())).sum()
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn heap() -> u64 {
    0
}

/// Keeps the allocator from making an area of its own for every thread that meets another one in it: what it keeps
/// in each of them would be counted as the program's.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn few_arenas() {
    // SAFETY: has no conditions; what it returns does not matter, it is a wish.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn few_arenas() {}

/// What became of memory in the second half.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Memory {
    /// Too short a run, or a system that does not say.
    Unknown,
    /// Bytes a second (least squares), bytes over the second half, and bytes that are still called flat.
    Judged { slope: f64, growth: f64, allowed: f64 },
}

impl Memory {
    /// What the system has given.
    pub(crate) fn of_process(samples: &[Sample]) -> Self {
        Self::of(samples, |sample| sample.rss, FLAT_RSS)
    }

    /// What is allocated.
    pub(crate) fn of_heap(samples: &[Sample]) -> Self {
        Self::of(samples, |sample| sample.heap, FLAT_HEAP)
    }

    fn of(samples: &[Sample], bytes: impl Fn(&Sample) -> u64, flat: f64) -> Self {
        let end = samples.last().map_or(0.0, |last| last.at.as_secs_f64());
        let half: Vec<(f64, f64)> = samples
            .iter()
            .map(|sample| (sample.at.as_secs_f64(), bytes(sample) as f64))
            .filter(|(at, bytes)| *at >= end / 2.0 && *bytes > 0.0)
            .collect();
        if half.len() < LEAST.0 || end < LEAST.1 {
            return Self::Unknown;
        }
        let count = half.len() as f64;
        let mean_at = half.iter().map(|(at, _)| at).sum::<f64>() / count;
        let mean = half.iter().map(|(_, bytes)| bytes).sum::<f64>() / count;
        let covariance: f64 = half.iter().map(|(at, bytes)| (at - mean_at) * (bytes - mean)).sum();
        let variance: f64 = half.iter().map(|(at, _)| (at - mean_at).powi(2)).sum();
        let slope = covariance / variance;
        Self::Judged { slope, growth: slope * end / 2.0, allowed: flat.max(mean * FLAT_PART) }
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
        Memory::of_process(&(0..seconds * 2).map(sample).collect::<Vec<_>>())
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
        if cfg!(all(target_os = "linux", target_env = "gnu", not(miri))) {
            let before = heap();
            let more = vec![1_u8; 40 << 20];
            assert!(heap() > before + (20 << 20), "{} bytes more", more.len());
        }
    }
}
