//! The report of a study.

mod arms;
mod baseline;
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

use baseline::Baseline;
use compare::{Comparison, margin};
use curves::{BEST, LAST};
use data::{Data, Which};
use difference::Quantity;
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
    let compared = compared(data, &families)?;
    add("What the numbers support", supported(data, &compared, chosen)?);
    add("Predictive power", power::sections(data)?);
    let mut errors = curves::against_rho(data);
    errors.extend(curves::against_variable(data, &families));
    errors.extend(curves::against_noise(data));
    add("Test error", errors);
    add("Micro-batch against m", micro::maps(data));
    let gap = ("gap", "test less training error (points)", 100.0);
    add("Gap, by the labels that were trained on", curves::against_key(data, &families, gap, "gap"));
    add("Spectrum", spectra::figures(data, &families));
    add("Landscapes", landscapes::figures(data, runs));
    add("Training", training::figures(data, runs));
    let mut tables = vec![arms::table(data)?];
    tables.extend(table_of_chosen);
    tables.extend(compared.iter().map(|Compared { what, column, comparisons }| {
        let caption = format!("{what}, radius by radius. Holm's correction is over this table.");
        compare::table(comparisons, Quantity::of(column), &caption)
    }));
    add("Tables", tables);
    Ok(sections)
}

/// The comparisons of a column.
struct Compared<'a> {
    /// How the column is called, at the beginning of a sentence.
    what: String,
    column: &'a str,
    comparisons: Vec<Comparison<'a>>,
}

/// The comparisons of the test error, and of what else the study asks for; a margin is stated of errors alone.
fn compared<'a>(data: &Data<'a>, families: &'a [Family]) -> Result<Vec<Compared<'a>>, StatisticsError> {
    let errors = [LAST, BEST].into_iter().filter(|(column, _)| data.has(column));
    let errors = errors.map(|(column, when)| (format!("Test error {when}"), column, Some(margin(data))));
    let also = data.record.report.also.iter().map(|column| (column.replace('_', " "), &column[..], None));
    let mut all = Vec::new();
    for (what, column, margin) in errors.chain(also) {
        let comparisons = Comparison::all(data, families, column, margin)?;
        if !comparisons.is_empty() {
            all.push(Compared { what, column, comparisons });
        }
    }
    Ok(all)
}

/// By rule: what may be said, and what may not; `said` is what was said of a choice of radii.
fn supported(data: &Data<'_>, compared: &[Compared<'_>], mut said: Vec<Block>) -> Result<Vec<Block>, StatisticsError> {
    let mut blocks = Vec::new();
    if data.record.seeds.len() < 2 {
        blocks.push(Block::Text("One seed: no spread is known, and no difference between two arms is claimed.".into()));
    }
    blocks.extend(missing(data));
    for Compared { what, column, comparisons } in compared {
        said.push(Block::Text(format!("Radius by radius, {}:", what.replace("Test", "test"))));
        said.push(Block::List(compare::sentences(comparisons, Quantity::of(column))));
    }
    for (column, when) in [LAST, BEST].into_iter().filter(|(column, _)| data.has(column)) {
        let baselines = Baseline::both(data, column)?;
        let sentences: Vec<String> = baselines.iter().flat_map(|baseline| baseline.sentences(data)).collect();
        if !sentences.is_empty() {
            said.push(Block::Text(format!("With SAM and without, test error {when}:")));
            said.push(Block::List(sentences));
        }
    }
    let is_tested = said.iter().any(|block| matches!(block, Block::List(_)));
    blocks.append(&mut said);
    blocks.extend(is_tested.then(|| compare::rule(data)));
    Ok(blocks)
}

/// Runs without a result, and whose they are.
fn missing(data: &Data<'_>) -> Option<Block> {
    let known = |which: Which| data.values(which, LAST.0).len();
    let found: usize = data.all().into_iter().map(known).sum();
    let missing = data.record.runs.saturating_sub(found);
    let seeds = data.record.seeds.len();
    let incomplete = (0..data.record.arms.len()).map(Which::of).filter(|which| known(*which) < seeds);
    let named: Vec<String> =
        incomplete.map(|which| format!("{} ({} of {seeds} seeds)", data.name(which), known(which))).collect();
    let of: Vec<&str> = named.iter().take(MOST_NAMED).map(String::as_str).collect();
    let more =
        if named.len() > MOST_NAMED { format!(" and {} more arms", named.len() - MOST_NAMED) } else { String::new() };
    let whose = if of.is_empty() { String::new() } else { format!(" Of: {}{more}.", of.join("; ")) };
    (missing > 0).then(|| {
        Block::Text(format!(
            "{missing} of {} runs are missing: they failed, or the study was stopped. Where runs fail because they diverge, the means of those that are left flatter.{whose} \
             Comparisons are over the seeds that both arms have; a radius is chosen among those whose seeds are all there.",
            data.record.runs
        ))
    })
}

/// Arms with missing runs that are named.
const MOST_NAMED: usize = 8;
