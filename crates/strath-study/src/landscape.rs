//! Landscapes of the loss: the points of `landscape.csv`, and the figures that show one, or several on one scale.

use crate::figure::{Axis, Contour, Figure, Grid, Lines, Mark, Marks, Panel, Series, Surface};

/// A landscape's points.
#[derive(Debug, Clone, PartialEq)]
pub struct Landscape {
    /// Alpha, beta and the loss there, nats: all of the first beta first. A loss that is not finite is infinite.
    pub points: Vec<[f64; 3]>,
}

impl Landscape {
    /// The points of a `landscape.csv` (`alpha,beta,loss,error`); nothing where it holds something else.
    pub fn of_csv(text: &str) -> Option<Self> {
        let mut csv = csv::Reader::from_reader(text.as_bytes());
        let points: Option<Vec<[f64; 3]>> = (csv.deserialize::<(f64, f64, f64, f64)>())
            .map(|record| record.ok().map(|(alpha, beta, loss, _)| [alpha, beta, loss]))
            .collect();
        points.filter(|points| !points.is_empty()).map(|points| Self { points })
    }

    fn alpha(&self) -> Vec<f64> {
        distinct(self.points.iter().map(|point| point[0]))
    }

    fn beta(&self) -> Vec<f64> {
        distinct(self.points.iter().map(|point| point[1]))
    }

    /// Whether it is a line.
    pub fn is_line(&self) -> bool {
        self.beta().len() == 1
    }

    fn series(&self, name: &str) -> Series {
        Series { marks: Marks::None, ..Series::new(name, self.points.iter().map(|point| (point[0], point[2]))) }
    }

    /// Its figures with their stems: a line in one dimension, `landscape`; isolines and, as `surface`, the view from the side in two.
    pub fn figures(&self, along: &str) -> Vec<(&'static str, Figure)> {
        let value = scale([self].into_iter());
        if self.is_line() {
            let panels = vec![Panel { x: Axis::linear(along), series: vec![self.series("")] }];
            return vec![("landscape", Figure::Lines(Lines { y: value, panels }))];
        }
        // A view from the side has no room for units at its edges; they are those of the other figure.
        let (x, y) = ("alpha".to_string(), "beta".to_string());
        let surface = Surface { x, y, value: value.clone(), grid: self.grid() };
        vec![("landscape", self.contour(value)), ("surface", Figure::Surface(surface))]
    }

    fn grid(&self) -> Grid {
        Grid { alpha: self.alpha(), beta: self.beta(), values: self.points.iter().map(|point| point[2]).collect() }
    }

    fn contour(&self, value: Axis) -> Figure {
        let (x, y) = ("alpha (length of the weights)".to_string(), "beta (length of the weights)".to_string());
        let marks = vec![Mark { x: 0.0, y: 0.0, name: "w".into() }];
        Figure::Contour(Contour { x, y, value, grid: self.grid(), levels: None, marks })
    }

    /// Several on one scale: lines in one figure, planes in one each; of both kinds only those of the first's.
    pub fn side_by_side(named: &[(String, Self)]) -> Vec<(String, Figure)> {
        let Some(is_line) = named.first().map(|(_, landscape)| landscape.is_line()) else { return Vec::new() };
        let alike: Vec<&(String, Self)> = named.iter().filter(|(_, other)| other.is_line() == is_line).collect();
        let value = scale(alike.iter().map(|(_, landscape)| landscape));
        if is_line {
            let series = alike.iter().map(|(name, landscape)| landscape.series(name)).collect();
            let panels = vec![Panel { x: Axis::linear("alpha (length of the weights)"), series }];
            return vec![(String::new(), Figure::Lines(Lines { y: value, panels }))];
        }
        alike.iter().map(|(name, landscape)| (name.clone(), landscape.contour(value.clone()))).collect()
    }
}

/// An axis of the losses of landscapes: less than a factor of ten is seen better as it is.
fn scale<'a>(landscapes: impl Iterator<Item = &'a Landscape>) -> Axis {
    let losses = landscapes.flat_map(|landscape| &landscape.points).map(|point| point[2]);
    let finite = losses.filter(|loss| loss.is_finite() && *loss > 0.0);
    let (least, most) = finite.fold((f64::INFINITY, 0.0), |(a, b): (f64, f64), loss| (a.min(loss), b.max(loss)));
    let axis = if most > 10.0 * least { Axis::log("loss (nats)") } else { Axis::linear("loss (nats)") };
    if least < most { axis.within(least, most) } else { axis }
}

/// Ascending, each once.
fn distinct(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_and_anything_else_is_not() {
        let landscape = Landscape::of_csv("alpha,beta,loss,error\n-1,0,2.5,0.5\n0,0,inf,1\n").unwrap();
        assert_eq!(landscape.points, [[-1.0, 0.0, 2.5], [0.0, 0.0, f64::INFINITY]]);
        assert!(landscape.is_line());
        assert_eq!(Landscape::of_csv("alpha,beta,loss,error\n-1,0,x,0.5\n"), None);
        assert_eq!(Landscape::of_csv(""), None);
    }

    #[test]
    fn several_share_a_scale() {
        let plane = |top: f64| Landscape {
            points: (0..9).map(|at| [f64::from(at % 3), f64::from(at / 3), 0.1 + top * f64::from(at)]).collect(),
        };
        let drawn = Landscape::side_by_side(&[("a".into(), plane(0.1)), ("b".into(), plane(3.0))]);
        assert_eq!(drawn.len(), 2);
        let values: Vec<&Axis> = drawn
            .iter()
            .filter_map(|(_, figure)| if let Figure::Contour(contour) = figure { Some(&contour.value) } else { None })
            .collect();
        assert_eq!(values[0], values[1]);
        assert_eq!(values[0].limits, Some((0.1, 24.1)));
        let line = Landscape { points: vec![[0.0, 0.0, 1.0], [1.0, 0.0, 2.0]] };
        let drawn = Landscape::side_by_side(&[("a".into(), line.clone()), ("b".into(), line)]);
        assert!(matches!(&drawn[..], [(_, Figure::Lines(lines))] if lines.panels[0].series.len() == 2));
    }
}
