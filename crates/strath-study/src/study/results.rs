//! What came of a study: a table with a row a run.

use serde_json::Value as Json;
use strath_core::finish::steps_of_an_epoch;
use strath_node::metrics::{EvalLine, Line, StepLine};

use super::setting::{number, plain};
use super::{Plan, PlannedRun, gradients_an_example};

/// A cell of the table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// There is none.
    Missing,
    /// A number.
    Number(f64),
    /// Anything else.
    Text(String),
}

impl Cell {
    /// The number, where it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Missing | Self::Text(_) => None,
        }
    }

    fn of(number: Option<f64>) -> Self {
        number.map_or(Self::Missing, Self::Number)
    }

    /// The cell of a CSV: what is a finite number is one.
    fn of_text(text: &str) -> Self {
        match text.parse::<f64>() {
            _ if text.is_empty() => Self::Missing,
            Ok(number) if number.is_finite() => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }

    fn of_value(value: Option<&toml::Value>) -> Self {
        value.map_or(Self::Missing, |value| number(value).map_or_else(|| Self::Text(plain(value)), Self::Number))
    }

    /// The cell as CSV has it, unquoted: a number with as many digits as it needs to be read back the same.
    pub fn text(&self) -> String {
        match self {
            Self::Missing => String::new(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// What is known of a finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Its `summary.json`.
    pub summary: Json,
    /// Its `metrics.jsonl`.
    pub lines: Vec<Line>,
    /// What was measured of its last weights, by column: `train_loss` and `train_error`, unless the run evaluated them, and the study's own measures.
    pub measured: Vec<(String, f64)>,
}

/// A table with a row a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows, in the order of the plan.
    pub rows: Vec<Vec<Cell>>,
}

/// Columns that every study has, after the keys that vary and its own variables.
const OF_EVERY_STUDY: [&str; 28] = [
    "grid",
    "arm",
    "seed",
    "doubled",
    "steps",
    "epochs",
    "train_loss",
    "train_error",
    "validation_loss",
    "validation_error",
    "test_loss",
    "test_error",
    "test_examples",
    "gap",
    "best_epoch",
    "best_train_loss",
    "best_train_error",
    "best_validation_loss",
    "best_validation_error",
    "best_test_loss",
    "best_test_error",
    "sharpness",
    "rho_equivalent",
    "gradient_evaluations",
    "seconds",
    "ended_by",
    "run",
    "weights_sha256",
];

impl Results {
    /// Of those runs of a plan that are finished.
    pub fn of(plan: &Plan, finished: impl Fn(&PlannedRun) -> Option<Finished>) -> Self {
        let done: Vec<(&PlannedRun, Finished)> =
            plan.runs.iter().filter_map(|run| Some((run, finished(run)?))).collect();
        let mut measures: Vec<String> = Vec::new();
        for (name, _) in done.iter().flat_map(|(_, finished)| &finished.measured) {
            if !measures.contains(name) && !OF_EVERY_STUDY.contains(&name.as_str()) {
                measures.push(name.clone());
            }
        }
        let mut columns = [&plan.keys[..], &plan.variables].concat();
        columns.extend(OF_EVERY_STUDY.map(String::from));
        columns.extend(measures.iter().cloned());
        let rows = done.iter().map(|(run, finished)| row(plan, run, finished, &measures)).collect();
        Self { columns, rows }
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// As CSV (RFC 4180), with a line of names; numbers with as many digits as they need to be read back the same.
    pub fn csv(&self) -> String {
        let mut csv = csv::Writer::from_writer(Vec::new());
        let lines = std::iter::once(self.columns.clone())
            .chain(self.rows.iter().map(|row| row.iter().map(Cell::text).collect()));
        for line in lines {
            csv.write_record(line).expect("memory takes every line, and each has a field for each column");
        }
        let bytes = csv.into_inner().expect("memory takes every line");
        String::from_utf8(bytes).expect("texts are UTF-8")
    }

    /// The table of a CSV.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn of_csv(text: &str) -> Result<Self, String> {
        let mut csv = csv::Reader::from_reader(text.as_bytes());
        let columns = csv.headers().map_err(|error| error.to_string())?.iter().map(String::from).collect();
        let rows = csv.records().map(|record| Ok(record?.iter().map(Cell::of_text).collect()));
        let rows = rows.collect::<Result<_, csv::Error>>().map_err(|error| error.to_string())?;
        Ok(Self { columns, rows })
    }
}

fn row(plan: &Plan, run: &PlannedRun, finished: &Finished, measures: &[String]) -> Vec<Cell> {
    let Finished { summary, lines, measured } = finished;
    let arm = &plan.arms[run.arm];
    let number = |key: &str| Cell::of(summary[key].as_f64());
    let text = |key: &str| summary[key].as_str().map_or(Cell::Missing, |text| Cell::Text(text.into()));
    let found = |name: &str| measured.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    let steps: Vec<&StepLine> =
        lines.iter().filter_map(|line| if let Line::Step(step) = line { Some(step) } else { None }).collect();
    let batch = run.config.batch.size;
    let best = Best::of(lines, &steps, batch);
    let trained = evaluations(lines, "train").next_back();
    let train_loss = trained.map(|line| line.loss).or(found("train_loss")).or(summary["train_loss"].as_f64());
    let train_error = trained.map(|line| line.error).or(found("train_error"));
    let test_error = summary["test_error"].as_f64();
    let gap = train_error.zip(test_error).map(|(train, test)| test - train);
    let last = last_epoch(&steps, batch);
    let mean = |of: &dyn Fn(&StepLine) -> Option<f64>, steps: &[&StepLine]| {
        let values: Vec<f64> = steps.iter().filter_map(|step| of(step)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let evaluations = steps.len() as f64 * run.config.batch.size as f64 * gradients_an_example(&run.config) as f64;
    let mut row: Vec<Cell> =
        (plan.keys.iter().chain(&plan.variables)).map(|key| Cell::of_value(plan.value(run, key).as_ref())).collect();
    row.extend([
        Cell::Text(arm.grids().join(" ")),
        Cell::Number(run.arm as f64),
        Cell::Number(run.seed as f64),
        Cell::Text(run.is_doubled.to_string()),
        number("steps"),
        number("epochs"),
        Cell::of(train_loss),
        Cell::of(train_error),
        number("validation_loss"),
        number("validation_error"),
        number("test_loss"),
        Cell::of(test_error),
        Cell::of(summary["examples"]["test"].as_f64()),
        Cell::of(gap),
        Cell::of(best.epoch),
        Cell::of(best.train_loss),
        Cell::of(best.train_error),
        Cell::of(best.validation_loss),
        Cell::of(best.validation_error),
        Cell::of(best.test_loss),
        Cell::of(best.test_error),
        Cell::of(mean(&|step| Some(step.sharpness), last)),
        Cell::of(mean(&|step| step.lanes.rho_equivalent, &steps)),
        Cell::Number(evaluations),
        number("seconds"),
        text("ended_by"),
        Cell::Text(run.folder.clone()),
        text("weights_sha256"),
    ]);
    row.extend(measures.iter().map(|name| Cell::of(found(name))));
    row
}

/// The evaluations of a split, in order.
fn evaluations<'a>(lines: &'a [Line], split: &'static str) -> impl DoubleEndedIterator<Item = &'a EvalLine> {
    lines.iter().filter_map(move |line| match line {
        Line::Eval(line) if line.split == split => Some(line),
        _ => None,
    })
}

/// The steps of the last epoch, as many as `train_loss` in a run's summary is of.
fn last_epoch<'a, 'b>(steps: &'a [&'b StepLine], batch: usize) -> &'a [&'b StepLine] {
    let Some(last) = steps.last() else { return steps };
    let examples = (last.step as f64 * batch as f64 / last.epoch).round() as u64;
    &steps[steps.len().saturating_sub(steps_of_an_epoch(examples, batch as u64) as usize)..]
}

/// A run at the evaluation at which its validation error was least, the first of several; nothing without a validation split.
/// Of the training split, where it was not evaluated then, the mean clean loss of the epoch before is there.
#[derive(Debug, Default)]
struct Best {
    epoch: Option<f64>,
    train_loss: Option<f64>,
    train_error: Option<f64>,
    validation_loss: Option<f64>,
    validation_error: Option<f64>,
    test_loss: Option<f64>,
    test_error: Option<f64>,
}

impl Best {
    fn of(lines: &[Line], steps: &[&StepLine], batch: usize) -> Self {
        let Some(best) = evaluations(lines, "validation").min_by(|a, b| a.error.total_cmp(&b.error)) else {
            return Self::default();
        };
        let beside = |split| -> Option<&EvalLine> { evaluations(lines, split).find(|line| line.step == best.step) };
        let (train, test) = (beside("train"), beside("test"));
        let at = steps.partition_point(|step| step.step <= best.step);
        let epoch = last_epoch(&steps[..at], batch);
        let loss = epoch.iter().map(|step| step.clean_loss).sum::<f64>() / epoch.len() as f64;
        Self {
            epoch: Some(best.epoch),
            train_loss: train.map(|line| line.loss).or((!epoch.is_empty()).then_some(loss)),
            train_error: train.map(|line| line.error),
            validation_loss: Some(best.loss),
            validation_error: Some(best.error),
            test_loss: test.map(|line| line.loss),
            test_error: test.map(|line| line.error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;
    use strath_core::config::Layers;

    use super::*;
    use crate::study::StudyFile;

    fn plan() -> Plan {
        let text = "[study]\nname = \"s\"\nseeds = 2\n[base]\n[[grid]]\nsam.m = [4, 2]\nmodel.kind = \"mlp\"\n";
        let base = "[run]\nepochs = 2\n[data]\nkind = \"digits\"\n[model]\nkind = \"mlp\"\nhidden = [8]\n[batch]\nsize = 8\n[sam]\nrho = 0.1\n[optimizer]\nlr = 0.1\n";
        let here = Path::new("/");
        Plan::of(&StudyFile::parse(text, "s", &[""; 0]).unwrap(), Layers::new().file(base, "base", here).unwrap(), here)
            .unwrap()
    }

    fn finished(evaluates_training: bool) -> Finished {
        let step = |step: u64, loss: f64| {
            let line = json!({
                "kind": "step", "step": step, "epoch": step as f64 / 2.0, "time": 0.0, "clean_loss": loss, "perturbed_loss": loss + 0.5, "sharpness": loss / 2.0,
                "lr": 0.1, "gradient_norm": 1.0, "epsilon_norm": 1.0, "zero_gradient_lanes": 0, "images_per_s": 1.0, "step_s": 1.0, "data_s": 0.0,
                "ascent_s": 0.0, "epsilon_s": 0.0, "exchange_s": 0.0, "descent_s": 0.0, "reduce_s": 0.0, "update_s": 0.0, "rho_equivalent": 0.3,
            });
            serde_json::from_value::<Line>(line).unwrap()
        };
        let eval = |step: u64, split: &str, error: f64| {
            let (split, epoch) = (split.to_string(), step as f64 / 2.0);
            Line::Eval(EvalLine { step, epoch, time: 0.0, split, loss: 2.0 * error, error })
        };
        let mut lines = vec![
            step(1, 8.0),
            step(2, 4.0),
            eval(2, "validation", 0.25),
            eval(2, "test", 0.2),
            step(3, 2.0),
            step(4, 1.0),
            eval(4, "validation", 0.5),
            eval(4, "test", 0.1),
        ];
        if evaluates_training {
            lines.extend([eval(2, "train", 0.15), eval(4, "train", 0.05)]);
        }
        let summary = json!({"steps": 4, "epochs": 2.0, "test_error": 0.1, "test_loss": 0.2, "train_loss": 1.5, "seconds": 3.0,
            "validation_error": 0.5, "examples": {"train": 9, "validation": 1, "test": 50}, "ended_by": "run.epochs", "weights_sha256": "ab"});
        Finished { summary, lines, measured: vec![("train_error".into(), 0.04), ("trace".into(), 7.0)] }
    }

    #[test]
    fn a_row_tells_of_the_last_epoch_and_of_the_best() {
        let plan = plan();
        let results = Results::of(&plan, |run| (run.seed == 1).then(|| finished(false)));
        assert_eq!(results.rows.len(), 2);
        let cell = |name: &str| results.rows[1][results.column(name).unwrap()].clone();
        assert_eq!(cell("sam.m"), Cell::Number(2.0));
        assert_eq!(
            (cell("seed"), cell("arm"), cell("doubled")),
            (Cell::Number(1.0), Cell::Number(1.0), Cell::Text("false".into()))
        );
        assert_eq!((cell("test_error"), cell("test_examples")), (Cell::Number(0.1), Cell::Number(50.0)));
        assert!((cell("gap").number().unwrap() - 0.06).abs() < 1e-12);
        assert_eq!(
            (cell("best_epoch"), cell("best_test_error"), cell("best_train_loss"), cell("best_train_error")),
            (Cell::Number(1.0), Cell::Number(0.2), Cell::Number(6.0), Cell::Missing)
        );
        assert_eq!(
            (cell("sharpness"), cell("gradient_evaluations")),
            (Cell::Number(0.75), Cell::Number(4.0 * 8.0 * 2.0))
        );
        assert_eq!(
            (cell("trace"), cell("validation_loss"), cell("train_loss")),
            (Cell::Number(7.0), Cell::Missing, Cell::Number(1.5))
        );
        assert_eq!(results.column("model.kind"), None, "it does not vary");
    }

    #[test]
    fn the_training_split_at_the_best_is_as_it_was_evaluated_then() {
        let results = Results::of(&plan(), |_| Some(finished(true)));
        let cell = |name: &str| results.rows[0][results.column(name).unwrap()].clone();
        assert_eq!((cell("best_train_loss"), cell("best_train_error")), (Cell::Number(0.3), Cell::Number(0.15)));
        assert_eq!(
            (cell("train_loss"), cell("train_error")),
            (Cell::Number(0.1), Cell::Number(0.05)),
            "and at the end"
        );
    }

    #[test]
    fn csv_has_a_line_a_run_and_quotes_what_it_must() {
        let plan = plan();
        let mut results = Results::of(&plan, |_| Some(finished(false)));
        let lines: Vec<String> = results.csv().lines().map(String::from).collect();
        assert_eq!(lines.len(), 5);
        assert!(
            lines[0].starts_with("sam.m,grid,arm,seed,doubled,steps,") && lines[0].ends_with("weights_sha256,trace")
        );
        results.rows[0][1] = Cell::Text("a, \"b\"".into());
        assert!(results.csv().contains("\"a, \"\"b\"\"\""));
        assert_eq!(Results::of_csv(&results.csv()).unwrap(), results, "it is read back as it was");
        assert!(Results::of_csv("a,b\n1\n").unwrap_err().contains("line: 2"));
        assert_eq!(Cell::of_text("inf"), Cell::Text("inf".into()));
    }
}
