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
