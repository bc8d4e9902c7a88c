//! A landscape: a value for each pair of coordinates, and the smooth field between them.

use super::FigureError;
use super::axis::{Scale, Span};

/// Into about how many pieces an axis of the field is cut, so that lines through it look smooth in print.
const PIECES: usize = 120;

/// Values on a grid of two coordinates, such as losses over two directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Coordinates from left to right, ascending.
    pub alpha: Vec<f64>,
    /// Coordinates from bottom to top, ascending.
    pub beta: Vec<f64>,
    /// The values, all of `beta[0]` first: `values[b * alpha.len() + a]`.
    pub values: Vec<f64>,
}

impl Grid {
    /// Whether it is a grid, with `what` for the error's text.
    pub(super) fn check(&self, what: &str) -> Result<(), FigureError> {
        for (name, coordinates) in [("alpha", &self.alpha), ("beta", &self.beta)] {
            let what = format!("the coordinates {name} of {what}");
            if coordinates.len() < 2 {
                return Err(FigureError::Empty { what, needed: "two coordinates" });
            }
            let ordered = |pair: &&[f64]| !(pair[0].is_finite() && pair[1].is_finite() && pair[0] < pair[1]);
            if let Some(pair) = coordinates.windows(2).find(ordered) {
                return Err(FigureError::Order { what, found: pair[1], before: pair[0] });
            }
        }
        let expected = self.alpha.len() * self.beta.len();
        if self.values.len() != expected {
            return Err(FigureError::Count { what: what.into(), found: self.values.len(), expected });
        }
        Ok(())
    }

    /// The spans of both coordinates, without room around them.
    pub(super) fn spans(&self) -> (Span, Span) {
        let span = |of: &[f64]| Span { scale: Scale::Linear, low: of[0], high: of[of.len() - 1] };
        (span(&self.alpha), span(&self.beta))
    }

    /// Its points with their value: (index of alpha, index of beta, value).
    pub(super) fn points(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        let columns = self.alpha.len();
        self.values.iter().enumerate().map(move |(i, value)| (i % columns, i / columns, *value))
    }

    /// The values in units in which `span` is even, held within it: a loss that is not finite lies at its high end.
    pub(super) fn held(&self, span: Span) -> Vec<f64> {
        let hold = |value: &f64| match span.scale.even(*value) {
            Some(even) => even.clamp(span.low, span.high),
            // Below 0 on a logarithmic axis.
            None if *value <= 0.0 => span.low,
            None => span.high,
        };
        self.values.iter().map(hold).collect()
    }

    /// The smooth field through its points that are finite; the others take the mean of their neighbours, so that one point
    /// that is missing in a valley is no peak there.
    pub(super) fn field(&self, span: Span) -> Field {
        let (x, y) = (fine(&self.alpha), fine(&self.beta));
        let held = self.filled(self.held(span));
        let rows: Vec<Vec<f64>> = held.chunks(self.alpha.len()).map(|row| interpolate(&self.alpha, row, &x)).collect();
        let mut z = vec![0.0; x.len() * y.len()];
        for i in 0..x.len() {
            let column: Vec<f64> = rows.iter().map(|row| row[i]).collect();
            for (j, value) in interpolate(&self.beta, &column, &y).into_iter().enumerate() {
                z[j * x.len() + i] = value;
            }
        }
        Field { x, y, z }
    }
}

impl Grid {
    fn filled(&self, mut held: Vec<f64>) -> Vec<f64> {
        let (columns, rows) = (self.alpha.len(), self.beta.len());
        let mut known: Vec<bool> = self.values.iter().map(|value| value.is_finite()).collect();
        // From the known ones inwards; a grid without any has nothing to begin from.
        while known.contains(&false) && known.contains(&true) {
            let before = known.clone();
            for (a, b, _) in self.points() {
                let near = |at: usize, most: usize| at.saturating_sub(1)..(at + 2).min(most);
                let around = near(b, rows).flat_map(|b| near(a, columns).map(move |a| b * columns + a));
                let values: Vec<f64> = around.filter(|at| before[*at]).map(|at| held[at]).collect();
                let here = b * columns + a;
                if !before[here] && !values.is_empty() {
                    held[here] = values.iter().sum::<f64>() / values.len() as f64;
                    known[here] = true;
                }
            }
        }
        held
    }
}

/// A field on a fine grid, in units in which its axis is even.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    /// Coordinates from left to right.
    pub(super) x: Vec<f64>,
    /// Coordinates from bottom to top.
    pub(super) y: Vec<f64>,
    /// Its values, row by row from the bottom.
    pub(super) z: Vec<f64>,
}

/// The coordinates and as many between each two as make [`PIECES`].
fn fine(coordinates: &[f64]) -> Vec<f64> {
    let between = PIECES.div_ceil(coordinates.len() - 1);
    let mut fine: Vec<f64> = coordinates
        .windows(2)
        .flat_map(|pair| (0..between).map(move |i| pair[0] + (pair[1] - pair[0]) * i as f64 / between as f64))
        .collect();
    fine.extend(coordinates.last());
    fine
}

/// Values at `fine` of the monotone cubic through (`x`, `z`): Fritsch and Butland, "A method for constructing local monotone
/// piecewise cubic interpolants", SIAM J. Sci. Stat. Comput. 5 (1984). Beside a steep wall it makes no rings, which would be
/// isolines of a landscape that nobody measured.
fn interpolate(x: &[f64], z: &[f64], fine: &[f64]) -> Vec<f64> {
    let last = x.len() - 1;
    let width = |i: usize| x[i + 1] - x[i];
    let slope = |i: usize| (z[i + 1] - z[i]) / width(i);
    let tangent = |i: usize| {
        if i == 0 || i == last {
            return slope(i.min(last - 1));
        }
        let (before, after) = (slope(i - 1), slope(i));
        if before * after <= 0.0 {
            return 0.0;
        }
        let (near, far) = (2.0 * width(i) + width(i - 1), width(i) + 2.0 * width(i - 1));
        (near + far) / (near / before + far / after)
    };
    let tangents: Vec<f64> = (0..x.len()).map(tangent).collect();
    let mut i = 0;
    let at = |at: &f64| {
        while i + 1 < last && *at >= x[i + 1] {
            i += 1;
        }
        let (h, t) = (width(i), (at - x[i]) / width(i));
        let (t2, t3) = (t * t, t * t * t);
        let ends = (2.0 * t3 - 3.0 * t2 + 1.0) * z[i] + (3.0 * t2 - 2.0 * t3) * z[i + 1];
        ends + h * ((t3 - 2.0 * t2 + t) * tangents[i] + (t3 - t2) * tangents[i + 1])
    };
    fine.iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_goes_through_the_points_and_not_beyond_them() {
        let x = [0.0, 1.0, 2.0, 4.0, 5.0];
        let z = [0.0, 0.0, 10.0, 10.0, 3.0];
        let at = fine(&x);
        let smooth = interpolate(&x, &z, &at);
        for (x, z) in x.iter().zip(z) {
            let here = at.iter().position(|a| a == x).unwrap();
            assert!((smooth[here] - z).abs() < 1e-12);
        }
        assert!(smooth.iter().all(|z| (-1e-12..=10.0 + 1e-12).contains(z)), "{smooth:?}");
    }

    #[test]
    fn what_is_no_grid_is_refused_with_what_is_wrong() {
        let grid = Grid { alpha: vec![0.0, 1.0], beta: vec![0.0, 1.0, 2.0], values: vec![1.0; 6] };
        grid.check("a landscape").unwrap();
        let short = Grid { values: vec![1.0; 5], ..grid.clone() };
        assert!(matches!(short.check("a"), Err(FigureError::Count { found: 5, expected: 6, .. })));
        let mixed = Grid { beta: vec![0.0, 2.0, 1.0], ..grid.clone() };
        assert!(matches!(mixed.check("a"), Err(FigureError::Order { found: 1.0, before: 2.0, .. })));
        let one = Grid { alpha: vec![0.0], ..grid };
        assert!(matches!(one.check("a"), Err(FigureError::Empty { .. })));
    }

    #[test]
    fn a_loss_that_is_not_finite_is_a_wall_or_as_its_neighbours() {
        let grid =
            Grid { alpha: vec![0.0, 1.0], beta: vec![0.0, 1.0], values: vec![1.0, f64::NAN, f64::INFINITY, 0.0] };
        let span = Span { scale: Scale::Log, low: -1.0, high: 2.0 };
        assert_eq!(grid.held(span), [0.0, 2.0, 2.0, -1.0]);
        assert_eq!(grid.filled(grid.held(span)), [0.0, -0.5, -0.5, -1.0]);
    }
}
