//! Isolines of a field, by marching squares.
//!
//! The field is taken to fall to nothing beyond its border, so that the region above a level is bounded by closed loops:
//! those bound the bands, and without their pieces along the border they are the isolines.

use super::canvas::Point;
use super::grid::Field;

/// No edge.
const NONE: usize = usize::MAX;

/// A closed line around a part of the field.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Loop {
    /// Its points, in the field's coordinates; the last is joined to the first.
    pub(super) points: Vec<Point>,
    /// Whether the point is there to close the loop along the field's border.
    border: Vec<bool>,
    /// The area inside.
    pub(super) area: f64,
    /// Which side of it is above the level.
    pub(super) above: Side,
}

/// A side of a closed line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Inside,
    Outside,
}

impl Loop {
    /// Its pieces that are not along the border; a closed one ends where it begins.
    pub(super) fn isolines(&self) -> Vec<Vec<Point>> {
        let count = self.points.len();
        let Some(first) = self.border.iter().position(|border| *border) else {
            return vec![[&self.points[..], &self.points[..1]].concat()];
        };
        let around: Vec<usize> = (0..count).map(|step| (first + step) % count).collect();
        around
            .split(|i| self.border[*i])
            .filter(|line| line.len() > 1)
            .map(|line| line.iter().map(|i| self.points[*i]).collect())
            .collect()
    }
}

/// The loops around the parts of `field` that are at or above `level`.
pub(super) fn loops(field: &Field, level: f64) -> Vec<Loop> {
    let next = segments(field, level);
    let mut seen = vec![false; next.len()];
    let mut loops = Vec::new();
    for start in 0..next.len() {
        if next[start] == NONE || seen[start] {
            continue;
        }
        let (mut points, mut border, mut edge) = (Vec::new(), Vec::new(), start);
        while !seen[edge] {
            seen[edge] = true;
            let (point, at_border) = crossing(field, level, edge);
            points.push(point);
            border.push(at_border);
            edge = next[edge];
        }
        // The high side is on the left, so counter-clockwise is around a high part.
        let area = signed_area(&points);
        let above = if area > 0.0 { Side::Inside } else { Side::Outside };
        loops.push(Loop { points, border, area: area.abs(), above });
    }
    loops
}

/// Columns of the field with its border of nothing.
fn columns(field: &Field) -> usize {
    field.x.len() + 2
}

/// The value at a point of the field with its border of nothing.
fn value(field: &Field, i: usize, j: usize) -> Option<f64> {
    let inside = (1..=field.x.len()).contains(&i) && (1..=field.y.len()).contains(&j);
    inside.then(|| field.z[(j - 1) * field.x.len() + i - 1])
}

/// For each edge of the grid that the level crosses, the edge at which the isoline leaves the square that it enters there
/// with the high side on its left. Edge `2 * (j * columns + i)` goes right from point (i, j), the one after it goes up.
fn segments(field: &Field, level: f64) -> Vec<usize> {
    let columns = columns(field);
    let rows = field.y.len() + 2;
    let mut next = vec![NONE; 2 * columns * rows];
    let high = |i, j| value(field, i, j).is_some_and(|z| z >= level);
    for j in 0..rows - 1 {
        for i in 0..columns - 1 {
            let bottom = 2 * (j * columns + i);
            let (left, right, top) = (bottom + 1, bottom + 3, bottom + 2 * columns);
            // Corners counter-clockwise from the lower left.
            let corners = [high(i, j), high(i + 1, j), high(i + 1, j + 1), high(i, j + 1)];
            let mut join = |from: usize, to: usize| next[from] = to;
            match corners {
                [true, false, false, false] => join(bottom, left),
                [false, true, false, false] => join(right, bottom),
                [false, false, true, false] => join(top, right),
                [false, false, false, true] => join(left, top),
                [false, true, true, true] => join(left, bottom),
                [true, false, true, true] => join(bottom, right),
                [true, true, false, true] => join(right, top),
                [true, true, true, false] => join(top, left),
                [true, true, false, false] => join(right, left),
                [false, true, true, false] => join(top, bottom),
                [false, false, true, true] => join(left, right),
                [true, false, false, true] => join(bottom, top),
                // A saddle: its middle says which two corners hang together.
                [true, false, true, false] if middle_is_high(field, level, i, j) => {
                    join(bottom, right);
                    join(top, left);
                }
                [true, false, true, false] => {
                    join(bottom, left);
                    join(top, right);
                }
                [false, true, false, true] if middle_is_high(field, level, i, j) => {
                    join(left, bottom);
                    join(right, top);
                }
                [false, true, false, true] => {
                    join(right, bottom);
                    join(left, top);
                }
                [false, false, false, false] | [true, true, true, true] => {}
            }
        }
    }
    next
}

fn middle_is_high(field: &Field, level: f64, i: usize, j: usize) -> bool {
    let corners = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)].map(|(i, j)| value(field, i, j));
    // Only squares inside have two high corners apart.
    corners.iter().flatten().sum::<f64>() >= 4.0 * level
}

/// Where the level crosses `edge`, and whether that is at the border.
fn crossing(field: &Field, level: f64, edge: usize) -> (Point, bool) {
    let columns = columns(field);
    let (i, j) = (edge / 2 % columns, edge / 2 / columns);
    let (i2, j2) = if edge.is_multiple_of(2) { (i + 1, j) } else { (i, j + 1) };
    // The border of nothing lies where the field's own border does.
    let at = |i: usize, j: usize| (field.x[i.clamp(1, field.x.len()) - 1], field.y[j.clamp(1, field.y.len()) - 1]);
    let (a, b) = (at(i, j), at(i2, j2));
    match (value(field, i, j), value(field, i2, j2)) {
        (Some(low), Some(high)) => {
            let share = ((level - low) / (high - low)).clamp(0.0, 1.0);
            ((a.0 + share * (b.0 - a.0), a.1 + share * (b.1 - a.1)), false)
        }
        _ => (a, true),
    }
}

fn signed_area(points: &[Point]) -> f64 {
    let turned = points.iter().skip(1).chain(points.first());
    points.iter().zip(turned).map(|(a, b)| a.0 * b.1 - b.0 * a.1).sum::<f64>() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(z: impl Fn(f64, f64) -> f64) -> Field {
        let axis: Vec<f64> = (0..41).map(|i| f64::from(i) / 20.0 - 1.0).collect();
        let values = axis.iter().flat_map(|y| axis.iter().map(|x| z(*x, *y))).collect();
        Field { x: axis.clone(), y: axis, z: values }
    }

    #[test]
    fn the_isoline_of_a_bowl_is_a_closed_circle() {
        let loops = loops(&field(f64::hypot), 0.5);
        // Above the level is what lies between the circle and the border.
        assert_eq!(loops.iter().map(|l| l.above).collect::<Vec<_>>(), [Side::Inside, Side::Outside]);
        assert!((loops[0].area - 4.0).abs() < 1e-9);
        assert!((loops[1].area - 0.25 * std::f64::consts::PI).abs() < 0.01, "{}", loops[1].area);
        assert!(loops[0].isolines().is_empty(), "the border is no isoline");
        let lines = loops[1].isolines();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].first(), lines[0].last());
        assert!(lines[0].iter().all(|(x, y)| (x.hypot(*y) - 0.5).abs() < 1e-3));
    }

    #[test]
    fn an_isoline_across_the_field_begins_and_ends_at_its_border() {
        let loops = loops(&field(|x, y| x + 0.1 * y), 0.02);
        assert_eq!(loops.len(), 1);
        let lines = loops[0].isolines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let mut ends = [lines[0][0].1, lines[0][lines[0].len() - 1].1];
        ends.sort_by(f64::total_cmp);
        assert_eq!(ends, [-1.0, 1.0]);
        assert!(lines[0].iter().all(|(x, y)| (x + 0.1 * y - 0.02).abs() < 1e-9));
    }

    #[test]
    fn a_saddle_joins_what_its_middle_joins() {
        for (level, parts) in [(0.01, 2), (-0.01, 1)] {
            let found = loops(&field(|x, y| x * y), level);
            assert_eq!(found.iter().filter(|l| l.above == Side::Inside).count(), parts, "at {level}");
        }
    }

    #[test]
    fn a_level_that_nothing_reaches_has_no_loops() {
        assert!(loops(&field(|_, _| 1.0), 2.0).is_empty());
    }
}
