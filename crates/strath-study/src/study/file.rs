//! A study's file.
//!
//! ```toml
//! [study]
//! name = "m-or-radius"
//! question = "Is anything left of m at an equal lift?"
//! seeds = 5                                  # 0 to 4; or a list
//!
//! [base]                                     # a configuration, or the name of a file with one
//! data.kind = "digits"
//! sam.rho = 0.1
//!
//! [[grid]]                                   # every combination of its axes; several grids are added up
//! name = "matched"
//! sam.m = [64, 16, 4]                        # a list is an axis
//! let.radius = [0.1, 0.2]                    # a variable of the study's own
//! [grid.derived]
//! sam.rho = "let.radius * sqrt(sam.m / 64)"
//! [[grid.paired]]                            # lists of one length, taken together
//! batch.size = [64, 128]
//! optimizer.lr = [0.05, 0.1]
//!
//! [[grid]]
//! name = "equal lift"
//! sam.norm = [1, "inf"]
//! sam.rho = 0.1                              # of the reference; each arm's own follows from it
//! match = "lift"
//! reference = { sam.norm = 2 }
//!
//! [report]
//! compare = "sam.m"                          # whose values are compared where all else is equal; or a list of keys
//! choose = "let.radius"                      # on the first half of the seeds; what it gives is told of the other half
//! also = ["trace"]                           # columns that are compared beside the test error
//! margin = 0.01                              # of the test error: two arms that differ by less are alike
//! ```

use serde::{Deserialize, Serialize};
use strath_core::config::parse_value;
use toml::{Table, Value};

use super::StudyError;
use super::setting::flattened;

/// A study as it is written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    /// What it is about.
    pub study: StudyTable,
    /// The configuration of every run but for what varies: tables, or the path of a file.
    pub base: Value,
    /// What varies.
    pub grid: Vec<GridTable>,
    /// What its report compares.
    #[serde(default)]
    pub report: ReportTable,
    /// What `study.quick = true` changes: an axis's values, other keys of the configuration, and `study.seeds`.
    #[serde(default)]
    pub quick: Table,
}

/// `[study]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StudyTable {
    /// Its name, of its folder too.
    pub name: String,
    /// What it asks.
    #[serde(default)]
    pub question: String,
    /// Where the question comes from.
    #[serde(default)]
    pub source: String,
    /// How many seeds, from 0 on, or which.
    pub seeds: Value,
    /// Whether runs without SAM come once more with twice the epochs.
    #[serde(default)]
    pub compute: Compute,
    /// What is measured of each run's last weights.
    #[serde(default)]
    pub measure: Vec<Measure>,
    /// The small version.
    #[serde(default)]
    pub quick: bool,
}

/// `[report]`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReportTable {
    /// Keys whose values are compared where all else is equal; without it `sam.m` where that varies.
    #[serde(default, deserialize_with = "one_or_several")]
    pub compare: Vec<String>,
    /// The radius, `sam.rho` or a variable from which it follows, whose best value is chosen on the first half of the seeds, and told of the other
    /// half; without it that of each grid.
    pub choose: Option<String>,
    /// Columns that are compared beside the test error, such as `trace` or `memorised`.
    #[serde(default)]
    pub also: Vec<String>,
    /// What two errors may differ by and still be called alike, a share in 0..=1; 0.01 without it.
    pub margin: Option<f64>,
}

/// `study.compute`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// Every run as long as it says.
    #[default]
    Epochs,
    /// Runs without SAM, which take half the gradients, once as long and once twice.
    Equal,
}

/// `[[study.measure]]`: a measurement of the last weights over the training set.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "what")]
pub enum Measure {
    /// The column `sharpness_mM_rhoR`.
    Sharpness {
        /// Lane sizes.
        m: Vec<usize>,
        /// Radius.
        rho: f64,
        /// Only the first so many examples.
        limit: Option<usize>,
    },
    /// The columns `lambda_1`, `lambda_2`, ... of the largest eigenvalues, `lambda_1_5` and `trace`.
    Spectrum {
        /// How many eigenvalues.
        top: usize,
        /// Samples of the trace.
        trace_samples: usize,
        /// Only the first so many examples.
        limit: Option<usize>,
    },
    /// No column: the report draws it.
    Landscape {
        /// Axes: 1 or 2.
        dims: u8,
        /// Points along each.
        grid: usize,
        /// They go from -extent to extent, in lengths of the weights.
        extent: f64,
        /// Only the first so many examples.
        limit: Option<usize>,
    },
}

/// `[[grid]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct GridTable {
    /// Its name in the results.
    #[serde(default)]
    pub name: String,
    /// Lists that are taken together.
    #[serde(default)]
    pub paired: Vec<Table>,
    /// Keys by expressions over other keys.
    #[serde(default)]
    pub derived: Table,
    /// What each arm is made equal to its reference in, by its radius.
    #[serde(default, rename = "match")]
    pub matching: Option<Match>,
    /// What the reference has in the place of the arm's own values.
    #[serde(default)]
    pub reference: Table,
    /// Combinations that are left out: conditions, such as `"batch.micro > sam.m"`, or tables of values that hold together.
    #[serde(default)]
    pub exclude: Vec<Value>,
    /// Axes (lists) and fixed values.
    #[serde(flatten)]
    pub axes: Table,
}

/// A text, or a list of them.
fn one_or_several<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a key such as \"sam.m\", or a list of keys")]
    enum Given {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::One(key) => vec![key],
        Given::Several(keys) => keys,
    })
}

/// `match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// The mean over lanes of `rho_v ||t g_v||_q` at the initial weights over the first batch, seed by seed.
    Lift,
}

/// `[study]` with one assignment more.
fn changed(study: StudyTable, change: &str) -> Result<StudyTable, StudyError> {
    let wrong = |reason: String| StudyError::Value {
        key: "--set".into(),
        found: format!("{change:?}"),
        expected: format!("an assignment to a key of [study], such as study.quick=true: {reason}"),
    };
    let (key, value) = change.split_once('=').ok_or_else(|| wrong("it has no =".into()))?;
    let key = key.trim().strip_prefix("study.").ok_or_else(|| wrong("it is of another table".into()))?;
    let mut table = Table::try_from(study).map_err(|error| wrong(error.to_string()))?;
    table.insert(key.into(), parse_value(value));
    table.try_into().map_err(|error: toml::de::Error| wrong(error.message().to_string()))
}

impl StudyFile {
    /// Parses a study's text; `name` is for messages. `changes` are assignments, `study.KEY=VALUE`, that take precedence.
    ///
    /// # Errors
    /// [`StudyError`] with what is wrong and where.
    pub fn parse(text: &str, name: &str, changes: &[impl AsRef<str>]) -> Result<Self, StudyError> {
        let mut file: Self = toml::from_str(text).map_err(|error| StudyError::File {
            name: name.into(),
            reason: error.to_string().trim_end().replace('\n', "\n  "),
        })?;
        for change in changes {
            file.study = changed(file.study, change.as_ref())?;
        }
        if file.grid.is_empty() {
            let (found, expected) = ("empty".into(), "at least one [[grid]]".into());
            return Err(StudyError::Value { key: "grid".into(), found, expected });
        }
        file.seeds()?;
        if let Some(margin) = file.report.margin.filter(|margin| !(*margin > 0.0 && *margin < 1.0)) {
            let expected = "a share of the test examples above 0 and below 1, such as 0.01".into();
            return Err(StudyError::Value { key: "report.margin".into(), found: margin.to_string(), expected });
        }
        Ok(file)
    }

    /// What the quick version sets in the base, and its grids; without it, nothing and the grids.
    pub(super) fn smaller(&self) -> (Vec<(String, Value)>, Vec<GridTable>) {
        let (mut base, mut grids) = (Vec::new(), self.grid.clone());
        if !self.study.quick {
            return (base, grids);
        }
        for (key, value) in flattened(&self.quick).into_iter().filter(|(key, _)| !key.starts_with("study.")) {
            let mut is_axis = false;
            for grid in &mut grids {
                let mut axes = flattened(&grid.axes);
                for axis in axes.iter_mut().filter(|(axis, _)| *axis == key) {
                    axis.1 = value.clone();
                    is_axis = true;
                }
                grid.axes = axes.into_iter().collect();
            }
            if !is_axis {
                base.push((key, value));
            }
        }
        (base, grids)
    }

    /// The seeds, in order.
    ///
    /// # Errors
    /// [`StudyError::Value`] where there are none, or a seed comes twice.
    pub fn seeds(&self) -> Result<Vec<u64>, StudyError> {
        let quick = flattened(&self.quick).into_iter().find(|(key, _)| self.study.quick && key == "study.seeds");
        let given = quick.map_or_else(|| self.study.seeds.clone(), |(_, seeds)| seeds);
        let wrong = || StudyError::Value {
            key: "study.seeds".into(),
            found: given.to_string(),
            expected: "a number of seeds from 1 on, or a list of different seeds from 0 on".into(),
        };
        let seeds: Vec<u64> = match &given {
            Value::Integer(count) if (1..=10_000).contains(count) => (0..*count as u64).collect(),
            Value::Array(list) => {
                let seeds: Option<Vec<u64>> = list.iter().map(|seed| seed.as_integer()?.try_into().ok()).collect();
                seeds.ok_or_else(wrong)?
            }
            _ => return Err(wrong()),
        };
        let is_good = !seeds.is_empty() && (1..seeds.len()).all(|at| !seeds[..at].contains(&seeds[at]));
        if is_good { Ok(seeds) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[study]\nname = \"s\"\nseeds = 3\n[base]\ndata.kind = \"digits\"\n[[grid]]\nsam.m = [1, 2]\n";

    const NONE: &[&str] = &[];

    #[test]
    fn assignments_take_precedence() {
        let set = |change: &str| StudyFile::parse(TEXT, "s.toml", &[change]);
        assert!(set("study.quick=true").unwrap().study.quick);
        assert_eq!(set("study.seeds = [7]").unwrap().seeds().unwrap(), [7]);
        assert!(set("study.quik=true").unwrap_err().to_string().contains("quik"));
        assert!(set("study.quick").unwrap_err().to_string().contains("no ="));
    }

    #[test]
    fn a_study_is_read_with_its_defaults() {
        let file = StudyFile::parse(TEXT, "s.toml", NONE).unwrap();
        assert_eq!(file.seeds().unwrap(), [0, 1, 2]);
        assert_eq!((file.study.compute, file.study.quick), (Compute::Epochs, false));
        assert_eq!(file.grid[0].axes["sam"]["m"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error =
            |from: &str, to: &str| StudyFile::parse(&TEXT.replace(from, to), "s.toml", NONE).unwrap_err().to_string();
        assert!(error("seeds = 3", "seeds = 0").contains("study.seeds is 0, expected a number of seeds from 1 on"));
        assert!(error("seeds = 3", "seeds = [1, 1]").contains("different seeds"));
        assert!(error("seeds = 3", "seedz = 3").contains("seedz"));
        assert!(error("[[grid]]", "[report]\nmargin = 1\n[[grid]]").contains("report.margin is 1, expected a share"));
        assert!(error("[[grid]]\nsam.m = [1, 2]\n", "").contains("grid"));
    }
}
