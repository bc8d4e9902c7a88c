//! Axes: what they are called, which part of the numbers they show, and where a value lies on them.

use super::FigureError;

/// How a value's place on an axis grows with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// In proportion.
    #[default]
    Linear,
    /// With its logarithm; only values above 0 have a place.
    Log,
}

impl Scale {
    /// The value in units in which the axis is even; none where it has no place.
    pub(super) fn even(self, value: f64) -> Option<f64> {
        let even = match self {
            Self::Linear => value,
            Self::Log if value > 0.0 => value.log10(),
            Self::Log => f64::NAN,
        };
        // Larger ones are as good as infinite, and smaller ones as good as 0: the width of a span, and a part of it, stay in the range of f64.
        (even.abs() < 1e150).then_some(if even.abs() < 1e-150 { 0.0 } else { even })
    }

    /// The value at `even`.
    pub(super) fn value(self, even: f64) -> f64 {
        match self {
            Self::Linear => even,
            Self::Log => 10f64.powf(even),
        }
    }
}

/// An axis as the caller wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// The quantity with its unit in brackets, such as `test error (%)`; also the column's name in the CSV.
    pub label: String,
    /// Linear or logarithmic.
    pub scale: Scale,
    /// The least and the largest value shown; none: as the data needs.
    pub limits: Option<(f64, f64)>,
}

impl Axis {
    /// A linear axis as wide as its data.
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Linear, limits: None }
    }

    /// A logarithmic axis as wide as its data.
    pub fn log(label: impl Into<String>) -> Self {
        Self { scale: Scale::Log, ..Self::linear(label) }
    }

    /// The same axis from `low` to `high`.
    #[must_use]
    pub fn within(self, low: f64, high: f64) -> Self {
        Self { limits: Some((low, high)), ..self }
    }

    /// The part of the axis that is shown, for a figure that draws `values`.
    pub(super) fn span(&self, values: impl IntoIterator<Item = f64>) -> Result<Span, FigureError> {
        let scale = self.scale;
        let what = || format!("the axis {:?}", self.label);
        if let Some((low, high)) = self.limits {
            return match (scale.even(low), scale.even(high)) {
                (Some(a), Some(b)) if a < b => Ok(Span { scale, low: a, high: b }),
                (Some(_), Some(_)) => Err(FigureError::Order { what: what(), found: high, before: low }),
                _ => Err(FigureError::NothingToDraw { what: what(), count: 2 }),
            };
        }
        let (mut count, mut low, mut high) = (0, f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            count += 1;
            if let Some(even) = scale.even(value) {
                (low, high) = (low.min(even), high.max(even));
            }
        }
        if low > high {
            return Err(FigureError::NothingToDraw { what: what(), count });
        }
        // One value alone lies in the middle.
        let room = match (high - low, scale) {
            (0.0, Scale::Linear) => 0.1 * high.abs().max(1e-3),
            (0.0, Scale::Log) => 0.3,
            (width, _) => 0.05 * width,
        };
        // What cannot be negative gets no room below 0.
        let floor = if scale == Scale::Linear && low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
        Ok(Span { scale, low: (low - room).max(floor), high: high + room })
    }
}

/// The part of an axis that is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    /// Linear or logarithmic.
    pub(super) scale: Scale,
    /// Its beginning, in units in which the axis is even.
    pub(super) low: f64,
    /// Its end, in the same.
    pub(super) high: f64,
}

impl Span {
    /// Where `value` lies, from 0 at the beginning to 1 at the end and beyond; none where it has no place.
    pub(super) fn place(self, value: f64) -> Option<f64> {
        self.scale.even(value).map(|even| (even - self.low) / (self.high - self.low))
    }

    /// Whether `value` has a place and it is between the ends.
    pub(super) fn shows(self, value: f64) -> bool {
        self.place(value).is_some_and(|place| (-1e-9..=1.0 + 1e-9).contains(&place))
    }

    /// The least and the largest value.
    pub(super) fn ends(self) -> (f64, f64) {
        (self.scale.value(self.low), self.scale.value(self.high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_covers_its_data_and_skips_what_it_cannot_show() {
        let span = Axis::log("ρ").span([0.01, f64::NAN, 0.0, -3.0, 1.0]).unwrap();
        assert!(span.shows(0.01) && span.shows(1.0) && !span.shows(0.0) && !span.shows(10.0));
        assert!((span.place(0.1).unwrap() - 0.5).abs() < 1e-12);
        let (low, high) = Axis::linear("error").span([0.0, 5.0]).unwrap().ends();
        assert_eq!((low, high), (0.0, 5.25));
    }

    #[test]
    fn one_value_alone_lies_in_the_middle() {
        for axis in [Axis::linear("a"), Axis::log("a")] {
            assert!((axis.span([3.0]).unwrap().place(3.0).unwrap() - 0.5).abs() < 1e-9);
        }
    }

    #[test]
    fn what_is_as_good_as_nothing_is_shown_as_0_and_between_its_like_there_is_no_axis() {
        assert_eq!(Axis::linear("a").span([5e-324]).unwrap(), Axis::linear("a").span([0.0]).unwrap());
        assert!(matches!(Axis::linear("a").within(0.0, 5e-324).span([]), Err(FigureError::Order { .. })));
    }

    #[test]
    fn what_an_axis_cannot_show_at_all_is_an_error_that_names_it() {
        let error = Axis::log("λ").span([-1.0, f64::INFINITY]).unwrap_err();
        assert!(matches!(&error, FigureError::NothingToDraw { count: 2, .. }), "{error}");
        assert!(error.to_string().contains("λ"), "{error}");
        assert!(matches!(Axis::linear("a").within(2.0, 1.0).span([]), Err(FigureError::Order { .. })));
        assert!(matches!(Axis::log("a").within(0.0, 1.0).span([]), Err(FigureError::NothingToDraw { .. })));
    }
}
