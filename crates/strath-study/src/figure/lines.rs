//! Curves: one quantity against another for several series, with their spread.

use super::FigureError;
use super::axis::Axis;
use super::canvas::{Canvas, Pen, WIDTH};
use super::colour::{Look, MOST, look};
use super::frame::{Frame, bottom_margin, left_margin};
use super::legend::{self, Key, Legend};
use super::notes::Notes;
use super::table::{Cell, Table};

/// Between two panels: the halves of a tick's text on both sides.
const GUTTER: f64 = 26.0;
/// Panels that a printed column has room for.
const MOST_PANELS: usize = 2;
/// Height of the data.
const HEIGHT: f64 = 230.0;

/// Curves in one panel, or in two side by side with a common upright axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines {
    /// The upright axis of all panels.
    pub y: Axis,
    /// One or two panels, from left to right.
    pub panels: Vec<Panel>,
}

/// One box of curves.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Its axis from left to right.
    pub x: Axis,
    /// Its curves; those of one name look alike in both panels and have one entry in the legend.
    pub series: Vec<Series>,
}

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its text in the legend; empty: none.
    pub name: String,
    /// Its points, in the order in which they are joined; a value that its axis cannot show is a gap.
    pub points: Vec<Sample>,
    /// How standard errors are shown.
    pub spread: Spread,
    /// How the points are joined.
    pub join: Join,
    /// Whether each point is marked.
    pub marks: Marks,
}

/// One point of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// From left to right.
    pub x: f64,
    /// From bottom to top.
    pub y: f64,
    /// Standard error of `y`, where it is known.
    pub standard_error: Option<f64>,
}

/// How standard errors are shown: one each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spread {
    /// As a band around the line.
    #[default]
    Band,
    /// As a bar at each point.
    Bars,
}

/// How points are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Join {
    /// By a line with the dashes of the series' place in the fixed order, so that print in grey tells them apart.
    #[default]
    InOrder,
    /// By a solid line.
    Solid,
    /// By a dashed line, as for a reference.
    Dashed,
    /// Not at all.
    Apart,
}

/// Whether points are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Marks {
    /// Each, with the marker of the series' place in the fixed order.
    #[default]
    Each,
    /// None, for curves of many points.
    None,
}

impl Series {
    /// A series of points without standard errors, joined in the fixed order and marked.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().map(|(x, y)| Sample { x, y, standard_error: None }).collect();
        let (spread, join, marks) = Default::default();
        Self { name: name.into(), points, spread, join, marks }
    }

    fn look(&self, names: &[&str]) -> Look {
        let index = names.iter().position(|name| *name == self.name).expect("the names are those of the series");
        let dash = match self.join {
            Join::InOrder => look(index).dash,
            Join::Solid | Join::Apart => &[],
            Join::Dashed => &[6.0, 4.0],
        };
        Look { dash, ..look(index) }
    }

    /// Its points in runs between gaps.
    fn runs(&self, frame: &Frame) -> Vec<Vec<Sample>> {
        let drawn = |sample: &Sample| frame.at(sample.x, sample.y).is_some();
        self.points.chunk_by(|a, b| drawn(a) && drawn(b)).map(<[_]>::to_vec).filter(|run| drawn(&run[0])).collect()
    }
}

impl Lines {
    /// Draws the figure.
    pub(super) fn draw(&self) -> Result<Canvas, FigureError> {
        let names = self.check()?;
        let y = self.y.span(self.series().flat_map(|s| s.points.iter().flat_map(Sample::reach)))?;
        let legend = self.legend(&names);
        let left = left_margin(y, &self.y.label, HEIGHT);
        let right = WIDTH - 14.0;
        let top = legend::height(&legend, left, right) + 10.0;
        let count = self.panels.len() as f64;
        let width = (right - left - GUTTER * (count - 1.0)) / count;
        let mut frames = Vec::new();
        for (i, panel) in self.panels.iter().enumerate() {
            let begin = left + i as f64 * (width + GUTTER);
            let x = panel.x.span(panel.series.iter().flat_map(|s| s.points.iter().map(|p| p.x)))?;
            frames.push(Frame { from: (begin, top), to: (begin + width, top + HEIGHT), x, y });
        }
        let below = self.panels.iter().map(|panel| bottom_margin(&panel.x.label, width)).fold(0.0, f64::max);
        let notes = self.notes(&frames);
        let mut canvas = Canvas::new(top + HEIGHT + below + notes.height());
        legend::draw(&mut canvas, &legend, left, right, 2.0);
        for (i, (panel, frame)) in self.panels.iter().zip(&frames).enumerate() {
            frame.grid(&mut canvas);
            canvas.clipped(frame.from, frame.to, |canvas| {
                panel.series.iter().for_each(|series| draw_spread(canvas, frame, series, series.look(&names)));
                panel.series.iter().for_each(|series| draw_line(canvas, frame, series, series.look(&names)));
            });
            // Markers are whole at the edge of the box too.
            panel.series.iter().for_each(|series| draw_marks(&mut canvas, frame, series, series.look(&names)));
            frame.outline(&mut canvas);
            frame.label_x(&mut canvas, &panel.x.label);
            frame.label_y(&mut canvas, (i == 0).then_some(self.y.label.as_str()));
        }
        notes.draw(&mut canvas, top + HEIGHT + below);
        Ok(canvas)
    }

    /// Its numbers: a column for each axis, a row for each point.
    pub(super) fn table(&self) -> Table {
        let mut axes: Vec<&str> = Vec::new();
        self.panels.iter().map(|panel| panel.x.label.as_str()).for_each(|x| {
            if !axes.contains(&x) {
                axes.push(x);
            }
        });
        let columns = [&["series"][..], &axes, &[self.y.label.as_str(), "standard error"]].concat();
        let mut table = Table::new(columns);
        for panel in &self.panels {
            for (series, point) in panel.series.iter().flat_map(|s| s.points.iter().map(move |p| (s, p))) {
                let mut row = vec![series.name.as_str().into()];
                row.extend(axes.iter().map(|x| if *x == panel.x.label { point.x.into() } else { Cell::Nothing }));
                row.extend([point.y.into(), point.standard_error.into()]);
                table.push(row);
            }
        }
        table
    }

    fn series(&self) -> impl Iterator<Item = &Series> {
        self.panels.iter().flat_map(|panel| &panel.series)
    }

    /// The names of its series in the order of their first appearance, if all of them can be drawn.
    fn check(&self) -> Result<Vec<&str>, FigureError> {
        if self.panels.is_empty() {
            return Err(FigureError::Empty { what: "a figure of lines".into(), needed: "one panel" });
        }
        if self.panels.len() > MOST_PANELS {
            return Err(FigureError::TooMany { what: "panels", found: self.panels.len(), most: MOST_PANELS });
        }
        let mut names: Vec<&str> = Vec::new();
        for panel in &self.panels {
            if panel.series.is_empty() {
                let what = format!("the panel over {:?}", panel.x.label);
                return Err(FigureError::Empty { what, needed: "one series" });
            }
            for series in &panel.series {
                let what = || format!("the series {:?} over {:?}", series.name, panel.x.label);
                if series.points.is_empty() {
                    return Err(FigureError::Empty { what: what(), needed: "one point" });
                }
                let drawn = |p: &Sample| panel.x.scale.even(p.x).is_some() && self.y.scale.even(p.y).is_some();
                if !series.points.iter().any(drawn) {
                    return Err(FigureError::NothingToDraw { what: what(), count: series.points.len() });
                }
                if !names.contains(&series.name.as_str()) {
                    names.push(&series.name);
                }
            }
        }
        if names.len() > MOST {
            return Err(FigureError::TooMany { what: "series", found: names.len(), most: MOST });
        }
        Ok(names)
    }

    fn legend(&self, names: &[&str]) -> Legend {
        let key = |name: &&str| {
            let series = self.series().find(|series| series.name == **name).expect("the names are those of the series");
            let (line, marker) = (series.join != Join::Apart, series.marks == Marks::Each);
            (Key::Series { look: series.look(names), line, marker }, (*name).to_string())
        };
        names.iter().filter(|name| !name.is_empty()).map(key).collect()
    }

    fn notes(&self, frames: &[Frame]) -> Notes {
        let mut notes = Notes::default();
        for (panel, frame) in self.panels.iter().zip(frames) {
            for point in panel.series.iter().flat_map(|series| &series.points) {
                notes.count(frame.at(point.x, point.y), frame.shows(point.x, point.y));
            }
        }
        notes
    }
}

impl Sample {
    /// The heights that the axis has to show: the point and its standard error each way.
    fn reach(&self) -> [f64; 3] {
        let error = self.standard_error.unwrap_or(0.0);
        [self.y, self.y - error, self.y + error]
    }
}

fn draw_spread(canvas: &mut Canvas, frame: &Frame, series: &Series, look: Look) {
    // On a logarithmic axis a band may reach below 0: down to the edge of the box then.
    let edge = |y: f64| frame.up(y).unwrap_or(frame.to.1);
    for run in series.runs(frame) {
        let ends = |p: &Sample| p.standard_error.filter(|e| e.is_finite()).map(|e| (edge(p.y - e), edge(p.y + e)));
        let places: Vec<_> = run.iter().filter_map(|p| Some((frame.across(p.x)?, ends(p)))).collect();
        match series.spread {
            Spread::Band => {
                for run in places.chunk_by(|a, b| a.1.is_some() && b.1.is_some()) {
                    let lower = run.iter().filter_map(|(x, ends)| Some((*x, ends.as_ref()?.0)));
                    let upper = run.iter().filter_map(|(x, ends)| Some((*x, ends.as_ref()?.1)));
                    canvas.area(&lower.chain(upper.rev()).collect::<Vec<_>>(), look.colour, 0.2);
                }
            }
            Spread::Bars => {
                let pen = Pen::solid(look.colour, 1.2);
                let bars = places.iter().filter_map(|(x, ends)| Some((*x, (*ends)?)));
                // A line without a length is none.
                for (x, (low, high)) in bars.filter(|(_, (low, high))| low != high) {
                    canvas.stroke(&[(x, low), (x, high)], pen);
                    canvas.stroke(&[(x - 3.0, low), (x + 3.0, low)], pen);
                    canvas.stroke(&[(x - 3.0, high), (x + 3.0, high)], pen);
                }
            }
        }
    }
}

fn draw_line(canvas: &mut Canvas, frame: &Frame, series: &Series, look: Look) {
    if series.join != Join::Apart {
        for run in series.runs(frame) {
            let line: Vec<_> = run.iter().filter_map(|p| frame.at(p.x, p.y)).collect();
            canvas.stroke(&line, Pen { colour: look.colour, width: 1.8, dash: look.dash });
        }
    }
}

fn draw_marks(canvas: &mut Canvas, frame: &Frame, series: &Series, look: Look) {
    if series.marks == Marks::Each {
        for point in series.points.iter().filter(|p| frame.shows(p.x, p.y)) {
            if let Some(at) = frame.at(point.x, point.y) {
                canvas.marker(at, look.marker, 4.0, look.colour);
            }
        }
    }
}
