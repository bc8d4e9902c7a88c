//! A study's numbers: rows by arm and seed, and how arms are called.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::statistics::{Description, describe};
use crate::study::{ArmRecord, Cell, Pairs, Record, Results};

/// Which runs: an arm's, or those of it with twice the epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Which {
    pub(super) arm: usize,
    pub(super) is_doubled: bool,
}

impl Which {
    pub(super) fn of(arm: usize) -> Self {
        Self { arm, is_doubled: false }
    }
}

/// What is known of a study.
pub(super) struct Data<'a> {
    pub(super) record: &'a Record,
    pub(super) results: &'a Results,
    /// Rows of the results by runs and seed.
    rows: BTreeMap<(Which, u64), usize>,
}

impl<'a> Data<'a> {
    pub(super) fn new(record: &'a Record, results: &'a Results) -> Self {
        let column = |name: &str| results.column(name);
        let (arm, seed, doubled) = (column("arm"), column("seed"), column("doubled"));
        let row = |(at, row): (usize, &Vec<Cell>)| {
            let number = |column: Option<usize>| row.get(column?)?.number();
            let arm = number(arm)? as usize;
            let is_doubled = doubled.and_then(|at| row.get(at)).is_some_and(|cell| cell.text() == "true");
            (arm < record.arms.len()).then_some(((Which { arm, is_doubled }, number(seed)? as u64), at))
        };
        let rows = results.rows.iter().enumerate().filter_map(row).collect();
        Self { record, results, rows }
    }

    /// Every set of runs, in the order of the arms.
    pub(super) fn all(&self) -> Vec<Which> {
        let mut all: Vec<Which> = self.rows.keys().map(|(which, _)| *which).collect();
        all.dedup();
        all
    }

    /// A number of one run.
    pub(super) fn number(&self, which: Which, seed: u64, column: &str) -> Option<f64> {
        self.row(which, seed)?[self.results.column(column)?].number()
    }

    /// The row of one run.
    pub(super) fn row(&self, which: Which, seed: u64) -> Option<&'a Vec<Cell>> {
        self.results.rows.get(*self.rows.get(&(which, seed))?)
    }

    /// A text of one run.
    pub(super) fn text(&self, which: Which, seed: u64, column: &str) -> Option<String> {
        Some(self.row(which, seed)?[self.results.column(column)?].text())
    }

    /// A column of some runs, by seed in order.
    pub(super) fn values(&self, which: Which, column: &str) -> Vec<(u64, f64)> {
        let seeds = self.record.seeds.iter();
        seeds.filter_map(|seed| Some((*seed, self.number(which, *seed, column)?))).collect()
    }

    /// The same, described.
    pub(super) fn described(&self, which: Which, column: &str) -> Description {
        let values: Vec<f64> = self.values(which, column).into_iter().map(|(_, value)| value).collect();
        // A column holds finite numbers only.
        describe(&values).unwrap_or(Description { count: 0, mean: None, spread: None })
    }

    /// The mean of a column.
    pub(super) fn mean(&self, which: Which, column: &str) -> Option<f64> {
        self.described(which, column).mean
    }

    /// Whether some run has a number in a column.
    pub(super) fn has(&self, column: &str) -> bool {
        let Some(at) = self.results.column(column) else { return false };
        self.results.rows.iter().any(|row| row[at].number().is_some())
    }

    /// Columns whose names begin so.
    pub(super) fn columns(&self, prefix: &str) -> Vec<&'a str> {
        self.results.columns.iter().filter(|name| name.starts_with(prefix)).map(|name| &name[..]).collect()
    }

    /// An arm.
    pub(super) fn arm(&self, which: Which) -> &'a ArmRecord {
        &self.record.arms[which.arm]
    }

    /// Whether an arm is the plain optimizer.
    pub(super) fn is_plain(&self, which: Which) -> bool {
        // Where no arm sets a radius, all are what the base says: none is a baseline of the others.
        self.arm(which).values.get("sam.rho").and_then(Value::as_f64) == Some(0.0)
    }

    /// Whether an arm's radius is a matched one.
    pub(super) fn is_matched(&self, which: Which) -> bool {
        self.arm(which).is_matched
    }

    /// Keys that the report compares: those that the study asks for, else `sam.m` where that varies.
    pub(super) fn compared(&self) -> Vec<String> {
        let given = &self.record.report.compare;
        if given.is_empty() && self.varies("sam.m") { vec!["sam.m".into()] } else { given.clone() }
    }

    /// Keys that change together with a key, and itself.
    pub(super) fn companions(&self, key: &str) -> Vec<&'a str> {
        let lists = self.record.together.iter().filter(|list| list.iter().any(|name| name == key));
        let mut companions: Vec<&str> = lists.flatten().map(|name| &name[..]).collect();
        companions
            .extend(self.record.keys.iter().chain(&self.record.variables).find(|name| *name == key).map(|s| &s[..]));
        companions
    }

    /// Whether a key is one of those that vary.
    pub(super) fn varies(&self, key: &str) -> bool {
        self.record.keys.iter().chain(&self.record.variables).any(|name| name == key)
    }

    /// How some runs are called: what varies.
    pub(super) fn name(&self, which: Which) -> String {
        let values = &self.arm(which).values;
        let plain = self.is_plain(which);
        // A text of the study's own stands for what it was chosen to tell of.
        let places = self.arm(which).places.iter().flat_map(|place| &place.coordinates.0);
        let mut told: Vec<&(String, Value)> =
            places.filter(|(key, value)| key.starts_with("let.") && value.is_string()).collect();
        told.dedup();
        let companions: Vec<&str> = told.iter().flat_map(|(key, _)| self.companions(key)).collect();
        // Without SAM there is no m.
        let left_out = |key: &str| {
            (plain && key.starts_with("sam.") && key != "sam.rho") || (self.is_matched(which) && key == "sam.rho")
        };
        let rest = values.0.iter().filter(|(key, _)| !left_out(key) && !companions.contains(&&key[..]));
        let mut parts: Vec<String> = told.into_iter().chain(rest).map(|(key, value)| called(key, value)).collect();
        if self.is_matched(which) {
            // The radius that it was matched at is its reference's.
            parts.extend(self.radius_of_reference(which).map(|rho| format!("lift of ρ {}", shown(rho))));
        }
        if which.is_doubled {
            parts.push("twice the epochs".into());
        }
        if parts.is_empty() { "the only arm".into() } else { parts.join(", ") }
    }

    /// The same without what is said of all of a setting.
    pub(super) fn name_beside(&self, which: Which, setting: &str) -> String {
        let said: Vec<&str> = setting.split(", ").collect();
        let name = self.name(which);
        let rest: Vec<&str> = name.split(", ").filter(|part| !said.contains(part)).collect();
        if rest.is_empty() { name } else { rest.join(", ") }
    }

    fn radius_of_reference(&self, which: Which) -> Option<&'a Value> {
        let mut places = self.arm(which).places.iter();
        places.find_map(|place| place.coordinates.get("sam.rho"))
    }
}

/// A key without its table.
pub(super) fn short(key: &str) -> &str {
    match key {
        "sam.rho" => "ρ",
        "model.kind" => "model",
        "data.label_noise" => "label noise",
        "batch.size" => "batch",
        _ => key.rsplit('.').next().unwrap_or(key),
    }
}

/// A value as it is read.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(
            || number.to_string(),
            |number| {
                let rounded: f64 = format!("{number:.3e}").parse().unwrap_or(number);
                rounded.to_string()
            },
        ),
        other => other.to_string(),
    }
}

/// A key with its value, as it is read; words speak for themselves.
pub(super) fn called(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => short(key).into(),
        Value::Bool(false) => format!("not {}", short(key)),
        _ => format!("{} {}", short(key), shown(value)),
    }
}

/// Whether a key is a radius, or a variable from which radii follow: not what is asked about, but what must be held equal.
pub(super) fn is_radius(key: &str, value: &Value) -> bool {
    value.is_number() && (key == "sam.rho" || key.starts_with("let."))
}

/// Coordinates under their names, those of `keys` left out.
pub(super) fn rest<'a>(coordinates: &'a Pairs, is_kept: impl Fn(&str, &Value) -> bool + 'a) -> String {
    let kept = coordinates.0.iter().filter(|(key, value)| is_kept(key, value));
    kept.map(|(key, value)| called(key, value)).collect::<Vec<_>>().join(", ")
}
