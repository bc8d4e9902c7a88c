//! What two values of a key differ in, radius by radius, where all else is equal.

use super::super::document::{Block, Cell, Table, decimal};
use super::data::{Data, Which};
use super::difference::{Difference, Verdict};
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
    /// All of them in a column, corrected together.
    pub(super) fn all(data: &Data<'_>, families: &'a [Family], column: &str) -> Result<Vec<Self>, StatisticsError> {
        let mut found = Vec::new();
        for family in families {
            for value in 1..family.values.len() {
                for radius in &family.radii {
                    let (Some(reference), Some(own)) = (radius.arms[0], radius.arms[value]) else { continue };
                    let both = data.record.seeds.iter().filter_map(|seed| {
                        let of = |arm| data.number(Which::of(arm), *seed, column);
                        Some((of(own)?, of(reference)?))
                    });
                    let (own, reference): (Vec<f64>, Vec<f64>) = both.unzip();
                    let difference = Difference::of(&own, &reference, margin(data))?;
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
pub(super) fn sentences(comparisons: &[Comparison<'_>]) -> Vec<String> {
    let same = |a: &Comparison<'_>, b: &Comparison<'_>| std::ptr::eq(a.family, b.family) && a.value == b.value;
    let sentence = |all: &[Comparison<'_>]| {
        let (family, value) = (all[0].family, all[0].value);
        let verdicts = Verdict::ALL.into_iter().filter_map(|verdict| {
            let of = all.iter().filter(|comparison| comparison.difference.verdict() == verdict);
            let places: Vec<String> = of
                .map(|comparison| match comparison.radius {
                    "" => comparison.difference.signed(),
                    radius => format!("{radius} ({})", comparison.difference.signed()),
                })
                .collect();
            let said = match verdict {
                Verdict::Undecided => "nothing shown",
                other => other.name(),
            };
            (!places.is_empty()).then(|| format!("{said} at {}", places.join(", ")))
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
        "Rule: numbers in brackets are mean differences of test error in points, of the same seeds (equal initial weights, order, draws and label noise). An arm is \
         lower or higher where the paired t test, after Holm's correction over all comparisons of the list, has p < 0.05; alike where two one-sided t tests reject, at \
         0.05, that they differ by {margin} points or more; else nothing is shown. All arms are tested on the same examples: this is about seeds, not about other test \
         sets."
    ))
}

/// A table of comparisons.
pub(super) fn table(comparisons: &[Comparison<'_>], caption: &str) -> Block {
    let mut columns: Vec<String> = ["arms", "value", "against", "at"].map(String::from).into();
    columns.extend(Difference::COLUMNS.map(String::from));
    let row = |c: &Comparison<'_>| {
        let names = [c.family.name(), c.family.called(c.value), c.family.called(0), c.radius.to_string()];
        names.into_iter().map(Cell::text).chain(c.difference.cells()).collect()
    };
    Block::Table(Table { caption: caption.into(), columns, rows: comparisons.iter().map(row).collect() })
}
