//! Short-lived buses with everything above the engine: caches and followers, routers, pools, state,
//! taskprocessors. Each round makes a bus, asks it questions with known answers, and ends it.

use super::ledger::{Ledger, Verdict};
use super::random::Random;
use super::run::{PATIENCE, lock};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use stasis_bus::cache::{Cache, CacheUpdate, CachingTopic};
use stasis_bus::router::Router;
use stasis_bus::state::StateManager;
use stasis_bus::taskprocessor::{Serializers, TaskPool, Taskprocessors};
use stasis_bus::topic_pool::TopicPool;
use stasis_bus::{Bus, MessageType};

const PAUSE: Duration = Duration::from_millis(200);
const STEPS: u64 = 200;
const IDS: [&str; 5] = ["100", "101", "102", "103", "104"];

type Outcome = Result<(), Box<dyn Error>>;
type State = (&'static str, u64);

/// Rounds until the soak stops.
pub(crate) fn extras(ledger: &Ledger, seed: u64) {
    let mut random = Random::new(seed, u64::MAX - 1);
    while !ledger.stops() {
        if let Err(error) = round(&mut random) {
            ledger.violated(Verdict::Extras, 1, || error.to_string());
        }
        ledger.rounds.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
}

fn round(random: &mut Random) -> Outcome {
    let bus = Bus::builder().name("extras").lanes(1).pinning(stasis_bus::Pinning::Off).build()?;
    caches(&bus, random)?;
    routers_and_pools(&bus, random)?;
    states(&bus, random)?;
    tasks(&bus)?;
    let left = bus.shutdown(PATIENCE)?;
    let named: Vec<&str> = left.topics.iter().map(|topic| topic.name.as_str()).collect();
    expect("topics left after shutdown", named, Vec::new())
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, not {expected:?}").into()) }
}

/// Two followers, one there from the start and one that comes later, end with what the cache has.
fn caches(bus: &Bus, random: &mut Random) -> Outcome {
    let kind = MessageType::<State>::new(bus, "device_state")?;
    let cache = Cache::builder().id(|message| Some(message.payload::<State>()?.0.into())).build();
    let topic = bus.topic("device:all")?;
    let caching = CachingTopic::new(&topic, &cache)?;
    let follow = || {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let inside = Arc::clone(&seen);
        let following = caching.follow().subscribe(move |_, followed| {
            let update = followed.message().and_then(|message| message.payload::<CacheUpdate>());
            if let Some(update) = update
                && let Some(&(id, value)) = update.new_snapshot().and_then(|snapshot| snapshot.payload::<State>())
            {
                lock(&inside).insert(id, value);
            }
        });
        following.map(|following| (following, seen))
    };
    let mut followers = vec![follow()?];
    let mut truth = BTreeMap::new();
    for n in 0..STEPS {
        let id = IDS[random.below(IDS.len())];
        topic.publish(kind.message((id, n)))?;
        truth.insert(id, n);
        if n == STEPS / 2 {
            followers.push(follow()?);
        }
    }
    caching.unsubscribe_and_join(PATIENCE)?;
    for (following, seen) in followers {
        following.unsubscribe_and_join(PATIENCE)?;
        expect("a follower", lock(&seen).clone(), truth.clone())?;
    }
    let dump = cache.dump(Some(&kind)).iter().filter_map(|message| message.payload::<State>().copied()).collect();
    expect("the cache", dump, truth)
}

/// Two types over the topics of a pool, each to its own route.
fn routers_and_pools(bus: &Bus, random: &mut Random) -> Outcome {
    let (dial, hangup) = (MessageType::<u64>::new(bus, "dial")?, MessageType::<u64>::new(bus, "hangup")?);
    let all = bus.topic("channel:all")?;
    let pool = TopicPool::new(bus, &all)?;
    let router = Router::create(&all)?;
    let sums = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    for (kind, sum) in [&dial, &hangup].into_iter().zip(&sums) {
        let sum = Arc::clone(sum);
        let add = move |received: &stasis_bus::Received<'_>| {
            sum.fetch_add(received.payload::<u64>().copied().unwrap_or_default(), Ordering::Relaxed);
        };
        router.routes().add(kind, add)?;
    }
    let mut truth = [0, 0];
    for n in 1..=STEPS {
        let topic = pool.get(IDS[random.below(IDS.len())])?;
        let which = random.below(2);
        topic.publish([&dial, &hangup][which].message(n))?;
        truth[which] += n;
        if random.below(10) == 0 {
            pool.delete(IDS[random.below(IDS.len())]);
        }
    }
    router.unsubscribe_and_join(PATIENCE)?;
    expect("sums of the routes", sums.map(|sum| sum.load(Ordering::Relaxed)), truth)
}

/// A follower of states ends with what the manager has.
fn states(bus: &Bus, random: &mut Random) -> Outcome {
    let kind = MessageType::<u64>::new(bus, "mwi_state")?;
    let manager = StateManager::new(bus, "mwi:all")?;
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let inside = Arc::clone(&seen);
    let feed = manager.follow(
        |builder| builder,
        move |change| {
            let value = change.message().and_then(|message| message.payload::<u64>().copied());
            match value {
                Some(value) => lock(&inside).insert(change.id().to_owned(), value),
                None => lock(&inside).remove(change.id()),
            };
        },
    )?;
    let mut truth = BTreeMap::new();
    for n in 0..STEPS {
        let id = IDS[random.below(IDS.len())];
        if random.below(5) == 0 && truth.remove(id).is_some() {
            manager.remove_publish_by_id(id, None, None)?;
        } else {
            manager.publish_by_id(id, None, kind.message(n))?;
            truth.insert(id.to_owned(), n);
        }
    }
    feed.unsubscribe_and_join(PATIENCE)?;
    expect("states that are followed", lock(&seen).clone(), truth.clone())?;
    let data = |id: &str| manager.data(id).and_then(|message| message.payload::<u64>().copied());
    let have: BTreeMap<_, _> = IDS.iter().filter_map(|id| Some(((*id).to_owned(), data(id)?))).collect();
    expect("states", have, truth)
}

/// Serializers of a pool of threads and of the lanes run their tasks in order.
fn tasks(bus: &Bus) -> Outcome {
    let registry = Taskprocessors::new();
    let pool = TaskPool::builder("soak").initial_size(1).max_size(2).registry(&registry).build()?;
    let (by_thread, by_lane) =
        (pool.serializer("soak/pool")?, Serializers::new(bus, &registry)?.serializer("soak/lane")?);
    let done = [(); 2].map(|()| Arc::new(Mutex::new(Vec::new())));
    for n in 0..STEPS {
        let [threads, lanes] = done.clone();
        by_thread.push(move || lock(&threads).push(n)).map_err(|_| "a pool refused a task")?;
        by_lane.push(move || lock(&lanes).push(n)).map_err(|_| "a serializer refused a task")?;
    }
    drop(by_thread);
    pool.shutdown(PATIENCE)?;
    by_lane.release().wait_timeout(PATIENCE)?;
    for done in done {
        expect("tasks in order", lock(&done).clone(), (0..STEPS).collect())?;
    }
    Ok(())
}
