//! Who gets what is published on a topic: the snapshot publishers read.
//!
//! ```text
//!   Subscribers { parts: [ lane 0: a b c ][ lane 1: d e ][ own lane of f: f ], inline: [ g h ] }
//!   Hint        { bits of all accepted types }      read before the snapshot is even loaded
//! ```
//!
//! Guarantees: a snapshot never changes; a subscription stands in it at most once, with the filter it
//! had at that moment; the hint is never narrower than the snapshot.

use crate::exec::audience::{Audience, Entry, Identified};
use crate::exec::lane::Lane;
use crate::exec::part::Part;
use crate::message::{Formatters, Interest, Message, TypeId, TypeSet};
use crate::sync::{Arc, AtomicU64, Ordering};

use super::subscriber::Subscriber;
use super::topic::TopicInner;

/// One snapshot.
pub(crate) struct Subscribers {
    pub(crate) parts: Box<[Part<Subscriber>]>,
    /// Those that publishers deliver to themselves: inline ones, and those with a queue of their own.
    pub(crate) inline: Arc<Audience<Subscriber>>,
    /// How many of those have a queue of their own.
    pub(crate) queued: usize,
}

impl Subscribers {
    pub(crate) fn none() -> Self {
        Self { parts: Box::default(), inline: Arc::new(Audience::empty()), queued: 0 }
    }

    /// Subscriptions in it.
    pub(crate) fn len(&self) -> usize {
        self.inline.len() + self.parts.iter().map(|part| part.audience().len()).sum::<usize>()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<Subscriber>> {
        self.parts.iter().flat_map(|part| part.audience().iter()).chain(self.inline.iter())
    }

    /// Those subscribed to this very topic.
    pub(crate) fn own(&self, topic: &TopicInner) -> Vec<Arc<Subscriber>> {
        self.iter().map(|entry| entry.member()).filter(|member| member.is_of(topic)).cloned().collect()
    }

    /// What any of them may accept.
    pub(crate) fn interest(&self) -> Interest {
        let mut interest = self.inline.interest().clone();
        for part in &self.parts {
            interest.extend(part.audience().interest());
        }
        interest
    }

    fn part_of(&self, lane: &Arc<Lane<Subscriber>>) -> Option<usize> {
        self.parts.iter().position(|part| Arc::ptr_eq(part.lane(), lane))
    }

    /// The list a subscription stands in, if it does.
    fn list_of(&self, subscriber: &Subscriber) -> Option<&Audience<Subscriber>> {
        match subscriber.route.dispatch_lane() {
            None => Some(&self.inline),
            Some(lane) => self.part_of(lane).map(|at| self.parts[at].audience()),
        }
    }

    /// A snapshot with these too; `None` if all are in already.
    pub(crate) fn with(&self, entries: &[Entry<Subscriber>]) -> Option<Self> {
        if let [entry] = entries
            && let Some(lane) = entry.member().route.dispatch_lane()
            && let Some(at) = self.part_of(lane)
        {
            // The common case, with the fewest allocations.
            let list = self.parts[at].audience();
            return list.get(entry.member().id()).is_none().then(|| self.replace(entry.member(), list.with(entries)));
        }
        let is_new = |entry: &&Entry<Subscriber>| {
            self.list_of(entry.member()).is_none_or(|list| list.get(entry.member().id()).is_none())
        };
        let mut added: Vec<Entry<Subscriber>> = entries.iter().filter(is_new).cloned().collect();
        if added.is_empty() {
            return None;
        }
        let mut parts = self.parts.to_vec();
        let mut inline = Arc::clone(&self.inline);
        let queued = self.queued + added.iter().filter(|entry| entry.member().route.is_queued()).count();
        while let Some(first) = added.first() {
            let lane = first.member().route.dispatch_lane().cloned();
            let same_list = |entry: &mut Entry<Subscriber>| match (&lane, entry.member().route.dispatch_lane()) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (a, b) => a.is_none() && b.is_none(),
            };
            let group: Vec<_> = added.extract_if(.., same_list).collect();
            match lane {
                None => inline = Arc::new(inline.with(&group).ready()),
                Some(lane) => match parts.iter().position(|part| Arc::ptr_eq(part.lane(), &lane)) {
                    Some(at) => parts[at] = Part::new(lane, parts[at].audience().with(&group)),
                    None => parts.push(Part::new(lane, Audience::from_entries(group))),
                },
            }
        }
        Some(Self { parts: parts.into(), inline, queued })
    }

    /// A snapshot in which one list is another; an empty list goes.
    fn replace(&self, subscriber: &Subscriber, list: Audience<Subscriber>) -> Self {
        let Some(lane) = subscriber.route.dispatch_lane() else {
            let gone = usize::from(subscriber.route.is_queued() && list.len() < self.inline.len());
            return Self { parts: self.parts.clone(), inline: Arc::new(list.ready()), queued: self.queued - gone };
        };
        let gone = list.len() == 0;
        let mut parts = self.parts.to_vec();
        if let Some(at) = self.part_of(lane) {
            if gone {
                parts.remove(at);
            } else {
                parts[at] = Part::new(Arc::clone(lane), list);
            }
        }
        Self { parts: parts.into(), inline: Arc::clone(&self.inline), queued: self.queued }
    }

    /// A snapshot without this subscription; `None` if it is not in.
    pub(crate) fn without(&self, subscriber: &Subscriber) -> Option<Self> {
        // The shell of such a subscription holds a queue.
        let lean = subscriber.route.dispatch_lane().is_none();
        let list = self.list_of(subscriber)?.without(subscriber.id(), lean)?;
        Some(self.replace(subscriber, list))
    }

    /// A snapshot in which this subscription has another filter; `None` if it is not in.
    pub(crate) fn refiltered(&self, entry: &Entry<Subscriber>) -> Option<Self> {
        let list = self.list_of(entry.member())?.refiltered(entry.member().id(), entry.filter.clone())?;
        Some(self.replace(entry.member(), list))
    }

    /// A snapshot of those that `keep`; `None` if that is all.
    pub(crate) fn retain(&self, keep: impl Fn(&Subscriber) -> bool) -> Option<Self> {
        let kept: Vec<_> = self.iter().filter(|entry| keep(entry.member())).cloned().collect();
        if kept.len() == self.len() {
            return None;
        }
        Some(Self::none().with(&kept).unwrap_or_else(Self::none))
    }

    /// The entry of a subscription.
    pub(crate) fn get(&self, subscriber: &Subscriber) -> Option<&Entry<Subscriber>> {
        self.list_of(subscriber)?.get(subscriber.id())
    }
}

/// The union of all filters of a topic, in a few words of its own.
///
/// Written under the control lock: opened (covers everything) before a snapshot is swapped in, set to
/// what the snapshot accepts after. Words and flags are separate, so a reader that finds no bit looks at
/// the flags again: they carry a version, and only an unchanged one makes "no" a true answer.
/// Model: `loom-tests/tests/hint.rs`.
#[derive(Debug, Default)]
pub(crate) struct Hint {
    /// Bit 0: everything; bit 1: some number beyond the words; bits 8-15: formatters; above: version.
    flags: AtomicU64,
    words: [AtomicU64; TypeSet::WORDS],
}

const ALL: u64 = 1;
const MORE: u64 = 2;
const FORMATTERS: u32 = 8;
const VERSION: u32 = 16;

impl Hint {
    /// Covers everything until [`set`](Self::set).
    pub(crate) fn open(&self) {
        // Relaxed: the control lock orders writers.
        let version = (self.flags.load(Ordering::Relaxed) >> VERSION) + 1;
        self.flags.store(version << VERSION | ALL, Ordering::Release);
    }

    /// Covers what `interest` covers, no more. After [`open`](Self::open).
    pub(crate) fn set(&self, interest: &Interest) {
        for (word, bits) in self.words.iter().zip(interest.types.inline_words()) {
            // Release: who reads a word of a later version sees in the flags that there is one.
            word.store(bits, Ordering::Release);
        }
        let version = (self.flags.load(Ordering::Relaxed) >> VERSION) + 1;
        let all = if interest.all { ALL } else { 0 };
        let more = if interest.types.has_more() { MORE } else { 0 };
        let flags = all | more | u64::from(interest.formatters.bits()) << FORMATTERS;
        // Release: who no longer sees "everything" sees the words.
        self.flags.store(version << VERSION | flags, Ordering::Release);
    }

    /// Whether anybody may accept such a message. Cost: two or three loads of one line.
    #[inline]
    pub(crate) fn covers(&self, id: TypeId, formatters: Formatters) -> bool {
        // Acquire: meets the Release in `set`.
        let flags = self.flags.load(Ordering::Acquire);
        if flags & (ALL | u64::from(formatters.bits()) << FORMATTERS) != 0 {
            return true;
        }
        let Some(word) = self.words.get(id.get() as usize / 64) else {
            return flags & MORE != 0;
        };
        // Acquire: meets the Release in `set`, so the second look is at least as new as the word.
        word.load(Ordering::Acquire) >> (id.get() % 64) & 1 == 1 || self.flags.load(Ordering::Relaxed) != flags
    }

    /// As [`covers`](Self::covers).
    #[inline]
    pub(crate) fn covers_message(&self, message: &Message) -> bool {
        self.covers(message.type_id(), message.formatters())
    }
}
