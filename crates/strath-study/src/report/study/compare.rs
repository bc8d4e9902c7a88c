//! What two values of a key differ in, radius by radius, where all else is equal.

use super::super::document::{Block, Cell, Table, decimal};
use super::data::{Data, Which};
use super::difference::{Difference, Quantity, Verdict};
use super::families::Family;
use crate::statistics::StatisticsError;

/// What two errors may differ by and still be called alike, where the study states none.
const MARGIN: f64 = 0.01;

/// The study's margin.
pub(super) fn margin(data: &Data<'_>) -> f64 {
    data.record.report.margin.unwrap_or(MARGIN)
}

/// A value of a key against the first of its family, at one radius, over the seeds that both have.
pub(super) struct Comparison<'a> {
    family: &'a Family,
    value: usize,
    /// Empty where the grid has no radius.
    radius: &'a str,
    difference: Difference,
}

impl<'a> Comparison<'a> {
    /// All of them in a column, corrected together; a margin is stated of errors alone.
    pub(super) fn all(
        data: &Data<'_>,
        families: &'a [Family],
        column: &str,
        margin: Option<f64>,
    ) -> Result<Vec<Self>, StatisticsError> {
        let mut found = Vec::new();
        for family in families {
            for value in 1..family.values.len() {
                for radius in &family.radii {
                    let (Some(reference), Some(own)) = (radius.arms[0], radius.arms[value]) else { continue };
                    let arms = [own, reference].map(Which::of);
                    let difference = Difference::of(data, arms, column, &data.record.seeds, margin)?;
                    let radius = &radius.name;
                    found.extend(difference.map(|difference| Self { family, value, radius, difference }));
                }
            }
        }
        Difference::correct(found.iter_mut().map(|comparison| &mut comparison.difference))?;
        Ok(found)
    }
}

/// A sentence for each value of each family.
pub(super) fn sentences(comparisons: &[Comparison<'_>], quantity: Quantity<'_>) -> Vec<String> {
    let same = |a: &Comparison<'_>, b: &Comparison<'_>| std::ptr::eq(a.family, b.family) && a.value == b.value;
    let sentence = |all: &[Comparison<'_>]| {
        let (family, value) = (all[0].family, all[0].value);
        let verdicts = Verdict::ALL.into_iter().filter_map(|verdict| {
            let of = all.iter().filter(|comparison| comparison.difference.verdict() == verdict);
            let places: Vec<String> = of
                .map(|comparison| match comparison.radius {
                    "" => comparison.difference.signed(quantity),
                    radius => format!("{radius} ({})", comparison.difference.signed(quantity)),
                })
                .collect();
            (!places.is_empty()).then(|| format!("{} at {}", verdict.said(), places.join(", ")))
        });
        let verdicts: Vec<String> = verdicts.collect();
        format!("{}: {} against {}: {}.", family.name(), family.called(value), family.called(0), verdicts.join("; "))
    };
    comparisons.chunk_by(same).map(sentence).collect()
}

/// The rule of the verdicts.
pub(super) fn rule(data: &Data<'_>) -> Block {
    let margin = decimal(100.0 * margin(data), 1);
    Block::Text(format!(
        "Rule: numbers in brackets are mean differences of the same seeds (equal initial weights, order, draws and label noise), errors in points. An arm is lower or \
         higher where the paired t test, after Holm's correction over all comparisons of its list, has p < 0.05; the errors of two arms are alike where two one-sided t tests \
         reject, at 0.05 and without a correction, that they differ by {margin} points or more; neither learned where both have a training error above 80 %; else nothing is \
         shown. Intervals are of one comparison each, not corrected. Two arms that stand in several grids are tested once and listed in each. All arms are tested \
         on the same examples: this is about seeds, not about other test sets."
    ))
}

/// A table of comparisons.
pub(super) fn table(comparisons: &[Comparison<'_>], quantity: Quantity<'_>, caption: &str) -> Block {
    let mut columns: Vec<String> = ["arms", "value", "against", "at"].map(String::from).into();
    columns.extend(Difference::columns(quantity));
    let row = |c: &Comparison<'_>| {
        let names = [c.family.name(), c.family.called(c.value), c.family.called(0), c.radius.to_string()];
        names.into_iter().map(Cell::text).chain(c.difference.cells(quantity)).collect()
    };
    Block::Table(Table { caption: caption.into(), columns, rows: comparisons.iter().map(row).collect() })
}
