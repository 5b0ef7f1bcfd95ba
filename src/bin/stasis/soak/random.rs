//! Random choices from a seed (xorshift, the same on every machine).

#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// `stream`: which of the threads that share the seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self((seed ^ stream.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
