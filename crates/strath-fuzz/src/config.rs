//! Configurations: as a file, and as what the environment and the command line set.

use std::path::Path;

use strath_core::config::{Config, Layers};

use crate::memory::{Bound, within};

/// The longest file that is looked at, as the wire bounds one: what it takes of memory is for the parser of TOML to say, a whole table for
/// a letter and an equals sign.
const MOST_BYTES: usize = 1 << 20;
/// Of a file: the parser's two trees of it, each with a table, a key and an entry in an index for as little as two bytes. Beside that the plan of
/// the largest batch, of lanes of one example.
const CONFIGURATION: Bound = Bound { times: 2048, beside: 160 << 20 };

/// A file, read as a user's: what is accepted has the same text as what that text is read as.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(MOST_BYTES)]) else { return };
    within(CONFIGURATION, bytes, || {
        check(Layers::new().file(text, "run.toml", Path::new("/a/folder")));
    });
}

/// Lines, of which each is an assignment of the command line, or of the environment where it begins with `STRATH__`.
pub fn assignments(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    within(CONFIGURATION, bytes, || {
        let (base, mut layers) = (Path::new("/a/folder"), Layers::new());
        for line in text.lines() {
            let set = match line.split_once('=').filter(|(name, _)| name.starts_with("STRATH__")) {
                Some((name, value)) => layers.environment(std::iter::once((name.into(), value.into())), base),
                None => layers.set(line, base),
            };
            let Ok(set) = set.inspect_err(|error| check_error(&error.to_string())) else { return };
            layers = set;
        }
        check(Ok(layers));
    });
}

fn check(layers: Result<Layers, strath_core::config::ConfigError>) {
    let effective = match layers.and_then(Layers::resolve) {
        Ok(effective) => effective,
        Err(error) => return check_error(&error.to_string()),
    };
    let text = effective.to_toml();
    match Config::from_toml(&text) {
        Ok(again) => {
            assert_eq!(again, effective.config, "the configuration as it would be read again:\n{text}");
            assert_eq!(again.to_toml(), text);
        }
        Err(error) => panic!("a configuration that was accepted is refused once written: {error}\n{text}"),
    }
    assert!(!effective.rows().is_empty());
}

/// A message is one line, and no longer than one may be.
fn check_error(message: &str) {
    assert!(!message.contains('\n'), "{message:?}");
}
