//! Each at its own best radius, chosen on one half of the seeds and told of the other: no arm profits from the luck by which it was chosen.

use serde_json::Value;

use super::super::document::{Block, Cell, Table, decimal};
use super::compare::margin;
use super::curves::LAST;
use super::data::{Data, Which, called};
use super::difference::{Difference, Quantity};
use super::families::Family;
use crate::statistics::{StatisticsError, describe};

/// What is judged.
fn error() -> Quantity<'static> {
    Quantity::of(LAST.0)
}

/// Seeds on which a choice is judged.
const LEAST: usize = 3;

/// What was chosen for one value of a family's key.
struct Chosen<'a> {
    family: &'a Family,
    value: usize,
    which: Which,
    at: String,
    is_edge: bool,
    /// Test errors of the other half.
    errors: Vec<f64>,
    /// From the family's first value.
    difference: Option<Difference>,
}

/// The seeds of the choice and the others.
fn halves<'a>(data: &Data<'a>) -> (&'a [u64], &'a [u64]) {
    let seeds = &data.record.seeds;
    seeds.split_at(seeds.len().div_ceil(2))
}

/// What was chosen: what is said of it, and its table; nothing where there are too few seeds, or nothing to choose.
pub(super) fn blocks(data: &Data<'_>, families: &[Family]) -> Result<(Vec<Block>, Option<Block>), StatisticsError> {
    let (first, second) = halves(data);
    let asked = data.record.report.choose.as_deref();
    if second.len() < LEAST {
        let few = format!(
            "A radius is to be chosen on one half of the seeds and judged on the other: {} of them are too few, at least {} are needed.",
            data.record.seeds.len(),
            2 * LEAST
        );
        return Ok((asked.map(|_| Block::Text(few)).into_iter().collect(), None));
    }
    let by = if data.has("validation_error") { "validation_error" } else { LAST.0 };
    let mut all: Vec<Chosen<'_>> = Vec::new();
    for family in families {
        let key = family.radius_key();
        if key.is_none() || family.radii.len() < 2 || asked.is_some_and(|asked| key != Some(asked)) {
            continue;
        }
        let Some(reference) = choose(data, family, 0, by) else { continue };
        let against = reference.which;
        all.push(reference);
        for value in 1..family.values.len() {
            let Some(mut chosen) = choose(data, family, value, by) else { continue };
            let arms = [chosen.which, against];
            chosen.difference = Difference::of(data, arms, LAST.0, second, Some(margin(data)))?;
            all.push(chosen);
        }
    }
    Difference::correct(all.iter_mut().filter_map(|chosen| chosen.difference.as_mut()))?;
    if all.is_empty() {
        return Ok((Vec::new(), None));
    }
    let seeds = first.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let about = format!(
        "Each at its own best radius, chosen by the {} after the last epoch on seeds {seeds}; test errors after the last epoch, of the other {} seeds:",
        by.replace('_', " "),
        second.len()
    );
    Ok((vec![Block::Text(about), Block::List(sentences(&all))], Some(table(&all)?)))
}

fn sentences(all: &[Chosen<'_>]) -> Vec<String> {
    let same = |a: &Chosen<'_>, b: &Chosen<'_>| std::ptr::eq(a.family, b.family);
    let of_family = |all: &[Chosen<'_>]| {
        let against = all.iter().filter_map(|chosen| {
            let difference = chosen.difference.as_ref()?;
            let interval = &difference.paired.interval;
            let points = |share: f64| decimal(100.0 * share, 1);
            let said = difference.verdict().said();
            let (own, low, high) = (chosen.family.called(chosen.value), points(interval.low), points(interval.high));
            Some(format!("{own} ({}) {said} ({}, 95 % {low} to {high})", chosen.at, difference.signed(error())))
        });
        let against: Vec<String> = against.collect();
        let reference = all.iter().find(|chosen| chosen.value == 0)?;
        let edges: Vec<String> =
            all.iter().filter(|chosen| chosen.is_edge).map(|chosen| chosen.family.called(chosen.value)).collect();
        let edge = match edges.as_slice() {
            [] => String::new(),
            _ => format!(" At the edge of the grid, so that a better radius may lie beyond it: {}.", edges.join(", ")),
        };
        let said = format!(
            "{}: against {} ({}): {}.{edge}",
            reference.family.name(),
            reference.family.called(0),
            reference.at,
            against.join("; ")
        );
        (!against.is_empty()).then_some(said)
    };
    all.chunk_by(same).filter_map(of_family).collect()
}

fn table(all: &[Chosen<'_>]) -> Result<Block, StatisticsError> {
    let mut columns: Vec<String> =
        ["arms", "value", "chosen", "arm", "test error (%)", "standard error"].map(String::from).into();
    columns.extend(Difference::columns(error()));
    let mut rows = Vec::new();
    for chosen in all {
        let described = describe(&chosen.errors)?;
        let points = |share: Option<f64>| Cell::number(share.map(|share| 100.0 * share), 2);
        let at = if chosen.is_edge { format!("{} (edge)", chosen.at) } else { chosen.at.clone() };
        let mut row = vec![
            Cell::text(chosen.family.name()),
            Cell::text(chosen.family.called(chosen.value)),
            Cell::text(at),
            Cell::text(chosen.which.arm.to_string()),
            points(described.mean),
            points(described.spread.map(|spread| spread.error)),
        ];
        match &chosen.difference {
            Some(difference) => row.extend(difference.cells(error())),
            None => row.extend(Difference::columns(error()).map(|_| Cell::text(""))),
        }
        rows.push(row);
    }
    let caption = "Each at its own best radius: errors of the seeds on which it was not chosen, and differences from the first of each group.";
    Ok(Block::Table(Table { caption: caption.into(), columns, rows }))
}

/// The radius above 0 of the least mean of a column over the first half of the seeds: what has no SAM is the baseline of all values, and no choice of one.
fn choose<'a>(data: &Data<'_>, family: &'a Family, value: usize, by: &str) -> Option<Chosen<'a>> {
    let (first, second) = halves(data);
    let along = family.along(value);
    let mean = |which: Which| {
        // Runs that failed are no luck to profit from.
        let numbers = first.iter().map(|seed| data.number(which, *seed, by)).collect::<Option<Vec<f64>>>()?;
        Some(numbers.iter().sum::<f64>() / numbers.len() as f64)
    };
    let (x, which) = (along.iter())
        .filter(|(x, which)| *x > 0.0 && !data.is_plain(*which))
        .filter_map(|(x, which)| Some((mean(*which)?, (*x, *which))))
        .min_by(|a, b| a.0.total_cmp(&b.0))?
        .1;
    let errors: Vec<f64> = second.iter().filter_map(|seed| data.number(which, *seed, LAST.0)).collect();
    let at = called(family.radius_key()?, &Value::from(x));
    Some(Chosen { family, value, which, at, is_edge: data.is_at_the_edge(which), errors, difference: None })
}
