//! The report of a run.

use std::path::Path;

use serde_json::Value;
use strath_node::metrics::{Line, StepLine};

use super::document::{Block, Cell, Document, Drawing, Section, Table, decimal};
use super::epochs::{Epochs, lines, marks};
use super::{ReportError, read};
use crate::figure::{Axis, Figure, Lines, Panel, Series};
use crate::statistics::binomial;

/// Keys of the configuration that stand in the head of the page.
const SHOWN: [&str; 9] = [
    "data.kind",
    "model.kind",
    "batch.size",
    "batch.micro",
    "sam.m",
    "sam.rho",
    "optimizer.lr",
    "run.epochs",
    "run.seed",
];

/// What a run found, from its folder: `metrics.jsonl`, `config.toml`, and `summary.json` where it has ended.
///
/// # Errors
/// [`ReportError`] where one of the first two is missing or is not what it should be.
pub fn of_run(folder: &Path) -> Result<Document, ReportError> {
    let lines = lines(folder)?;
    let path = folder.join("config.toml");
    let config: toml::Table =
        toml::from_str(&read(path.clone())?).map_err(|error| ReportError::Read { path, reason: error.to_string() })?;
    // A run that goes on, or that was killed, has none.
    let summary: Value =
        read(folder.join("summary.json")).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let value = |key: &str| {
        let (table, name) = key.split_once('.')?;
        let value = config.get(table)?.get(name)?;
        Some(value.as_str().map_or_else(|| value.to_string(), String::from))
    };
    let mut facts: Vec<(String, String)> =
        SHOWN.iter().filter_map(|key| Some((key.to_string(), value(key)?))).collect();
    let text = |key: &str| summary[key].as_str().map(|text| (key.to_string(), text.to_string()));
    facts.extend(["ended_by", "weights_sha256"].iter().filter_map(|key| text(key)));
    let name = value("run.name").unwrap_or_else(|| "run".into());
    let steps: Vec<&StepLine> =
        lines.iter().filter_map(|line| if let Line::Step(step) = line { Some(step) } else { None }).collect();
    let (said, evaluations) = found(&summary, &lines);
    let mut sections = vec![Section { title: "What it found".into(), blocks: said }];
    sections.push(Section { title: "Training".into(), blocks: training(&Epochs::of(&lines)) });
    sections.push(Section { title: "Lanes".into(), blocks: lanes(&steps) });
    sections.push(Section { title: "Evaluations".into(), blocks: evaluations });
    sections.retain(|section| !section.blocks.is_empty());
    Ok(Document { title: name, lead: "A training run.".into(), facts, sections })
}

/// What came out, and how well it is known; and the table of all evaluations.
fn found(summary: &Value, lines: &[Line]) -> (Vec<Block>, Vec<Block>) {
    let (mut blocks, mut table) = (Vec::new(), Vec::new());
    let evaluations = lines.iter().filter_map(|line| if let Line::Eval(line) = line { Some(line) } else { None });
    let evaluations: Vec<_> = evaluations.collect();
    if summary.is_null() {
        blocks.push(Block::Text("The run has not ended: this is what it has recorded so far.".into()));
    }
    if let Some(last) = evaluations.iter().rev().find(|line| line.split == "test") {
        let examples = summary["examples"]["test"].as_u64();
        let interval = examples.and_then(|examples| Some((examples, binomial(last.error, examples).ok()?.interval)));
        let percent = |share: f64| decimal(100.0 * share, 2);
        blocks.push(Block::Text(match interval {
            Some((examples, interval)) => format!(
                "Test error {} % at epoch {}: of {examples} examples, so that the error over all such examples lies from {} to {} % with 95 % confidence (Wilson). One run says \
                 nothing of other seeds, whose spread is often larger.",
                percent(last.error),
                decimal(last.epoch, 0),
                percent(interval.low),
                percent(interval.high)
            ),
            None => format!("Test error {} % at epoch {}. One run says nothing of other seeds.", percent(last.error), decimal(last.epoch, 0)),
        }));
    }
    let row = |line: &&strath_node::metrics::EvalLine| {
        vec![
            Cell::number(Some(line.epoch), 1),
            Cell::text(line.split.clone()),
            Cell::number(Some(line.loss), 4),
            Cell::number(Some(100.0 * line.error), 2),
        ]
    };
    if !evaluations.is_empty() {
        table.push(Block::Table(Table {
            caption: "Every evaluation: mean cross-entropy without smoothing, and the share of wrong arg-max.".into(),
            columns: ["epoch", "split", "loss (nats)", "error (%)"].map(String::from).into(),
            rows: evaluations.iter().map(row).collect(),
        }));
    }
    (blocks, table)
}

fn line(name: &str, points: Vec<(f64, f64)>) -> Series {
    Series { marks: marks(points.len()), ..Series::new(name, points) }
}

/// Curves against the epoch; nothing where none has a point.
fn drawing(stem: &str, caption: &str, label: &str, mut series: Vec<Series>) -> Option<Block> {
    series.retain(|series| !series.points.is_empty());
    (!series.is_empty()).then(|| {
        let panels = vec![Panel { x: Axis::linear("epoch"), series }];
        let figure = Figure::Lines(Lines { y: Axis::linear(label), panels });
        Block::Drawing(Drawing { stem: stem.into(), caption: caption.into(), figure })
    })
}

fn training(epochs: &Epochs) -> Vec<Block> {
    let losses = vec![
        line("at w", epochs.curve(|means| means.clean_loss)),
        line("at w + ε", epochs.curve(|means| means.perturbed_loss)),
    ];
    let errors = ["test", "validation", "train"].map(|split| Series::new(split, epochs.errors(split)));
    let sharpness = vec![line("", epochs.curve(|means| means.sharpness))];
    [
        drawing("loss", "Training loss, mean over each epoch's steps.", "loss (nats)", losses),
        drawing(
            "sharpness",
            "What epsilon adds to the training loss, mean over each epoch's steps.",
            "sharpness (nats)",
            sharpness,
        ),
        drawing("error", "Error on the splits that are evaluated.", "error (%)", errors.into()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the surveys of the lanes told.
fn lanes(steps: &[&StepLine]) -> Vec<Block> {
    let told = |of: &dyn Fn(&StepLine) -> Option<f64>| -> Vec<(f64, f64)> {
        steps.iter().filter_map(|step| Some((step.epoch, of(step)?))).collect()
    };
    let equivalent = vec![line("", told(&|step| step.lanes.rho_equivalent))];
    let noise = vec![line("", told(&|step| step.lanes.noise_scale))];
    let ratio = vec![line("", told(&|step| step.lanes.lift_ratio))];
    [
        drawing(
            "rho-equivalent",
            "The radius that m = batch would need for the same first-order lift.",
            "equivalent ρ",
            equivalent,
        ),
        drawing(
            "noise-scale",
            "The noise scale of the gradient (McCandlish et al. 2018).",
            "noise scale (examples)",
            noise,
        ),
        drawing(
            "lift-ratio",
            "What epsilon adds to the loss, over what the gradient alone predicts: 1 where the loss is linear.",
            "lift ratio",
            ratio,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
