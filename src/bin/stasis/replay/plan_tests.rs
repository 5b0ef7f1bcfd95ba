//! Which line becomes whose operation, and what it waits for.

use super::super::testing::{TINY, plan, text, tiny_with};
use super::*;

fn actions(plan: &Plan, owner: impl Fn(&Owner) -> bool) -> Vec<Action> {
    let mut found = plan.contexts.iter().filter(|context| owner(&context.owner));
    let operations = &found.next().unwrap().operations;
    assert!(found.next().is_none(), "more than one context");
    operations.iter().map(|&id| plan.operations[id as usize].action).collect()
}

#[test]
fn each_operation_belongs_to_the_innermost_callback() {
    let plan = plan(TINY);
    let of_writer = actions(&plan, |owner| *owner == Owner::Thread(3));
    assert_eq!(of_writer, [Action::Publish { publish: 2 }, Action::Publish { publish: 5 }]);

    let nested = actions(&plan, |owner| matches!(owner, Owner::Callback { sub: 2, during: Some(_) }));
    assert_eq!(nested, [Action::Publish { publish: 3 }]);
    assert_eq!(plan.publishes[3].message, 4);

    let queued = actions(&plan, |owner| matches!(owner, Owner::Callback { sub: 1, during: None }));
    let expected = [
        Action::CreateTopic { topic: 3 },
        Action::Forward { forward: 2 },
        Action::Publish { publish: 4 },
        Action::Cancel { forward: 2 },
        Action::DropTopic { topic: 3 },
    ];
    assert_eq!(queued, expected);
    assert!(!plan.contexts.iter().any(|context| context.owner == Owner::Thread(2)));
}

#[test]
fn operations_inside_a_direct_handler_have_the_publish_as_root() {
    let plan = plan(TINY);
    let outer = plan.publishes[2].operation;
    let inner = plan.publishes[3].operation;
    assert_eq!(plan.operations[inner as usize].root, outer);
    assert_eq!(plan.operations[outer as usize].root, outer);
}

#[test]
fn changes_belong_to_subscribe_and_unsubscribe() {
    let plan = plan(TINY);
    let origins: Vec<Origin> = plan.publishes.iter().map(|publish| publish.origin).collect();
    use Origin::*;
    let expected =
        [Subscribed(1), Subscribed(2), Recorded, Recorded, Recorded, Recorded, Unsubscribed(2), Unsubscribed(1)];
    assert_eq!(origins, expected);
    let unsubscribe = plan.publishes[6].operation as usize;
    assert_eq!(plan.operations[unsubscribe].action, Action::Unsubscribe { sub: 2 });
}

#[test]
fn deliveries_and_final_messages_are_kept() {
    let plan = plan(TINY);
    let receivers = |id: usize| plan.publishes[id].recorded.iter().map(|delivery| delivery.sub).collect::<Vec<u32>>();
    assert_eq!(receivers(2), [1, 2]);
    assert_eq!(receivers(3), [1]);
    assert_eq!(receivers(6), [1]);
    assert!(plan.publishes[2].has_callbacks && !plan.publishes[4].has_callbacks);
    assert!(plan.finals[1].is_some() && plan.finals[2].is_some());
    assert_eq!(plan.recorded_deliveries(), 13);
    assert_eq!(plan.expected, [0, 8, 5]);
    assert_eq!(plan.mailbox_wait.len(), 8);
}

#[test]
fn a_handler_is_busy_without_what_it_publishes() {
    let plan = plan(TINY);
    // b at +0, m p q pe (30 ns from p to pe) and e at +50: the publish is not the handler's own time.
    let direct = plan.publishes[2].recorded.iter().find(|delivery| delivery.sub == 2).unwrap();
    assert_eq!(direct.busy, 50 - 20);
}

#[test]
fn what_ends_waits_for_its_users() {
    let plan = plan(TINY);
    let needs = |action: Action| {
        let operation = plan.operations.iter().find(|operation| operation.action == action).unwrap();
        operation.needs.clone()
    };
    // Topic 1: two subscribe/unsubscribe of subscription 2, forwards 1 and 2 made and cancelled, publishes 3 and 6.
    assert_eq!(needs(Action::DropTopic { topic: 1 }), [(Counter::TopicMade(1), 1), (Counter::TopicUsed(1), 8)]);
    assert_eq!(needs(Action::Join { sub: 1 }), [(Counter::SubscriptionEnded(1), 1)]);
    assert!(needs(Action::Publish { publish: 5 }).contains(&(Counter::SubscriptionMade(1), 1)));
    assert!(needs(Action::Publish { publish: 5 }).contains(&(Counter::TopicLinked(1), 1)));
    // The writer starts when the main thread has made what it made before.
    assert!(needs(Action::Publish { publish: 2 }).contains(&(Counter::Main, 9)));
}

#[test]
fn unsubscribing_outside_a_callback_waits_for_everything() {
    let plan = plan(TINY);
    for operation in &plan.operations {
        assert_eq!(operation.after_all, matches!(operation.action, Action::Unsubscribe { .. }));
    }
}

#[test]
fn a_name_is_taken_again_only_when_free() {
    let plan = plan(&text(&[
        "1 \"o\":\"tn\",\"T\":1,\"n\":\"a\"",
        "1 \"o\":\"tf\",\"T\":1",
        "2 \"o\":\"tn\",\"T\":2,\"n\":\"a\"",
    ]));
    let second = plan.operations.iter().find(|operation| operation.action == Action::CreateTopic { topic: 2 });
    assert!(second.unwrap().needs.contains(&(Counter::TopicGone(1), 1)));
}

#[test]
fn an_open_trace_is_closed() {
    let plan = plan(&tiny_with("\"o\":\"tf\",\"T\":2", |_| String::new()));
    let last = plan.operations.last().unwrap();
    assert_eq!((last.action, last.after_all), (Action::DropTopic { topic: 2 }, true));
    assert_eq!(plan.asides.closing, 1);
}

#[test]
fn counters_do_not_share_places() {
    let plan = plan(TINY);
    let space = CounterSpace::of(&plan.trace);
    let mut seen = std::collections::HashSet::new();
    use Counter::*;
    for id in 1..=2 {
        for counter in [
            TopicMade(id),
            TopicUsed(id),
            TopicGone(id),
            TopicLinked(id),
            TypeMade(id),
            TypeUsed(id),
            SubscriptionMade(id),
            SubscriptionUsed(id),
            SubscriptionEnded(id),
            ForwardMade(id),
        ] {
            assert!(space.index(counter) < space.len());
            assert!(seen.insert(space.index(counter)), "{counter:?}");
        }
    }
    assert!(seen.insert(space.index(Main)));
}

/// What a handler of `watch` does when it gets the change of `S 2`: direct (`n`) or from a queue (`m`).
fn change_acts(kind: &str, inside: &str) -> String {
    let head = format!("1 \"o\":\"s\",\"S\":1,\"T\":1,\"k\":\"{kind}\",\"f\":\"watch\"");
    let mut lines = vec![
        "1 \"o\":\"y\",\"y\":1,\"n\":\"stasis_subscription_change_type\",\"v\":0",
        "1 \"o\":\"y\",\"y\":2,\"n\":\"news\",\"v\":0",
        "1 \"o\":\"tn\",\"T\":1,\"n\":\"t\"",
        &head,
        "1 \"o\":\"s\",\"S\":2,\"T\":1,\"k\":\"m\",\"f\":\"late\"",
        "1 \"o\":\"m\",\"m\":1,\"y\":1",
        "1 \"o\":\"p\",\"T\":1,\"m\":1,\"n\":1",
    ];
    if kind == "n" {
        lines.extend(["1 \"o\":\"b\",\"S\":1,\"m\":1", inside, "1 \"o\":\"e\",\"S\":1,\"m\":1"]);
        lines.push("1 \"o\":\"pe\",\"T\":1,\"m\":1,\"n\":1");
    } else {
        lines.extend(["1 \"o\":\"q\",\"S\":1,\"m\":1", "1 \"o\":\"pe\",\"T\":1,\"m\":1,\"n\":1"]);
        lines.extend(["2 \"o\":\"b\",\"S\":1,\"m\":1", inside, "2 \"o\":\"e\",\"S\":1,\"m\":1"]);
    }
    text(&lines)
}

#[test]
fn handlers_of_subscription_changes_make_operations() {
    for (kind, thread) in [("n", 1), ("m", 2)] {
        let plan = plan(&change_acts(kind, &format!("{thread} \"o\":\"tn\",\"T\":2,\"n\":\"made\"")));
        let of_handler = actions(&plan, |owner| matches!(owner, Owner::Callback { sub: 1, .. }));
        assert_eq!(of_handler, [Action::CreateTopic { topic: 2 }], "{kind}");
        assert!(plan.changes_act && plan.changes.contains_key(&(true, 2)), "{kind}");
    }
}

/// A direct handler that hears of a beginning ends it: there is a handle only when subscribing has returned.
#[test]
fn an_end_inside_the_own_beginning_comes_after_it() {
    let plan = plan(&change_acts("n", "1 \"o\":\"fa\",\"S\":2,\"y\":2"));
    assert!(!plan.contexts.iter().any(|context| matches!(context.owner, Owner::Callback { .. })));
    let of_thread = actions(&plan, |owner| *owner == Owner::Thread(1));
    assert_eq!(of_thread.last(), Some(&Action::Accept { sub: 2, ty: 2 }));
}

#[test]
fn a_topic_whose_name_is_taken_gets_another_one() {
    let plan = plan(&text(&[
        "1 \"o\":\"tn\",\"T\":1,\"n\":\"t\"",
        "2 \"o\":\"tn\",\"T\":2,\"n\":\"t\"",
        "1 \"o\":\"tf\",\"T\":1",
        "2 \"o\":\"tf\",\"T\":2",
        "2 \"o\":\"tn\",\"T\":3,\"n\":\"t\"",
    ]));
    assert_eq!((plan.name_of(1), plan.name_of(2), plan.name_of(3)), ("t", "t (topic 2)", "t"));
}

#[test]
fn a_forward_to_itself_may_be_cancelled() {
    let plan = plan(&text(&[
        "1 \"o\":\"tn\",\"T\":1,\"n\":\"t\"",
        "1 \"o\":\"fs\",\"F\":1,\"A\":1,\"B\":1",
        "1 \"o\":\"fs\",\"A\":1",
        "1 \"o\":\"fc\",\"F\":1,\"A\":1,\"B\":1",
    ]));
    let made = actions(&plan, |owner| *owner == Owner::Thread(1));
    let expected = [Action::Forward { forward: 1 }, Action::SelfForward { topic: 1 }, Action::Cancel { forward: 1 }];
    assert_eq!(made[1..], expected);
}
