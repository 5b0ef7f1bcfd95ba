//! What a message type can be turned into: JSON, an AMI text block, an event.

use std::fmt;
use std::ops::BitOr;

/// A set of formatters. Bits as in recordings of Stasis: 1 JSON, 2 AMI, 4 event.
///
/// # Examples
/// ```
/// use stasis_bus::Formatters;
/// let both = Formatters::JSON | Formatters::AMI;
/// assert!(both.intersects(Formatters::AMI) && !both.intersects(Formatters::EVENT));
/// assert_eq!(Formatters::from_bits(3), both);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Formatters(u8);

impl Formatters {
    /// None.
    pub const NONE: Self = Self(0);
    /// `to_json`.
    pub const JSON: Self = Self(1);
    /// `to_ami`.
    pub const AMI: Self = Self(2);
    /// `to_event`.
    pub const EVENT: Self = Self(4);

    /// From bits; unknown ones are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// As bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether the sets share a formatter.
    #[inline]
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Formatters {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Formatters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(Self::JSON, "json"), (Self::AMI, "ami"), (Self::EVENT, "event")];
        f.debug_set().entries(names.iter().filter(|(bit, _)| self.intersects(*bit)).map(|(_, name)| name)).finish()
    }
}

/// What `to_event` gives: a name and fields, for shipping a message to another node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Event {
    /// Kind of event.
    pub name: String,
    /// Keys and values, in order.
    pub fields: Vec<(String, String)>,
}
