//! Following: the entries, then the updates, while others change them.
#![cfg(loom)]

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom_tests::whole::{LONG, bus_with_budget};
use loom_tests::{Model, spawn};
use stasis_bus::cache::{Cache, CacheClear, CacheSource, CacheUpdate, CachingTopic};
use stasis_bus::follow::{Current, CurrentEntry, Follow, Followed, Losses, Source, Step};
use stasis_bus::model::{full_fence, message_type, settle};
use stasis_bus::{AnyMessageType, Delivery, Message, MessageType, Topic};
use std::sync::{Arc, Mutex};

fn number(message: &Message) -> usize {
    *message.payload().expect("a number")
}

/// What the follower makes of what it is given.
#[derive(Debug, Default)]
struct Mirror {
    ready: bool,
    has: Option<usize>,
    steps: Vec<(Option<usize>, Option<usize>)>,
}

impl Mirror {
    fn take(&mut self, followed: Followed<'_>) {
        let update = |message: &Message| {
            let update = message.payload::<CacheUpdate>().expect("an update");
            (update.old_snapshot().map(number), update.new_snapshot().map(number))
        };
        match followed {
            Followed::Current(message) => {
                assert!(!self.ready && self.has.is_none());
                self.has = update(message).1;
            }
            Followed::Ready => self.ready = true,
            Followed::Update(message) => {
                let (old, new) = update(message);
                self.steps.push((old, new));
                assert!(self.ready && old == self.has, "gap or repeat: {self:?}");
                self.has = new;
            }
            _ => {}
        }
    }
}

/// A follower begins while another thread does `changes` (numbers; zero: clear) on an entry that is there or
/// not, over each caching topic in turn; one is followed itself, several by way of a topic they are forwarded to. It
/// ends with what the cache has, and each step begins where the one before ended.
fn following_against(name: &'static str, topics: usize, is_there: bool, changes: &'static [usize]) {
    Model::new(name).check(move || {
        loom::stop_exploring();
        let bus = bus_with_budget(1 << 16);
        let kind = message_type::<usize>("n");
        let cache = Cache::builder().id(|message| message.payload::<usize>().map(|_| "a".into())).build();
        let topics: Vec<Topic> = (0..topics).map(|number| bus.topic(format!("t{number}")).unwrap()).collect();
        let all = (topics.len() > 1).then(|| bus.topic("all").unwrap());
        let caching: Vec<_> = topics
            .iter()
            .map(|topic| match &all {
                Some(all) => CachingTopic::forwarded_to(topic, &cache, all).unwrap(),
                None => CachingTopic::new(topic, &cache).unwrap(),
            })
            .collect();
        if is_there {
            topics[0].publish(kind.message(9)).unwrap();
        }
        settle(&bus);
        let messages: Vec<Message> = changes
            .iter()
            .map(|&n| if n == 0 { CacheClear::message(kind.message(0)) } else { kind.message(n) })
            .collect();
        loom::explore();
        let writer = {
            let topics = topics.clone();
            spawn(move || {
                for (message, topic) in messages.into_iter().zip(topics.iter().cycle()) {
                    topic.publish(message).unwrap();
                }
            })
        };
        let mirror = Arc::new(Mutex::new(Mirror::default()));
        let into = Arc::clone(&mirror);
        let follow = match &all {
            Some(all) => Follow::new(all, CacheSource::new(&cache)),
            None => caching[0].follow(),
        };
        let following = follow
            .delivery(Delivery::Inline)
            .subscribe(move |_, followed| into.lock().unwrap().take(followed))
            .unwrap();
        writer.join().unwrap();
        loom::stop_exploring();
        caching.iter().for_each(|caching| caching.unsubscribe_and_join(LONG).unwrap());
        following.unsubscribe_and_join(LONG).unwrap();
        assert_eq!(following.subscription().stats().panics, 0);
        let mirror = mirror.lock().unwrap();
        let known = cache.get(&kind, "a");
        assert_eq!(mirror.has, known.as_ref().map(number), "{mirror:?}");
        drop((following, caching, all, topics));
        bus.shutdown(LONG).unwrap();
    });
}

/// Mutations: reading the entries before the forward, or before the way is said to be whole (gap); giving kept updates
/// without looking (repeat).
#[test]
fn following_against_a_change() {
    following_against("following_against_a_change", 1, true, &[1]);
}

/// Mutation: an update of a key that was not among the entries always given, or never.
#[test]
fn following_against_a_removal() {
    following_against("following_against_a_removal", 1, true, &[0]);
}

/// Mutation: as above.
#[test]
fn following_against_a_beginning() {
    following_against("following_against_a_beginning", 1, false, &[1, 0]);
}

/// The forward reaches the two topics one after the other, so the beginning may come and the removal not.
/// Mutations: updates kept that came before the way was whole; the way said to be whole before the forward.
#[test]
fn following_two_topics_against_an_entry_that_goes() {
    following_against("following_two_topics_against_an_entry_that_goes", 2, false, &[1, 0]);
}

/// A number that counts up; updates tell of every step.
struct Counter {
    kind: MessageType<usize>,
    /// Seen by loom, so that the entries are read before a step as well as after it.
    now: AtomicUsize,
    losses: Losses,
}

#[derive(Clone)]
struct Counts(Arc<Counter>);

impl Source for Counts {
    type Key = ();
    fn update_type(&self) -> Option<&AnyMessageType> {
        Some(self.0.kind.as_any())
    }
    fn current(&self) -> Current<()> {
        let now = self.0.now.load(Ordering::SeqCst);
        let entry = CurrentEntry { key: (), version: now as u64, messages: vec![self.0.kind.message(now)] };
        Current { entries: vec![entry], upto: u64::MAX }
    }
    fn step(&self, message: &Message) -> Option<Step<()>> {
        Some(Step { key: (), version: number(message) as u64, begins: false })
    }
    fn losses(&self) -> Option<&Losses> {
        Some(&self.0.losses)
    }
}

/// Of the steps 2, 3, … those in `lost` find no room. A follower gives no step that does not join on, and ends
/// with the last, though no update may tell of it.
fn losing(name: &'static str, last: usize, lost: &'static [usize]) {
    Model::new(name).check(move || {
        loom::stop_exploring();
        let bus = bus_with_budget(1 << 16);
        let source = Counts(Arc::new(Counter {
            kind: message_type::<usize>("n"),
            now: AtomicUsize::new(1),
            losses: Losses::new(),
        }));
        let topic = bus.topic("t").unwrap();
        settle(&bus);
        loom::explore();
        let writer = {
            let (topic, source) = (topic.clone(), source.clone());
            spawn(move || {
                for n in 2..=last {
                    source.0.now.store(n, Ordering::SeqCst);
                    // As any source has to: either the follower reads this, or the update finds it.
                    full_fence();
                    if lost.contains(&n) {
                        source.0.losses.record();
                    } else {
                        topic.publish(source.0.kind.message(n)).unwrap();
                    }
                }
            })
        };
        let story = Arc::new(Mutex::new((0, true)));
        let into = Arc::clone(&story);
        let following = Follow::new(&topic, source)
            .delivery(Delivery::Inline)
            .subscribe(move |_, followed| {
                let (has, restarted) = &mut *into.lock().unwrap();
                match followed {
                    Followed::Restart => *restarted = true,
                    Followed::Current(message) => {
                        assert!(std::mem::take(restarted) && number(message) >= *has);
                        *has = number(message);
                    }
                    Followed::Update(message) => {
                        assert_eq!(number(message), *has + 1, "gap or repeat");
                        *has += 1;
                    }
                    _ => {}
                }
            })
            .unwrap();
        writer.join().unwrap();
        loom::stop_exploring();
        assert_eq!(story.lock().unwrap().0, last, "before the end, too");
        following.unsubscribe_and_join(LONG).unwrap();
        assert_eq!(following.subscription().stats().panics, 0);
        drop((following, topic));
        bus.shutdown(LONG).unwrap();
    });
}

/// Mutations: losses not looked at before an update is given.
#[test]
fn a_loss_is_seen_before_the_next_update() {
    losing("a_loss_is_seen_before_the_next_update", 3, &[2]);
}

/// Mutations: followers not told; the note that one was told not taken back when it comes.
#[test]
fn a_loss_is_told() {
    losing("a_loss_is_told", 3, &[2, 3]);
}
