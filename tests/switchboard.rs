//! The example `switchboard`: everything adds up, and it says so when something does not.
#![cfg(feature = "ext")]
#![allow(missing_docs)]

#[path = "../examples/switchboard/exchange.rs"]
mod exchange;

use exchange::{CALLS_PER_WORKER, Outcome, WORKERS, run};

#[test]
fn everything_adds_up_for_several_seeds() {
    for seed in [1, 2, 77] {
        let outcome = run(seed).unwrap();
        assert_eq!(outcome.faults(), Vec::<String>::new(), "seed {seed}: {outcome:?}");
        assert_eq!(outcome.calls, WORKERS * CALLS_PER_WORKER);
        assert!(outcome.transferred > 0 && outcome.bridged > outcome.transferred, "{outcome:?}");
        assert!(outcome.bridged < outcome.calls as usize, "some calls are not answered");
    }
}

#[test]
fn the_same_seed_makes_the_same_calls() {
    let (one, two) = (run(5).unwrap(), run(5).unwrap());
    assert_eq!((one.published, one.records), (two.published, two.records));
}

#[test]
fn what_does_not_add_up_is_named() {
    let good = run(1).unwrap();
    let spoil = |change: fn(&mut Outcome)| {
        let mut outcome = good.clone();
        change(&mut outcome);
        outcome.faults().join("; ")
    };
    assert!(
        spoil(|outcome| {
            outcome.records.pop();
        })
        .starts_with("records: 99, not 100")
    );
    assert!(spoil(|outcome| outcome.records[0].call = 2).contains("calls with a record: 99"));
    assert!(spoil(|outcome| outcome.feed -= 1).contains("events in the feed"));
    assert!(spoil(|outcome| outcome.left_in_caches = 1).contains("entries left in caches: 1"));
    assert!(spoil(|outcome| drop(outcome.devices.pop_first())).contains("idle devices: 7"));
    assert!(spoil(|outcome| outcome.late.gaps = 1).contains("gaps of the late joiner"));
}
