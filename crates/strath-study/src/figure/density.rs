//! Spectral densities on a logarithmic axis, with single eigenvalues as a rug below.

use super::FigureError;
use super::axis::{Axis, Scale, Span};
use super::canvas::{Canvas, Pen, WIDTH};
use super::colour::{INK, MOST, Rgb, look};
use super::frame::{Frame, bottom_margin, left_margin};
use super::legend::{self, Key, Legend};
use super::notes::Notes;
use super::table::{Cell, Table};

/// Height of the density.
const HEIGHT: f64 = 210.0;
/// Height of one curve's rug.
const RUG: f64 = 14.0;
/// What is less than this share of the peak is not shown on a logarithmic axis without limits.
const DEPTH: f64 = 1e-8;
/// Of negative eigenvalues: Okabe and Ito's vermilion is the second curve's, so black, and thicker, which grey shows too.
const NEGATIVE: Rgb = (0, 0, 0);

/// The density of a spectrum, or of several to compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Density {
    /// The axis of eigenvalues.
    pub x: Axis,
    /// The axis of densities; on a logarithmic one without limits eight decades are shown at most.
    pub y: Axis,
    /// The spectra.
    pub curves: Vec<Curve>,
}

/// One spectrum.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Its text in the legend, such as the checkpoint's name.
    pub name: String,
    /// (eigenvalue, density) in ascending order of eigenvalue.
    pub density: Vec<(f64, f64)>,
    /// Single eigenvalues, such as the largest and the negative ones that Lanczos' method found.
    pub eigenvalues: Vec<f64>,
}

impl Density {
    /// Draws the figure.
    pub(super) fn draw(&self) -> Result<Canvas, FigureError> {
        self.check()?;
        let x =
            self.x.span(self.curves.iter().flat_map(|c| c.density.iter().map(|p| p.0).chain(c.eigenvalues.clone())))?;
        let y = self.heights()?;
        let left = left_margin(y, &self.y.label, HEIGHT);
        let right = WIDTH - 14.0;
        let legend = self.legend();
        let top = legend::height(&legend, left, right) + 10.0;
        let frame = Frame { from: (left, top), to: (right, top + HEIGHT), x, y };
        let rugs = self.curves.iter().filter(|curve| !curve.eigenvalues.is_empty()).count() as f64 * RUG;
        // The rug has a box of its own below the density, with the same axis.
        let rug = Frame { from: (left, top + HEIGHT), to: (right, top + HEIGHT + rugs), x, y };
        let below = rugs + bottom_margin(&self.x.label, right - left);
        let notes = self.notes(&frame);
        let mut canvas = Canvas::new(top + HEIGHT + below + notes.height());
        legend::draw(&mut canvas, &legend, left, right, 2.0);
        frame.grid(&mut canvas);
        canvas.clipped(frame.from, frame.to, |canvas| {
            self.curves.iter().enumerate().for_each(|(i, curve)| curve.draw(canvas, &frame, i));
        });
        self.draw_rugs(&mut canvas, &rug);
        frame.outline(&mut canvas);
        frame.label_y(&mut canvas, Some(&self.y.label));
        rug.outline(&mut canvas);
        rug.label_x(&mut canvas, &self.x.label);
        notes.draw(&mut canvas, top + HEIGHT + below);
        Ok(canvas)
    }

    /// Its numbers: a row for each point of a density, then one for each single eigenvalue.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(["spectrum", "kind", self.x.label.as_str(), self.y.label.as_str()]);
        for curve in &self.curves {
            for (x, y) in &curve.density {
                table.push(vec![curve.name.as_str().into(), "density".into(), (*x).into(), (*y).into()]);
            }
            for eigenvalue in &curve.eigenvalues {
                table.push(vec![curve.name.as_str().into(), "eigenvalue".into(), (*eigenvalue).into(), Cell::Nothing]);
            }
        }
        table
    }

    fn check(&self) -> Result<(), FigureError> {
        if self.curves.is_empty() {
            return Err(FigureError::Empty { what: "a figure of densities".into(), needed: "one spectrum" });
        }
        if self.curves.len() > MOST {
            return Err(FigureError::TooMany { what: "spectra", found: self.curves.len(), most: MOST });
        }
        for curve in &self.curves {
            let what = || format!("the density of {:?}", curve.name);
            if curve.density.len() < 2 {
                return Err(FigureError::Empty { what: what(), needed: "two points" });
            }
            let drawn = |(x, y): &(f64, f64)| self.x.scale.even(*x).is_some() && self.y.scale.even(*y).is_some();
            if !curve.density.iter().any(drawn) {
                return Err(FigureError::NothingToDraw { what: what(), count: curve.density.len() });
            }
        }
        Ok(())
    }

    /// The span of densities. Between two eigenvalues that were broadened a little, a density falls to 1e-300: what is so
    /// far below its peak says nothing, and would leave the peak no room.
    fn heights(&self) -> Result<Span, FigureError> {
        let densities = || self.curves.iter().flat_map(|curve| curve.density.iter().map(|point| point.1));
        let peak = densities().filter(|density| density.is_finite()).fold(0.0, f64::max);
        let least = if self.y.scale == Scale::Log { peak * DEPTH } else { 0.0 };
        self.y.span(densities().filter(|density| !density.is_finite() || *density >= least))
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::new();
        for (i, curve) in self.curves.iter().enumerate() {
            legend.push((Key::Series { look: look(i), line: true, marker: false }, curve.name.clone()));
        }
        let mut eigenvalues = self.curves.iter().flat_map(|curve| &curve.eigenvalues);
        if eigenvalues.clone().any(|value| *value >= 0.0) {
            let colour = if self.curves.len() == 1 { look(0).colour } else { INK };
            legend.push((Key::Rug { colour, width: 1.4 }, "eigenvalue".into()));
        }
        if eigenvalues.any(|value| *value < 0.0) {
            legend.push((Key::Rug { colour: NEGATIVE, width: 3.0 }, "negative".into()));
        }
        legend
    }

    fn notes(&self, frame: &Frame) -> Notes {
        let mut notes = Notes::default();
        for curve in &self.curves {
            // Zero density, and what lies below the box, is where the curve meets its floor: nothing is hidden.
            for (x, y) in curve.density.iter().filter(|(_, y)| !y.is_finite() || *y < 0.0) {
                notes.count(frame.at(*x, *y), true);
            }
            for value in &curve.eigenvalues {
                notes.count(frame.across(*value).map(|x| (x, 0.0)), frame.x.shows(*value));
            }
        }
        notes
    }

    fn draw_rugs(&self, canvas: &mut Canvas, rug: &Frame) {
        let with = self.curves.iter().enumerate().filter(|(_, curve)| !curve.eigenvalues.is_empty());
        for (row, (i, curve)) in with.enumerate() {
            let top = rug.from.1 + row as f64 * RUG;
            for value in curve.eigenvalues.iter().filter(|value| rug.x.shows(**value)) {
                if let Some(x) = rug.across(*value) {
                    let (colour, width) = if *value < 0.0 { (NEGATIVE, 3.0) } else { (look(i).colour, 1.4) };
                    canvas.stroke(&[(x, top + 1.5), (x, top + RUG - 1.5)], Pen::solid(colour, width));
                }
            }
        }
    }
}

impl Curve {
    fn draw(&self, canvas: &mut Canvas, frame: &Frame, index: usize) {
        let look = look(index);
        let floor = frame.to.1 + 4.0;
        let gap = |(x, y): &(f64, f64)| frame.across(*x).is_none() || !y.is_finite();
        for run in self.density.chunk_by(|a, b| !gap(a) && !gap(b)).filter(|run| !gap(&run[0])) {
            let line: Vec<_> = run
                .iter()
                .filter_map(|(x, y)| Some((frame.across(*x)?, frame.up(*y).unwrap_or(floor).min(floor))))
                .collect();
            let (first, last) = (line[0].0, line[line.len() - 1].0);
            canvas.area(&[&[(first, floor)], &line[..], &[(last, floor)]].concat(), look.colour, 0.15);
            canvas.stroke(&line, Pen { colour: look.colour, width: 1.6, dash: look.dash });
        }
    }
}
