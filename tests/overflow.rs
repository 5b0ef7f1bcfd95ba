//! G3, G9: a subscription with a queue of its own never has more waiting than it said, and every message is
//! delivered or counted, by cause.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;
#[path = "common/overflow_model.rs"]
mod overflow_model;


use common::stress;
use overflow_model::{Act, Setup, run};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: stress(400) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn g03_every_message_is_accounted_for(setup in any::<[u8; 2]>(), acts in prop::collection::vec(any::<u8>(), 0..60)) {
        let acts: Vec<Act> = acts.into_iter().map(Act::decode).collect();
        run(Setup::decode(setup), &acts);
    }
}
