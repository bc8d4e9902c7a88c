//! Keys with their values: of a grid first its axes by name, then its paired lists, then what is derived.

use std::fmt;

use toml::Value;

/// Whether a key is a variable of the study's own, which no configuration has: `let.radius`.
pub(super) fn is_own(key: &str) -> bool {
    key.starts_with("let.")
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// A configuration's key, or a variable of the study, `let.NAME`.
    pub key: String,
    /// Its value.
    pub value: Value,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, plain(&self.value))
    }
}

/// Settings, each key once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings(Vec<Setting>);

impl Settings {
    /// Adds a setting, in the place of an earlier one of the same key.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.0.iter_mut().find(|setting| setting.key == key) {
            Some(setting) => setting.value = value,
            None => self.0.push(Setting { key: key.into(), value }),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|setting| setting.key == key).map(|setting| &setting.value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// Those of the configuration, without the study's own variables.
    pub fn of_configuration(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter().filter(|setting| !is_own(&setting.key))
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(" "))
    }
}

/// The number that a value is, whole or not.
pub(super) fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

/// A value as a cell of a table shows it: a text without quotation marks.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The entries of nested tables under dotted names: `{ sam: { m: 1 } }` is `sam.m = 1`, as is `"sam.m" = 1`.
pub(super) fn flattened(table: &toml::Table) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                flat.extend(flattened(inner).into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            other => flat.push((key.clone(), other.clone())),
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_and_nested_names_are_the_same() {
        let parse = |text: &str| flattened(&toml::from_str(text).unwrap());
        assert_eq!(parse("sam.m = [1, 2]\nsam.rho = 0.1"), parse("\"sam.m\" = [1, 2]\n\"sam.rho\" = 0.1"));
        assert_eq!(parse("[let]\nradius = 1")[0].0, "let.radius");
    }

    #[test]
    fn a_key_has_one_value_and_keeps_its_place() {
        let mut settings = Settings::default();
        settings.set("sam.m", Value::Integer(4));
        settings.set("model.kind", Value::String("mlp".into()));
        settings.set("sam.m", Value::Integer(8));
        assert_eq!(settings.to_string(), "sam.m=8 model.kind=mlp");
        settings.set("let.radius", Value::Float(0.5));
        assert_eq!(settings.of_configuration().count(), 2);
    }
}
