//! The table of all arms, each beside its baseline.

use super::super::document::{Block, Cell, Table};
use super::baseline::Baseline;
use super::curves::{BEST, LAST};
use super::data::{Data, Which};
use crate::statistics::{StatisticsError, binomial};

/// Columns that are shown where they have numbers: name, label, factor and digits.
const MORE: [(&str, &str, f64, usize); 9] = [
    (BEST.0, "at best validation (%)", 100.0, 2),
    ("validation_error", "validation (%)", 100.0, 2),
    ("train_error", "training (%)", 100.0, 2),
    ("gap", "gap (points)", 100.0, 2),
    ("memorised", "wrong labels memorised (%)", 100.0, 1),
    ("sharpness", "sharpness (nats)", 1.0, 3),
    ("rho_equivalent", "equivalent ρ", 1.0, 4),
    ("lambda_1", "λ1", 1.0, 2),
    ("trace", "trace", 1.0, 1),
];

/// Every arm: errors with their spread over seeds, beside the arms without SAM and all else equal.
pub(super) fn table(data: &Data<'_>) -> Result<Block, StatisticsError> {
    let all = data.all();
    let baselines = Baseline::both(data, LAST.0)?;
    let more: Vec<_> = MORE.iter().filter(|(column, ..)| data.has(column)).collect();
    let has_size = data.has(EXAMPLES);
    let mut columns: Vec<String> =
        ["arm", "seeds", "test error (%)", "standard error", "95 % from", "to"].map(String::from).into();
    columns.extend(has_size.then(|| "of the test set alone".to_string()));
    columns.extend(more.iter().map(|(_, label, ..)| label.to_string()));
    for baseline in &baselines {
        columns.extend([format!("against {} (points)", baseline.name()), "p (Holm)".into()]);
    }
    let mut rows = Vec::new();
    for which in &all {
        let error = data.described(*which, LAST.0);
        let points = |share: Option<f64>| share.map(|share| 100.0 * share);
        let interval = error.spread.map(|spread| spread.interval);
        let mut row = vec![
            Cell::text(data.name(*which)),
            Cell::number(Some(error.count as f64), 0),
            Cell::number(points(error.mean), 2),
            Cell::number(points(error.spread.map(|spread| spread.error)), 2),
            Cell::number(points(interval.map(|interval| interval.low)), 2),
            Cell::number(points(interval.map(|interval| interval.high)), 2),
        ];
        row.extend(has_size.then(|| Cell::number(points(of_test_set(data, *which)), 2)));
        row.extend(more.iter().map(|(column, _, factor, decimals)| {
            Cell::number(data.mean(*which, column).map(|mean| factor * mean), *decimals)
        }));
        for baseline in &baselines {
            let difference = baseline.of(*which);
            row.push(Cell::number(points(difference.map(|difference| difference.paired.difference)), 2));
            row.push(Cell::p(difference.and_then(|difference| difference.adjusted)));
        }
        rows.push(row);
    }
    let mut caption =
        "All arms: means over seeds; the standard error and the 95 % interval are over seeds. ".to_string();
    if has_size {
        caption += "Of the test set alone: the binomial standard error of an error on so many examples, which are the same for all arms. ";
    }
    if data.has("gap") {
        caption += "Gap: test error less training error, the labels of each as they are: replaced ones stay replaced. ";
    }
    if !baselines.is_empty() {
        caption += "Against no SAM: differences of the same seeds from the arm in which all else is equal, with p of the paired t test after Holm's correction over its column.";
    }
    Ok(Block::Table(Table { caption: caption.trim_end().into(), columns, rows }))
}

/// The column of how many examples the test set has.
const EXAMPLES: &str = "test_examples";

/// What the size of the test set alone leaves open of an arm's error.
fn of_test_set(data: &Data<'_>, which: Which) -> Option<f64> {
    let (_, examples) = *data.values(which, EXAMPLES).first()?;
    Some(binomial(data.mean(which, LAST.0)?, examples as u64).ok()?.error)
}
