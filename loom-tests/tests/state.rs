//! Following states while others publish, begin and end them.
#![cfg(loom)]

use loom_tests::whole::{LONG, bus_with_budget};
use loom_tests::{Model, spawn};
use stasis_bus::MessageType;
use stasis_bus::model::{message_type, settle};
use stasis_bus::state::{StateChange, StateChangeKind, StateManager, StatePublisher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What happens beside the follower's beginning.
#[derive(Clone, Copy)]
enum Beside {
    /// A thread publishes one more version.
    Publishing,
    /// A thread publishes one more version, then lets the state go.
    Removal,
    /// Two threads publish, and the follower is there already.
    TwoPublishers,
}

/// The story of a follower: versions count up from what it was given first, a removal ends a life, and it ends
/// with what is.
fn following(name: &'static str, beside: Beside) {
    let stories = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let seen = Arc::clone(&stories);
    Model::new(name).check(move || {
        loom::stop_exploring();
        let bus = bus_with_budget(1 << 16);
        let kind: MessageType<usize> = message_type("n");
        let manager = StateManager::new(&bus, "all").unwrap();
        let publisher = manager.add_publisher("a").unwrap();
        publisher.publish(kind.message(1)).unwrap();
        settle(&bus);
        let story: Arc<Mutex<Vec<(StateChangeKind, u64)>>> = Arc::default();
        let follow = || {
            let into = Arc::clone(&story);
            let handler = move |change: &StateChange<'_>| {
                into.lock().unwrap().push((change.kind(), change.version()));
            };
            manager.follow(|builder| builder.no_mailbox(), handler).unwrap()
        };
        let publish = |publisher: StatePublisher, times: usize| {
            let kind = kind.clone();
            move || (0..times).for_each(|n| publisher.publish(kind.message(n)).unwrap())
        };
        let mut kept = None;
        let feed = match beside {
            Beside::Publishing => {
                loom::explore();
                let writer = spawn(publish(publisher.clone(), 1));
                let feed = follow();
                writer.join().unwrap();
                kept = Some(publisher);
                feed
            }
            Beside::Removal => {
                loom::explore();
                let writer = spawn(publish(publisher, 1));
                let feed = follow();
                writer.join().unwrap();
                feed
            }
            Beside::TwoPublishers => {
                let feed = follow();
                loom::explore();
                let writer = spawn(publish(publisher.clone(), 1));
                publish(publisher, 1)();
                writer.join().unwrap();
                feed
            }
        };
        loom::stop_exploring();
        drop(kept.take());
        feed.unsubscribe_and_join(LONG).unwrap();
        assert_eq!(feed.stats().panics, 0);
        let story = story.lock().unwrap();
        let mut last = None;
        for &(kind, version) in &*story {
            match (kind, last) {
                (StateChangeKind::Present, None) => last = Some(version),
                (StateChangeKind::Update, Some(before)) if version == before + 1 => last = Some(version),
                (StateChangeKind::Update, None) if version == 1 => last = Some(1),
                (StateChangeKind::Removed, Some(before)) if version == before => last = None,
                _ => panic!("gap or repeat: {story:?}"),
            }
        }
        // The state goes with those who publish.
        let end: Option<u64> = None;
        let versions = match beside {
            Beside::Removal | Beside::Publishing => 2,
            Beside::TwoPublishers => 3,
        };
        assert!(story.last().is_none_or(|&(_, version)| version == versions), "{story:?}");
        assert_eq!(last, end, "{story:?}");
        seen[usize::from(story.is_empty())].fetch_add(1, Ordering::Relaxed);
        drop((feed, manager));
        bus.shutdown(LONG).unwrap();
    });
    let [told, empty] = [0, 1].map(|at: usize| stories[at].load(Ordering::Relaxed));
    assert!(told > 0, "no follower was told anything");
    // Only a state that goes may be gone before it is followed.
    assert_eq!(empty > 0, matches!(beside, Beside::Removal), "{told} told, {empty} not");
}

/// Mutation: a version told again.
#[test]
fn following_a_state_against_publishing() {
    following("following_a_state_against_publishing", Beside::Publishing);
}

/// Mutation: a removal not told.
#[test]
fn following_a_state_that_goes() {
    following("following_a_state_that_goes", Beside::Removal);
}

/// Mutation: a version stored though the one before was not told.
#[test]
fn versions_are_told_in_order() {
    following("versions_are_told_in_order", Beside::TwoPublishers);
}
