//! What waits in a buffer, in what order, and who goes when there is no room. No lock, no clock, no threads.
//!
//! ```text
//!   urgent:  c1 · k4 · c4      control messages, and what they took along: earlier ones of their own key
//!   chatter: 2 3 5 6 8         by number; `groups` and `values` find those of a key
//!   marks:   notice after 6, final after 8
//! ```
//!
//! Guarantees: urgent ones come first, in order; chatter in order; a mark after all that came before it; every
//! message that goes in comes out once or is counted once (`tests/overflow.rs`). Cost: O(log n).

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::rules::{Key, Overflow};
use crate::exec::completion::Completion;
use crate::message::Message;
use crate::sync::Arc;

/// A message with what the rules say about it.
pub(super) struct Item {
    pub(super) message: Message,
    /// What it may not overtake.
    pub(super) group: Option<Key>,
    /// What it replaces.
    pub(super) value: Option<Key>,
    pub(super) is_control: bool,
}

/// What comes next.
pub(crate) enum Next {
    Message(Message),
    Notice(Arc<Completion>),
    Final(Message),
}

enum Mark {
    Notice(Arc<Completion>),
    Final(Message),
}

/// What happened to the messages of one buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    /// Handed to the handler.
    pub(crate) handed: u64,
    pub(crate) newest: u64,
    pub(crate) oldest: u64,
    pub(crate) conflated: u64,
    pub(crate) expired: u64,
    pub(crate) late: u64,
    pub(crate) ended: u64,
    /// Publishes refused: not accepted.
    pub(crate) refused: u64,
    pub(crate) high_water: u64,
}

pub(super) struct Store {
    overflow: Overflow,
    next: u64,
    chatter: BTreeMap<u64, Item>,
    urgent: VecDeque<Message>,
    /// Numbers of the chatter of a key, in order.
    groups: HashMap<Key, VecDeque<u64>>,
    /// Number of the chatter that the next value replaces.
    values: HashMap<Key, u64>,
    marks: VecDeque<(u64, Mark)>,
    /// Places promised to publishers.
    reserved: usize,
    /// The final message is queued: what comes is late.
    closed: bool,
    /// Messages lost since the last one came out.
    lost: u64,
    pub(super) counts: Counts,
}

impl Store {
    pub(super) fn new(overflow: Overflow) -> Self {
        Self {
            overflow,
            next: 0,
            chatter: BTreeMap::new(),
            urgent: VecDeque::new(),
            groups: HashMap::new(),
            values: HashMap::new(),
            marks: VecDeque::new(),
            reserved: 0,
            closed: false,
            lost: 0,
            counts: Counts::default(),
        }
    }

    /// Messages that wait.
    pub(super) fn waiting(&self) -> usize {
        self.chatter.len() + self.urgent.len()
    }

    /// All that waits.
    pub(super) fn entries(&self) -> usize {
        self.waiting() + self.marks.len()
    }

    /// Promises a place, where the policy is to refuse; false: there is none.
    pub(super) fn reserve(&mut self) -> bool {
        if self.overflow.limit().is_some_and(|limit| self.waiting() + self.reserved >= limit) && !self.closed {
            self.counts.refused += 1;
            return false;
        }
        self.reserved += 1;
        true
    }

    /// The promised place is used, or not needed after all.
    pub(super) fn release(&mut self) {
        self.reserved -= 1;
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes a message in; what has to go goes to `out`.
    pub(super) fn push(&mut self, item: Item, is_expired: impl Fn(&Message) -> bool, out: &mut Vec<Message>) {
        self.counts.accepted += 1;
        if self.closed {
            self.counts.late += 1;
            out.push(item.message);
            return;
        }
        if let Some(&number) = item.value.as_ref().and_then(|key| self.values.get(key))
            && let Some(old) = self.take(number)
        {
            self.counts.conflated += 1;
            out.push(old.message);
            self.put(number, item);
            return;
        }
        if let Some(limit) = self.overflow.limit()
            && !matches!(self.overflow, Overflow::Fail { .. })
            && self.waiting() >= limit
        {
            self.expire(&is_expired, out);
            if self.waiting() >= limit && !self.make_room(item.is_control, out) {
                self.counts.newest += 1;
                self.lost += 1;
                out.push(item.message);
                return;
            }
        }
        if item.is_control {
            self.hurry(item);
        } else {
            let number = self.number();
            self.put(number, item);
        }
        self.counts.high_water = self.counts.high_water.max(self.waiting() as u64);
    }

    /// Queues a control message, behind what waits of its own key.
    fn hurry(&mut self, item: Item) {
        let earlier = item.group.as_ref().and_then(|key| self.groups.remove(key)).unwrap_or_default();
        for number in earlier {
            if let Some(own) = self.take(number) {
                self.urgent.push_back(own.message);
            }
        }
        self.urgent.push_back(item.message);
    }

    fn put(&mut self, number: u64, item: Item) {
        if let Some(key) = &item.group {
            let group = self.groups.entry(key.clone()).or_default();
            let at = group.partition_point(|&other| other < number);
            group.insert(at, number);
        }
        if let Some(key) = &item.value {
            self.values.insert(key.clone(), number);
        }
        self.chatter.insert(number, item);
    }

    /// Takes one out of the chatter.
    fn take(&mut self, number: u64) -> Option<Item> {
        let item = self.chatter.remove(&number)?;
        if let Some(key) = &item.group
            && let Some(group) = self.groups.get_mut(key)
        {
            if let Ok(at) = group.binary_search(&number) {
                group.remove(at);
            }
            if group.is_empty() {
                self.groups.remove(key);
            }
        }
        if let Some(key) = &item.value {
            self.values.remove(key);
        }
        Some(item)
    }

    /// Drops one that waits in favour of one that comes; false: the one that comes has to go. Chatter goes before
    /// control messages do.
    fn make_room(&mut self, for_control: bool, out: &mut Vec<Message>) -> bool {
        let newest = matches!(self.overflow, Overflow::DropNewest { .. });
        if newest && !for_control {
            return false;
        }
        let victim = if newest { self.chatter.last_key_value() } else { self.chatter.first_key_value() };
        let victim = match victim.map(|(&number, _)| number) {
            Some(number) => self.take(number).map(|item| item.message),
            None if for_control && !newest => self.urgent.pop_front(),
            None => None,
        };
        let Some(victim) = victim else { return false };
        *(if newest { &mut self.counts.newest } else { &mut self.counts.oldest }) += 1;
        self.lost += 1;
        out.push(victim);
        true
    }

    /// Drops the oldest as long as they are too old.
    fn expire(&mut self, is_expired: impl Fn(&Message) -> bool, out: &mut Vec<Message>) {
        while let Some((&number, item)) = self.chatter.first_key_value()
            && is_expired(&item.message)
        {
            out.extend(self.take(number).map(|item| item.message));
            self.counts.expired += 1;
            self.lost += 1;
        }
    }

    /// Queues a notice behind all that waits.
    pub(super) fn notify(&mut self, notice: Arc<Completion>) {
        let number = self.number();
        self.marks.push_back((number, Mark::Notice(notice)));
    }

    /// Queues the final message behind all that waits.
    pub(super) fn finish(&mut self, message: Message) {
        let number = self.number();
        self.closed = true;
        self.marks.push_back((number, Mark::Final(message)));
    }

    /// What comes next, and how many were lost before it.
    pub(super) fn pop(&mut self, is_expired: impl Fn(&Message) -> bool, out: &mut Vec<Message>) -> Option<(Next, u64)> {
        loop {
            let message = match self.urgent.pop_front() {
                Some(message) => message,
                None => {
                    let first = self.chatter.first_key_value().map(|(&number, _)| number);
                    if let Some((number, _)) = self.marks.front()
                        && first.is_none_or(|first| *number < first)
                    {
                        return self.marks.pop_front().map(|(_, mark)| match mark {
                            Mark::Notice(notice) => (Next::Notice(notice), 0),
                            Mark::Final(message) => (Next::Final(message), std::mem::take(&mut self.lost)),
                        });
                    }
                    self.take(first?)?.message
                }
            };
            if !is_expired(&message) {
                self.counts.handed += 1;
                return Some((Next::Message(message), std::mem::take(&mut self.lost)));
            }
            self.counts.expired += 1;
            self.lost += 1;
            out.push(message);
        }
    }

    /// Nobody will serve it any more: messages are counted as such, notices come out.
    pub(super) fn end(&mut self, out: &mut Vec<Message>) -> Vec<Arc<Completion>> {
        self.counts.ended += self.waiting() as u64;
        self.groups.clear();
        self.values.clear();
        out.extend(self.urgent.drain(..));
        out.extend(std::mem::take(&mut self.chatter).into_values().map(|item| item.message));
        let mut notices = Vec::new();
        for (_, mark) in self.marks.drain(..) {
            match mark {
                Mark::Notice(notice) => notices.push(notice),
                Mark::Final(message) => out.push(message),
            }
        }
        notices
    }
}
