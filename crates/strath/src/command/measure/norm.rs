//! p of a ball, as it is typed.

use std::str::FromStr;

/// A number of at least 1, or `inf`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NormArgument(pub(super) Option<f64>);

impl FromStr for NormArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(p) if p == f64::INFINITY => Ok(Self(None)),
            Ok(p) if p >= 1.0 => Ok(Self(Some(p))),
            _ => Err("expected a number of at least 1, or inf".into()),
        }
    }
}

/// A finite number above 0.
///
/// # Errors
/// What was expected.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|v: &f64| v.is_finite() && *v > 0.0).ok_or_else(|| "expected a number above 0".into())
}

/// A finite number of at least 0.
///
/// # Errors
/// What was expected.
pub(super) fn not_negative(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|v: &f64| v.is_finite() && *v >= 0.0)
        .ok_or_else(|| "expected a number of at least 0".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_norm_is_a_number_from_1_on_or_inf() {
        assert_eq!("2".parse(), Ok(NormArgument(Some(2.0))));
        assert_eq!("inf".parse(), Ok(NormArgument(None)));
        for wrong in ["0.5", "NaN", "two", "-1"] {
            assert!(wrong.parse::<NormArgument>().is_err(), "{wrong}");
        }
    }
}
