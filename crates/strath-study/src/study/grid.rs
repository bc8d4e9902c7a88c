//! The arms of a study: every combination of a grid's axes and paired lists, with what derives from them, without what is excluded.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::expression::Expression;
use super::setting::flattened;
use super::{GridTable, Setting, Settings, StudyError};

/// Settings under which a run is made for each seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// The names of the grids that have it.
    pub grids: Vec<String>,
    /// What varies, and the study's own variables.
    pub settings: Settings,
}

/// Most arms of a study: more are a slip of the pen.
const MOST_ARMS: usize = 100_000;

/// All arms, in the order of the grids; one that several grids have is one. `base` is the value of a key that no grid sets.
///
/// # Errors
/// [`StudyError`] for an axis without values, lists of different lengths, an expression that cannot be computed.
pub fn arms(grids: &[GridTable], base: impl Fn(&str) -> Option<Value>) -> Result<Vec<Arm>, StudyError> {
    let (mut arms, mut places) = (Vec::<Arm>::new(), BTreeMap::new());
    for (at, grid) in grids.iter().enumerate() {
        let name = if grid.name.is_empty() { format!("grid {}", at + 1) } else { grid.name.clone() };
        let derived = parsed(&grid.derived)?;
        let exclusions = grid.exclude.iter().map(Exclusion::of).collect::<Result<Vec<_>, _>>()?;
        for mut settings in combinations(grid)? {
            for (key, expression, text) in &derived {
                let value_of = |key: &str| settings.get(key).cloned().or_else(|| base(key));
                let value = expression.number(value_of).map_err(|reason| wrong(key, text, reason))?;
                settings.set(key, value);
            }
            let value_of = |key: &str| settings.get(key).cloned().or_else(|| base(key));
            let mut is_excluded = false;
            for exclusion in &exclusions {
                is_excluded |= exclusion.holds(&value_of)?;
            }
            if is_excluded {
                continue;
            }
            // The study's own variables are not part of what is run.
            let run: BTreeSet<String> = settings.of_configuration().map(Setting::to_string).collect();
            match places.entry(run) {
                Entry::Vacant(place) => {
                    place.insert(arms.len());
                    arms.push(Arm { grids: vec![name.clone()], settings });
                }
                Entry::Occupied(place) => {
                    let names = &mut arms[*place.get()].grids;
                    if !names.contains(&name) {
                        names.push(name.clone());
                    }
                }
            }
        }
    }
    if arms.is_empty() {
        return Err(value("grid", "a study without arms", "at least one that is not excluded"));
    }
    Ok(arms)
}

fn value(key: &str, found: &str, expected: &str) -> StudyError {
    StudyError::Value { key: key.into(), found: found.into(), expected: expected.into() }
}

fn wrong(key: &str, expression: &str, reason: String) -> StudyError {
    StudyError::Expression { key: key.into(), expression: expression.into(), reason }
}

fn parsed(derived: &Table) -> Result<Vec<(String, Expression, String)>, StudyError> {
    let parse = |(key, expression): (String, Value)| {
        let text = expression.as_str().ok_or_else(|| {
            value(&format!("grid.derived.{key}"), &expression.to_string(), "a text, such as \"0.1 * sqrt(sam.m / 64)\"")
        })?;
        let parsed = Expression::parse(text).map_err(|reason| wrong(&key, text, reason))?;
        Ok((key, parsed, text.to_string()))
    };
    flattened(derived).into_iter().map(parse).collect()
}

/// Axes and paired lists, each a list of settings that go together.
fn axes(grid: &GridTable) -> Result<Vec<Vec<Vec<Setting>>>, StudyError> {
    let mut axes = Vec::new();
    for (key, given) in flattened(&grid.axes) {
        // A list of lists varies what is a list itself, such as model.hidden.
        let values = match given {
            Value::Array(values) if values.is_empty() => {
                return Err(value(&key, "an empty list", "at least one value"));
            }
            Value::Array(values) => values,
            one => vec![one],
        };
        axes.push(values.into_iter().map(|value| vec![Setting { key: key.clone(), value }]).collect());
    }
    for table in &grid.paired {
        let lists = flattened(table);
        let mut rows: Vec<Vec<Setting>> = Vec::new();
        for (at, (key, given)) in lists.iter().enumerate() {
            let values =
                given.as_array().ok_or_else(|| value(key, &given.to_string(), "a list, as its partners have"))?;
            if at == 0 {
                rows = vec![Vec::new(); values.len()];
            }
            if rows.len() != values.len() || rows.is_empty() {
                let expected = format!("as many values as {} has: {}", lists[0].0, rows.len());
                return Err(value(key, &format!("a list of {}", values.len()), &expected));
            }
            for (row, value) in rows.iter_mut().zip(values) {
                row.push(Setting { key: key.clone(), value: value.clone() });
            }
        }
        axes.push(rows);
    }
    Ok(axes)
}

/// The product of the axes, the last one's values next to each other.
fn combinations(grid: &GridTable) -> Result<Vec<Settings>, StudyError> {
    let axes = axes(grid)?;
    let count = axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.len()));
    if count.is_none_or(|count| count > MOST_ARMS) {
        return Err(value("grid", "a grid of more combinations than can be run", &format!("at most {MOST_ARMS}")));
    }
    let mut all = vec![Settings::default()];
    for axis in axes {
        let with = |settings: &Settings, row: &[Setting]| {
            let mut settings = settings.clone();
            for Setting { key, value } in row {
                settings.set(key, value.clone());
            }
            settings
        };
        all = all.iter().flat_map(|settings| axis.iter().map(|row| with(settings, row)).collect::<Vec<_>>()).collect();
    }
    Ok(all)
}

/// What leaves a combination out.
enum Exclusion {
    Condition(Expression, String),
    Values(Vec<(String, Value)>),
}

impl Exclusion {
    fn of(given: &Value) -> Result<Self, StudyError> {
        match given {
            Value::String(text) => {
                let parsed = Expression::parse(text).map_err(|reason| wrong("exclude", text, reason))?;
                Ok(Self::Condition(parsed, text.clone()))
            }
            Value::Table(table) => Ok(Self::Values(flattened(table))),
            other => Err(value("grid.exclude", &other.to_string(), "a condition or a table of values")),
        }
    }

    fn holds(&self, value_of: &impl Fn(&str) -> Option<Value>) -> Result<bool, StudyError> {
        match self {
            Self::Condition(condition, text) => {
                condition.holds(value_of).map_err(|reason| wrong("exclude", text, reason))
            }
            Self::Values(values) => {
                Ok(values.iter().all(|(key, value)| value_of(key).is_some_and(|v| same(&v, value))))
            }
        }
    }
}

/// Whether two values are one: 1 and 1.0 are.
fn same(a: &Value, b: &Value) -> bool {
    let number = |v: &Value| v.as_float().or_else(|| v.as_integer().map(|v| v as f64));
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grids(text: &str) -> Vec<GridTable> {
        #[derive(serde::Deserialize)]
        struct File {
            grid: Vec<GridTable>,
        }
        toml::from_str::<File>(text).unwrap().grid
    }

    fn base(key: &str) -> Option<Value> {
        (key == "batch.size").then_some(Value::Integer(64))
    }

    fn listed(text: &str) -> Result<Vec<String>, String> {
        let arms = arms(&grids(text), base).map_err(|error| error.to_string())?;
        Ok(arms.iter().map(|arm| arm.settings.to_string()).collect())
    }

    #[test]
    fn a_grid_is_every_combination_of_axes_and_pairs() {
        let text = "[[grid]]\nsam.m = [64, 16]\nmodel.kind = \"mlp\"\n[[grid.paired]]\nbatch.size = [64, 128]\noptimizer.lr = [0.1, 0.2]\n";
        let got = listed(text).unwrap();
        assert_eq!(got.len(), 4);
        assert!(got.contains(&"model.kind=mlp sam.m=16 batch.size=128 optimizer.lr=0.2".to_string()), "{got:?}");
    }

    #[test]
    fn settings_derive_from_the_grid_and_from_the_base() {
        let text = "[[grid]]\nsam.m = [64, 4]\nlet.radius = 0.4\n[grid.derived]\nsam.rho = \"let.radius * sqrt(sam.m / batch.size)\"\n";
        assert_eq!(
            listed(text).unwrap(),
            ["let.radius=0.4 sam.m=64 sam.rho=0.4", "let.radius=0.4 sam.m=4 sam.rho=0.1"]
        );
        assert!(listed(&text.replace("sam.m / batch", "sam.n / batch")).unwrap_err().contains("sam.n is not set"));
    }

    #[test]
    fn one_arm_of_two_grids_is_one_and_has_both_names() {
        let text = "[[grid]]\nname = \"equal\"\nsam.m = [64, 16]\nsam.rho = [0.1, 0.2]\n\
                    [[grid]]\nname = \"matched\"\nsam.m = [64, 16]\nlet.radius = [0.1, 0.2, 0.4]\n[grid.derived]\nsam.rho = \"let.radius * sqrt(sam.m / 64)\"\n";
        let arms = arms(&grids(text), base).unwrap();
        assert_eq!(arms.len(), 4 + 6 - 2 - 2);
        assert_eq!(arms.iter().filter(|arm| arm.grids == ["equal", "matched"]).count(), 4);
    }

    #[test]
    fn combinations_are_excluded_by_conditions_and_by_values() {
        let text = "[[grid]]\nsam.m = [64, 16, 4]\nbatch.micro = [64, 16, 4]\nexclude = [\"batch.micro > sam.m\", { sam.m = 4, batch.micro = 4.0 }]\n";
        let got = listed(text).unwrap();
        assert_eq!(got.len(), 5);
        assert!(!got.iter().any(|arm| arm.contains("sam.m=4")));
        assert!(listed(&text.replace("batch.micro > sam.m", "sam.m > 0")).unwrap_err().contains("without arms"));
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        let short = "[[grid]]\n[[grid.paired]]\nbatch.size = [64, 128]\noptimizer.lr = [0.1]\n";
        assert!(listed(short).unwrap_err().contains("as many values as batch.size has: 2"));
        assert!(listed("[[grid]]\nsam.m = []\n").unwrap_err().contains("at least one value"));
        assert!(listed("[[grid]]\nsam.m = 1\nderived.sam.rho = 0.1\n").unwrap_err().contains("a text"));
    }
}
