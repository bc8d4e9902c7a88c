//! The table of all arms, each beside its baseline.

use super::super::document::{Block, Cell, Table};
use super::curves::{BEST, LAST};
use super::data::{Data, Which, rest};
use crate::statistics::{Paired, StatisticsError, binomial, holm, paired};

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

/// Every arm: errors with their spread over seeds, beside the arm without SAM and all else equal.
pub(super) fn table(data: &Data<'_>) -> Result<Block, StatisticsError> {
    let all = data.all();
    let against: Vec<Option<Paired>> = all
        .iter()
        .map(|which| baseline(data, &all, *which).map_or(Ok(None), |other| against(data, *which, other)))
        .collect::<Result<_, _>>()?;
    let p: Vec<Option<f64>> = against.iter().map(|found| Some(found.as_ref()?.test?.p)).collect();
    let adjusted = holm(&p)?;
    let more: Vec<_> = MORE.iter().filter(|(column, ..)| data.has(column)).collect();
    let mut columns: Vec<String> =
        ["arm", "seeds", "test error (%)", "standard error", "95 % from", "to"].map(String::from).into();
    columns.extend(more.iter().map(|(_, label, ..)| label.to_string()));
    columns.extend(["against no SAM (points)", "p (Holm)"].map(String::from));
    let mut rows = Vec::new();
    for ((which, against), adjusted) in all.iter().zip(&against).zip(adjusted) {
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
        row.extend(more.iter().map(|(column, _, factor, decimals)| {
            Cell::number(data.mean(*which, column).map(|mean| factor * mean), *decimals)
        }));
        row.push(Cell::number(points(against.as_ref().map(|against| against.difference)), 2));
        row.push(Cell::p(adjusted));
        rows.push(row);
    }
    let caption = format!(
        "All arms: means over seeds; the standard error and the 95 % interval are over seeds. Differences are of the same seeds, against the arm without SAM in which all else \
         is equal, with p of the paired t test after Holm's correction over this table.{}",
        of_test_set(data)?,
    );
    Ok(Block::Table(Table { caption, columns, rows }))
}

/// What the size of the test set alone leaves open.
fn of_test_set(data: &Data<'_>) -> Result<String, StatisticsError> {
    let first = data.all().into_iter().find_map(|which| {
        let (_, examples) = *data.values(which, "test_examples").first()?;
        Some((examples, data.mean(which, LAST.0)?))
    });
    let Some((examples, error)) = first else { return Ok(String::new()) };
    let of = |share: f64| Ok::<f64, StatisticsError>(100.0 * binomial(share, examples as u64)?.error);
    Ok(format!(
        " Beside the seeds', the test set has an error of its own: of {examples} examples, {:.1} points of standard error at an error of {:.1} % (binomial), the same examples for all arms.",
        of(error)?,
        100.0 * error
    ))
}

/// The arm without SAM in which all that does not belong to SAM is equal.
fn baseline(data: &Data<'_>, all: &[Which], which: Which) -> Option<Which> {
    let beside = |which: Which| rest(&data.arm(which).values, |key, _| !key.starts_with("sam."));
    if data.is_plain(which) && !which.is_doubled {
        return None;
    }
    let own = beside(which);
    all.iter()
        .copied()
        .find(|other| !other.is_doubled && *other != which && data.is_plain(*other) && beside(*other) == own)
}

fn against(data: &Data<'_>, which: Which, other: Which) -> Result<Option<Paired>, StatisticsError> {
    let both = data
        .record
        .seeds
        .iter()
        .filter_map(|seed| Some((data.number(which, *seed, LAST.0)?, data.number(other, *seed, LAST.0)?)));
    let (own, its): (Vec<f64>, Vec<f64>) = both.unzip();
    if own.len() < 2 { Ok(None) } else { paired(&own, &its).map(Some) }
}
