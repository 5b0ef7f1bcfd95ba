//! The order is the recorded one wherever this bus can follow it.

use super::super::plan::Plan;
use super::super::testing::{TINY, plan, text};
use super::*;

fn scheduled(text: &str) -> (Plan, Schedule) {
    let plan = plan(text);
    let schedule = Schedule::of(&plan);
    (plan, schedule)
}

/// Two topics forwarded to a third that subscription 1 sits on; both of its callbacks publish.
fn overtaken(first: u32, second: u32) -> String {
    let mut lines = vec![
        "1 \"o\":\"y\",\"y\":1,\"n\":\"stasis_subscription_change_type\",\"v\":0".to_owned(),
        "1 \"o\":\"y\",\"y\":2,\"n\":\"a\",\"v\":0".to_owned(),
    ];
    lines.extend((1..=4).map(|topic| format!("1 \"o\":\"tn\",\"T\":{topic},\"n\":\"t{topic}\"")));
    lines.push("1 \"o\":\"f\",\"F\":1,\"A\":1,\"B\":3".to_owned());
    lines.push("1 \"o\":\"f\",\"F\":2,\"A\":2,\"B\":3".to_owned());
    lines.push("1 \"o\":\"s\",\"S\":1,\"T\":3,\"k\":\"p\",\"f\":\"x\"".to_owned());
    for message in 1..=2 {
        lines.push(format!("{message} \"o\":\"m\",\"m\":{message},\"y\":2"));
        lines.push(format!("{message} \"o\":\"p\",\"T\":{message},\"m\":{message},\"n\":1"));
        lines.push(format!("{message} \"o\":\"q\",\"S\":1,\"m\":{message}"));
        lines.push(format!("{message} \"o\":\"pe\",\"T\":{message},\"m\":{message},\"n\":1"));
    }
    for message in [first, second] {
        lines.push(format!("3 \"o\":\"b\",\"S\":1,\"m\":{message}"));
        lines.push(format!("3 \"o\":\"m\",\"m\":{},\"y\":2", message + 10));
        lines.push(format!("3 \"o\":\"p\",\"T\":4,\"m\":{},\"n\":0", message + 10));
        lines.push(format!("3 \"o\":\"e\",\"S\":1,\"m\":{message}"));
    }
    text(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

fn published(plan: &Plan, schedule: &Schedule) -> Vec<u32> {
    let message = |id: &OperationId| match plan.operations[*id as usize].action {
        Action::Publish { publish } => Some(plan.publishes[publish as usize].message),
        _ => None,
    };
    schedule.order.iter().filter_map(message).collect()
}

#[test]
fn without_conflict_it_is_the_recorded_order() {
    let (plan, schedule) = scheduled(TINY);
    let mut sorted = schedule.order.clone();
    sorted.sort_unstable();
    assert_eq!(schedule.order, sorted);
    assert_eq!(schedule.moved, Moved::default());
    // All but the publish inside a direct handler take turns.
    assert_eq!(schedule.order.len(), plan.operations.len() - 1);
    assert_eq!(schedule.turn.iter().filter(|turn| turn.is_none()).count(), 1);
}

#[test]
fn a_handler_gets_messages_in_the_order_of_publishing() {
    let (plan, schedule) = scheduled(&overtaken(1, 2));
    assert_eq!(published(&plan, &schedule), [1, 2, 11, 12]);
    assert_eq!(schedule.moved.total(), 0);
    let (plan, schedule) = scheduled(&overtaken(2, 1));
    assert_eq!(published(&plan, &schedule), [1, 2, 11, 12]);
    assert_eq!(schedule.moved, Moved { handler_order: 1, ..Moved::default() });
}

#[test]
fn every_operation_has_exactly_one_place() {
    for text in [TINY.to_owned(), overtaken(2, 1)] {
        let (plan, schedule) = scheduled(&text);
        for (id, operation) in plan.operations.iter().enumerate() {
            let takes_turn = operation.root == id as OperationId;
            assert_eq!(schedule.turn[id].is_some(), takes_turn);
        }
        for (turn, &id) in schedule.order.iter().enumerate() {
            assert_eq!(schedule.turn[id as usize], Some(turn as u32));
        }
    }
}

#[test]
fn a_publish_within_another_counts_as_moved_if_something_was_between() {
    let between = TINY.replace(
        "{\"d\":10,\"h\":3,\"o\":\"m\",\"m\":4,\"y\":2}\n",
        "{\"d\":10,\"h\":3,\"o\":\"m\",\"m\":4,\"y\":2}\n{\"d\":10,\"h\":1,\"o\":\"fm\",\"S\":2,\"v\":2,\"w\":2}\n",
    );
    let (_, schedule) = scheduled(&between);
    assert_eq!(schedule.moved, Moved { within_publish: 1, ..Moved::default() });
}

/// A direct handler's operation needs what another thread makes between the lines of the publish around it.
#[test]
fn a_block_goes_when_all_in_it_can() {
    let (plan, schedule) = scheduled(&text(&[
        "1 \"o\":\"y\",\"y\":1,\"n\":\"news\",\"v\":0",
        "1 \"o\":\"tn\",\"T\":1,\"n\":\"t\"",
        "1 \"o\":\"s\",\"S\":1,\"T\":1,\"k\":\"n\",\"f\":\"direct\"",
        "2 \"o\":\"m\",\"m\":1,\"y\":1",
        "2 \"o\":\"p\",\"T\":1,\"m\":1,\"n\":1",
        "2 \"o\":\"b\",\"S\":1,\"m\":1",
        "1 \"o\":\"tn\",\"T\":2,\"n\":\"other\"",
        "2 \"o\":\"f\",\"F\":1,\"A\":2,\"B\":1",
        "2 \"o\":\"e\",\"S\":1,\"m\":1",
        "2 \"o\":\"pe\",\"T\":1,\"m\":1,\"n\":1",
    ]));
    let turn = |wanted: Action| {
        let at = plan.operations.iter().position(|operation| operation.action == wanted).unwrap();
        schedule.turn[at]
    };
    assert!(turn(Action::CreateTopic { topic: 2 }) < turn(Action::Publish { publish: 0 }));
    assert_eq!(turn(Action::Forward { forward: 1 }), None, "made within the publish");
    assert_eq!((schedule.moved.followed, schedule.moved.forced), (1, 0));
}
