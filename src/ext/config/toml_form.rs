//! The TOML form: the sections of `stasis.conf`, and `[bus]`.

use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use toml::de::{DeTable, DeValue};

use super::ConfigErrors;
use super::error::{Position, Problem};
use super::files::without_mark;
use super::reading::{Case, Place, Reading};
use super::schema::{Raw, TOML_SECTIONS};
use super::settings::Config;

impl Config {
    /// Reads the TOML form. `file` names it in errors.
    ///
    /// Sections: those of `stasis.conf`, with `decline` a list (or one name), and `bus` with the fields
    /// of [`BusSettings`](super::BusSettings). Names are compared as they are.
    ///
    /// # Errors
    /// [`ConfigErrors`]: all that is wrong in it.
    ///
    /// # Examples
    /// ```
    /// use stasis_bus::WaitStrategy;
    /// use stasis_bus::config::Config;
    /// let config = Config::from_toml("[bus]\nname = 'pbx'\nwait = 'park'\n", "stasis.toml").unwrap();
    /// assert_eq!(config.bus.wait, Some(WaitStrategy::Park));
    /// let errors = Config::from_toml("[bus]\nwait = 'adaptiv'\nlanes = 0\n", "stasis.toml").unwrap_err();
    /// assert_eq!(
    ///     errors.to_string(),
    ///     "stasis.toml:2:8: 'wait' in section 'bus' cannot be 'adaptiv'; \
    ///      it is one of adaptive, busy_spin, park, yield, did you mean 'adaptive'?\n\
    ///      stasis.toml:3:9: 'lanes' in section 'bus' cannot be 0; it is a whole number from 1 to 256"
    /// );
    /// ```
    pub fn from_toml(text: &str, file: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let text = without_mark(text);
        let file: Rc<Path> = file.as_ref().into();
        let place = |span: Range<usize>| Place { file: Rc::clone(&file), position: Some(position(text, span.start)) };
        let mut reading = Reading::new(Case::Matters);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let place = place(error.span().unwrap_or(0..0));
            reading.wrong(&place, Problem::Syntax(error.message().to_owned()));
        }
        for (name, section) in table.get_ref() {
            let Some(known) = reading.section(name.get_ref(), &place(name.span()), TOML_SECTIONS) else { continue };
            let Some(settings) = section.get_ref().as_table() else {
                let what = format!("'{known}' is a section, not {}", article(section.get_ref()));
                reading.wrong(&place(section.span()), Problem::Syntax(what));
                continue;
            };
            for (key, value) in settings {
                let raw = raw(value.get_ref());
                reading.setting(known, (key.get_ref(), &place(key.span())), (&raw, &place(value.span())));
            }
        }
        reading.end()
    }
}

fn raw<'a>(value: &'a DeValue<'_>) -> Raw<'a> {
    match value {
        DeValue::String(text) => Raw::Text(text),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            Raw::Whole(i64::from_str_radix(digits, number.radix()).ok(), digits.to_owned())
        }
        DeValue::Array(values) => Raw::List(values.iter().map(|value| raw(value.get_ref())).collect()),
        other => Raw::Other(article(other)),
    }
}

fn article(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// Line and column of a byte.
fn position(text: &str, offset: usize) -> Position {
    let before = &text[..text.floor_char_boundary(offset)];
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    Position { line: 1 + before.matches('\n').count(), column: 1 + before[start..].chars().count() }
}
