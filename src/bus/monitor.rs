//! Looks at every queue now and then: what runs, what waits and since when, what is over its levels.
//!
//! ```text
//!   watchdog's thread, every half period ─┐     lanes: counters, call in progress, who is served away
//!   Bus::health()                        ─┴─►   subscriptions with a thread or a queue of their own
//!                                               └─► rows (copied by health), counts (congestion), news (teller)
//! ```
//!
//! Guarantees: one look at a time, under a lock nobody else waits for but other looks; no user code and no log
//! under it. Cost: a look that takes long makes the next one wait, so that looking is a twentieth of a core at
//! most.

mod own;

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::change::unique_id;
use super::congestion::{Criticality, LevelChange, Levels, Place, WaterMarks};
use super::health::{Executing, QueueHealth, QueueKind, Stuck, StuckKind};
use super::subscriber::Subscriber;
use super::teller::{Callbacks, News, Teller};
use crate::contain::quietly;
use crate::exec::audience::Identified;
use crate::exec::backlog::Backlog;
use crate::exec::hold::{NO_MEMBER, Seen};
use crate::exec::lane::{Away, Lane, Member};
use crate::exec::watchdog::{Observer, Watch};
use crate::sync::{Arc, Mutex, Weak, lock};

/// A look may take this part of the time.
const SHARE: u32 = 20;
/// Longest pause between looks, however long one took: the process may have been stopped in it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Lanes in order, then the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Lane(usize),
    /// Id and when it got stuck.
    Away(u64, Instant),
    Dedicated(u64),
    /// A queue of its own, served by a lane. Only while something waits.
    Own(u64),
}

impl Key {
    fn of_away(&self) -> Option<u64> {
        match *self {
            Self::Away(id, _) => Some(id),
            _ => None,
        }
    }
}

/// A call on a lane, as first seen.
#[derive(Debug)]
struct Call {
    seen: Seen,
    since: Instant,
    /// From then to the last look.
    lasts: Duration,
    is_described: bool,
    /// Looks of the watchdog's thread that saw it.
    sights: u32,
    is_told: bool,
}

/// A queue between looks.
#[derive(Debug)]
struct Tracked {
    row: QueueHealth,
    place: Place,
    /// A call of the subscription whose queue it is.
    own: Option<Executing>,
    backlog: Backlog,
    call: Option<Call>,
    /// What the host was told of, until it is over.
    told: Option<Stuck>,
    /// Number of the look that saw it last.
    look: u64,
}

#[derive(Debug, Default)]
struct State {
    queues: BTreeMap<Key, Tracked>,
    look: u64,
    due: Option<Instant>,
    /// Who was looked at: let go of after the look, for the last reference takes the handler with it.
    held: Vec<Arc<Subscriber>>,
    /// Empty between two looks: memory for those with a thread or a queue of their own.
    own: Vec<Arc<Subscriber>>,
}

/// See the module.
pub(crate) struct Monitor {
    lanes: Box<[Arc<Lane<Subscriber>>]>,
    watch: Arc<Watch>,
    /// Those with a thread or a queue of their own.
    own: Mutex<Vec<Weak<Subscriber>>>,
    state: Mutex<State>,
    pub(super) levels: Levels,
    teller: Arc<Teller>,
    /// Calls that last longer are described, and told of if they keep a lane.
    period: Duration,
}

fn executing(id: u64, subscriber: Option<&Subscriber>, kind: Option<Box<str>>, running_for: Duration) -> Executing {
    let (subscription, topic, location) = match subscriber {
        Some(subscriber) => subscriber.describe(),
        None if id == NO_MEMBER => ("a destructor".to_owned(), String::new(), String::new()),
        None => (format!("subscription {id}"), String::new(), String::new()),
    };
    Executing { id, subscription, topic, location, message_type: kind.map(Into::into), running_for }
}

impl Subscriber {
    /// Name and unique id, topic, and where it was subscribed.
    fn describe(&self) -> (String, String, String) {
        let topic = self.topic.upgrade().map(|topic| topic.name.to_string()).unwrap_or_default();
        let unique = unique_id(&topic, self.id());
        let name = self.name().map_or(unique.clone(), |name| format!("{name} ({unique})"));
        (name, topic, self.location.to_string())
    }
}

impl Tracked {
    fn new(name: String, kind: QueueKind, place: Place) -> Self {
        let row = QueueHealth {
            name,
            kind,
            subsystem: place.subsystem().to_owned(),
            criticality: place.criticality,
            depth: 0,
            high_water: 0,
            oldest: None,
            is_congested: false,
            running: None,
            takeovers: 0,
            panics: 0,
        };
        Self { row, place, own: None, backlog: Backlog::default(), call: None, told: None, look: 0 }
    }

    fn measure(&mut self, now: Instant, pushed: u64, taken: u64) {
        self.row.depth = pushed.saturating_sub(taken);
        self.row.high_water = self.row.high_water.max(self.row.depth);
        self.row.oldest = self.backlog.look(now, pushed, taken);
    }

    /// The row, with what is known of a call that has not lasted long. Made only when somebody asks: a look that
    /// finds nothing worth telling allocates nothing, but for the row of a queue of its own that has just filled.
    /// `own`: its own queue, if it is away from the lane that serves that.
    fn report(&self, own: Option<&Self>) -> QueueHealth {
        let brief = |call: &Call| match &self.own {
            Some(own) if own.id == call.seen.id => Executing { running_for: call.lasts, ..own.clone() },
            _ => executing(call.seen.id, None, None, call.lasts),
        };
        let running = self.row.running.clone().or_else(|| self.call.as_ref().map(brief));
        let row = QueueHealth { running, ..self.row.clone() };
        match own.map(|own| &own.row) {
            Some(&QueueHealth { depth, high_water, oldest, is_congested, .. }) => {
                QueueHealth { depth, high_water, oldest, is_congested, ..row }
            }
            None => row,
        }
    }

    /// Whether the queue crosses a level.
    fn judge(&mut self, levels: &Levels, news: &mut Vec<News>) {
        let is = levels.marks_of(&self.place).judge(self.row.is_congested, self.row.depth, self.row.oldest);
        self.set_congested(is, levels, news);
    }

    fn set_congested(&mut self, is: bool, levels: &Levels, news: &mut Vec<News>) {
        let row = &mut self.row;
        if std::mem::replace(&mut row.is_congested, is) == is {
            return;
        }
        levels.count(&self.place, is);
        news.push(News::Level(LevelChange {
            queue: row.name.clone(),
            subsystem: row.subsystem.clone(),
            criticality: row.criticality,
            is_congested: is,
            depth: row.depth,
            oldest: row.oldest,
        }));
    }

    fn stuck(&mut self, kind: StuckKind, lane: &str) -> Option<News> {
        self.told = Some(Stuck { kind, lane: lane.to_owned(), executing: self.report(None).running? });
        self.told.clone().map(News::Stuck)
    }

    fn returned(&mut self) -> Option<News> {
        self.told.take().map(|stuck| News::Stuck(Stuck { kind: StuckKind::Returned, ..stuck }))
    }

    /// What runs on the lane. `keeps`: it is a lane of others too, looked at by the watchdog's thread.
    /// `held`: takes the subscription.
    fn look_at_call(
        &mut self,
        lane: &Lane<Subscriber>,
        (now, period): (Instant, Duration),
        keeps: bool,
        held: &mut Vec<Arc<Subscriber>>,
    ) -> Vec<News> {
        let mut news = Vec::new();
        let seen = lane.look();
        if self.call.as_ref().is_none_or(|call| call.seen != seen) {
            news.extend(self.returned());
            let is_call = seen.is_call();
            let (lasts, is_described) = (Duration::ZERO, false);
            self.call = is_call.then_some(Call { seen, since: now, lasts, is_described, sights: 0, is_told: false });
            self.row.running = None;
            return news;
        }
        let Some(call) = &mut self.call else { return news };
        let lasts = now.saturating_duration_since(call.since);
        call.lasts = lasts;
        call.sights += u32::from(keeps);
        if let Some(running) = &mut self.row.running {
            running.running_for = lasts;
        }
        if let Some(told) = &mut self.told {
            told.executing.running_for = lasts;
        }
        if lasts < period {
            return news;
        }
        if !call.is_described
            && let Some(described) = lane.describe(seen)
        {
            call.is_described = true;
            let member = described.member.upgrade();
            self.row.running = Some(executing(described.id, member.as_deref(), described.message_type, lasts));
            held.extend(member);
        }
        // The watchdog's look comes before ours: at the third it would have taken the lane over.
        if keeps && call.sights >= 3 && !std::mem::replace(&mut call.is_told, true) {
            news.extend(self.stuck(StuckKind::KeepsLane, lane.name()));
        }
        news
    }
}

impl Monitor {
    pub(super) fn new(
        lanes: &[Arc<Lane<Subscriber>>],
        watch: Arc<Watch>,
        period: Duration,
        marks: WaterMarks,
        callbacks: Callbacks,
    ) -> Arc<Self> {
        Arc::new(Self {
            lanes: lanes.into(),
            watch,
            own: Mutex::default(),
            state: Mutex::default(),
            levels: Levels::new(marks),
            teller: Teller::new(callbacks),
            period,
        })
    }

    /// Looks after a subscription too, if it has a thread or a queue of its own.
    pub(super) fn adopt(&self, subscriber: &Arc<Subscriber>) {
        if let Some(lane) = subscriber.route.own_lane() {
            lane.watched_by(Arc::clone(&self.watch));
        } else if !subscriber.route.is_queued() {
            return;
        }
        let mut own = lock(&self.own);
        // Without a watchdog nobody looks, and takes those out that are gone.
        if own.len() == own.capacity() {
            own.retain(|weak| weak.strong_count() > 0);
        }
        own.push(Arc::downgrade(subscriber));
    }

    /// Looks, whenever the last look was.
    pub(super) fn look_now(&self) {
        self.look_at_all(Instant::now(), true);
    }

    /// Queues as the last look found them.
    pub(super) fn rows(&self) -> Vec<QueueHealth> {
        let mut rows: Vec<_> = {
            let queues = &lock(&self.state).queues;
            // A queue whose subscription is away is shown with that.
            let away: HashSet<_> = queues.keys().filter_map(|key| key.of_away()).collect();
            let shown = queues.iter().filter(|(key, _)| !matches!(key, Key::Own(id) if away.contains(id)));
            let own = |key: &Key| queues.get(&Key::Own(key.of_away()?));
            shown.map(|(key, tracked)| tracked.report(own(key))).collect()
        };
        let rest = rows.len().min(self.lanes.len());
        rows[rest..].sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    /// News the host was not told.
    pub(super) fn untold(&self) -> u64 {
        self.teller.lost()
    }

    /// True: something is to be looked at again soon, even if all lanes sleep.
    fn look_at_all(&self, now: Instant, asked: bool) -> bool {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if !asked && state.due.is_some_and(|due| now < due) {
            return true;
        }
        let mut news = Vec::new();
        state.look += 1;
        for (at, lane) in self.lanes.iter().enumerate() {
            self.look_at_lane(state, at, lane, (now, asked), &mut news);
        }
        let mut active = self.look_at_own(state, now, &mut news);
        let look = state.look;
        state.queues.retain(|key, tracked| {
            let stays = tracked.look == look;
            if !stays {
                tracked.set_congested(false, &self.levels, &mut news);
                news.extend(tracked.returned());
            }
            active |= stays && (matches!(key, Key::Away(..)) || tracked.row.is_congested || tracked.row.depth > 0);
            stays
        });
        state.due = Some(Instant::now() + now.elapsed().saturating_mul(SHARE).min(LONGEST_PAUSE));
        let mut held = std::mem::take(&mut state.held);
        drop(guard);
        held.drain(..).for_each(|subscriber| quietly(|| drop(subscriber)));
        lock(&self.state).held = held;
        self.teller.tell(news);
        active
    }

    fn look_at_lane(
        &self,
        state: &mut State,
        at: usize,
        lane: &Arc<Lane<Subscriber>>,
        (now, asked): (Instant, bool),
        news: &mut Vec<News>,
    ) {
        let place = Place { scope: None, criticality: Criticality::High };
        let new = || Tracked::new(lane.name().to_owned(), QueueKind::Lane, place);
        let tracked = state.queues.entry(Key::Lane(at)).or_insert_with(new);
        tracked.look = state.look;
        let taken = lane.served();
        tracked.measure(now, lane.pushed(), taken);
        let row = &mut tracked.row;
        (row.takeovers, row.panics) = (lane.takeovers(), lane.panics());
        row.high_water = row.high_water.max(lane.high_water());
        let before = tracked.call.as_ref().map(|call| (call.seen.id, call.since));
        let mut told = tracked.look_at_call(lane, (now, self.period), !asked, &mut state.held);
        tracked.judge(&self.levels, news);
        let away = lane.away();
        // Taken over after all: it has not returned.
        told.retain(|one| {
            !matches!(one, News::Stuck(stuck) if stuck.kind == StuckKind::Returned
            && away.iter().any(|away| away.id == stuck.executing.id))
        });
        news.append(&mut told);
        for away in away {
            let since = before.filter(|(id, _)| *id == away.id).map(|(_, since)| since);
            self.look_at_away(state, lane.name(), away, since, now, news);
        }
    }

    fn look_at_away(
        &self,
        state: &mut State,
        lane: &str,
        away: Away<Subscriber>,
        since: Option<Instant>,
        now: Instant,
        news: &mut Vec<News>,
    ) {
        let member = away.member.upgrade();
        let key = Key::Away(away.id, away.opened);
        let is_new = !state.queues.contains_key(&key);
        let tracked = state.queues.entry(key).or_insert_with(|| {
            let place = member.as_ref().map(|member| member.place()).unwrap_or_default();
            if let Some(member) = &member {
                member.post.note_takeover();
            }
            let name = executing(away.id, member.as_deref(), None, Duration::ZERO).subscription;
            Tracked::new(name, QueueKind::Away, place)
        });
        tracked.look = state.look;
        tracked.measure(now, away.pushed, away.pushed - away.waiting);
        if let Some(member) = &member {
            let row = &mut tracked.row;
            (row.takeovers, row.panics) = (member.post.takeovers(), member.post.panics());
        }
        let running = away.running.map(|(kind, began)| {
            if began == away.opened
                && let Some(told) = &mut tracked.told
            {
                told.executing.running_for = now.saturating_duration_since(began);
            }
            // The call that got stuck began before it was noticed.
            let began = since.filter(|_| is_new).unwrap_or(began);
            let kind = kind.or_else(|| member.as_ref()?.serving());
            executing(away.id, member.as_deref(), kind, now.saturating_duration_since(began))
        });
        tracked.row.running = running;
        let has_own = member.as_ref().is_some_and(|member| member.route.is_queued());
        state.held.extend(member);
        if is_new {
            news.extend(tracked.stuck(StuckKind::TakenOver, lane));
        }
        // What waits in a queue of its own counts there.
        if !has_own {
            tracked.judge(&self.levels, news);
        }
    }
}

impl Observer for Monitor {
    fn look(&self) -> bool {
        self.look_at_all(Instant::now(), false)
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("levels", &self.levels).finish_non_exhaustive()
    }
}
