//! AMI events: blocks of `Key: Value` lines that values cannot break out of.
//!
//! ```text
//!   Event: <name>␍␊
//!   Privilege: <classes>,all␍␊     (if there are classes)
//!   <key>: <value>␍␊               as often as there are fields, in order
//!   ␍␊
//! ```
//!
//! A value is written as it is; one with control characters (so with CR or LF) is refused by
//! [`AmiBlock::field`] and escaped by [`AmiBlock::escaped_field`]. Keys with a colon, control characters or
//! white space at an end are refused, and so are `Event` and `Privilege`, which the block has already.

use std::fmt::{Display, Write};

use super::EventClass;

/// What an AMI block cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmiError {
    /// The name of the event is empty or has control characters.
    #[error("an AMI event cannot be named {0:?}")]
    Name(String),
    /// A key is empty, has a colon, control characters, white space at an end, or is one of the block's own.
    #[error("an AMI field cannot have the key {0:?}")]
    Key(String),
    /// A value has control characters.
    #[error("the AMI field '{key}' cannot hold control characters as they are: {value:?}")]
    Value {
        /// Key of the field.
        key: String,
        /// The value.
        value: String,
    },
}

/// A text is not one AMI event block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of an AMI block: {reason}")]
pub struct AmiParseError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

/// An AMI event in the making, or as it was read.
///
/// # Examples
/// ```
/// use stasis_bus::format::{AmiBlock, AmiError, EventClass, unescape};
/// let block = AmiBlock::new("VarSet", EventClass::DIALPLAN)
///     .field("Variable", "NOTE")
///     .escaped_field("Value", "two\r\nlines");
/// let text = block.to_text().unwrap();
/// assert!(text.ends_with("Value: two\\r\\nlines\r\n\r\n"));
/// assert_eq!(AmiBlock::parse(&text).as_ref(), Ok(&block));
/// assert_eq!(unescape(block.get("value").unwrap()).unwrap(), "two\r\nlines");
///
/// let forged = AmiBlock::new("UserEvent", EventClass::USER).field("Note", "x\r\nEvent: Shutdown");
/// assert!(matches!(forged.to_text(), Err(AmiError::Value { .. })));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmiBlock {
    name: String,
    class: EventClass,
    fields: Vec<(String, String)>,
    /// The first thing that cannot be.
    error: Option<AmiError>,
}

const EVENT: &str = "Event";
const PRIVILEGE: &str = "Privilege";

impl AmiBlock {
    /// An event without fields.
    #[must_use]
    pub fn new(name: impl Into<String>, class: EventClass) -> Self {
        let name = name.into();
        let error = (name.is_empty() || has_control(&name)).then(|| AmiError::Name(name.clone()));
        Self { name, class, fields: Vec::new(), error }
    }

    /// Adds a field; keys may repeat. A value with control characters, or a key that cannot be, makes
    /// [`to_text`](Self::to_text) fail.
    #[must_use]
    pub fn field(mut self, key: impl Into<String>, value: impl Display) -> Self {
        let (key, value) = (key.into(), value.to_string());
        if !is_key(&key) {
            self.error.get_or_insert(AmiError::Key(key));
        } else if has_control(&value) {
            self.error.get_or_insert(AmiError::Value { key, value });
        } else {
            self.fields.push((key, value));
        }
        self
    }

    /// Adds a field with backslash and control characters escaped as in C (`\\`, `\r`, `\n`, `\t`; others
    /// `\u{…}`), as `VarSet` events have it. [`unescape`] gives the value back.
    #[must_use]
    pub fn escaped_field(self, key: impl Into<String>, value: impl Display) -> Self {
        self.field(key, escape(&value.to_string()))
    }

    /// Adds all fields of another block, `prefix` put before their keys. Its error becomes this block's.
    #[must_use]
    pub fn prefixed(mut self, prefix: &str, other: Self) -> Self {
        if let Some(error) = other.error {
            self.error.get_or_insert(error);
        }
        other.fields.into_iter().fold(self, |block, (key, value)| block.field(format!("{prefix}{key}"), value))
    }

    /// Name of the event.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Classes.
    #[must_use]
    pub fn class(&self) -> EventClass {
        self.class
    }

    /// Fields in order, without `Event` and `Privilege`.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The first field of this key, whatever its case.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields().find(|(known, _)| known.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    }

    /// The block as text, its empty last line included.
    ///
    /// # Errors
    /// [`AmiError`]: the first thing put in that an AMI block cannot hold.
    pub fn to_text(&self) -> Result<String, AmiError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let mut text = format!("{EVENT}: {}\r\n", self.name);
        if !self.class.is_empty() {
            text += &format!("{PRIVILEGE}: {}\r\n", self.class);
        }
        for (key, value) in &self.fields {
            text.extend([key.as_str(), ": ", value.as_str(), "\r\n"]);
        }
        text += "\r\n";
        Ok(text)
    }

    /// Reads one event block: CRLF or LF at the end of lines, the empty last line or not.
    ///
    /// # Errors
    /// [`AmiParseError`] if the text is anything but one whole event.
    pub fn parse(text: &str) -> Result<Self, AmiParseError> {
        let wrong = |line, reason| AmiParseError { line, reason };
        let body = text.strip_suffix('\n').ok_or(wrong(text.lines().count().max(1), "its last line has no end"))?;
        let mut lines = body.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).zip(1..).peekable();
        let mut block: Option<Self> = None;
        while let Some((line, number)) = lines.next() {
            if line.is_empty() && lines.peek().is_none() {
                break;
            }
            let (key, value) = line.split_once(':').ok_or(wrong(number, "no colon"))?;
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut block {
                None if key == EVENT => block = Some(Self::new(value, EventClass::NONE)),
                None => return Err(wrong(number, "an event begins with 'Event'")),
                Some(block) if key == PRIVILEGE && number == 2 => {
                    block.class = EventClass::parse(value).ok_or(wrong(number, "unknown event class"))?;
                }
                Some(_) => block = block.map(|block| block.field(key, value)),
            }
            if block.as_ref().is_some_and(|block| block.error.is_some()) {
                return Err(wrong(number, "a name, key or value that cannot be"));
            }
        }
        block.ok_or(wrong(1, "no event"))
    }
}

fn has_control(text: &str) -> bool {
    text.contains(char::is_control)
}

fn is_key(key: &str) -> bool {
    let is_own = [EVENT, PRIVILEGE].iter().any(|own| key.eq_ignore_ascii_case(own));
    !(key.is_empty() || key.trim() != key || key.contains(':') || has_control(key) || is_own)
}

/// A key made from any text: what cannot stand in one becomes `_`.
pub(super) fn key_from(text: &str) -> String {
    let key: String =
        text.chars().map(|c| if c.is_control() || c.is_whitespace() || c == ':' { '_' } else { c }).collect();
    if is_key(&key) { key } else { format!("_{key}") }
}

fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text += "\\\\",
            '\r' => text += "\\r",
            '\n' => text += "\\n",
            '\t' => text += "\\t",
            c if c.is_control() => {
                let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text
}

/// Takes back what [`AmiBlock::escaped_field`] did to a value. `None` if it was not escaped so.
#[must_use]
pub fn unescape(value: &str) -> Option<String> {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('\\') {
        text += before;
        let mut chars = after.chars();
        text.push(match chars.next()? {
            '\\' => '\\',
            'r' => '\r',
            'n' => '\n',
            't' => '\t',
            'u' => {
                let (code, end) = chars.as_str().strip_prefix('{')?.split_once('}')?;
                chars = end.chars();
                char::from_u32(u32::from_str_radix(code, 16).ok()?)?
            }
            _ => return None,
        });
        rest = chars.as_str();
    }
    text += rest;
    Some(text)
}
