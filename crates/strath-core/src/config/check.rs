//! One raw value against its key: its type, its range, and whether this build has it.

use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::keys::{Key, Kind, find, is_not_in_this_build};
use super::nearest::nearest_key;
use super::origin::Origin;

/// Characters of a wrong value that a message shows.
const SHOWN: usize = 80;

/// A value as the command line and the environment write it: TOML, and what does not parse as TOML is a string.
pub fn parse_value(text: &str) -> toml::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("v = {text}")).ok();
    // A text with a line of its own could smuggle in a second key.
    let alone = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("v"));
    alone.unwrap_or_else(|| toml::Value::String(text.into()))
}

/// The key of `path` and its value in the form that the key's type has: an integer is a float where a float is due, a path
/// absolute, the string "inf" the number.
///
/// # Errors
/// [`ConfigError`] for a key that does not exist or that this build has not, and for a value of another type or range.
pub(super) fn check(
    path: &str,
    value: &toml::Value,
    origin: &Origin,
    base: &Path,
) -> Result<(&'static Key, toml::Value), ConfigError> {
    let key = find(path);
    if is_not_in_this_build(path, value.as_str()) {
        return Err(ConfigError::NotInThisBuild {
            key: path.into(),
            value: shown(value),
            origin: origin.clone(),
            advice: key.map_or_else(|| "leave it out".into(), |key| format!("expected {}", key.kind.expected())),
        });
    }
    let key = key.ok_or_else(|| unknown(path, origin.clone()))?;
    let good = of_kind(key.kind, value, base).ok_or_else(|| ConfigError::WrongValue {
        key: key.path.into(),
        found: shown(value),
        origin: origin.clone(),
        expected: key.kind.expected(),
    })?;
    Ok((key, good))
}

/// The error of a key or table that does not exist.
pub(super) fn unknown(path: &str, origin: Origin) -> ConfigError {
    ConfigError::UnknownKey { nearest: nearest_key(path), key: path.escape_debug().to_string(), origin }
}

fn of_kind(kind: Kind, value: &toml::Value, base: &Path) -> Option<toml::Value> {
    use toml::Value::{Array, Boolean, Float, Integer, String};
    let size = |value: &toml::Value, most: i64| matches!(value, Integer(v) if (1..=most).contains(v));
    match (kind, value) {
        (Kind::Integer { least, most }, Integer(v)) if (least..=most).contains(v) => Some(value.clone()),
        (Kind::Number { range }, Float(v)) if range.contains(*v) => Some(value.clone()),
        (Kind::Number { range }, Integer(v)) if range.contains(*v as f64) => Some(Float(*v as f64)),
        (Kind::Boolean, Boolean(_)) | (Kind::Text, String(_)) => Some(value.clone()),
        (Kind::Choice(words), String(v)) if words.contains(&v.as_str()) => Some(value.clone()),
        (Kind::Path, String(v)) if !v.is_empty() && !v.contains('\0') => Some(String(absolute(v, base))),
        (Kind::Integers { most }, Array(list)) if list.iter().all(|v| size(v, most)) => Some(value.clone()),
        (Kind::Texts, Array(list)) if list.iter().all(toml::Value::is_str) => Some(value.clone()),
        (Kind::Lanes, Integer(_)) if size(value, i64::MAX) => Some(value.clone()),
        (Kind::Lanes, Array(list)) if !list.is_empty() && list.iter().all(|v| size(v, i64::MAX)) => Some(value.clone()),
        (Kind::Lanes, String(v)) if v == "batch" || v == "worker" => Some(value.clone()),
        (Kind::Norm, Float(v)) if *v >= 1.0 => Some(value.clone()),
        (Kind::Norm, Integer(v)) if *v >= 1 => Some(Float(*v as f64)),
        (Kind::Norm, String(v)) if v == "inf" => Some(Float(f64::INFINITY)),
        _ => None,
    }
}

fn absolute(path: &str, base: &Path) -> String {
    // The joined path is text unless the folder that it is relative to is not, and then no TOML could name it.
    let joined: PathBuf = base.join(path);
    joined.components().collect::<PathBuf>().to_string_lossy().into_owned()
}

/// A value as it stands in a message: on one line, and not without end.
pub(super) fn shown(value: &toml::Value) -> String {
    let text = match value {
        toml::Value::String(text) => format!("{text:?}"),
        other => other.to_string().replace('\n', "\\n"),
    };
    if text.chars().count() <= SHOWN { text } else { text.chars().take(SHOWN).chain("...".chars()).collect() }
}
