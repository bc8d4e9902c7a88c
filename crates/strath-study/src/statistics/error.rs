//! What can be wrong with the data of a statistic.

/// Beyond this magnitude a difference or a sum of values may overflow.
const LARGEST: f64 = 1e300;

/// Data that a statistic cannot be of.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StatisticsError {
    /// A value is not finite, or so large that sums overflow.
    #[error("{what} has {found} at position {at}: values must be finite and at most 1e300 in magnitude")]
    Value {
        /// The list.
        what: &'static str,
        /// Position of the first such value, from 0.
        at: usize,
        /// The value.
        found: f64,
    },
    /// Two lists that belong together differ in length.
    #[error("{what} has {found} values where {expected} are due")]
    Length {
        /// The list.
        what: &'static str,
        /// How many it has.
        found: usize,
        /// How many it should have.
        expected: usize,
    },
    /// There are too few of something for the statistic to exist.
    #[error("found {found} {what}: at least {needed} are needed")]
    TooFew {
        /// What there is too little of.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A probability or a share outside of 0..=1.
    #[error("{what} has {found} at position {at}: it must lie in 0..=1 (and is no percentage)")]
    Probability {
        /// The probability.
        what: &'static str,
        /// Its position, from 0.
        at: usize,
        /// Its value.
        found: f64,
    },
    /// A margin of equivalence that is not a finite number above 0.
    #[error("the margin of equivalence is {found}: it must be finite and above 0")]
    Margin {
        /// The margin given.
        found: f64,
    },
    /// A model has another number of hyper-parameters than the first.
    #[error("model {model} has {found} hyper-parameters, the first model {expected}")]
    HyperParameters {
        /// Position of the model, from 0.
        model: usize,
        /// How many it has.
        found: usize,
        /// How many the first model has.
        expected: usize,
    },
}

/// Refuses values that sums and differences cannot be made of.
pub(super) fn finite(what: &'static str, values: impl IntoIterator<Item = f64>) -> Result<(), StatisticsError> {
    let wrong = |(_, value): &(usize, f64)| !value.is_finite() || value.abs() > LARGEST;
    match values.into_iter().enumerate().find(wrong) {
        Some((at, found)) => Err(StatisticsError::Value { what, at, found }),
        None => Ok(()),
    }
}

/// Refuses two lists that are not of values which belong together one by one.
pub(super) fn pairs(first: &[f64], second: &[f64]) -> Result<(), StatisticsError> {
    finite("the first list", first.iter().copied())?;
    finite("the second list", second.iter().copied())?;
    if first.len() == second.len() {
        Ok(())
    } else {
        Err(StatisticsError::Length { what: "the second list", found: second.len(), expected: first.len() })
    }
}

/// Refuses what is no probability.
pub(super) fn probability(what: &'static str, at: usize, found: f64) -> Result<(), StatisticsError> {
    if (0.0..=1.0).contains(&found) { Ok(()) } else { Err(StatisticsError::Probability { what, at, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_first_value_that_is_wrong() {
        for wrong in [f64::INFINITY, f64::NEG_INFINITY, -1.1e300] {
            let expected = StatisticsError::Value { what: "x", at: 1, found: wrong };
            assert_eq!(finite("x", [0.0, wrong, f64::NAN]), Err(expected));
        }
        assert!(matches!(finite("x", [f64::NAN]), Err(StatisticsError::Value { at: 0, .. })));
        assert_eq!(finite("x", [1e300, -1e300, 0.0]), Ok(()));
    }

    #[test]
    fn pairs_are_of_lists_of_one_length() {
        assert_eq!(pairs(&[1.0], &[2.0]), Ok(()));
        let expected = StatisticsError::Length { what: "the second list", found: 1, expected: 2 };
        assert_eq!(pairs(&[1.0, 2.0], &[2.0]), Err(expected));
        assert!(matches!(pairs(&[1.0], &[f64::NAN]), Err(StatisticsError::Value { what: "the second list", .. })));
    }

    #[test]
    fn a_percentage_is_no_probability() {
        assert_eq!(probability("p", 0, 1.0), Ok(()));
        let expected = StatisticsError::Probability { what: "p", at: 3, found: 5.0 };
        assert_eq!(probability("p", 3, 5.0), Err(expected));
        assert!(probability("p", 0, f64::NAN).is_err());
    }
}
