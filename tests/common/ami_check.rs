//! What holds for AMI blocks whatever they are made of. For tests and fuzzing.

use stasis_bus::format::{AmiBlock, AmiError, EventClass, unescape};

const CLASSES: [EventClass; 4] = [EventClass::NONE, EventClass::CALL, EventClass::USER, EventClass::MESSAGE];

fn is_bad_text(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn is_bad_key(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    is_bad_text(key)
        || key.contains(':')
        || key.trim().len() != key.len()
        || ["", "event", "privilege"].contains(&&*lower)
}

/// Makes a block; its text must be one event that says what was put in, or refused for a reason.
pub(crate) fn check(name: &str, classes: [usize; 2], fields: &[(String, String, bool)]) {
    let class = CLASSES[classes[0] % 4] | CLASSES[classes[1] % 4];
    let mut block = AmiBlock::new(name, class);
    for (key, value, escaped) in fields {
        block = if *escaped { block.escaped_field(key, value) } else { block.field(key, value) };
    }
    let is_bad = name.is_empty()
        || is_bad_text(name)
        || fields.iter().any(|(key, value, escaped)| is_bad_key(key) || !escaped && is_bad_text(value));
    let text = match block.to_text() {
        Ok(text) => text,
        Err(AmiError::Name(_) | AmiError::Key(_) | AmiError::Value { .. }) if is_bad => return,
        Err(error) => panic!("refused without need: {error}"),
    };
    assert!(!is_bad, "{text:?}");
    assert_eq!(AmiBlock::parse(&text).as_ref(), Ok(&block));
    assert_eq!(text.find("\r\n\r\n"), Some(text.len() - 4), "one block: {text:?}");
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    assert_eq!(text.matches('\r').count(), text.matches("\r\n").count());
    let headers = 1 + usize::from(!class.is_empty());
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines.len(), headers + fields.len() + 2);
    assert_eq!(lines[0], format!("Event: {name}"));
    for ((key, value, escaped), line) in fields.iter().zip(&lines[headers..]) {
        let written = line.strip_prefix(&format!("{key}: ")).expect("the field's line");
        let read = if *escaped { unescape(written) } else { Some(written.to_owned()) };
        assert_eq!(read.as_ref(), Some(value));
    }
}

/// Reads any text; what can be read can be written and read again.
pub(crate) fn check_parse(text: &str) {
    let _ = unescape(text);
    if let Ok(block) = AmiBlock::parse(text) {
        let again = block.to_text().expect("what was read can be written");
        assert_eq!(AmiBlock::parse(&again), Ok(block), "{text:?}");
    }
}
