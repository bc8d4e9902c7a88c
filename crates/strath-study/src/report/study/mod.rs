//! The report of a study.

mod arms;
mod choice;
mod compare;
mod curves;
mod data;
mod difference;
mod families;
mod landscapes;
mod micro;
mod power;
mod spectra;
mod training;

use std::path::Path;

use super::document::{Block, Document, Section};
use super::{ReportError, read};
use crate::statistics::StatisticsError;
use crate::study::{Record, Results};

use compare::Comparison;
use curves::{BEST, LAST};
use data::Data;
use families::Family;

/// What a study found, from its folder: `plan.json` and `results.csv`, and the metrics of its runs where they are there.
///
/// # Errors
/// [`ReportError`] where one of the two files is missing or is not what it should be.
pub fn of_study(folder: &Path) -> Result<Document, ReportError> {
    let plan = folder.join("plan.json");
    let record: Record = serde_json::from_str(&read(plan.clone())?)
        .map_err(|error| ReportError::Read { path: plan, reason: error.to_string() })?;
    let table = folder.join("results.csv");
    let results =
        Results::of_csv(&read(table.clone())?).map_err(|reason| ReportError::Read { path: table.clone(), reason })?;
    let data = Data::new(&record, &results);
    sections(&data, &folder.join("runs"))
        .map(|sections| document(&data, sections))
        .map_err(|error| ReportError::Read { path: table, reason: error.to_string() })
}

fn document(data: &Data<'_>, sections: Vec<Section>) -> Document {
    let record = data.record;
    let finished = data.results.rows.len();
    let seconds: f64 = data
        .results
        .column("seconds")
        .map_or(0.0, |at| data.results.rows.iter().filter_map(|row| row[at].number()).sum());
    let mut facts = vec![
        ("source".into(), record.source.clone()),
        ("arms".into(), record.arms.len().to_string()),
        ("seeds".into(), record.seeds.len().to_string()),
        ("runs".into(), format!("{finished} of {}", record.runs)),
        ("training time of all runs".into(), format!("{:.0} min", seconds / 60.0)),
        ("what varies".into(), record.keys.join(", ")),
    ];
    facts.retain(|(_, fact)| !fact.is_empty());
    let mut lead = record.question.clone();
    if record.quick {
        lead += " (The small version: it shows that the study runs, and answers nothing.)";
    }
    Document { title: record.name.clone(), lead, facts, sections }
}

fn sections(data: &Data<'_>, runs: &Path) -> Result<Vec<Section>, StatisticsError> {
    let families: Vec<Family> = data.compared().iter().flat_map(|key| Family::of(data, key)).collect();
    let mut sections = Vec::new();
    let mut add = |title: &str, blocks: Vec<Block>| {
        if !blocks.is_empty() {
            sections.push(Section { title: title.into(), blocks });
        }
    };
    let (chosen, table_of_chosen) = choice::blocks(data, &families)?;
    add("What the numbers support", supported(data, &families, chosen)?);
    add("Predictive power", power::sections(data)?);
    let mut errors = curves::against_rho(data);
    errors.extend(curves::against_variable(data, &families));
    errors.extend(curves::against_noise(data));
    add("Test error", errors);
    add("Micro-batch against m", micro::maps(data));
    add("Gap", curves::against_key(data, &families, ("gap", "test less training error (points)", 100.0), "gap"));
    add("Spectrum", spectra::figures(data, &families));
    add("Landscapes", landscapes::figures(data, runs));
    add("Training", training::figures(data, runs));
    let mut tables = vec![arms::table(data)?];
    tables.extend(table_of_chosen);
    for (column, when) in [LAST, BEST].into_iter().filter(|(column, _)| data.has(column)) {
        let comparisons = Comparison::all(data, &families, column)?;
        if !comparisons.is_empty() {
            let caption = format!("Test error {when}, radius by radius. Holm's correction is over this table.");
            tables.push(compare::table(&comparisons, &caption));
        }
    }
    add("Tables", tables);
    Ok(sections)
}

/// By rule: what may be said, and what may not.
fn supported(data: &Data<'_>, families: &[Family], mut said: Vec<Block>) -> Result<Vec<Block>, StatisticsError> {
    let mut blocks = Vec::new();
    if data.record.seeds.len() < 2 {
        blocks.push(Block::Text("One seed: no spread is known, and no difference between two arms is claimed.".into()));
    }
    let missing = data.record.runs - data.results.rows.len().min(data.record.runs);
    if missing > 0 {
        blocks.push(Block::Text(format!(
            "{missing} of {} runs are missing: they failed, or the study was stopped. Comparisons are over the seeds that both arms have.",
            data.record.runs
        )));
    }
    for (column, when) in [LAST, BEST].into_iter().filter(|(column, _)| data.has(column)) {
        let comparisons = Comparison::all(data, families, column)?;
        if !comparisons.is_empty() {
            said.push(Block::Text(format!("Radius by radius, test error {when}:")));
            said.push(Block::List(compare::sentences(&comparisons)));
        }
    }
    if !said.is_empty() {
        blocks.append(&mut said);
        blocks.push(compare::rule(data));
    }
    Ok(blocks)
}
