//! Layers of raw values and their merging: defaults < file < environment < flags.
//!
//! The `config` crate merges the layers. Its typed getters are not used: they turn 128.7 into 129, 5 into "5" and "yes" into
//! true. Every raw value is checked against its key when it is added, and the number of its origin travels with it through
//! the merge, since the crate itself knows no origin for defaults and overrides.

use std::path::Path;

use config::{Map, Source, Value, ValueKind};

use super::build;
use super::check::{check, parse_value, shown, unknown};
use super::error::ConfigError;
use super::keys::{KEYS, is_not_in_this_build};
use super::origin::Origin;
use super::render::Effective;
use super::replace::{drop_options_of_replaced_kinds, keep_the_last_length};
use super::tree::Tree;

/// The prefix of environment variables: `STRATH__SAM__RHO=0.1` sets `sam.rho`.
const ENVIRONMENT_PREFIX: &str = "STRATH__";

/// The layers of a configuration, each value checked as it is added. Later calls take precedence over earlier ones.
#[derive(Debug, Clone)]
pub struct Layers {
    /// Defaults, then files and environment as they were added.
    below: Vec<Layer>,
    /// Every flag of the command line, together one layer, above all others.
    flags: Layer,
    origins: Vec<Origin>,
}

/// Raw values by key, of one source.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    values: Vec<(&'static str, Value)>,
}

impl Layer {
    /// The value of a key; the last one, where it was set twice.
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        self.values.iter().rev().find(|(key, _)| *key == path).map(|(_, value)| value)
    }

    /// Forgets a key.
    pub(super) fn remove(&mut self, path: &str) {
        self.values.retain(|(key, _)| *key != path);
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let mut tables: Map<String, Map<String, Value>> = Map::new();
        for (path, value) in &self.values {
            let (table, name) = path.split_once('.').expect("every key lies in a table");
            tables.entry(table.into()).or_default().insert(name.into(), value.clone());
        }
        Ok(tables.into_iter().map(|(name, table)| (name, Value::new(None, ValueKind::Table(table)))).collect())
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

impl Layers {
    /// The defaults.
    pub fn new() -> Self {
        let default = |key: &super::keys::Key| Some((key.path, to_value(&parse_value(key.default?), 0)));
        let defaults = Layer { values: KEYS.iter().filter_map(default).collect() };
        Self { below: vec![defaults], flags: Layer::default(), origins: vec![Origin::Default] }
    }

    /// Adds a file's text; `name` is for messages, relative paths in it are relative to `base`.
    ///
    /// # Errors
    /// [`ConfigError`] for bad TOML, an unknown key or a wrong value, with the line.
    pub fn file(mut self, text: &str, name: &str, base: &Path) -> Result<Self, ConfigError> {
        let line_of = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            name: name.into(),
            line: line_of(error.span().map_or(0, |span| span.start)),
            reason: error.message().lines().next().unwrap_or_default().into(),
        };
        let spans = toml::de::DeTable::parse(text).map_err(syntax)?;
        let tables: toml::Table = toml::from_str(text).map_err(syntax)?;
        let mut layer = Layer::default();
        for (table, content) in &tables {
            let place = spans.get_ref().get_key_value(table.as_str());
            let line = place.map_or(1, |(key, _)| line_of(key.span().start));
            let origin = Origin::File { name: name.into(), line };
            let Some(entries) = content.as_table().filter(|entries| !entries.is_empty() || is_a_table(table)) else {
                return Err(if is_not_in_this_build(table, None) {
                    let (key, value, advice) = (table.clone(), shown(content), "leave it out".into());
                    ConfigError::NotInThisBuild { key, value, origin, advice }
                } else {
                    unknown(table, origin)
                });
            };
            let inner = place.and_then(|(_, content)| content.get_ref().as_table());
            for (key, value) in entries {
                let at = inner.and_then(|table| table.get_key_value(key.as_str())).map(|(key, _)| key.span().start);
                let origin = Origin::File { name: name.into(), line: at.map_or(line, line_of) };
                let entry = self.entry(&format!("{table}.{key}"), value, origin, base)?;
                layer.values.push(entry);
            }
        }
        self.below.push(layer);
        Ok(self)
    }

    /// Adds the variables that begin with `STRATH__`; others are passed over. Their values are parsed like `--set`'s, and
    /// relative paths are relative to `base`.
    ///
    /// # Errors
    /// [`ConfigError`] for an unknown key or a wrong value, with the variable.
    pub fn environment(
        mut self,
        variables: impl Iterator<Item = (String, String)>,
        base: &Path,
    ) -> Result<Self, ConfigError> {
        let mut ours: Vec<_> = variables.filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
        ours.sort();
        let mut layer = Layer::default();
        for (variable, text) in ours {
            let path = variable[ENVIRONMENT_PREFIX.len()..].to_lowercase().replace("__", ".");
            let entry = self.entry(&path, &parse_value(&text), Origin::Environment(variable), base)?;
            layer.values.push(entry);
        }
        self.below.push(layer);
        Ok(self)
    }

    /// Adds one `KEY=VALUE` of `--set`. The value is TOML; what does not parse as TOML is a string. All flags are one layer,
    /// above files and environment; of two for one key the later wins.
    ///
    /// # Errors
    /// [`ConfigError`] for an unknown key or a wrong value.
    pub fn set(self, assignment: &str, base: &Path) -> Result<Self, ConfigError> {
        let (path, text) =
            assignment.split_once('=').ok_or_else(|| ConfigError::NotAnAssignment { found: assignment.into() })?;
        self.set_value(path.trim(), parse_value(text), "--set", base)
    }

    /// Adds the value that a flag of its own gives to a key, as `--workers 3` does to `cluster.workers`.
    ///
    /// # Errors
    /// [`ConfigError`] for an unknown key or a wrong value, with the flag.
    pub fn set_value(
        mut self,
        key: &str,
        value: impl Into<toml::Value>,
        flag: &'static str,
        base: &Path,
    ) -> Result<Self, ConfigError> {
        let entry = self.entry(key, &value.into(), Origin::Flag(flag), base)?;
        self.flags.values.push(entry);
        Ok(self)
    }

    /// Merges the layers into a valid configuration.
    ///
    /// # Errors
    /// [`ConfigError`] where keys do not fit together or a required one is missing.
    pub fn resolve(self) -> Result<Effective, ConfigError> {
        let Self { below: mut layers, flags, origins } = self;
        layers.push(flags);
        keep_the_last_length(&mut layers, &origins)?;
        let replaced = drop_options_of_replaced_kinds(&mut layers, &origins);
        build::build(&Tree::merge(layers, origins), &replaced)
    }

    /// A checked value under its key, with the number of its origin.
    fn entry(
        &mut self,
        path: &str,
        value: &toml::Value,
        origin: Origin,
        base: &Path,
    ) -> Result<(&'static str, Value), ConfigError> {
        let (key, value) = check(path, value, &origin, base)?;
        self.origins.push(origin);
        Ok((key.path, to_value(&value, self.origins.len() - 1)))
    }
}

fn is_a_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.path.split_once('.').is_some_and(|(table, _)| table == name))
}

fn to_value(value: &toml::Value, origin: usize) -> Value {
    let kind = match value {
        toml::Value::Integer(v) => ValueKind::I64(*v),
        toml::Value::Float(v) => ValueKind::Float(*v),
        toml::Value::Boolean(v) => ValueKind::Boolean(*v),
        toml::Value::Array(list) => ValueKind::Array(list.iter().map(|v| to_value(v, origin)).collect()),
        toml::Value::String(v) => ValueKind::String(v.clone()),
        // No key takes a table or a date, so the check lets none through.
        toml::Value::Table(_) | toml::Value::Datetime(_) => ValueKind::Nil,
    };
    Value::new(Some(&origin.to_string()), kind)
}
