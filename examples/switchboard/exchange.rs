//! The exchange itself: callers in threads, subscribers around them, and what must add up at the end.

use serde::{Serialize, Serializer};
use stasis_bus::cache::{Cache, CacheClear, CacheUpdate, CachingTopic};
use stasis_bus::follow::Followed;
use stasis_bus::format::Formats;
use stasis_bus::pattern::{CachePattern, CacheSingle};
use stasis_bus::{Bus, Delivery, FilterMode, Formatters, Forward, Message, MessageType, Received, Subscription, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

pub(crate) const WORKERS: u32 = 4;
pub(crate) const CALLS_PER_WORKER: u32 = 25;
pub(crate) const DEVICES: usize = 8;
/// How long a subscriber may take to see what is left for it.
const PATIENCE: Duration = Duration::from_secs(30);

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Clone, Debug, Serialize)]
struct Channel {
    id: String,
    call: u32,
    #[serde(serialize_with = "as_name")]
    device: usize,
    state: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Bridge {
    id: String,
    channels: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Device {
    device: String,
    state: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Endpoint {
    id: String,
}

/// One line of the call-record writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) call: u32,
    pub(crate) legs: usize,
    pub(crate) is_answered: bool,
}

/// What each subscriber saw, beside what the callers did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) calls: u32,
    pub(crate) bridged: usize,
    pub(crate) transferred: usize,
    /// Snapshots published, of all kinds the feed carries.
    pub(crate) published: usize,
    pub(crate) channel_snapshots: usize,
    pub(crate) records: Vec<Record>,
    /// Device and its last state; how often it changed.
    pub(crate) devices: BTreeMap<String, (&'static str, usize)>,
    pub(crate) feed: usize,
    pub(crate) feed_sample: Vec<String>,
    pub(crate) endpoint_events: usize,
    pub(crate) late: Late,
    pub(crate) left_in_caches: usize,
}

/// What the late joiner saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Late {
    pub(crate) current: usize,
    pub(crate) updates: usize,
    /// Updates that do not follow from what it had seen.
    pub(crate) gaps: usize,
    known: BTreeSet<String>,
}

impl Outcome {
    /// Everything that does not add up.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut expect = |what: &str, found: usize, expected: usize| {
            if found != expected {
                faults.push(format!("{what}: {found}, not {expected}"));
            }
        };
        let distinct = self.records.iter().map(|record| record.call).collect::<BTreeSet<_>>();
        expect("records", self.records.len(), self.calls as usize);
        expect("calls with a record", distinct.len(), self.calls as usize);
        let three_legs = self.records.iter().filter(|record| record.legs == 3).count();
        expect("records with a transfer", three_legs, self.transferred);
        expect("answered records", self.records.iter().filter(|record| record.is_answered).count(), self.bridged);
        let idle = self.devices.values().filter(|(state, _)| *state == "NOT_INUSE").count();
        expect("idle devices", idle, DEVICES);
        expect("events in the feed", self.feed, self.published);
        expect("channel events at endpoints", self.endpoint_events, self.channel_snapshots);
        expect("gaps of the late joiner", self.late.gaps, 0);
        expect("channels the late joiner still knows", self.late.known.len(), 0);
        expect("entries left in caches", self.left_in_caches, 0);
        if self.late.current == 0 {
            faults.push("the late joiner came to an empty exchange".to_owned());
        }
        faults
    }
}

struct Exchange {
    channel: MessageType<Channel>,
    bridge: MessageType<Bridge>,
    channels: CachePattern,
    bridges: CachePattern,
    endpoints: Vec<CacheSingle>,
}

/// A channel in a call: its topic, forwarded to that of its endpoint.
struct Leg<'a> {
    exchange: &'a Exchange,
    snapshot: Channel,
    single: CacheSingle,
    _forward: Forward,
}

impl<'a> Leg<'a> {
    fn new(exchange: &'a Exchange, call: u32, leg: u32, device: usize, done: &mut Outcome) -> Result<Self, Failure> {
        let id = format!("{call:04}.{leg}");
        let single = exchange.channels.single(format!("channel:{id}"))?;
        let forward = single.topic().forward_to(exchange.endpoints[device].topic())?;
        let mut new = Self { exchange, snapshot: Channel { id, call, device, state: "" }, single, _forward: forward };
        new.set(if leg == 1 { "Ring" } else { "Ringing" }, done)?;
        Ok(new)
    }

    fn set(&mut self, state: &'static str, done: &mut Outcome) -> Result<(), Failure> {
        self.snapshot.state = state;
        self.single.topic().publish(self.exchange.channel.message(self.snapshot.clone()))?;
        done.published += 1;
        done.channel_snapshots += 1;
        Ok(())
    }

    fn hang_up(mut self, done: &mut Outcome) -> Result<(), Failure> {
        self.set("Down", done)?;
        let last = self.exchange.channel.message(self.snapshot);
        self.single.topic().publish(CacheClear::message(last))?;
        Ok(self.single.unsubscribe_and_join(PATIENCE)?)
    }
}

impl Exchange {
    fn call(&self, call: u32, random: &mut u64, done: &mut Outcome, talk: impl FnOnce()) -> Result<(), Failure> {
        done.calls += 1;
        let mut device = || below(random, DEVICES);
        let (from, to, other) = (device(), device(), device());
        let mut caller = Leg::new(self, call, 1, from, done)?;
        let mut callee = Leg::new(self, call, 2, to, done)?;
        if below(random, 5) > 0 {
            caller.set("Up", done)?;
            callee.set("Up", done)?;
            let id = format!("bridge-{call:04}");
            let single = self.bridges.single(format!("bridge:{id}"))?;
            let put = |legs: &[&Leg<'_>]| -> Result<Message, Failure> {
                let channels = legs.iter().map(|leg| leg.snapshot.id.clone()).collect();
                let snapshot = self.bridge.message(Bridge { id: id.clone(), channels });
                single.topic().publish(snapshot.clone())?;
                Ok(snapshot)
            };
            put(&[&caller, &callee])?;
            done.bridged += 1;
            talk();
            done.published += 2;
            if below(random, 3) == 0 {
                let mut target = Leg::new(self, call, 3, other, done)?;
                target.set("Up", done)?;
                put(&[&caller, &target])?;
                done.published += 1;
                done.transferred += 1;
                std::mem::replace(&mut callee, target).hang_up(done)?;
            }
            let last = put(&[])?;
            single.topic().publish(CacheClear::message(last))?;
            single.unsubscribe_and_join(PATIENCE)?;
        } else {
            talk();
        }
        callee.hang_up(done)?;
        caller.hang_up(done)
    }
}

/// Name of the device with this number.
fn name(device: usize) -> String {
    format!("SIP/{}", 1001 + device)
}

fn as_name<S: Serializer>(device: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&name(*device))
}

/// The next number below `limit` (xorshift).
fn below(random: &mut u64, limit: usize) -> usize {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    usize::try_from((*random >> 33) % limit as u64).unwrap_or(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn channel_of(update: &CacheUpdate) -> Option<&Channel> {
    update.new_snapshot().or_else(|| update.old_snapshot())?.payload()
}

/// Subscribes with a log that the handler fills.
fn watch<L: Default + Send + 'static>(
    topic: &Topic,
    delivery: Delivery,
    mut see: impl FnMut(&mut L, &Received<'_>) + Send + 'static,
) -> Result<(Subscription, Arc<Mutex<L>>), Failure> {
    let log = Arc::new(Mutex::new(L::default()));
    let into = Arc::clone(&log);
    let subscription =
        topic.subscriber().delivery(delivery).subscribe(move |received| see(&mut lock(&into), received))?;
    Ok((subscription, log))
}

/// One record per call, when its last channel is gone.
fn write_records(open: &mut BTreeMap<u32, (usize, Record)>, records: &mut Vec<Record>, update: &CacheUpdate) {
    let Some(channel) = channel_of(update) else { return };
    let empty = Record { call: channel.call, legs: 0, is_answered: false };
    let (live, record) = open.entry(channel.call).or_insert((0, empty));
    record.is_answered |= channel.state == "Up";
    if update.begins() {
        *live += 1;
        record.legs += 1;
    } else if update.ends() {
        *live -= 1;
        if *live == 0 {
            records.extend(open.remove(&channel.call).map(|(_, record)| record));
        }
    }
}

/// Runs the exchange; the same seed makes the same calls.
pub(crate) fn run(seed: u64) -> Result<Outcome, Failure> {
    let bus = Bus::builder().lanes(2).build()?;
    let channel = MessageType::<Channel>::builder("channel_snapshot").json().create(&bus)?;
    let bridge = MessageType::<Bridge>::builder("bridge_snapshot").json().create(&bus)?;
    let endpoint = MessageType::<Endpoint>::builder("endpoint_snapshot").json().create(&bus)?;
    let device = MessageType::<Device>::builder("device_state").json().create(&bus)?;
    let channels = CachePattern::all(&bus, "channel:all", |m| Some(m.payload::<Channel>()?.id.as_str().into()))?;
    let bridges = CachePattern::all(&bus, "bridge:all", |m| Some(m.payload::<Bridge>()?.id.as_str().into()))?;
    let phones = CachePattern::all(&bus, "endpoint:all", |m| Some(m.payload::<Endpoint>()?.id.as_str().into()))?;
    let devices = bus.topic("device:all")?;
    let states = Cache::builder().id(|m| Some(m.payload::<Device>()?.device.as_str().into())).build();
    let caching = CachingTopic::new(&devices, &states)?;

    let mut endpoints = Vec::new();
    for number in 0..DEVICES {
        let single = phones.single(format!("endpoint:{}", name(number)))?;
        single.topic().publish(endpoint.message(Endpoint { id: name(number) }))?;
        devices.publish(device.message(Device { device: name(number), state: "NOT_INUSE" }))?;
        endpoints.push(single);
    }

    let mut open = BTreeMap::new();
    let (records, written) = watch(channels.topic_cached(), Delivery::Dedicated, move |log, received| {
        if let Some(update) = received.payload::<CacheUpdate>() {
            write_records(&mut open, log, update);
        }
    })?;
    let (kind, to, mut busy) = (device.clone(), devices.clone(), [0_usize; DEVICES]);
    let (aggregator, refused) =
        watch(channels.topic_cached(), Delivery::default(), move |log: &mut usize, received| {
            let Some(update) = received.payload::<CacheUpdate>() else { return };
            let Some(channel) = channel_of(update).filter(|_| update.begins() || update.ends()) else { return };
            let count = &mut busy[channel.device];
            *count = if update.begins() { *count + 1 } else { *count - 1 };
            let state = if *count == 0 { "NOT_INUSE" } else { "INUSE" };
            let device = Device { device: name(channel.device), state };
            *log += usize::from(to.publish(kind.message(device)).is_err());
        })?;
    let (board, changes) =
        watch(caching.topic(), Delivery::default(), |log: &mut BTreeMap<String, (&'static str, usize)>, received| {
            let update = received.payload::<CacheUpdate>();
            let new = update.and_then(CacheUpdate::new_snapshot).and_then(Message::payload::<Device>);
            if let Some(new) = new {
                let entry = log.entry(new.device.clone()).or_insert((new.state, 0));
                *entry = (new.state, entry.1 + 1);
            }
        })?;
    let (at_phones, heard) = watch(phones.topic(), Delivery::default(), |log: &mut usize, received| {
        *log += usize::from(received.payload::<Channel>().is_some());
    })?;
    let events = bus.topic("feed")?;
    let _forwards = [channels.topic().forward_to(&events)?, bridges.topic().forward_to(&events)?];
    let feed_log = Arc::new(Mutex::new((0_usize, Vec::new())));
    let into = Arc::clone(&feed_log);
    let json_only = events.subscriber().filter_mode(FilterMode::Selective).accept_formatters(Formatters::JSON);
    let feed = json_only.subscribe(move |received| {
        if let Some(json) = received.to_json() {
            let mut log = lock(&into);
            log.0 += 1;
            if log.1.len() < 4 {
                log.1.push(format!("{} {json}", received.type_name()));
            }
        }
    })?;

    let exchange = Exchange { channel, bridge, channels, bridges, endpoints };
    let (is_busy, has_joined) = (Barrier::new(2), Barrier::new(2));
    let late = Arc::new(Mutex::new(Late::default()));
    let into = Arc::clone(&late);
    let (joined, parts) = thread::scope(|scope| {
        let workers = (0..WORKERS).map(|worker| {
            let (exchange, is_busy, has_joined) = (&exchange, &is_busy, &has_joined);
            scope.spawn(move || -> Result<Outcome, String> {
                let mut random = (seed ^ u64::from(worker + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
                let mut done = Outcome::default();
                let mut failure = None;
                for number in 0..CALLS_PER_WORKER {
                    // The late joiner comes while this call is up.
                    let is_met = worker == 0 && number == CALLS_PER_WORKER / 2;
                    let mut has_met = false;
                    let talk = || {
                        if is_met {
                            is_busy.wait();
                            has_joined.wait();
                            has_met = true;
                        }
                    };
                    let call = worker * CALLS_PER_WORKER + number + 1;
                    let made = exchange.call(call, &mut random, &mut done, talk);
                    if is_met && !has_met {
                        is_busy.wait();
                        has_joined.wait();
                    }
                    failure = failure.or(made.err());
                }
                failure.map_or(Ok(done), |failure| Err(failure.to_string()))
            })
        });
        let workers = workers.collect::<Vec<_>>();
        is_busy.wait();
        let joined = exchange.channels.follow().subscribe(move |_, followed| {
            let mut late = lock(&into);
            let is_current = matches!(followed, Followed::Current(_));
            let update = followed.message().and_then(|message| message.payload::<CacheUpdate>().cloned());
            let Some(update) = update else { return };
            *(if is_current { &mut late.current } else { &mut late.updates }) += 1;
            let was_known = late.known.contains(update.id());
            late.gaps += usize::from(was_known != update.old_snapshot().is_some());
            if update.new_snapshot().is_some() {
                late.known.insert(update.id().to_owned());
            } else {
                late.known.remove(update.id());
            }
        });
        has_joined.wait();
        let parts = workers.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>();
        (joined, parts)
    });
    let joined = joined?;

    let mut outcome = Outcome::default();
    for part in parts {
        let part = part.map_err(|_| "a caller panicked")??;
        outcome.calls += part.calls;
        outcome.bridged += part.bridged;
        outcome.transferred += part.transferred;
        outcome.published += part.published;
        outcome.channel_snapshots += part.channel_snapshots;
    }
    joined.unsubscribe_and_join(PATIENCE)?;
    // The aggregator before the board: it feeds it.
    for subscription in [records, aggregator, board, at_phones, feed] {
        subscription.unsubscribe_and_join(PATIENCE)?;
    }
    if *lock(&refused) > 0 {
        return Err("a device state could not be published".into());
    }
    for (number, single) in exchange.endpoints.into_iter().enumerate() {
        single.topic().publish(CacheClear::message(endpoint.message(Endpoint { id: name(number) })))?;
        let last = Device { device: name(number), state: "NOT_INUSE" };
        devices.publish(CacheClear::message(device.message(last)))?;
        single.unsubscribe_and_join(PATIENCE)?;
    }
    caching.unsubscribe_and_join(PATIENCE)?;
    outcome.left_in_caches =
        [exchange.channels.cache(), exchange.bridges.cache(), phones.cache(), &states].map(Cache::len).iter().sum();
    outcome.records.clone_from(&lock(&written));
    outcome.records.sort_by_key(|record| record.call);
    outcome.devices.clone_from(&lock(&changes));
    (outcome.feed, outcome.feed_sample) = lock(&feed_log).clone();
    outcome.endpoint_events = *lock(&heard);
    outcome.late = lock(&late).clone();
    Ok(outcome)
}
