//! What asks for a thread when the system gives none. Alone in its process: it limits what that may map.
#![cfg(all(target_os = "linux", not(miri)))]
#![allow(missing_docs)]
mod common;
#[path = "common/few_threads.rs"]
mod few_threads;

use common::{Log, PATIENCE, eventually, must_end, number};
use few_threads::{FewThreads, STACK};
use stasis_bus::{BuildError, Bus, Delivery, Home, Pinning, SubscribeError};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_thread_that_is_refused_is_an_error_and_what_runs_goes_on() {
    must_end(|| {
        let build = |lanes| Bus::builder().lanes(lanes).pinning(Pinning::Off).ring_capacity(1024).build();
        let bus = build(1).unwrap();
        let (kind, topic, log) = (number(&bus), bus.topic("t").unwrap(), Log::new());
        let lane = Delivery::Lane(Home::Lane(0));
        let listener = topic.subscriber().delivery(lane).accept(&kind).subscribe(log.handler()).unwrap();
        topic.publish(kind.message(0)).unwrap();
        eventually("it runs", || log.values() == [0]);
        let before = threads();

        let none = FewThreads::none();
        let refused = build(2);
        assert!(matches!(refused, Err(BuildError::Thread(_))), "{refused:?}");
        let dedicated = || topic.subscriber().delivery(Delivery::Dedicated).accept(&kind);
        let refused = dedicated().subscribe(|_| ());
        assert!(matches!(refused, Err(SubscribeError::Thread(_))), "{refused:?}");
        assert_eq!(topic.subscribers(), 1, "nothing of it is left");
        topic.publish(kind.message(1)).unwrap();
        eventually("the lane goes on", || log.values() == [0, 1]);
        drop(none);

        // One lane's thread is made, the next one's is not: the first one ends again.
        let few = FewThreads::with_room(STACK + STACK / 2);
        let refused = build(2);
        assert!(matches!(refused, Err(BuildError::Thread(_))), "{refused:?}");
        eventually("the thread that was made has ended", || threads() == before);
        drop(few);

        let other = dedicated().subscribe(log.handler()).unwrap();
        topic.publish(kind.message(2)).unwrap();
        eventually("both have it", || log.values() == [0, 1, 2, 2]);
        for subscription in [other, listener] {
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
        }
        assert_eq!(bus.shutdown(PATIENCE).unwrap().topics.len(), 1);
    });
}
