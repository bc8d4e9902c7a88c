//! Which values of an axis are marked, and how they are written.

use super::axis::{Scale, Span};
use super::font;

/// The marked values of an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ticks {
    /// Those that are written, and how.
    pub(super) written: Vec<(f64, String)>,
    /// Those between.
    pub(super) minor: Vec<f64>,
}

/// The ticks of `span`, of which about `most` are written.
pub(super) fn ticks(span: Span, most: usize) -> Ticks {
    match span.scale {
        Scale::Linear => linear(span, most),
        Scale::Log => logarithmic(span, most),
    }
}

/// Ticks of `span` for an axis that runs from left to right over `pixels`, as many as their texts leave room for.
pub(super) fn across(span: Span, pixels: f64, size: u32) -> Ticks {
    let fits = |ticks: &Ticks| {
        let edges = |(value, text): &(f64, String)| {
            let at = span.place(*value).unwrap_or(0.0) * pixels;
            let half = font::width(text, size) / 2.0;
            (at - half, at + half)
        };
        ticks.written.windows(2).all(|pair| edges(&pair[0]).1 + 0.6 * f64::from(size) <= edges(&pair[1]).0)
    };
    (3..=8).rev().map(|most| ticks(span, most)).find(fits).unwrap_or_else(|| ticks(span, 2))
}

fn linear(span: Span, most: usize) -> Ticks {
    let rough = (span.high - span.low) / most.max(1) as f64;
    let unit = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * unit).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let values = multiples(span, step);
    // All of one axis are written alike: with the digits that the step needs.
    let largest = span.low.abs().max(span.high.abs());
    let written = values.into_iter().map(|value| (value, write(value, step, largest))).collect();
    Ticks { written, minor: Vec::new() }
}

fn multiples(span: Span, step: f64) -> Vec<f64> {
    let slack = 1e-9 * (span.high - span.low);
    let first = ((span.low - slack) / step).ceil() as i64;
    let last = ((span.high + slack) / step).floor() as i64;
    (first..=last).map(|n| n as f64 * step).collect()
}

fn write(value: f64, step: f64, largest: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if !(1e-4..1e6).contains(&largest) {
        let power = largest.log10().floor() as i32;
        let digits = (f64::from(power) - (step * 1.000_001).log10().floor()).max(0.0) as usize;
        return minus(&format!("{:.digits$}×10{}", value / 10f64.powi(power), font::superscript(power)));
    }
    let digits = (-(step * 1.000_001).log10().floor()).max(0.0) as usize;
    minus(&format!("{value:.digits$}"))
}

/// A value alone, with at most three digits that matter: of isolines, levels and cells.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return minus(&value.to_string());
    }
    let mut power = value.abs().log10().floor() as i32;
    // 9.996 is of the digits of 10.00.
    if (value.abs() / 10f64.powi(power) * 100.0).round() >= 1000.0 {
        power += 1;
    }
    let trimmed = |text: String| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
    };
    if (-3..6).contains(&power) {
        return minus(&trimmed(format!("{value:.*}", (2 - power).max(0) as usize)));
    }
    let raised = font::superscript(power);
    match trimmed(format!("{:.2}", value / 10f64.powi(power))).as_str() {
        "1" => format!("10{raised}"),
        "-1" => format!("−10{raised}"),
        factor => minus(&format!("{factor}×10{raised}")),
    }
}

/// `factor` times a power of ten, rounded once: 0.3, where 3 * 0.1 is 0.30000000000000004.
pub(super) fn decimal(factor: f64, power: i32) -> f64 {
    if power < 0 { factor / 10f64.powi(-power) } else { factor * 10f64.powi(power) }
}

fn minus(text: &str) -> String {
    text.replace('-', "−")
}

fn logarithmic(span: Span, most: usize) -> Ticks {
    let decades = multiples(Span { scale: Scale::Linear, ..span }, 1.0);
    let all = |factors: &[i32]| -> Vec<f64> {
        let (first, last) = (span.low.floor() as i32, span.high.ceil() as i32);
        let values = (first..=last).flat_map(|power| factors.iter().map(move |f| decimal(f64::from(*f), power)));
        values.filter(|value| span.shows(*value)).collect()
    };
    // Within less than two decades, their halves and fifths are written too; with less than that, as on a linear axis.
    let values = if decades.len() > 1 {
        let every = decades.len().div_ceil(most.max(1));
        let fine = all(&[1, 2, 5]);
        if decades.len() <= 2 && fine.len() <= most { fine } else { all(&[1]).into_iter().step_by(every).collect() }
    } else {
        let written = all(&[1, 2, 5]);
        if written.len() < 2 {
            let (low, high) = span.ends();
            return linear(Span { scale: Scale::Linear, low, high }, most);
        }
        written.into_iter().take(most.max(2)).collect()
    };
    // Past a hundred-thousandfold, powers read better than zeros.
    let plain = values.iter().all(|value| (0.9e-3..1.1e3).contains(value));
    let write = |value: f64| {
        let power = value.log10().floor();
        if plain || (value / 10f64.powf(power) - 1.0).abs() > 1e-6 {
            short(value)
        } else {
            format!("10{}", font::superscript(power as i32))
        }
    };
    let minor = if decades.len() > 6 { Vec::new() } else { all(&[2, 3, 4, 5, 6, 7, 8, 9]) };
    let minor = minor.into_iter().filter(|value| !values.contains(value)).collect();
    Ticks { written: values.into_iter().map(|value| (value, write(value))).collect(), minor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scale: Scale, low: f64, high: f64) -> Vec<String> {
        let (low, high) = (scale.even(low).unwrap(), scale.even(high).unwrap());
        ticks(Span { scale, low, high }, 6).written.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn linear_ticks_are_round_and_written_alike() {
        assert_eq!(texts(Scale::Linear, -1.0, 1.0), ["−1.0", "−0.5", "0", "0.5", "1.0"]);
        assert_eq!(texts(Scale::Linear, 3.02, 5.3), ["3.5", "4.0", "4.5", "5.0"]);
        assert_eq!(texts(Scale::Linear, 0.0, 120.0), ["0", "20", "40", "60", "80", "100", "120"]);
        assert_eq!(texts(Scale::Linear, 0.0, 2e-5), ["0", "0.5×10⁻⁵", "1.0×10⁻⁵", "1.5×10⁻⁵", "2.0×10⁻⁵"]);
    }

    #[test]
    fn logarithmic_ticks_are_decades_where_there_are_several() {
        assert_eq!(texts(Scale::Log, 1e-8, 1e2), ["10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "10⁰", "10²"]);
        assert_eq!(texts(Scale::Log, 0.009, 1.1), ["0.01", "0.1", "1"]);
        assert_eq!(texts(Scale::Log, 0.02, 0.5), ["0.02", "0.05", "0.1", "0.2", "0.5"]);
        assert_eq!(texts(Scale::Log, 3.1, 4.4), ["3.5", "4.0"]);
    }

    #[test]
    fn a_value_alone_has_the_digits_that_matter() {
        let written = [0.0, 1.0, 0.1, 12.345, -0.05, 1234.0, 9.996, 2e-7, 1e-5, -1e9].map(short);
        assert_eq!(written, ["0", "1", "0.1", "12.3", "−0.05", "1234", "10", "2×10⁻⁷", "10⁻⁵", "−10⁹"]);
    }

    #[test]
    fn ticks_across_leave_room_between_their_texts() {
        let span = Span { scale: Scale::Linear, low: 10_000.0, high: 10_007.0 };
        let few = across(span, 100.0, 14).written.len();
        assert!((1..=3).contains(&few), "{few}");
        assert!(across(span, 600.0, 14).written.len() > few);
    }
}
