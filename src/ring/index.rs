//! Positions in a ring and the packed word that hands them out.
//!
//! A position counts entries since the ring began and never wraps (2^63 of them). Which segment and
//! which slot it means is arithmetic that only this file does.

use std::fmt;

/// Number of an entry since the ring began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position(u64);

impl Position {
    #[cfg(test)]
    pub(crate) fn new(n: u64) -> Self {
        Self(n)
    }

    /// As a plain number, for statistics.
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn from_raw(n: u64) -> Self {
        Self(n)
    }

    /// The position `n` entries later.
    #[inline]
    pub(crate) fn plus(self, n: u64) -> Self {
        Self(self.0 + n)
    }

    /// Entries from `earlier` up to this position; zero if `earlier` is later.
    #[inline]
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What the tail word says: the next position to be claimed and whether the consumer sleeps.
///
/// Bit 0 is the sleep mark, the rest the position; so one `fetch_add` both claims a position and
/// tells the claimer whether it has to wake somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TailWord(u64);

impl TailWord {
    /// Added to the word to claim one position.
    pub(crate) const ONE: u64 = 2;
    /// Anded with the word to take the sleep mark.
    pub(crate) const AWAKE_MASK: u64 = !1;

    #[inline]
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    #[inline]
    pub(crate) fn awake(position: Position) -> u64 {
        position.0 << 1
    }

    #[inline]
    pub(crate) fn asleep(position: Position) -> u64 {
        position.0 << 1 | 1
    }

    #[inline]
    pub(crate) fn position(self) -> Position {
        Position(self.0 >> 1)
    }

    #[inline]
    pub(crate) fn is_asleep(self) -> bool {
        self.0 & 1 == 1
    }
}

/// How positions map to segments and slots: all of them powers of two.
///
/// Masks, ready to use: a publish works with them several times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    slot_bits: u32,
    /// Slots in a segment, less one.
    slot_mask: usize,
    /// Segments, less one.
    segment_mask: usize,
}

impl Layout {
    /// `2^slot_bits` slots a segment, `2^segment_bits` segments at most.
    pub(crate) fn new(slot_bits: u32, segment_bits: u32) -> Self {
        Self { slot_bits, slot_mask: (1 << slot_bits) - 1, segment_mask: (1 << segment_bits) - 1 }
    }

    /// Slots in a segment.
    #[inline]
    pub(crate) fn slots(self) -> usize {
        self.slot_mask + 1
    }

    /// Slots in a segment, as a distance.
    #[inline]
    pub(crate) fn segment_len(self) -> u64 {
        self.slot_mask as u64 + 1
    }

    /// Segments the directory can name.
    pub(crate) fn segments(self) -> usize {
        self.segment_mask + 1
    }

    /// Where in the directory the segment of `position` stands.
    #[inline]
    pub(crate) fn segment_of(self, position: Position) -> usize {
        (position.0 >> self.slot_bits) as usize & self.segment_mask
    }

    /// Where in its segment `position` stands.
    #[inline]
    pub(crate) fn slot_of(self, position: Position) -> usize {
        position.0 as usize & self.slot_mask
    }

    /// Whether `position` is the first of its segment.
    #[inline]
    pub(crate) fn starts_segment(self, position: Position) -> bool {
        self.slot_of(position) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sleep_mark_survives_claims_and_is_seen_by_them() {
        let asleep = TailWord::asleep(Position::new(7));
        let word = TailWord::from_raw(asleep + TailWord::ONE);
        assert!(word.is_asleep());
        assert_eq!(word.position(), Position::new(8));
        let awake = TailWord::from_raw((asleep + TailWord::ONE) & TailWord::AWAKE_MASK);
        assert!(!awake.is_asleep());
        assert_eq!(awake.position(), Position::new(8));
    }

    #[test]
    fn every_position_has_one_place_within_a_lap() {
        let layout = Layout::new(2, 3);
        let mut seen = std::collections::HashSet::new();
        for n in 0..32 {
            let position = Position::new(u64::MAX / 2 - 40 + n);
            assert!(seen.insert((layout.segment_of(position), layout.slot_of(position))));
        }
        assert!(layout.starts_segment(Position::new(8)) && !layout.starts_segment(Position::new(9)));
    }
}
