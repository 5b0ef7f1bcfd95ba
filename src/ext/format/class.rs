//! Classes of AMI events: who may see them.

use std::fmt;
use std::ops::BitOr;

/// A set of event classes, by the names and bits AMI has for them. Printed as in a `Privilege` header.
///
/// # Examples
/// ```
/// use stasis_bus::format::EventClass;
/// let both = EventClass::CALL | EventClass::REPORTING;
/// assert_eq!(both.to_string(), "call,reporting,all");
/// assert_eq!(EventClass::parse("reporting,call,all"), Some(both));
/// assert!(both.intersects(EventClass::CALL) && !both.intersects(EventClass::DTMF));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EventClass(u32);

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl EventClass {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
        }
        const NAMES: &[(EventClass, &str)] = &[$((EventClass::$name, $text)),*];
    };
}

classes! {
    /// Of the system.
    SYSTEM = 0, "system";
    /// Of channels and calls.
    CALL = 1, "call";
    /// Logging.
    LOG = 2, "log";
    /// Verbose messages.
    VERBOSE = 3, "verbose";
    /// Command line.
    COMMAND = 4, "command";
    /// Queue members and agents.
    AGENT = 5, "agent";
    /// User events.
    USER = 6, "user";
    /// Configuration.
    CONFIG = 7, "config";
    /// Digits.
    DTMF = 8, "dtmf";
    /// Reports, such as quality of calls.
    REPORTING = 9, "reporting";
    /// Call records.
    CDR = 10, "cdr";
    /// Dialplan.
    DIALPLAN = 11, "dialplan";
    /// Originating calls.
    ORIGINATE = 12, "originate";
    /// AGI.
    AGI = 13, "agi";
    /// Answers for hooks.
    HOOK_RESPONSE = 14, "hookresponse";
    /// Call completion.
    CC = 15, "cc";
    /// Advice of charge.
    AOC = 16, "aoc";
    /// Tests.
    TEST = 17, "test";
    /// Security.
    SECURITY = 18, "security";
    /// Out-of-call messages.
    MESSAGE = 30, "message";
}

impl EventClass {
    /// None: no `Privilege` header.
    pub const NONE: Self = Self(0);

    /// As bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether there is no class.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the sets share a class.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Reads what a `Privilege` header holds; `all` adds nothing. `None` for an unknown name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split(',').filter(|name| *name != "all").try_fold(Self::NONE, |classes, name| {
            NAMES.iter().find(|(_, known)| *known == name).map(|(class, _)| classes | *class)
        })
    }
}

impl BitOr for EventClass {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for EventClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, name) in NAMES.iter().filter(|(class, _)| self.intersects(*class)) {
            write!(f, "{name},")?;
        }
        f.write_str("all")
    }
}

impl fmt::Debug for EventClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventClass({self})")
    }
}
