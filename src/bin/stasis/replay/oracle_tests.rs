//! The model of lists and filters.

use super::super::plan::Plan;
use super::super::testing::{plan, text};
use super::*;

const HEAD: [&str; 6] = [
    "1 \"o\":\"y\",\"y\":1,\"n\":\"a\",\"v\":1",
    "1 \"o\":\"y\",\"y\":2,\"n\":\"b\",\"v\":2",
    "1 \"o\":\"tn\",\"T\":1,\"n\":\"t1\"",
    "1 \"o\":\"tn\",\"T\":2,\"n\":\"t2\"",
    "1 \"o\":\"tn\",\"T\":3,\"n\":\"t3\"",
    "1 \"o\":\"tn\",\"T\":4,\"n\":\"t4\"",
];
const SUBSCRIBE: &str = "1 \"o\":\"s\",\"S\":1,\"T\":4,\"k\":\"n\",\"f\":\"x\"";
const PUBLISH: [&str; 2] = ["2 \"o\":\"m\",\"m\":1,\"y\":1", "2 \"o\":\"p\",\"T\":1,\"m\":1,\"n\":0"];

fn of(lines: &[&str]) -> Plan {
    plan(&text(&[&HEAD[..], lines].concat()))
}

/// Audience of the last publish, the clock being the number of the operation (closing ones not made).
fn audience(lines: &[&str]) -> Vec<Ear> {
    let plan = of(&[lines, &PUBLISH].concat());
    let publish = plan.publishes.last().unwrap();
    let at = u64::from(publish.operation) + 1;
    let made = plan.operations.len() - plan.asides.closing as usize;
    let span = |id: OperationId| Span { start: u64::from(id) + 1, end: u64::from(id) + 1 };
    let mut oracle = Oracle::new(&plan, |id, _| ((id as usize) < made).then(|| span(id)));
    oracle.audience(publish, Span { start: at, end: at })
}

const SURE: [Ear; 1] = [Ear { sub: 1, must: true }];

#[test]
fn only_who_can_be_reached_is_on_the_list() {
    assert_eq!(audience(&[SUBSCRIBE]), []);
    assert_eq!(audience(&[SUBSCRIBE, "1 \"o\":\"f\",\"F\":1,\"A\":1,\"B\":4"]), SURE);
    assert_eq!(audience(&[SUBSCRIBE, "1 \"o\":\"f\",\"F\":1,\"A\":4,\"B\":1"]), []);
}

#[test]
fn a_diamond_and_a_cycle_count_once() {
    let diamond = [
        SUBSCRIBE,
        "1 \"o\":\"f\",\"F\":1,\"A\":1,\"B\":2",
        "1 \"o\":\"f\",\"F\":2,\"A\":1,\"B\":3",
        "1 \"o\":\"f\",\"F\":3,\"A\":2,\"B\":4",
        "1 \"o\":\"f\",\"F\":4,\"A\":3,\"B\":4",
    ];
    assert_eq!(audience(&diamond), SURE);
    let cycle = [&diamond[..], &["1 \"o\":\"f\",\"F\":5,\"A\":4,\"B\":1"]].concat();
    assert_eq!(audience(&cycle), SURE);
    // One side of the diamond is enough, none is not.
    let half = [&diamond[..], &["1 \"o\":\"fc\",\"F\":1,\"A\":1,\"B\":2"]].concat();
    assert_eq!(audience(&half), SURE);
    let none = [&half[..], &["1 \"o\":\"fc\",\"F\":4,\"A\":3,\"B\":4"]].concat();
    assert_eq!(audience(&none), []);
}

#[test]
fn who_has_left_is_not_on_the_list() {
    let left = [
        SUBSCRIBE,
        "1 \"o\":\"f\",\"F\":1,\"A\":1,\"B\":4",
        "1 \"o\":\"u\",\"S\":1,\"T\":4",
        "1 \"o\":\"ue\",\"S\":1,\"T\":4",
    ];
    assert_eq!(audience(&left), []);
}

#[test]
fn filters_are_joined_by_or() {
    let with = |filter: &[&str]| audience(&[&[SUBSCRIBE, "1 \"o\":\"f\",\"F\":1,\"A\":1,\"B\":4"], filter].concat());
    let accept = "1 \"o\":\"fa\",\"S\":1,\"y\":1";
    let accept_other = "1 \"o\":\"fa\",\"S\":1,\"y\":2";
    let selective = "1 \"o\":\"fm\",\"S\":1,\"v\":2,\"w\":0";
    assert_eq!(with(&[accept_other]), SURE, "accepting alone selects nothing");
    assert_eq!(with(&[selective]), []);
    assert_eq!(with(&[accept_other, selective]), []);
    assert_eq!(with(&[accept, selective]), SURE);
    assert_eq!(with(&[accept, selective, "1 \"o\":\"fd\",\"S\":1,\"y\":1"]), []);
    assert_eq!(with(&["1 \"o\":\"ff\",\"S\":1,\"v\":1"]), SURE);
    assert_eq!(with(&["1 \"o\":\"ff\",\"S\":1,\"v\":6"]), []);
    assert_eq!(with(&[accept, selective, "1 \"o\":\"ff\",\"S\":1,\"v\":6"]), SURE);
    assert_eq!(with(&[accept_other, selective, "1 \"o\":\"ff\",\"S\":1,\"v\":3"]), SURE);
    let forced = "1 \"o\":\"fa\",\"S\":1,\"y\":0";
    assert_eq!(with(&[forced, selective]), SURE, "forced off stays off");
}

/// Audience of a publish from 100 to 200 with one operation at other times.
fn beside(lines: &[&str], moved: Action, during: Span) -> Vec<Ear> {
    let plan = of(&[lines, &PUBLISH].concat());
    let made = plan.operations.len() - plan.asides.closing as usize;
    let early = Span { start: 1, end: 1 };
    let mut oracle = Oracle::new(&plan, |id, operation| {
        ((id as usize) < made).then_some(if operation.action == moved { during } else { early })
    });
    oracle.audience(plan.publishes.last().unwrap(), Span { start: 100, end: 200 })
}

#[test]
fn what_overlaps_may_or_may_not_count() {
    let forward = "1 \"o\":\"f\",\"F\":1,\"A\":1,\"B\":4";
    let maybe = [Ear { sub: 1, must: false }];
    let cases = [(10, 99, true, true), (10, 150, true, false), (150, 160, true, false), (201, 300, false, false)];
    let base = [SUBSCRIBE, forward];
    for (start, end, may, must) in cases {
        let expected: &[Ear] = if must {
            &SURE
        } else if may {
            &maybe
        } else {
            &[]
        };
        let during = Span { start, end };
        assert_eq!(beside(&base, Action::Forward { forward: 1 }, during), expected, "forward at {during:?}");
        assert_eq!(beside(&base, Action::Subscribe { sub: 1 }, during), expected, "subscribe at {during:?}");
        let opened = [SUBSCRIBE, forward, "1 \"o\":\"fm\",\"S\":1,\"v\":2,\"w\":0", "1 \"o\":\"fa\",\"S\":1,\"y\":1"];
        assert_eq!(beside(&opened, Action::Accept { sub: 1, ty: 1 }, during), expected, "accept at {during:?}");
        let leaving = [SUBSCRIBE, forward, "1 \"o\":\"u\",\"S\":1,\"T\":4", "1 \"o\":\"ue\",\"S\":1,\"T\":4"];
        let expected: &[Ear] = if must {
            &[]
        } else if may {
            &maybe
        } else {
            &SURE
        };
        assert_eq!(beside(&leaving, Action::Unsubscribe { sub: 1 }, during), expected, "unsubscribe at {during:?}");
        let cancelled = [SUBSCRIBE, forward, "1 \"o\":\"fc\",\"F\":1,\"A\":1,\"B\":4"];
        assert_eq!(beside(&cancelled, Action::Cancel { forward: 1 }, during), expected, "cancel at {during:?}");
    }
}

#[test]
fn a_change_reaches_its_own_subscription_only_when_it_comes() {
    let plan = plan(super::super::testing::TINY);
    let mut oracle = Oracle::of_lines(&plan);
    let mut subs = |id: usize| {
        let at = u64::from(plan.publishes[id].line);
        oracle.audience(&plan.publishes[id], Span { start: at, end: at }).iter().map(|ear| ear.sub).collect::<Vec<_>>()
    };
    assert_eq!(subs(1), [1, 2]);
    assert_eq!(subs(6), [1]);
    assert!(subs(7).is_empty());
}
