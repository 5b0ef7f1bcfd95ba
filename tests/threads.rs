//! Property: whatever many threads do at once, nothing is lost or doubled, order holds, the final message
//! is last (G2, G3, G5). The storm itself is in `common/storm.rs`, shared with fuzzing.
mod common;

use common::storm::Storm;
use common::{must_end, stress};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: stress(12) as u32,
        failure_persistence: None,
        max_shrink_iters: 20,
        ..ProptestConfig::default()
    })]

    #[test]
    fn g03_nothing_is_lost_or_doubled_in_a_storm(seed in any::<u64>(), publishers in 1..5usize, changes in 0..300usize) {
        must_end(move || Storm { seed, publishers, messages: 400, changes }.run());
    }
}

#[test]
fn a_longer_storm() {
    must_end(|| Storm { seed: 7, publishers: 4, messages: stress(3_000) as u64, changes: stress(1_500) }.run());
}
