//! The monitor's look at subscriptions with a thread or a queue of their own.
//!
//! Guarantees: a queue of its own on a shared lane has a row only while something waits there, so that a look costs
//! little for those that keep up; who was looked at is let go of after the look. Cost: a short lock of each queue.

use std::time::{Duration, Instant};

use super::{Key, Monitor, State, Tracked, executing};
use crate::bus::health::QueueKind;
use crate::bus::teller::News;
use crate::exec::audience::Identified;
use crate::sync::lock;

impl Monitor {
    /// True: something is to be looked at again soon.
    pub(super) fn look_at_own(&self, state: &mut State, now: Instant, news: &mut Vec<News>) -> bool {
        let mut alive = std::mem::take(&mut state.own);
        lock(&self.own).retain(|weak| match weak.upgrade() {
            Some(subscriber) if !subscriber.done.is_done() => {
                alive.push(subscriber);
                true
            }
            other => {
                alive.extend(other);
                false
            }
        });
        let mut awake = false;
        for subscriber in &alive {
            if subscriber.done.is_done() {
                continue;
            }
            let (id, own_lane) = (subscriber.id(), subscriber.route.own_lane());
            let counts = subscriber.route.look();
            let (key, kind) = match own_lane {
                Some(_) => (Key::Dedicated(id), QueueKind::Dedicated),
                None => (Key::Own(id), QueueKind::Own),
            };
            // There may be many, and those where nothing waits have nothing to tell.
            if own_lane.is_none() && counts.is_none_or(|(_, waiting)| waiting == 0) && !state.queues.contains_key(&key)
            {
                continue;
            }
            awake |= own_lane.is_some_and(|lane| !lane.is_asleep());
            let new = || {
                let own = executing(id, Some(subscriber), None, Duration::ZERO);
                let tracked = Tracked::new(own.subscription.clone(), kind, subscriber.place());
                Tracked { own: Some(own), ..tracked }
            };
            let tracked = state.queues.entry(key).or_insert_with(new);
            let high_water = match (counts, own_lane) {
                // Whatever goes first: the oldest is as old as the one that came when as many came later as wait.
                (Some((counts, waiting)), _) => {
                    tracked.measure(now, counts.accepted, counts.accepted.saturating_sub(waiting));
                    counts.high_water
                }
                (None, Some(lane)) => {
                    tracked.measure(now, lane.pushed(), lane.served());
                    lane.high_water()
                }
                (None, None) => 0,
            };
            tracked.row.high_water = tracked.row.high_water.max(high_water);
            tracked.row.panics = subscriber.post.panics();
            tracked.row.takeovers = subscriber.post.takeovers();
            if let Some(lane) = own_lane {
                tracked.look_at_call(lane, (now, self.period), false, &mut state.held);
            }
            tracked.judge(&self.levels, news);
            if own_lane.is_some() || tracked.row.depth > 0 || tracked.row.is_congested {
                tracked.look = state.look;
            }
        }
        state.held.append(&mut alive);
        state.own = alive;
        awake
    }
}
