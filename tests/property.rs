//! Property: whatever is done to the bus by one thread, every subscription gets what the naive bus of
//! `reference.rs` says, in that order.
mod common;

use common::operations::{Operation, run};
use common::stress;
use proptest::prelude::*;

fn program() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(any::<[u8; 4]>().prop_map(Operation::decode), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: stress(300) as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_bus_delivers_what_the_naive_bus_delivers(program in program()) {
        run(&program);
    }
}

/// Programs that once mattered, or that random ones rarely contain.
#[test]
fn chosen_programs() {
    use Operation::*;
    let listen = |topic, delivery| Subscribe { topic, delivery, filter: 0 };
    // A diamond that loses one side, then the other, with a listener of each kind below.
    run(&[
        listen(3, 0),
        listen(3, 1),
        listen(3, 7),
        Forward { from: 0, to: 1 },
        Forward { from: 0, to: 2 },
        Forward { from: 1, to: 3 },
        Forward { from: 2, to: 3 },
        Publish { topic: 0, kind: 0 },
        Cancel { forward: 2 },
        Publish { topic: 0, kind: 1 },
        Publish { topic: 1, kind: 1 },
        Cancel { forward: 1 },
        Publish { topic: 0, kind: 2 },
        Look { topic: 0 },
    ]);
    // A cycle closed and opened again while listeners come and go.
    run(&[
        listen(0, 7),
        Forward { from: 0, to: 1 },
        Forward { from: 1, to: 2 },
        Forward { from: 2, to: 0 },
        listen(1, 1),
        Publish { topic: 2, kind: 0 },
        DropHandle { subscription: 0 },
        Cancel { forward: 1 },
        listen(2, 0),
        Publish { topic: 1, kind: 3 },
        PublishSync { topic: 0, kind: 4, subscription: 1 },
    ]);
    // Enough listeners for several chunks of a list, thinned out from both ends.
    let mut long: Vec<Operation> = (0..40).map(|n| listen(0, 4 + n % 4)).collect();
    for n in 0..20 {
        long.extend([
            DropHandle { subscription: n },
            Publish { topic: 0, kind: n },
            DropHandle { subscription: 39 - n },
        ]);
    }
    run(&long);
}
