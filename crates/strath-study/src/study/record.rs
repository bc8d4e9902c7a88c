//! What a study's folder keeps of its plan, `plan.json`: enough to read `results.csv` by, without the base that it came from.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Plan, ReportTable, Setting, Settings, StudyFile};

/// A study as it was planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// What it asks.
    pub question: String,
    /// Where the question comes from.
    pub source: String,
    /// Whether it is the small version.
    pub quick: bool,
    /// What its report compares.
    pub report: ReportTable,
    /// The seeds, in order.
    pub seeds: Vec<u64>,
    /// Keys that vary.
    pub keys: Vec<String>,
    /// The study's own variables.
    pub variables: Vec<String>,
    /// How many runs were planned.
    pub runs: usize,
    /// The arms.
    pub arms: Vec<ArmRecord>,
}

/// An arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmRecord {
    /// Where it stands: in one grid, or in several.
    pub places: Vec<PlaceRecord>,
    /// What its runs have for the keys that vary.
    pub values: Pairs,
    /// Whether its radius is such that its lift is a reference's.
    pub is_matched: bool,
}

/// Where an arm stands in a grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceRecord {
    /// The grid's name.
    pub grid: String,
    /// The values of its axes and paired lists.
    pub coordinates: Pairs,
    /// Keys that the grid takes together, list by list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub together: Vec<Vec<String>>,
}

impl PlaceRecord {
    /// Keys that the grid takes together with a key, and itself.
    pub fn companions<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let lists = self.together.iter().filter(move |list| list.iter().any(|name| name == key)).flatten();
        let own = self.coordinates.0.iter().map(|(name, _)| name).filter(move |name| *name == key);
        lists.chain(own).map(String::as_str)
    }
}

/// Keys with their values, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pairs(pub Vec<(String, Json)>);

impl Pairs {
    fn of<'a>(settings: impl Iterator<Item = &'a Setting>) -> Self {
        // JSON has no infinity: a ball's p is a text then, as in the file.
        let json = |value: &toml::Value| match value {
            toml::Value::Float(number) if !number.is_finite() => number.to_string().into(),
            value => serde_json::to_value(value).unwrap_or(Json::Null),
        };
        Self(settings.map(|setting| (setting.key.clone(), json(&setting.value))).collect())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl Record {
    /// Of a study and its plan.
    pub fn of(file: &StudyFile, plan: &Plan) -> Self {
        let (study, mut seeds) = (&file.study, Vec::new());
        for run in &plan.runs {
            if !seeds.contains(&run.seed) {
                seeds.push(run.seed);
            }
        }
        let arm = |(arm, values): (&super::Arm, &Settings)| ArmRecord {
            places: (arm.places.iter())
                .map(|place| PlaceRecord {
                    grid: place.grid.clone(),
                    coordinates: Pairs::of(place.coordinates.iter()),
                    together: place.together.clone(),
                })
                .collect(),
            values: Pairs::of(values.iter().filter(|setting| plan.keys.contains(&setting.key))),
            is_matched: arm.reference.is_some(),
        };
        Self {
            name: study.name.clone(),
            question: study.question.clone(),
            source: study.source.clone(),
            quick: study.quick,
            report: file.report.clone(),
            seeds,
            keys: plan.keys.clone(),
            variables: plan.variables.clone(),
            runs: plan.runs.len(),
            arms: plan.arms.iter().zip(&plan.values).map(arm).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use strath_core::config::Layers;

    use super::*;

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let text = "[study]\nname = \"s\"\nseeds = 2\n[base]\n[[grid]]\nname = \"g\"\nsam.rho = 0.1\nmatch = \"lift\"\nreference = { sam.norm = 2 }\n\
                    [[grid.paired]]\nsam.norm = [2, inf]\nlet.ball = [\"p = 2\", \"p = inf\"]\n";
        let base = "[run]\nepochs = 1\n[data]\nkind = \"digits\"\n[model]\nkind = \"mlp\"\nhidden = [8]\n[batch]\nsize = 8\n[sam]\nm = 4\n[optimizer]\nlr = 0.1\n";
        let here = Path::new("/");
        let file = StudyFile::parse(text, "s", &[""; 0]).unwrap();
        let plan = Plan::of(&file, Layers::new().file(base, "base", here).unwrap(), here).unwrap();
        let record = Record::of(&file, &plan);
        let again: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(again, record);
        assert_eq!((record.runs, &record.seeds[..], record.arms.len()), (4, &[0, 1][..], 2));
        assert_eq!(record.arms[0].places[0].together, [["let.ball", "sam.norm"]]);
        let arm = &record.arms[1];
        assert!(arm.is_matched);
        assert_eq!(arm.values.get("sam.norm").and_then(Json::as_str), Some("inf"), "JSON has no infinity");
        assert_eq!(arm.places[0].coordinates.get("sam.rho").and_then(Json::as_f64), Some(0.1));
    }
}
