//! The control path: who is subscribed where, and which topic forwards to which.
//!
//! ```text
//!   one short lock ─► graph of forwards ─► for each topic upstream: build, swap, set hint
//!        └ released ─► old snapshots retired, messages published, queues pushed
//! ```
//!
//! A subscription stands in the list of every topic from which its own topic can be reached over
//! forwards: once, however many ways lead there. So diamonds, cycles and self-forwards need no care
//! when publishing, and cancelling a forward takes out exactly what can no longer be reached.
//!
//! Guarantees: each topic's list changes atomically; no user code, no push and no destructor of a list
//! runs under the lock (G7); cost: O(topics upstream) per subscribe, O(list) per topic per forward.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::iter::once;

use super::give_back;
use super::subscriber::Subscriber;
use super::subscribers::Subscribers;
use super::topic::TopicInner;
use crate::exec::audience::Entry;
use crate::message::Filter;
use crate::pinned::Unlinked;
use crate::reclaim::Reclaimer;
use crate::sync::{Arc, Mutex, MutexGuard, Weak, lock};

#[derive(Default)]
struct Node {
    topic: Weak<TopicInner>,
    /// Topics forwarded to, by forward id.
    out: BTreeMap<u64, u64>,
    /// Topics forwarded from, by forward id. A map: a topic pool forwards 100,000 topics to one.
    into: BTreeMap<u64, u64>,
}

#[derive(Default)]
struct Graph {
    /// Topics with forwards only.
    nodes: HashMap<u64, Node>,
    next_forward: u64,
    /// Subscriptions taken off the lists that may not be done yet, as long as somebody has them.
    leaving: Vec<Weak<Subscriber>>,
    /// Length of `leaving` at which it is looked through.
    tidy_at: usize,
    closed: bool,
}

/// The control state of a bus.
pub(crate) struct ControlPath {
    graph: Mutex<Graph>,
    reclaimer: Arc<Reclaimer>,
}

/// The lock, and the snapshots that were replaced under it.
struct Change<'a> {
    graph: Option<MutexGuard<'a, Graph>>,
    /// The latest, and those before: mostly it is one, and nothing is allocated.
    old: (Option<Unlinked<Subscribers>>, Vec<Unlinked<Subscribers>>),
    reclaimer: &'a Arc<Reclaimer>,
}

impl Graph {
    /// Where the topics lie that a topic reaches, itself included. A subscription's own keeps its place.
    fn reached(&self, topic: &Arc<TopicInner>) -> HashSet<*const TopicInner> {
        let ids = self.closure(topic.id, |node| &node.out);
        let places = ids.iter().filter_map(|id| self.nodes.get(id)).map(|node| node.topic.as_ptr());
        places.chain([Arc::as_ptr(topic)]).collect()
    }

    /// Topics that reach `start` (or that it reaches), itself first.
    fn closure(&self, start: u64, edges: impl Fn(&Node) -> &BTreeMap<u64, u64>) -> Vec<u64> {
        let mut seen = HashSet::from([start]);
        let mut order = vec![start];
        let mut open = VecDeque::from([start]);
        while let Some(id) = open.pop_front() {
            for &next in self.nodes.get(&id).map(&edges).into_iter().flat_map(BTreeMap::values) {
                if seen.insert(next) {
                    order.push(next);
                    open.push_back(next);
                }
            }
        }
        order
    }

    /// All other topics whose messages come to `topic`. Nothing is allocated if there are none.
    fn upstream(&self, topic: &Arc<TopicInner>) -> Vec<Arc<TopicInner>> {
        if !self.nodes.contains_key(&topic.id) {
            return Vec::new();
        }
        let reached = self.closure(topic.id, |node| &node.into).into_iter().filter(|&id| id != topic.id);
        reached.filter_map(|id| self.nodes.get(&id)?.topic.upgrade()).collect()
    }

    fn node(&mut self, topic: &Arc<TopicInner>) -> &mut Node {
        let node = self.nodes.entry(topic.id).or_default();
        node.topic = Arc::downgrade(topic);
        node
    }

    fn remember_leaving(&mut self, subscriber: &Arc<Subscriber>) {
        if self.leaving.len() >= self.tidy_at {
            // Not by way of a reference: it could be the last, and take what is the user's with it under the lock.
            self.leaving.retain(|other| other.strong_count() > 0);
            self.tidy_at = 2 * self.leaving.len() + 64;
        }
        self.leaving.push(Arc::downgrade(subscriber));
    }

    fn unlink(&mut self, topic: u64, forward: u64) {
        if let Some(node) = self.nodes.get_mut(&topic) {
            node.out.remove(&forward);
            node.into.remove(&forward);
            if node.out.is_empty() && node.into.is_empty() {
                self.nodes.remove(&topic);
                give_back(&mut self.nodes);
            }
        }
    }
}

impl<'a> Change<'a> {
    fn graph(&mut self) -> &mut Graph {
        self.graph.as_mut().expect("held until dropped")
    }

    /// Replaces a topic's list by what `edit` makes of it.
    fn edit(&mut self, topic: &TopicInner, edit: impl FnOnce(&Subscribers) -> Option<Subscribers>) {
        let Some(new) = edit(&topic.list.load()) else { return };
        let interest = new.interest();
        topic.hint.open();
        let old = topic.list.swap(Arc::new(new));
        if let Some(old) = self.old.0.replace(old) {
            self.old.1.push(old);
        }
        topic.hint.set(&interest);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        drop(self.graph.take());
        for old in self.old.0.take().into_iter().chain(self.old.1.drain(..)) {
            old.retire(self.reclaimer);
        }
    }
}

impl ControlPath {
    pub(crate) fn new(reclaimer: Arc<Reclaimer>) -> Self {
        Self { graph: Mutex::new(Graph::default()), reclaimer }
    }

    fn change(&self) -> Change<'_> {
        Change { graph: Some(lock(&self.graph)), old: (None, Vec::new()), reclaimer: &self.reclaimer }
    }

    /// Enters a subscription into its topic and all topics upstream; false if the bus is closed.
    pub(crate) fn subscribe(&self, topic: &Arc<TopicInner>, entry: &Entry<Subscriber>) -> bool {
        let mut change = self.change();
        if change.graph().closed {
            return false;
        }
        let upstream = change.graph().upstream(topic);
        for topic in once(topic).chain(&upstream) {
            change.edit(topic, |list| list.with(std::slice::from_ref(entry)));
        }
        drop(change);
        true
    }

    /// Takes a subscription off all lists.
    pub(crate) fn unsubscribe(&self, topic: &Arc<TopicInner>, subscriber: &Arc<Subscriber>) {
        let mut change = self.change();
        change.graph().remember_leaving(subscriber);
        let upstream = change.graph().upstream(topic);
        for topic in once(topic).chain(&upstream) {
            change.edit(topic, |list| list.without(subscriber));
        }
        // The lock goes before `upstream`: last references may be among them.
        drop(change);
    }

    /// Changes a subscription's filter on all lists.
    pub(crate) fn refilter(
        &self,
        topic: &Arc<TopicInner>,
        subscriber: &Arc<Subscriber>,
        change_filter: impl FnOnce(&mut Filter),
    ) {
        let mut change = self.change();
        let Some(mut filter) =
            topic.list.load().get(subscriber).map(|entry| entry.filter.as_deref().cloned().unwrap_or_default())
        else {
            return;
        };
        change_filter(&mut filter);
        let entry = Entry::new(Arc::clone(subscriber), Some(Arc::new(filter)));
        let upstream = change.graph().upstream(topic);
        for topic in once(topic).chain(&upstream) {
            change.edit(topic, |list| list.refiltered(&entry));
        }
        drop(change);
    }

    /// Forwards all of `from` to `to`; the forward's number, or `None` if the bus is closed.
    pub(crate) fn forward(&self, from: &Arc<TopicInner>, to: &Arc<TopicInner>) -> Option<u64> {
        let mut change = self.change();
        let graph = change.graph();
        if graph.closed {
            return None;
        }
        graph.next_forward += 1;
        let id = graph.next_forward;
        graph.node(from).out.insert(id, to.id);
        graph.node(to).into.insert(id, from.id);
        let upstream = graph.upstream(from);
        let reached: Vec<_> = to.list.load().iter().cloned().collect();
        for topic in once(from).chain(&upstream) {
            change.edit(topic, |list| list.with(&reached));
        }
        drop(change);
        Some(id)
    }

    /// Takes a forward out, and from each list what only it had brought.
    pub(crate) fn cancel(&self, from: &Arc<TopicInner>, to: &Arc<TopicInner>, forward: u64) {
        let mut change = self.change();
        let upstream = change.graph().upstream(from);
        change.graph().unlink(from.id, forward);
        change.graph().unlink(to.id, forward);
        for topic in once(from).chain(&upstream) {
            let reached = change.graph().reached(topic);
            change.edit(topic, |list| list.retain(|subscriber| reached.contains(&subscriber.topic.as_ptr())));
        }
        drop(change);
    }

    /// Takes the subscriptions of a topic off its list, and all others too.
    pub(crate) fn evict(&self, topic: &TopicInner) -> Vec<Arc<Subscriber>> {
        let mut change = self.change();
        let own: Vec<_> = topic.list.load().own(topic);
        for subscriber in &own {
            change.graph().remember_leaving(subscriber);
        }
        change.edit(topic, |_| Some(Subscribers::none()));
        drop(change);
        own
    }

    /// Subscriptions off the lists that are not done.
    pub(crate) fn leaving(&self) -> Vec<Arc<Subscriber>> {
        let mut change = self.change();
        let mut leaving: Vec<_> = change.graph().leaving.iter().filter_map(Weak::upgrade).collect();
        drop(change);
        leaving.retain(|subscriber| !subscriber.done.is_done());
        leaving
    }

    /// Refuses subscriptions and forwards from now on.
    pub(crate) fn close(&self) {
        self.change().graph().closed = true;
    }
}

impl std::fmt::Debug for ControlPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPath").finish_non_exhaustive()
    }
}
