//! The merged raw values, ready to be read by key: each was checked, so each is of its key's type.

use config::{Value, ValueKind};

use super::keys::find;
use super::merge::Layer;
use super::origin::Origin;

/// The merged raw values with their origins.
pub(super) struct Tree {
    root: Value,
    origins: Vec<Origin>,
}

impl Tree {
    /// Merges `layers`, later ones over earlier ones. The values carry the indices of their `origins`.
    pub(super) fn merge(layers: Vec<Layer>, origins: Vec<Origin>) -> Self {
        let mut builder = config::Config::builder();
        for layer in layers {
            builder = builder.add_source(layer);
        }
        Self { root: builder.build().expect("a layer in memory is always there to be collected").cache, origins }
    }

    fn value(&self, path: &str) -> Option<&Value> {
        let (table, name) = path.split_once('.')?;
        let ValueKind::Table(root) = &self.root.kind else { return None };
        let ValueKind::Table(table) = &root.get(table)?.kind else { return None };
        table.get(name)
    }

    /// Where the value comes from.
    pub(super) fn origin(&self, path: &str) -> Origin {
        self.value(path).map_or(Origin::Default, |value| origin_of(&self.origins, value))
    }

    /// Whether the key was set by anyone but the defaults.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.value(path).is_some() && self.origin(path) != Origin::Default
    }

    /// The value of a choice or switch as a word; `None`: nobody chose.
    pub(super) fn word(&self, path: &str) -> Option<String> {
        self.value(path).and_then(word)
    }

    /// The value of an integer key.
    pub(super) fn integer(&self, path: &'static str) -> Option<i64> {
        if let ValueKind::I64(v) = self.value(path)?.kind { Some(v) } else { None }
    }

    /// The value of a key that is a size.
    pub(super) fn size(&self, path: &'static str) -> Option<usize> {
        self.integer(path).map(|v| v as usize)
    }

    /// The value of a number key.
    pub(super) fn number(&self, path: &'static str) -> Option<f64> {
        if let ValueKind::Float(v) = self.value(path)?.kind { Some(v) } else { None }
    }

    /// The value of a switch.
    pub(super) fn boolean(&self, path: &'static str) -> Option<bool> {
        if let ValueKind::Boolean(v) = self.value(path)?.kind { Some(v) } else { None }
    }

    /// The value of a text, choice or path key.
    pub(super) fn text(&self, path: &'static str) -> Option<&str> {
        if let ValueKind::String(v) = &self.value(path)?.kind { Some(v) } else { None }
    }

    /// The value of a list of sizes.
    pub(super) fn sizes(&self, path: &'static str) -> Option<Vec<usize>> {
        let ValueKind::Array(list) = &self.value(path)?.kind else { return None };
        Some(list.iter().filter_map(|v| if let ValueKind::I64(v) = v.kind { Some(v as usize) } else { None }).collect())
    }

    /// The value of a list of texts.
    pub(super) fn texts(&self, path: &'static str) -> Option<Vec<&str>> {
        let ValueKind::Array(list) = &self.value(path)?.kind else { return None };
        Some(
            list.iter()
                .filter_map(|v| if let ValueKind::String(v) = &v.kind { Some(v.as_str()) } else { None })
                .collect(),
        )
    }
}

/// A choice or switch as a word.
pub(super) fn word(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(word) => Some(word.clone()),
        ValueKind::Boolean(switch) => Some(switch.to_string()),
        _ => None,
    }
}

/// `path = value` of a choice or switch, as TOML.
pub(super) fn assignment(path: &str, word: &str) -> String {
    let is_switch = find(path).is_some_and(|key| key.kind == super::keys::Kind::Boolean);
    if is_switch { format!("{path} = {word}") } else { format!("{path} = {word:?}") }
}

/// The origin whose index `value` carries.
pub(super) fn origin_of(origins: &[Origin], value: &Value) -> Origin {
    let index = value.origin().and_then(|index| index.parse::<usize>().ok());
    index.and_then(|index| origins.get(index)).cloned().unwrap_or(Origin::Default)
}
