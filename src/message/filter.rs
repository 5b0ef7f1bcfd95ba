//! Which messages a subscription accepts: types and formatters, OR-ed as in Stasis.
//!
//! Guarantees: a filter is a value and never changes; a change makes a new one that publishes
//! starting afterwards see. Cost of a test: two or three loads; type numbers below 256 inline.

use super::Message;
use super::formatter::Formatters;
use super::types::{AnyMessageType, TypeId};

/// How a subscription's accepted types count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FilterMode {
    /// Everything is accepted, unless formatters are given.
    #[default]
    None,
    /// As `None`, and cannot be changed any more.
    ForcedNone,
    /// Accepted types (and formatters) only.
    Selective,
}

/// A set of type numbers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct TypeSet {
    inline: [u64; Self::WORDS],
    /// Words from number 256 up.
    more: Option<Box<[u64]>>,
}

impl TypeSet {
    /// Words that need no allocation.
    pub(crate) const WORDS: usize = 4;

    #[inline]
    pub(crate) fn contains(&self, id: TypeId) -> bool {
        let (word, bit) = Self::place(id);
        let bits = match self.inline.get(word) {
            Some(bits) => *bits,
            None => self.more.as_ref().and_then(|more| more.get(word - Self::WORDS).copied()).unwrap_or(0),
        };
        bits >> bit & 1 == 1
    }

    pub(crate) fn insert(&mut self, id: TypeId) {
        let (word, bit) = Self::place(id);
        *self.word_mut(word) |= 1 << bit;
    }

    pub(crate) fn remove(&mut self, id: TypeId) {
        let (word, bit) = Self::place(id);
        *self.word_mut(word) &= !(1 << bit);
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        for (mine, theirs) in self.inline.iter_mut().zip(other.inline) {
            *mine |= theirs;
        }
        for (word, bits) in other.more.iter().flatten().enumerate() {
            *self.word_mut(word + Self::WORDS) |= bits;
        }
    }

    /// The words for numbers below 256.
    pub(crate) fn inline_words(&self) -> [u64; Self::WORDS] {
        self.inline
    }

    /// Whether there may be numbers from 256 up.
    pub(crate) fn has_more(&self) -> bool {
        self.more.is_some()
    }

    fn place(id: TypeId) -> (usize, u32) {
        (id.get() as usize / 64, id.get() % 64)
    }

    fn word_mut(&mut self, word: usize) -> &mut u64 {
        if word < Self::WORDS {
            return &mut self.inline[word];
        }
        let at = word - Self::WORDS;
        let more = self.more.get_or_insert_default();
        if more.len() <= at {
            let mut longer = more.to_vec();
            longer.resize(at + 1, 0);
            *more = longer.into();
        }
        &mut more[at]
    }
}

/// What one subscription accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) mode: FilterMode,
    pub(crate) formatters: Formatters,
    accepted: TypeSet,
    /// Never accepted, whatever mode and formatters say.
    excluded: TypeSet,
    /// Keeps the named types alive, so that no other type gets their numbers.
    named: Vec<AnyMessageType>,
}

impl Filter {
    /// Accepts a type; without effect on what is delivered while the mode is not selective.
    pub(crate) fn accept(&mut self, kind: &AnyMessageType) {
        self.accepted.insert(kind.id());
        self.excluded.remove(kind.id());
        self.keep(kind);
    }

    /// Takes a type off the accepted ones; without effect on what is delivered while the mode is not
    /// selective (as in Stasis).
    pub(crate) fn decline(&mut self, kind: &AnyMessageType) {
        self.accepted.remove(kind.id());
    }

    /// Never delivers a type, whatever mode and formatters say, until it is accepted.
    pub(crate) fn exclude(&mut self, kind: &AnyMessageType) {
        self.excluded.insert(kind.id());
        self.keep(kind);
    }

    /// Changes the mode, unless it is forced.
    pub(crate) fn set_mode(&mut self, mode: FilterMode) {
        if self.mode != FilterMode::ForcedNone {
            self.mode = mode;
        }
    }

    fn keep(&mut self, kind: &AnyMessageType) {
        if !self.named.contains(kind) {
            self.named.push(kind.clone());
        }
    }

    /// Whether everything is accepted but what was excluded.
    fn is_open(&self) -> bool {
        self.mode != FilterMode::Selective && self.formatters.is_empty()
    }

    /// Whether no message is ever rejected.
    pub(crate) fn accepts_all(&self) -> bool {
        self.is_open() && self.excluded == TypeSet::default()
    }

    /// Whether it accepts just what the [`Interest`] of it alone covers.
    pub(crate) fn is_precise(&self) -> bool {
        self.excluded == TypeSet::default()
    }

    /// Whether a message of this type and these formatters is accepted.
    pub(crate) fn accepts_type(&self, id: TypeId, formatters: Formatters) -> bool {
        !self.excluded.contains(id)
            && (self.is_open()
                || self.formatters.intersects(formatters)
                || self.mode == FilterMode::Selective && self.accepted.contains(id))
    }

    /// Whether the message is accepted.
    #[inline]
    pub(crate) fn accepts(&self, message: &Message) -> bool {
        self.accepts_type(message.type_id(), message.formatters())
    }
}

/// What any of several filters accepts: a superset, tested before their subscriptions are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interest {
    pub(crate) all: bool,
    pub(crate) formatters: Formatters,
    pub(crate) types: TypeSet,
}

impl Interest {
    /// Takes in what `filter` accepts (`None`: everything).
    pub(crate) fn add(&mut self, filter: Option<&Filter>) {
        match filter {
            None => self.all = true,
            // An excluded type does not narrow the union: filters decide in the end.
            Some(filter) if filter.is_open() => self.all = true,
            Some(filter) => {
                self.formatters = self.formatters | filter.formatters;
                if filter.mode == FilterMode::Selective {
                    self.types.extend(&filter.accepted);
                }
            }
        }
    }

    /// Takes in all of `other`.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.all |= other.all;
        self.formatters = self.formatters | other.formatters;
        self.types.extend(&other.types);
    }

    /// Whether one of the filters may accept such a message.
    #[inline]
    pub(crate) fn covers(&self, id: TypeId, formatters: Formatters) -> bool {
        self.all || self.types.contains(id) || self.formatters.intersects(formatters)
    }
}
