//! The arms of a study: every combination of a grid's axes and paired lists, with what derives from them, without what is excluded.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use super::expression::Expression;
use super::setting::{flattened, number};
use super::{GridTable, Match, Setting, Settings, StudyError};

/// Settings under which a run is made for each seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// Where it stands: in one grid, or in several.
    pub places: Vec<Place>,
    /// What varies, what derives from it, and the study's own variables.
    pub settings: Settings,
    /// The settings of the run whose lift its own is made equal to.
    pub reference: Option<Settings>,
}

/// Where an arm stands in a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The grid's name.
    pub grid: String,
    /// The values of its axes and paired lists, the study's own variables among them; nothing that derives.
    pub coordinates: Settings,
    /// Keys that are taken together, list by list.
    pub together: Vec<Vec<String>>,
}

impl Arm {
    /// The names of its grids, each once.
    pub fn grids(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.places.iter().map(|place| &place.grid[..]).collect();
        names.dedup();
        names
    }
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
        let derived = Derived::of(grid)?;
        let exclusions = grid.exclude.iter().map(Exclusion::of).collect::<Result<Vec<_>, _>>()?;
        let overrides = reference(grid)?;
        let keys = |table| flattened(table).into_iter().map(|(key, _)| key).collect();
        let together: Vec<Vec<String>> = grid.paired.iter().map(keys).collect();
        for coordinates in combinations(grid)? {
            let settings = derived.complete(coordinates.clone(), &base)?;
            let value_of = |key: &str| settings.get(key).cloned().or_else(|| base(key));
            let mut is_excluded = false;
            for exclusion in &exclusions {
                is_excluded |= exclusion.holds(&value_of)?;
            }
            if is_excluded {
                continue;
            }
            let reference = overrides.as_ref().map(|overrides| {
                let mut other = coordinates.clone();
                for (key, value) in overrides {
                    other.set(key, value.clone());
                }
                derived.complete(other, &base)
            });
            let reference = reference.transpose()?;
            // The study's own variables are not part of what is run.
            let mut run: BTreeSet<String> = settings.of_configuration().map(Setting::to_string).collect();
            run.extend(
                reference.iter().flat_map(Settings::of_configuration).map(|setting| format!("reference {setting}")),
            );
            let place = Place { grid: name.clone(), coordinates, together: together.clone() };
            match places.entry(run) {
                Entry::Vacant(entry) => {
                    entry.insert(arms.len());
                    arms.push(Arm { places: vec![place], settings, reference });
                }
                Entry::Occupied(entry) => {
                    let places = &mut arms[*entry.get()].places;
                    if !places.contains(&place) {
                        places.push(place);
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

/// What a grid's references have in the place of their arms' values; none without `match`.
fn reference(grid: &GridTable) -> Result<Option<Vec<(String, Value)>>, StudyError> {
    let overrides = flattened(&grid.reference);
    match (grid.matching, overrides.is_empty()) {
        (Some(Match::Lift), false) => Ok(Some(overrides)),
        (None, true) => Ok(None),
        (Some(_), true) => {
            let expected = "what the reference has, such as reference = { sam.norm = 2 }";
            Err(value("grid.reference", "missing beside match = \"lift\"", expected))
        }
        (None, false) => Err(value("grid.match", "missing beside reference", "match = \"lift\"")),
    }
}

/// Keys that follow from others.
struct Derived(Vec<(String, Expression, String)>);

impl Derived {
    fn of(grid: &GridTable) -> Result<Self, StudyError> {
        let parse = |(key, expression): (String, Value)| {
            let text = expression.as_str().ok_or_else(|| {
                let key = format!("grid.derived.{key}");
                value(&key, &expression.to_string(), "a text, such as \"0.1 * sqrt(sam.m / 64)\"")
            })?;
            let parsed = Expression::parse(text).map_err(|reason| wrong(&key, text, reason))?;
            Ok((key, parsed, text.to_string()))
        };
        Ok(Self(flattened(&grid.derived).into_iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// Settings with what follows from them.
    fn complete(&self, mut settings: Settings, base: impl Fn(&str) -> Option<Value>) -> Result<Settings, StudyError> {
        for (key, expression, text) in &self.0 {
            let value_of = |key: &str| settings.get(key).cloned().or_else(|| base(key));
            let value = expression.number(value_of).map_err(|reason| wrong(key, text, reason))?;
            settings.set(key, value);
        }
        Ok(settings)
    }
}

fn value(key: &str, found: &str, expected: &str) -> StudyError {
    StudyError::Value { key: key.into(), found: found.into(), expected: expected.into() }
}

fn wrong(key: &str, expression: &str, reason: String) -> StudyError {
    StudyError::Expression { key: key.into(), expression: expression.into(), reason }
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
        let both: Vec<&Arm> = arms.iter().filter(|arm| arm.grids() == ["equal", "matched"]).collect();
        assert_eq!(both.len(), 4);
        assert_eq!(both[0].places[0].coordinates.to_string(), "sam.m=64 sam.rho=0.1");
        assert_eq!(both[0].places[1].coordinates.to_string(), "let.radius=0.1 sam.m=64", "what derives is none");
    }

    #[test]
    fn a_reference_has_its_own_values_and_what_follows_from_them() {
        let text = "[[grid]]\nsam.m = [64, 4]\nlet.radius = 0.4\nmatch = \"lift\"\nreference = { sam.m = 16 }\n\
                    [grid.derived]\nsam.rho = \"let.radius * sqrt(sam.m / 64)\"\n";
        let arms = arms(&grids(text), base).unwrap();
        let references: Vec<String> = arms.iter().map(|arm| arm.reference.as_ref().unwrap().to_string()).collect();
        assert_eq!(references, ["let.radius=0.4 sam.m=16 sam.rho=0.2"; 2]);
        assert!(listed(&text.replace("match = \"lift\"\n", "")).unwrap_err().contains("grid.match is missing"));
        let alone = text.replace("reference = { sam.m = 16 }\n", "");
        assert!(listed(&alone).unwrap_err().contains("grid.reference is missing"));
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
