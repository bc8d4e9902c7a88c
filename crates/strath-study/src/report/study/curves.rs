//! Errors against radii, lane sizes and label noise.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::document::{Block, Drawing};
use super::data::{Data, Which, called, rest, short, under};
use super::families::Family;
use crate::figure::{Axis, Figure, Join, Lines, Marks, Panel, Sample, Series, Spread};

/// Lines by their value, and the arm without SAM.
type Facet = (BTreeMap<String, (Value, Vec<Which>)>, Option<Which>);

/// Curves of which a figure can tell so many apart, the mark of an edge and the baseline among them.
const MOST_LINES: usize = 5;
/// Figures of one kind.
const MOST_FIGURES: usize = 6;

/// The test error in the columns of the results, with what stands in captions.
pub(super) const LAST: (&str, &str) = ("test_error", "after the last epoch");
pub(super) const BEST: (&str, &str) = ("best_test_error", "at the best validation epoch");

/// A column of some runs at a place: mean and standard error, in per cent where it is a share.
pub(super) fn sample(data: &Data<'_>, which: Which, column: &str, x: f64, factor: f64) -> Option<Sample> {
    let described = data.described(which, column);
    let standard_error = described.spread.map(|spread| factor * spread.error);
    Some(Sample { x, y: factor * described.mean?, standard_error })
}

/// A curve with bars.
pub(super) fn curve(name: impl Into<String>, mut points: Vec<Sample>) -> Series {
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    Series { spread: Spread::Bars, points, ..Series::new(name, []) }
}

/// A dashed line from the left to the right of others.
fn level(name: &str, y: f64, others: &[Series]) -> Option<Series> {
    let x = || others.iter().flat_map(|series| &series.points).map(|point| point.x);
    let (low, high) = (x().reduce(f64::min)?, x().reduce(f64::max)?);
    Some(Series { join: Join::Dashed, marks: Marks::None, ..Series::new(name, [(low, y), (high, y)]) })
}

/// A line's name with its arms and where each stands.
type Line = (String, Vec<(f64, Which)>);

/// Lines of a column.
fn drawn(data: &Data<'_>, lines: &[Line], column: &str) -> Vec<Series> {
    let line = |(name, arms): &Line| {
        let points = arms.iter().filter_map(|(x, which)| sample(data, *which, column, *x, 100.0));
        curve(name.clone(), points.collect())
    };
    lines.iter().map(line).filter(|curve| !curve.points.is_empty()).collect()
}

/// The least points of lines whose radius is the largest or the smallest that was tried: their optimum may lie beyond the grid.
fn at_the_edge(data: &Data<'_>, lines: &[Line], column: &str) -> Option<Series> {
    let edge = |(_, arms): &Line| {
        let known = arms.iter().filter_map(|(x, which)| Some((*x, data.mean(*which, column)?, *which)));
        let (x, least, which) = known.min_by(|a, b| a.1.total_cmp(&b.1))?;
        (arms.len() > 1 && data.is_at_the_edge(which)).then_some((x, 100.0 * least))
    };
    let points: Vec<(f64, f64)> = lines.iter().filter_map(edge).collect();
    (!points.is_empty()).then(|| Series { join: Join::Apart, ..Series::new("best at the edge of its grid", points) })
}

/// The axis, cut where a few runs that learned nothing would press all others to its foot.
fn readable<'a>(axis: Axis, series: impl Iterator<Item = &'a Series>) -> Axis {
    let mut values: Vec<f64> = series.flat_map(|series| &series.points).map(|point| point.y).collect();
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return axis };
    let usual = 1.6 * values[values.len() * 2 / 3];
    if *most > 1.5 * usual && *least >= 0.0 { axis.within((least - 0.1 * usual).max(0.0), usual) } else { axis }
}

/// Test error against rho and against the equivalent rho, a line for each value of the first key that is compared, `sam.m` where it varies.
pub(super) fn against_rho(data: &Data<'_>) -> Vec<Block> {
    let Some(line) = data.drawn_key() else { return Vec::new() };
    let companions = data.companions(&line);
    // By what else varies.
    let mut facets: Vec<(String, Facet)> = Vec::new();
    for which in data.all().into_iter().filter(|which| !which.is_doubled && !data.is_matched(*which)) {
        let values = &data.arm(which).values;
        let name = rest(values, |key, _| key != "sam.rho" && !companions.contains(&key));
        let (lines, baseline) = under(&mut facets, name);
        if data.is_plain(which) {
            *baseline = Some(which);
        } else if let Some(value) = values.get(&line) {
            // Ordered as numbers are.
            let order = value.as_f64().map_or_else(|| value.to_string(), |number| format!("{number:020.6}"));
            lines.entry(order).or_insert_with(|| (value.clone(), Vec::new())).1.push(which);
        }
    }
    let mut blocks = Vec::new();
    for (name, (lines, baseline)) in facets {
        let rho = |which: Which| data.mean(which, "sam.rho").or(data.arm(which).values.get("sam.rho")?.as_f64());
        let left_out = lines.len().saturating_sub(MOST_LINES);
        let panel = |label: &str, x: &dyn Fn(Which) -> Option<f64>| {
            let of_value = |(value, arms): &(Value, Vec<Which>)| {
                (called(&line, value), arms.iter().filter_map(|which| Some((x(*which)?, *which))).collect())
            };
            let lines: Vec<Line> = lines.values().rev().take(MOST_LINES).map(of_value).collect();
            let mut series = drawn(data, &lines, LAST.0);
            let is_drawn = series.iter().any(|curve| curve.points.len() > 1);
            let plain = baseline.and_then(|which| data.mean(which, LAST.0));
            series.extend(plain.and_then(|error| level("ρ 0", 100.0 * error, &series)));
            series.extend(at_the_edge(data, &lines, LAST.0));
            is_drawn.then(|| Panel { x: Axis::log(label), series })
        };
        let equivalent = |which: Which| data.mean(which, "rho_equivalent");
        let panels: Vec<Panel> = [panel("ρ", &rho), panel("equivalent ρ", &equivalent)].into_iter().flatten().collect();
        if panels.is_empty() || blocks.len() == MOST_FIGURES {
            continue;
        }
        let of = if name.is_empty() { String::new() } else { format!(", {name}") };
        let more = if left_out > 0 { format!(" The {left_out} smallest are not drawn.") } else { String::new() };
        let right = if panels.len() > 1 {
            "; right: against the radius that m = batch would need for the same first-order lift (mean over the run's surveys)"
        } else {
            ""
        };
        let y = readable(Axis::linear("test error (%)"), panels.iter().flat_map(|panel| &panel.series));
        blocks.push(Block::Drawing(Drawing {
            stem: format!("error-against-rho-{}", blocks.len() + 1),
            caption: format!(
                "Test error {}{of}, a line for each value of {}{right}.{more} Means and standard errors over seeds.",
                LAST.1,
                short(&line)
            ),
            figure: Figure::Lines(Lines { y, panels }),
        }));
    }
    blocks
}

/// Test error at the end and at the best validation epoch against what radii follow from, of grids that match them.
pub(super) fn against_variable(data: &Data<'_>, families: &[Family]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for family in families {
        let Some(key) = family.radius_key().map(String::from) else { continue };
        let is_matched = family.along(0).iter().any(|(_, which)| data.is_matched(*which));
        if (key == "sam.rho" && !is_matched) || family.radii.len() < 2 {
            continue;
        }
        let label = if key == "sam.rho" { "ρ of the reference" } else { short(&key) };
        let lines: Vec<Line> = (0..family.values.len())
            .take(MOST_LINES + 1)
            .map(|value| (family.called(value), family.along(value).into_iter().filter(|(x, _)| *x > 0.0).collect()))
            .collect();
        let panel = |column: &str| {
            let mut series = drawn(data, &lines, column);
            series.extend(at_the_edge(data, &lines, column));
            Panel { x: Axis::log(label), series }
        };
        let columns: Vec<(&str, &str)> = [LAST, BEST].into_iter().filter(|(column, _)| data.has(column)).collect();
        if columns.is_empty() || blocks.len() == MOST_FIGURES {
            continue;
        }
        let when = columns.iter().map(|(_, when)| *when).collect::<Vec<_>>().join(", right: ");
        let panels: Vec<Panel> = columns.iter().map(|(column, _)| panel(column)).collect();
        let y = readable(Axis::linear("test error (%)"), panels.iter().flat_map(|panel| &panel.series));
        blocks.push(Block::Drawing(Drawing {
            stem: format!("error-against-radius-{}", blocks.len() + 1),
            caption: format!(
                "{}: test error {when}, against what is held equal, a line for each value of {}. \
                 Whether they differ is tested above. Means and standard errors over seeds.",
                family.name(),
                short(&family.key)
            ),
            figure: Figure::Lines(Lines { y, panels }),
        }));
    }
    blocks
}

/// A column against the key that is compared, a line for each radius.
pub(super) fn against_key(
    data: &Data<'_>,
    families: &[Family],
    (column, label, factor): (&str, &str, f64),
    stem: &str,
) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !data.has(column) {
        return blocks;
    }
    for family in families {
        let Some(numbers) = family.values.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>() else { continue };
        let line = |radius: &super::families::Radius| {
            let at = |(value, arm): (usize, &Option<usize>)| {
                sample(data, Which::of((*arm)?), column, numbers[value], factor)
            };
            curve(radius.name.clone(), radius.arms.iter().enumerate().filter_map(at).collect())
        };
        let mut series: Vec<Series> = family.radii.iter().map(line).filter(|curve| curve.points.len() > 1).collect();
        series.truncate(MOST_LINES + 2);
        if series.is_empty() || blocks.len() == MOST_FIGURES {
            continue;
        }
        blocks.push(Block::Drawing(Drawing {
            stem: format!("{stem}-{}", blocks.len() + 1),
            caption: format!(
                "{}: {label}, a line for each radius. Means and standard errors over seeds.",
                family.name()
            ),
            figure: Figure::Lines(Lines {
                y: Axis::linear(label),
                panels: vec![Panel { x: Axis::log(short(&family.key)), series }],
            }),
        }));
    }
    blocks
}

/// Columns against the share of replaced labels, a line for each arm.
pub(super) fn against_noise(data: &Data<'_>) -> Vec<Block> {
    const NOISE: &str = "data.label_noise";
    if !data.varies(NOISE) {
        return Vec::new();
    }
    let mut arms: Vec<Line> = Vec::new();
    for which in data.all() {
        let values = &data.arm(which).values;
        let Some(noise) = values.get(NOISE).and_then(Value::as_f64) else { continue };
        let plain = data.is_plain(which);
        let mut name = rest(values, |key, _| key != NOISE && !(plain && key.starts_with("sam.") && key != "sam.rho"));
        if which.is_doubled {
            name += ", twice the epochs";
        }
        under(&mut arms, name).push((100.0 * noise, which));
    }
    let columns = [
        (LAST.0, "test error (%)", "Clean test error after the last epoch"),
        (
            BEST.0,
            "test error (%)",
            "Clean test error at the best validation epoch, which is what stopping early would give",
        ),
        (
            "memorised",
            "wrong labels memorised (%)",
            "Share of the training examples with a wrong label that the last model gives that label",
        ),
    ];
    let known = columns.into_iter().filter(|(column, ..)| data.has(column)).enumerate();
    let draw = |(at, (column, label, caption)): (usize, (&str, &str, &str))| {
        let series = drawn(data, &arms[..arms.len().min(MOST_LINES + 2)], column);
        Block::Drawing(Drawing {
            stem: format!("label-noise-{}", at + 1),
            caption: format!(
                "{caption}, against the share of the training labels that were replaced. Means and standard errors over seeds."
            ),
            figure: Figure::Lines(Lines {
                y: Axis::linear(label),
                panels: vec![Panel { x: Axis::linear("labels replaced (%)"), series }],
            }),
        })
    };
    known.map(draw).collect()
}
