//! Topics, their subscribers, and which message goes where.
//!
//! ```text
//!   message n ─► sequence[n mod 2^k] ─► topic ─► as many subscribers as the plan says
//! ```
//!
//! The same for all contenders, made from nothing random: powers of two only, since a division would be
//! part of the work.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Messages after which a sequence begins again, at most.
const LONGEST: usize = 1 << 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Subscribers of each topic.
    pub(crate) fanout: Vec<usize>,
    /// Topic of each message; 2^k of them.
    sequence: Vec<u32>,
}

impl Plan {
    /// One topic.
    pub(crate) fn one(subscribers: usize) -> Self {
        Self { fanout: vec![subscribers], sequence: vec![0] }
    }

    /// The topic of rank k gets a share of 1/k of the first one's.
    pub(crate) fn zipf(topics: usize, subscribers: usize) -> Self {
        let mut sums = Vec::with_capacity(topics);
        let mut sum = 0.0;
        for rank in 1..=topics {
            sum += 1.0 / rank as f64;
            sums.push(sum);
        }
        let pick = |n: usize| {
            // Fibonacci hashing: evenly spread, the same every time.
            let hash = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11;
            let at = hash as f64 / (1u64 << 53) as f64 * sum;
            sums.partition_point(|&end| end <= at).min(topics - 1) as u32
        };
        Self { fanout: vec![subscribers; topics], sequence: (0..LONGEST).map(pick).collect() }
    }

    /// The publishes of a recording (`traces/FORMAT.md`), in its order. A topic has the subscribers that most of
    /// its publishes were delivered to.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no publishes.
    pub(crate) fn recorded(path: &Path) -> Result<Self, String> {
        let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let file = std::fs::File::open(path).map_err(|error| fail(&error))?;
        let lines = BufReader::new(zstd::Decoder::new(file).map_err(|error| fail(&error))?).lines();
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        let mut reached: Vec<HashMap<usize, usize>> = Vec::new();
        let mut sequence = Vec::new();
        for line in lines {
            let line = line.map_err(|error| fail(&error))?;
            let is_end = line.contains("\"o\":\"pe\"");
            // Most lines are something else, and the beginning is enough.
            if !is_end && !line.contains("\"o\":\"p\"") {
                continue;
            }
            if sequence.len() == LONGEST {
                break;
            }
            // Lines are a program's, without blanks; reading them as JSON takes seconds in a debug build.
            let field = |name: &str| line.split(name).nth(1)?.split([',', '}']).next()?.parse::<u32>().ok();
            let (Some(topic), Some(count)) = (field("\"T\":"), field("\"n\":")) else { continue };
            let delivered = is_end.then_some(count);
            let next = numbers.len() as u32;
            let number = *numbers.entry(topic).or_insert(next);
            reached.resize_with(numbers.len(), HashMap::new);
            match delivered {
                None => sequence.push(number),
                Some(count) => *reached[number as usize].entry(count as usize).or_default() += 1,
            }
        }
        if sequence.is_empty() {
            return Err(fail(&"no publishes"));
        }
        // The largest power of two that is there.
        sequence.truncate(LONGEST.min(1 << sequence.len().ilog2()));
        let usual =
            |counts: &HashMap<usize, usize>| counts.iter().max_by_key(|&(&n, &times)| (times, n)).map(|(&n, _)| n);
        Ok(Self { fanout: reached.iter().map(|counts| usual(counts).unwrap_or(0)).collect(), sequence })
    }

    pub(crate) fn topics(&self) -> usize {
        self.fanout.len()
    }

    /// Of all topics together.
    pub(crate) fn subscribers(&self) -> usize {
        self.fanout.iter().sum()
    }

    /// Where message `n` goes.
    #[inline]
    pub(crate) fn topic(&self, n: u64) -> usize {
        self.sequence[n as usize & (self.sequence.len() - 1)] as usize
    }

    /// How many of the messages `0..messages` each topic gets, and the sum of what their payloads add up to.
    pub(crate) fn expected(&self, messages: u64) -> Vec<(u64, u64)> {
        let mut all = vec![(0, 0u64); self.topics()];
        for n in 0..messages {
            let (count, sum) = &mut all[self.topic(n)];
            *count += 1;
            *sum = sum.wrapping_add(2 * n);
        }
        all
    }
}
