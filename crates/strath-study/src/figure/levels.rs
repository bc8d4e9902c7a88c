//! At which values a landscape is cut into bands.

use super::axis::{Scale, Span};
use super::ticks::decimal;

/// Round levels within `span`, at most `most`: on a logarithmic axis even in the logarithm, as in Li, Xu, Taylor, Studer and
/// Goldstein, "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, so that a steep wall has as many lines as a
/// flat bottom.
pub(super) fn levels(span: Span, most: usize) -> Vec<f64> {
    match span.scale {
        Scale::Linear => linear(span, most),
        Scale::Log => {
            let series: [&[f64]; 4] = [&[1.0, 1.5, 2.0, 3.0, 5.0, 7.0], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
            let finest = series.iter().map(|factors| decades(span, factors, 1)).find(|levels| levels.len() <= most);
            let found = finest
                .or_else(|| (2..700).map(|every| decades(span, &[1.0], every)).find(|levels| levels.len() <= most))
                .unwrap_or_default();
            // Within half a decade there are too few round ones.
            if found.len() < 3 { linear(span, most) } else { found }
        }
    }
}

fn decades(span: Span, factors: &[f64], every: i32) -> Vec<f64> {
    let (first, last) = (span.low.floor() as i32, span.high.ceil() as i32);
    let powers = (first..=last).filter(|power| power.rem_euclid(every) == 0);
    let all = powers.flat_map(|power| factors.iter().map(move |factor| decimal(*factor, power)));
    all.filter(|level| within(*level, span)).collect()
}

fn linear(span: Span, most: usize) -> Vec<f64> {
    let (low, high) = span.ends();
    let unit = 10f64.powf(((high - low) / most as f64).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0].map(|factor| factor * unit);
    let at = |step: f64| -> Vec<f64> {
        let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
        (first..=last).map(|n| n as f64 * step).filter(|level| within(*level, span)).collect()
    };
    steps.into_iter().map(at).find(|levels| levels.len() <= most).unwrap_or_default()
}

/// Whether a level parts the values: one at their very end does not.
fn within(level: f64, span: Span) -> bool {
    span.place(level).is_some_and(|place| place > 1e-9 && place < 1.0 - 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scale: Scale, low: f64, high: f64, most: usize) -> Vec<f64> {
        levels(Span { scale, low: scale.even(low).unwrap(), high: scale.even(high).unwrap() }, most)
    }

    #[test]
    fn logarithmic_levels_are_round_and_as_fine_as_they_may() {
        assert_eq!(of(Scale::Log, 0.09, 1100.0, 12), [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]);
        let finer = of(Scale::Log, 0.09, 1.3, 8);
        assert!(
            finer.iter().zip([0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0]).all(|(a, b)| (a - b).abs() < 1e-12),
            "{finer:?}"
        );
        assert_eq!(of(Scale::Log, 1e-9, 1e9, 5), [1e-6, 1e-3, 1.0, 1e3, 1e6]);
    }

    #[test]
    fn a_narrow_range_has_levels_too() {
        assert_eq!(of(Scale::Log, 2.01, 2.99, 10), of(Scale::Linear, 2.01, 2.99, 10));
        assert_eq!(of(Scale::Linear, 2.01, 2.99, 10).len(), 9);
    }

    #[test]
    fn no_level_lies_at_the_very_end() {
        assert_eq!(of(Scale::Linear, 0.0, 1.0, 3), [0.5]);
        assert_eq!(of(Scale::Linear, 0.0, 1.0, 9).len(), 9);
    }
}
