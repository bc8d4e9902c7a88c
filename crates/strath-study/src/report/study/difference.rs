//! What two arms differ in over the same seeds, and what may be said of it.

use std::collections::BTreeMap;

use super::super::document::{Cell, decimal};
use super::data::{Data, Which};
use crate::statistics::{Equivalence, Paired, StatisticsError, equivalence, holm, paired};

/// The level of the tests.
const LEVEL: f64 = 0.05;

/// From this training error on, a share, an arm has learned next to nothing: what two such arms have in common is no finding.
const FAILED: f64 = 0.8;

/// A difference of a quantity of two arms.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    /// The two arms: the same two are tested once, in however many grids they stand.
    arms: (usize, usize),
    pub(super) paired: Paired,
    /// Whether they differ by less than a margin, where one is stated.
    pub(super) alike: Option<Equivalence>,
    /// Whether both learned next to nothing.
    have_failed: bool,
    /// The t test's p after Holm's correction, once there was one.
    pub(super) adjusted: Option<f64>,
}

/// What may be said of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Lower,
    Higher,
    Alike,
    Failed,
    Undecided,
}

impl Verdict {
    pub(super) const ALL: [Self; 5] = [Self::Lower, Self::Higher, Self::Alike, Self::Undecided, Self::Failed];

    /// In a table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
            Self::Alike => "alike",
            Self::Failed => "neither learned",
            Self::Undecided => "undecided",
        }
    }

    /// In a sentence.
    pub(super) fn said(self) -> &'static str {
        if self == Self::Undecided { "nothing shown" } else { self.name() }
    }
}

impl Difference {
    /// Of a column over the seeds that both arms have; nothing of fewer than two.
    pub(super) fn of(
        data: &Data<'_>,
        [own, reference]: [Which; 2],
        column: &str,
        seeds: &[u64],
        margin: Option<f64>,
    ) -> Result<Option<Self>, StatisticsError> {
        let both = seeds
            .iter()
            .filter_map(|seed| Some((data.number(own, *seed, column)?, data.number(reference, *seed, column)?)));
        let (first, second): (Vec<f64>, Vec<f64>) = both.unzip();
        if first.len() < 2 {
            return Ok(None);
        }
        let failed = |which| data.mean(which, "train_error").is_some_and(|error| error > FAILED);
        Ok(Some(Self {
            arms: (own.number(), reference.number()),
            paired: paired(&first, &second)?,
            alike: margin.map(|margin| equivalence(&first, &second, margin)).transpose()?,
            have_failed: failed(own) && failed(reference),
            adjusted: None,
        }))
    }

    /// Holm's correction over all of them, the same two arms counted once.
    pub(super) fn correct<'a>(all: impl Iterator<Item = &'a mut Self>) -> Result<(), StatisticsError> {
        let mut all: Vec<&mut Self> = all.collect();
        let mut distinct: BTreeMap<(usize, usize), Option<f64>> = BTreeMap::new();
        for difference in &all {
            distinct.insert(difference.arms, difference.paired.test.map(|test| test.p));
        }
        let p: Vec<Option<f64>> = distinct.values().copied().collect();
        let adjusted: BTreeMap<(usize, usize), Option<f64>> = distinct.into_keys().zip(holm(&p)?).collect();
        for difference in &mut all {
            difference.adjusted = adjusted[&difference.arms];
        }
        Ok(())
    }

    /// By the rule that the page states.
    pub(super) fn verdict(&self) -> Verdict {
        let is_small = |p: Option<f64>| p.is_some_and(|p| p < LEVEL);
        let is_alike = self.alike.as_ref().is_some_and(|alike| match alike.tests {
            Some(tests) => tests.p < LEVEL,
            // Every pair differs by the same, which leaves nothing to test: only where that is 0 there is nothing to doubt.
            None => self.paired.difference == 0.0,
        });
        match self.paired.difference {
            _ if self.have_failed => Verdict::Failed,
            d if is_small(self.adjusted) && d < 0.0 => Verdict::Lower,
            _ if is_small(self.adjusted) => Verdict::Higher,
            _ if is_alike => Verdict::Alike,
            _ => Verdict::Undecided,
        }
    }

    /// In the unit of `quantity`, with a sign.
    pub(super) fn signed(&self, quantity: Quantity<'_>) -> String {
        let shown = quantity.shown(self.paired.difference);
        let is_positive = self.paired.difference > 0.0 && shown.chars().any(|c| matches!(c, '1'..='9'));
        if is_positive { format!("+{shown}") } else { shown }
    }

    /// The names of the columns of [`cells`](Self::cells).
    pub(super) fn columns(quantity: Quantity<'_>) -> [String; 9] {
        let difference = format!("difference ({})", quantity.unit);
        let rest = ["standard error", "95 % from", "to", "p", "p (Holm)", "p (alike)", "verdict"].map(String::from);
        let [error, from, to, p, adjusted, alike, verdict] = rest;
        ["seeds".into(), difference, error, from, to, p, adjusted, alike, verdict]
    }

    /// Its numbers.
    pub(super) fn cells(&self, quantity: Quantity<'_>) -> Vec<Cell> {
        let number = |value: f64| Cell::number(Some(quantity.factor * value), quantity.decimals + 1);
        let Paired { count, difference, error, test, interval, .. } = &self.paired;
        vec![
            Cell::number(Some(*count as f64), 0),
            number(*difference),
            number(*error),
            number(interval.low),
            number(interval.high),
            Cell::p(test.map(|test| test.p)),
            Cell::p(self.adjusted),
            Cell::p(self.alike.as_ref().and_then(|alike| alike.tests).map(|tests| tests.p)),
            Cell::text(self.verdict().name()),
        ]
    }
}

/// What is compared: a column of the results, with how it is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quantity<'a> {
    pub(super) column: &'a str,
    /// What its numbers are multiplied by to be read.
    pub(super) factor: f64,
    pub(super) unit: &'a str,
    pub(super) decimals: usize,
}

impl<'a> Quantity<'a> {
    /// Of a column: shares are read in points.
    pub(super) fn of(column: &'a str) -> Self {
        let is_share = column.ends_with("_error") || matches!(column, "gap" | "memorised");
        let (factor, unit, decimals) = if is_share { (100.0, "points", 1) } else { (1.0, column, 3) };
        Self { column, factor, unit, decimals }
    }

    /// A value with its few digits.
    pub(super) fn shown(self, value: f64) -> String {
        decimal(self.factor * value, self.decimals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(own: &[f64], reference: &[f64]) -> Difference {
        let alike = Some(equivalence(own, reference, 0.01).unwrap());
        Difference { arms: (1, 0), paired: paired(own, reference).unwrap(), alike, have_failed: false, adjusted: None }
    }

    fn verdict(differences: &[f64]) -> Verdict {
        let reference = vec![0.5; differences.len()];
        let own: Vec<f64> = differences.iter().map(|difference| 0.5 + difference).collect();
        let mut difference = of(&own, &reference);
        Difference::correct(std::iter::once(&mut difference)).unwrap();
        difference.verdict()
    }

    #[test]
    fn a_verdict_needs_its_test() {
        assert_eq!(verdict(&[-0.10, -0.11, -0.09, -0.10, -0.12]), Verdict::Lower);
        assert_eq!(verdict(&[0.10, 0.11, 0.09, 0.10, 0.12]), Verdict::Higher);
        assert_eq!(verdict(&[0.001, -0.001, 0.002, -0.002, 0.0]), Verdict::Alike);
        assert_eq!(verdict(&[0.10, -0.11, 0.09, -0.10, 0.02]), Verdict::Undecided);
        assert_eq!(verdict(&[0.0, 0.0, 0.0]), Verdict::Alike, "the same errors throughout");
        assert_eq!(verdict(&[0.005, 0.005, 0.005]), Verdict::Undecided, "the same difference throughout is not tested");
    }

    #[test]
    fn holm_takes_back_what_many_tests_find_by_chance() {
        let reference = [0.5; 4];
        let own = |by: f64| [0.5 + by, 0.5 + 1.6 * by, 0.5 + 0.7 * by, 0.5 + 1.2 * by];
        let mut one = of(&own(0.02), &reference);
        Difference::correct(std::iter::once(&mut one)).unwrap();
        assert_eq!(one.verdict(), Verdict::Higher);
        let mut many = vec![one; 30];
        Difference::correct(many.iter_mut()).unwrap();
        assert_eq!(many[0].verdict(), Verdict::Higher, "the same two arms are one test");
        many.iter_mut().enumerate().for_each(|(at, difference)| difference.arms.0 = at + 1);
        Difference::correct(many.iter_mut()).unwrap();
        assert_eq!(many[0].verdict(), Verdict::Undecided);
        many[0].have_failed = true;
        assert_eq!(many[0].verdict(), Verdict::Failed);
    }
}
