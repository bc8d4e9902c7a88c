//! Arms that differ in one key alone: what a comparison is made of.

use serde_json::Value;

use super::data::{Data, Which, called, is_radius, rest};

/// Arms of one grid and one setting, by the value of a key and by their radius.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Family {
    /// The grid's name.
    pub(super) grid: String,
    /// What all of them have beside the grid's other axes; empty: nothing that varies.
    pub(super) setting: String,
    /// The key.
    pub(super) key: String,
    /// Its values: numbers from the largest down, anything else as the file has it. The first is the reference.
    pub(super) values: Vec<Value>,
    /// Radii with the arms of each, one for each value that has one.
    pub(super) radii: Vec<Radius>,
}

/// Arms of one radius.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Radius {
    /// What it is called: `ρ 0.1`.
    pub(super) name: String,
    /// Its key and number, where it is one key.
    pub(super) number: Option<(String, f64)>,
    /// For each of the family's values, an arm.
    pub(super) arms: Vec<Option<usize>>,
}

impl Family {
    /// The families of a key, in the order of the grids: of two values at least.
    pub(super) fn of(data: &Data<'_>, key: &str) -> Vec<Self> {
        let mut families: Vec<Self> = Vec::new();
        for (arm, record) in data.record.arms.iter().enumerate() {
            for place in &record.places {
                let Some(value) = place.coordinates.get(key) else { continue };
                let companions: Vec<&str> = place.companions(key).collect();
                let is_other = |key: &str| !companions.contains(&key) && data.varies(key);
                let setting = rest(&place.coordinates, |key, value| is_other(key) && !is_radius(key, value));
                let name = rest(&place.coordinates, |key, value| is_other(key) && is_radius(key, value));
                let mut numbers =
                    place.coordinates.0.iter().filter(|(key, value)| is_other(key) && is_radius(key, value));
                let number = match (numbers.next(), numbers.next()) {
                    (Some((key, value)), None) => value.as_f64().map(|number| (key.clone(), number)),
                    _ => None,
                };
                let known =
                    families.iter_mut().position(|family| family.grid == place.grid && family.setting == setting);
                let at = known.unwrap_or_else(|| {
                    let (grid, key) = (place.grid.clone(), key.to_string());
                    families.push(Self { grid, setting, key, values: Vec::new(), radii: Vec::new() });
                    families.len() - 1
                });
                families[at].take(value, name, number, arm);
            }
        }
        for family in &mut families {
            family.sort();
        }
        families.retain(|family| family.values.len() > 1);
        families
    }

    fn take(&mut self, value: &Value, name: String, number: Option<(String, f64)>, arm: usize) {
        let at = self.values.iter().position(|known| known == value).unwrap_or_else(|| {
            self.values.push(value.clone());
            self.radii.iter_mut().for_each(|radius| radius.arms.push(None));
            self.values.len() - 1
        });
        let count = self.values.len();
        let of_radius = self.radii.iter().position(|radius| radius.name == name).unwrap_or_else(|| {
            self.radii.push(Radius { name, number, arms: vec![None; count] });
            self.radii.len() - 1
        });
        self.radii[of_radius].arms[at].get_or_insert(arm);
    }

    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.values.len()).collect();
        if let Some(numbers) = self.values.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>() {
            order.sort_by(|a, b| numbers[*b].total_cmp(&numbers[*a]));
        }
        self.values = order.iter().map(|at| self.values[*at].clone()).collect();
        for radius in &mut self.radii {
            radius.arms = order.iter().map(|at| radius.arms[*at]).collect();
        }
        let number = |radius: &Radius| radius.number.as_ref().map_or(f64::INFINITY, |(_, number)| *number);
        self.radii.sort_by(|a, b| number(a).total_cmp(&number(b)));
    }

    /// What the family is called: its grid and its setting.
    pub(super) fn name(&self) -> String {
        if self.setting.is_empty() { self.grid.clone() } else { format!("{}, {}", self.grid, self.setting) }
    }

    /// A value of the key, as it is read.
    pub(super) fn called(&self, value: usize) -> String {
        called(&self.key, &self.values[value])
    }

    /// The key of its radii, where that is one.
    pub(super) fn radius_key(&self) -> Option<&str> {
        let mut keys = self.radii.iter().filter_map(|radius| Some(&radius.number.as_ref()?.0[..]));
        let first = keys.next()?;
        keys.all(|key| key == first).then_some(first)
    }

    /// The arms of a value with the numbers of their radii.
    pub(super) fn along(&self, value: usize) -> Vec<(f64, Which)> {
        let at = |radius: &Radius| Some((radius.number.as_ref()?.1, Which::of(radius.arms[value]?)));
        self.radii.iter().filter_map(at).collect()
    }
}
