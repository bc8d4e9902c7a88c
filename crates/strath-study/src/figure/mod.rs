//! Every figure of Strath: data with labels in, files in four formats out.
//!
//! A [`Figure`] is plain data. [`Figure::write`] draws it once and writes the drawing as SVG, PNG and PDF, and its numbers
//! as CSV. The same data gives the same bytes. All figures are as wide as a printed column; their text is legible there.

mod axis;
mod canvas;
mod colour;
mod colour_bar;
mod contour;
mod density;
mod error;
mod font;
mod frame;
mod grid;
mod heat_map;
mod isoline;
mod legend;
mod levels;
mod line_label;
mod lines;
mod notes;
mod output;
mod room;
mod stems;
mod surface;
mod table;
mod ticks;

use std::path::{Path, PathBuf};

pub use axis::{Axis, Scale};
pub use contour::{Contour, Mark};
pub use density::{Curve, Density};
pub use error::FigureError;
pub use grid::Grid;
pub use heat_map::HeatMap;
pub use lines::{Join, Lines, Marks, Panel, Sample, Series, Spread};
pub use stems::{Stem, Stems};
pub use surface::Surface;

use canvas::Canvas;
use table::Table;

/// A figure: what is drawn and what it is called.
#[derive(Debug, Clone, PartialEq)]
pub enum Figure {
    /// Curves with their spread, in one panel or two.
    Lines(Lines),
    /// Spectral densities with single eigenvalues below.
    Density(Density),
    /// A landscape from above, as bands and labelled isolines.
    Contour(Contour),
    /// A landscape from the side.
    Surface(Surface),
    /// Values of two lists of categories.
    HeatMap(HeatMap),
    /// A few numbered values of several sets side by side.
    Stems(Stems),
}

impl Figure {
    /// Writes `stem.svg`, `stem.png`, `stem.pdf` and `stem.csv` into `folder` and returns their paths in this order. Each
    /// is written whole or not at all, and none before all of them could be made.
    ///
    /// # Errors
    /// [`FigureError`]: data that cannot be drawn, a stem that is no file name, a file that cannot be written.
    pub fn write(&self, folder: &Path, stem: &str) -> Result<Vec<PathBuf>, FigureError> {
        output::write(folder, stem, &output::files(&self.draw()?.into_scene(), &self.table())?)
    }

    /// Its numbers: `{"columns": [...], "rows": [[...], ...]}`, as its CSV has them.
    pub fn data(&self) -> serde_json::Value {
        self.table().json()
    }

    fn draw(&self) -> Result<Canvas, FigureError> {
        match self {
            Self::Lines(figure) => figure.draw(),
            Self::Density(figure) => figure.draw(),
            Self::Contour(figure) => figure.draw(),
            Self::Surface(figure) => figure.draw(),
            Self::HeatMap(figure) => figure.draw(),
            Self::Stems(figure) => figure.draw(),
        }
    }

    fn table(&self) -> Table {
        match self {
            Self::Lines(figure) => figure.table(),
            Self::Density(figure) => figure.table(),
            Self::Contour(figure) => figure.table(),
            Self::Surface(figure) => figure.table(),
            Self::HeatMap(figure) => figure.table(),
            Self::Stems(figure) => figure.table(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kuva::backend::svg::SvgBackend;
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = f64> {
        let odd = [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324, -1e-9];
        prop_oneof![4 => -10.0..10.0, 2 => 1e-9..1e-3, 1 => prop::num::f64::ANY, 1 => prop::sample::select(odd.to_vec())]
    }

    fn axis() -> impl Strategy<Value = Axis> {
        let limits = prop::option::weighted(0.2, (number(), number()));
        (".{0,40}", any::<bool>(), limits).prop_map(|(label, log, limits)| {
            let scale = if log { Scale::Log } else { Scale::Linear };
            Axis { label, scale, limits }
        })
    }

    fn figure() -> impl Strategy<Value = Figure> {
        let numbers = || prop::collection::vec(number(), 0..12);
        let values = prop::collection::vec(number(), 12);
        (axis(), axis(), numbers(), numbers(), values, 0..6).prop_map(|(x, y, a, b, values, kind)| {
            let pairs = || a.iter().copied().zip(b.iter().copied());
            let sample = |(x, y)| Sample { x, y, standard_error: a.first().copied() };
            let series = Series { points: pairs().map(sample).collect(), ..Series::new("<m & \"n\">", []) };
            let bars = Series { spread: Spread::Bars, ..series.clone() };
            let grid = Grid { alpha: vec![-1.0, 0.0, 0.5, 1.0], beta: vec![-1.0, 0.0, 1.0], values: values.clone() };
            let (label, value) = (x.label.clone(), y.clone());
            let name = || "$a$".to_string();
            match kind {
                0 => Figure::Lines(Lines { y, panels: vec![Panel { x, series: vec![series, bars] }] }),
                1 => {
                    let curve = Curve { name: name(), density: pairs().collect(), eigenvalues: values };
                    Figure::Density(Density { x, y, curves: vec![curve] })
                }
                2 => {
                    let marks = pairs().map(|(x, y)| Mark { x, y, name: name() }).collect();
                    let levels = (a.len() > 6).then_some(b);
                    Figure::Contour(Contour { x: label, y: name(), value, grid, levels, marks })
                }
                3 => Figure::Surface(Surface { x: label, y: name(), value, grid }),
                4 => {
                    let names = |count| vec![name(); count];
                    let (columns, rows) = (names(4), names(3));
                    Figure::HeatMap(HeatMap { x: label, columns, y: name(), rows, value, values, decimals: 2 })
                }
                _ => Figure::Stems(Stems { x: label, y, sets: vec![Stem { name: name(), values }] }),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_data_is_drawn_or_refused_and_every_point_lies_somewhere(figure in figure()) {
            figure.table().csv();
            if let Ok(canvas) = figure.draw() {
                let scene = canvas.into_scene();
                prop_assert!(scene.height.is_finite() && scene.height < 2000.0);
                let svg = SvgBackend::new().render_scene(&scene);
                for attribute in ["d", "x", "y", "transform", "width", "height"] {
                    for value in svg.split(&format!(" {attribute}=\"")).skip(1).filter_map(|rest| rest.split('"').next()) {
                        prop_assert!(!value.contains("NaN") && !value.contains("inf"), "{attribute} {value}");
                    }
                }
            }
        }
    }
}
