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

    /// A number of its own.
    pub(super) fn number(self) -> usize {
        2 * self.arm + usize::from(self.is_doubled)
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
            let arm = number(arm).filter(|arm| *arm >= 0.0 && arm.fract() == 0.0)? as usize;
            let is_doubled = doubled.and_then(|at| row.get(at)).is_some_and(|cell| cell.text() == "true");
            // Of another plan, where the arm is another.
            let is_its = record.arms.get(arm).is_some_and(|arm| agrees(arm, results, row));
            is_its.then_some(((Which { arm, is_doubled }, number(seed)? as u64), at))
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

    /// Whether no arm of a larger radius is there, or none of a smaller one, in which all else is equal: a better one may lie beyond.
    pub(super) fn is_at_the_edge(&self, which: Which) -> bool {
        let radius = |which: Which| {
            let own = || self.arm(which).values.get("sam.rho");
            if self.is_matched(which) { self.radius_of_reference(which)?.as_f64() } else { own()?.as_f64() }
        };
        let Some(own) = radius(which) else { return false };
        let beside = |which: Which| rest(&self.arm(which).values, |key, _| key != "sam.rho");
        let with_data =
            self.all().into_iter().filter(|other| !other.is_doubled && self.mean(*other, "test_error").is_some());
        let (mut larger, mut smaller) = (false, false);
        for other in with_data {
            if self.is_plain(other) {
                // Without SAM there is neither m nor a ball: its radius is 0 for all of them.
                smaller |= self.beside_sam(other) == self.beside_sam(which);
            } else if self.is_matched(other) == self.is_matched(which) && beside(other) == beside(which) {
                larger |= radius(other).is_some_and(|radius| radius > own);
                smaller |= radius(other).is_some_and(|radius| radius < own);
            }
        }
        !(larger && smaller)
    }

    /// Keys that the report compares: those that the study asks for, else `sam.m` where that varies.
    pub(super) fn compared(&self) -> Vec<String> {
        let given = &self.record.report.compare;
        if given.is_empty() && self.varies("sam.m") { vec!["sam.m".into()] } else { given.clone() }
    }

    /// The key of which figures draw a line for each value: `sam.m` where it is compared, else the first that is.
    pub(super) fn drawn_key(&self) -> Option<String> {
        let compared = self.compared();
        compared.iter().find(|key| *key == "sam.m").or(compared.first()).cloned()
    }

    /// What of an arm has nothing to do with SAM.
    pub(super) fn beside_sam(&self, which: Which) -> String {
        rest(&self.arm(which).values, |key, _| !key.starts_with("sam."))
    }

    /// Keys that some grid takes together with a key, and itself.
    pub(super) fn companions<'b>(&self, key: &'b str) -> Vec<&'b str>
    where
        'a: 'b,
    {
        let places = self.record.arms.iter().flat_map(|arm| &arm.places);
        let mut companions: Vec<&str> = places.flat_map(|place| place.companions(key)).collect();
        companions.sort_unstable();
        companions.dedup();
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

/// Whether a row of the results has an arm's values: a radius that was matched is the run's own.
fn agrees(arm: &ArmRecord, results: &Results, row: &[Cell]) -> bool {
    let same = |(key, value): &(String, Value)| {
        let Some(cell) = results.column(key).and_then(|at| row.get(at)) else { return true };
        match value {
            _ if arm.is_matched && key == "sam.rho" => true,
            Value::Number(number) => cell.number() == number.as_f64(),
            Value::String(text) => cell.text() == *text,
            _ => true,
        }
    };
    arm.values.0.iter().all(same)
}

/// What stands under a name, in the order in which names came; of a new one, nothing yet.
pub(super) fn under<T: Default>(groups: &mut Vec<(String, T)>, name: String) -> &mut T {
    let at = groups.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
        groups.push((name, T::default()));
        groups.len() - 1
    });
    &mut groups[at].1
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
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Value::Number(number) => number.as_f64().map_or_else(
            || number.to_string(),
            |number| {
                let rounded: f64 = format!("{number:.5e}").parse().unwrap_or(number);
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
