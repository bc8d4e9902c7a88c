//! What two arms differ in over the same seeds, and what may be said of it.

use super::super::document::{Cell, decimal};
use crate::statistics::{Equivalence, Paired, StatisticsError, equivalence, holm, paired};

/// The level of the tests.
const LEVEL: f64 = 0.05;

/// A difference of errors, shares in 0..=1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    pub(super) paired: Paired,
    pub(super) alike: Equivalence,
    /// The t test's p after Holm's correction, once there was one.
    pub(super) adjusted: Option<f64>,
}

/// What may be said of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Lower,
    Higher,
    Alike,
    Undecided,
}

impl Verdict {
    pub(super) const ALL: [Self; 4] = [Self::Lower, Self::Higher, Self::Alike, Self::Undecided];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
            Self::Alike => "alike",
            Self::Undecided => "undecided",
        }
    }
}

impl Difference {
    /// Of errors of the same seeds in the same order; nothing of fewer than two.
    pub(super) fn of(own: &[f64], reference: &[f64], margin: f64) -> Result<Option<Self>, StatisticsError> {
        if own.len() < 2 {
            return Ok(None);
        }
        let (paired, alike) = (paired(own, reference)?, equivalence(own, reference, margin)?);
        Ok(Some(Self { paired, alike, adjusted: None }))
    }

    /// Holm's correction over all of them.
    pub(super) fn correct<'a>(all: impl Iterator<Item = &'a mut Self>) -> Result<(), StatisticsError> {
        let all: Vec<&mut Self> = all.collect();
        let p: Vec<Option<f64>> = all.iter().map(|difference| Some(difference.paired.test?.p)).collect();
        for (difference, adjusted) in all.into_iter().zip(holm(&p)?) {
            difference.adjusted = adjusted;
        }
        Ok(())
    }

    /// By the rule that the page states.
    pub(super) fn verdict(&self) -> Verdict {
        let is_small = |p: Option<f64>| p.is_some_and(|p| p < LEVEL);
        let alike = match self.alike.tests {
            Some(tests) => tests.p < LEVEL,
            // All pairs differ by the same: there is nothing to test, and nothing to doubt.
            None => self.paired.difference.abs() < self.alike.margin,
        };
        match self.paired.difference {
            d if is_small(self.adjusted) && d < 0.0 => Verdict::Lower,
            _ if is_small(self.adjusted) => Verdict::Higher,
            _ if alike => Verdict::Alike,
            _ => Verdict::Undecided,
        }
    }

    /// In points, with a sign.
    pub(super) fn signed(&self) -> String {
        let points = decimal(100.0 * self.paired.difference, 1);
        if self.paired.difference >= 0.05e-2 { format!("+{points}") } else { points }
    }

    /// The names of the columns of [`cells`](Self::cells).
    pub(super) const COLUMNS: [&'static str; 9] =
        ["seeds", "difference (points)", "standard error", "95 % from", "to", "p", "p (Holm)", "p (alike)", "verdict"];

    /// Its numbers.
    pub(super) fn cells(&self) -> Vec<Cell> {
        let points = |share: f64| Cell::number(Some(100.0 * share), 2);
        let Paired { count, difference, error, test, interval, .. } = &self.paired;
        vec![
            Cell::number(Some(*count as f64), 0),
            points(*difference),
            points(*error),
            points(interval.low),
            points(interval.high),
            Cell::p(test.map(|test| test.p)),
            Cell::p(self.adjusted),
            Cell::p(self.alike.tests.map(|tests| tests.p)),
            Cell::text(self.verdict().name()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(differences: &[f64]) -> Verdict {
        let reference = vec![0.5; differences.len()];
        let own: Vec<f64> = differences.iter().map(|difference| 0.5 + difference).collect();
        let mut difference = Difference::of(&own, &reference, 0.01).unwrap().unwrap();
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
        assert_eq!(Difference::of(&[0.1], &[0.2], 0.01).unwrap(), None);
    }

    #[test]
    fn holm_takes_back_what_many_tests_find_by_chance() {
        let reference = [0.5; 4];
        let own = |by: f64| [0.5 + by, 0.5 + 1.6 * by, 0.5 + 0.7 * by, 0.5 + 1.2 * by];
        let mut one = Difference::of(&own(0.02), &reference, 0.01).unwrap().unwrap();
        Difference::correct(std::iter::once(&mut one)).unwrap();
        assert_eq!(one.verdict(), Verdict::Higher);
        let mut many = vec![one; 30];
        Difference::correct(many.iter_mut()).unwrap();
        assert_eq!(many[0].verdict(), Verdict::Undecided);
    }
}
