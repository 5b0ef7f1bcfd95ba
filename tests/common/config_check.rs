//! What holds for the reader of configurations whatever it is given. For tests and fuzzing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use stasis_bus::config::{Config, ConfigErrors};

/// Reads a text in both forms; what is read must be read again equally, errors must lie in the text.
pub(crate) fn check(text: &str) {
    let files = BTreeMap::from([
        (PathBuf::from("main.conf"), text.to_owned()),
        (PathBuf::from("again.conf"), text.to_owned()),
        (PathBuf::from("pool.conf"), "[threadpool]\nmax_size = 7\n".to_owned()),
    ]);
    match Config::from_stasis_conf_in(text, "main.conf", &files) {
        Ok(config) => check_writing(&config),
        Err(errors) => check_errors(&errors, &files),
    }
    let files = BTreeMap::from([(PathBuf::from("main.toml"), text.to_owned())]);
    match Config::from_toml(text, "main.toml") {
        Ok(config) => check_writing(&config),
        Err(errors) => check_errors(&errors, &files),
    }
}

fn check_writing(config: &Config) {
    let toml = config.to_toml().expect("what was read can be written");
    assert_eq!(Config::from_toml(&toml, "again").as_ref(), Ok(config), "{toml}");
    let conf = config.to_stasis_conf().expect("what was read can be written");
    let mut again = Config::from_stasis_conf(&conf, "again").expect("what was written can be read");
    again.bus = config.bus.clone();
    assert_eq!(again, *config, "{conf}");
}

fn check_errors(errors: &ConfigErrors, files: &BTreeMap<PathBuf, String>) {
    assert!(errors.iter().count() > 0 && !errors.to_string().is_empty());
    for error in errors.iter() {
        let text = &files[&error.file];
        let position = error.position.expect("errors of a text have a place");
        let line = text.split('\n').nth(position.line - 1).expect("a line of the text");
        assert!(position.column >= 1 && position.column <= line.chars().count() + 1, "{error}: {line:?}");
    }
}
