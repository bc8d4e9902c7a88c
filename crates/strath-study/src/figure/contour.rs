//! A landscape from above: bands of colour between labelled isolines.

use super::FigureError;
use super::axis::{Axis, Span};
use super::canvas::{Anchor, Canvas, Pen, Point, SMALL, WIDTH};
use super::colour::{MISSING, PAPER, Rgb, readable_on, viridis};
use super::colour_bar::ColourBar;
use super::frame::{Frame, bottom_margin, left_margin};
use super::grid::{Field, Grid};
use super::isoline::{Loop, Side, loops};
use super::levels::levels;
use super::line_label::{Labelled, Labels};
use super::notes::Notes;
use super::table::Table;
use super::ticks::short;

/// How many levels can still be told apart.
const MOST_LEVELS: usize = 12;

/// A landscape with its isolines.
#[derive(Debug, Clone, PartialEq)]
pub struct Contour {
    /// What goes from left to right, such as `α`.
    pub x: String,
    /// What goes from bottom to top, such as `β`.
    pub y: String,
    /// The value with its unit; whether levels are even in it or in its logarithm; limits hold the values within them.
    pub value: Axis,
    /// The values.
    pub grid: Grid,
    /// The levels; none: round ones.
    pub levels: Option<Vec<f64>>,
    /// Points to mark, such as the minimum in the centre.
    pub marks: Vec<Mark>,
}

/// A marked point of a landscape.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// From left to right.
    pub x: f64,
    /// From bottom to top.
    pub y: f64,
    /// What is written beside it.
    pub name: String,
}

impl Contour {
    /// Draws the figure.
    pub(super) fn draw(&self) -> Result<Canvas, FigureError> {
        self.grid.check(&format!("the landscape of {:?}", self.value.label))?;
        let span = tight(&self.value, &self.grid)?;
        let levels = self.levels(span)?;
        let bar = bar(&levels, &self.value);
        let (x, y) = self.grid.spans();
        let top = 10.0;
        let right = WIDTH - bar.width();
        // The margin depends on the height, the height on the room that the margin leaves: nearly square.
        let left = left_margin(y, &self.y, right - 60.0);
        let height = ((right - left) * (y.high - y.low) / (x.high - x.low)).clamp(180.0, 420.0);
        let frame = Frame { from: (left, top), to: (right, top + height), x, y };
        let under = bottom_margin(&self.x, right - left);
        let notes = self.notes(&frame, span);
        let mut canvas = Canvas::new(top + height + under + notes.height());
        let field = self.grid.field(span);
        canvas.clipped(frame.from, frame.to, |canvas| {
            draw_bands(canvas, &frame, &field, &levels);
            self.draw_missing(canvas, &frame);
            self.draw_isolines(canvas, &frame, &field, &levels);
        });
        self.draw_marks(&mut canvas, &frame, span, &levels);
        frame.outline(&mut canvas);
        frame.label_x(&mut canvas, &self.x);
        frame.label_y(&mut canvas, Some(&self.y));
        bar.draw(&mut canvas, frame.to, height);
        notes.draw(&mut canvas, top + height + under);
        Ok(canvas)
    }

    /// Its numbers: a row for each point of the grid.
    pub(super) fn table(&self) -> Table {
        table(&self.x, &self.y, &self.value.label, &self.grid)
    }

    /// The levels in units in which the axis is even, ascending.
    fn levels(&self, span: Span) -> Result<Vec<f64>, FigureError> {
        let values = self.levels.clone().unwrap_or_else(|| levels(span, MOST_LEVELS));
        let what = || format!("the levels of {:?}", self.value.label);
        let even: Vec<f64> = values.iter().filter_map(|level| span.scale.even(*level)).collect();
        if even.len() < values.len() {
            return Err(FigureError::NothingToDraw { what: what(), count: values.len() - even.len() });
        }
        if let Some(pair) = values.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(FigureError::Order { what: what(), found: pair[1], before: pair[0] });
        }
        Ok(even)
    }

    fn notes(&self, frame: &Frame, span: Span) -> Notes {
        let mut notes = Notes::default();
        let all = self.grid.values.len();
        let count = |of: &dyn Fn(f64) -> bool| self.grid.values.iter().filter(|value| of(**value)).count();
        let missing = count(&|value| !value.is_finite());
        if missing > 0 {
            notes.say(format!("Grey: not finite ({missing} of {all} points)."));
        }
        let held = count(&|value| value.is_finite() && !span.shows(value));
        if held > 0 {
            notes.say(format!("{held} of {all} points are beyond the colours: drawn as the nearest."));
        }
        self.marks.iter().for_each(|mark| notes.count(frame.at(mark.x, mark.y), frame.shows(mark.x, mark.y)));
        notes
    }

    fn draw_missing(&self, canvas: &mut Canvas, frame: &Frame) {
        let edges = |of: &[f64], i: usize| {
            let before = f64::midpoint(of[i.saturating_sub(1)], of[i]);
            (before, f64::midpoint(of[i], of[(i + 1).min(of.len() - 1)]))
        };
        for (a, b, _) in self.grid.points().filter(|(_, _, value)| !value.is_finite()) {
            let ((x0, x1), (y0, y1)) = (edges(&self.grid.alpha, a), edges(&self.grid.beta, b));
            if let (Some(from), Some(to)) = (frame.at(x0, y1), frame.at(x1, y0)) {
                canvas.rectangle(from, to, MISSING);
            }
        }
    }

    fn draw_isolines(&self, canvas: &mut Canvas, frame: &Frame, field: &Field, levels: &[f64]) {
        let marks = self.marks.iter().filter_map(|mark| frame.at(mark.x, mark.y));
        let mut labels = Labels::new(frame, marks.collect());
        for (i, level) in levels.iter().enumerate() {
            let colour = ink(i, levels.len());
            let text = short(self.value.scale.value(*level));
            let mut lines: Vec<_> = loops(field, *level).iter().flat_map(Loop::isolines).collect();
            lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
            for line in lines {
                let Labelled { pieces, label } = labels.place(&pixels(frame, &line), &text, SMALL);
                for piece in pieces {
                    canvas.stroke(&piece, Pen::solid(colour, 1.0));
                }
                if let Some((at, degrees)) = label {
                    canvas.turned(at, &text, Anchor::Centre, SMALL, colour, degrees);
                }
            }
        }
    }

    fn draw_marks(&self, canvas: &mut Canvas, frame: &Frame, span: Span, levels: &[f64]) {
        let held = self.grid.held(span);
        for mark in self.marks.iter().filter(|mark| frame.shows(mark.x, mark.y)) {
            let Some(at) = frame.at(mark.x, mark.y) else { continue };
            let nearest = |of: &[f64], to: f64| {
                (0..of.len()).min_by(|a, b| (of[*a] - to).abs().total_cmp(&(of[*b] - to).abs())).unwrap_or(0)
            };
            let (a, b) = (nearest(&self.grid.alpha, mark.x), nearest(&self.grid.beta, mark.y));
            let here = held[b * self.grid.alpha.len() + a];
            let ground = band(levels.iter().filter(|level| **level <= here).count(), levels.len());
            let cross = |canvas: &mut Canvas, pen: Pen| {
                canvas.stroke(&[(at.0 - 5.0, at.1), (at.0 + 5.0, at.1)], pen);
                canvas.stroke(&[(at.0, at.1 - 5.0), (at.0, at.1 + 5.0)], pen);
            };
            let (front, back) = if readable_on(ground) == PAPER { (PAPER, (0, 0, 0)) } else { ((0, 0, 0), PAPER) };
            cross(canvas, Pen::solid(back, 4.0));
            cross(canvas, Pen::solid(front, 2.0));
            canvas.text((at.0 + 9.0, at.1 - 9.0), &mark.name, Anchor::Right, SMALL, front);
        }
    }
}

fn draw_bands(canvas: &mut Canvas, frame: &Frame, field: &Field, levels: &[f64]) {
    canvas.rectangle(frame.from, frame.to, band(0, levels.len()));
    let mut all: Vec<(usize, Loop)> = Vec::new();
    for (i, level) in levels.iter().enumerate() {
        all.extend(loops(field, *level).into_iter().map(|found| (i, found)));
    }
    // Isolines never cross, so a loop lies within every larger one that it touches: painted from the largest, each shows
    // the band just inside of it. Of equals (the border) the highest is the last.
    all.sort_by(|a, b| b.1.area.total_cmp(&a.1.area).then(a.0.cmp(&b.0)));
    for (i, found) in all {
        let inside = if found.above == Side::Inside { i + 1 } else { i };
        canvas.area(&pixels(frame, &found.points), band(inside, levels.len()), 1.0);
    }
}

/// The span of a landscape's values without room around them.
pub(super) fn tight(value: &Axis, grid: &Grid) -> Result<Span, FigureError> {
    let padded = value.span(grid.values.iter().copied())?;
    if value.limits.is_some() {
        return Ok(padded);
    }
    let shown = || grid.values.iter().filter_map(|v| value.scale.even(*v));
    let (low, high) = shown().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    // A landscape of one value keeps its room: it has a colour, too.
    Ok(if low < high { Span { low, high, ..padded } } else { padded })
}

/// A grid's numbers.
pub(super) fn table(x: &str, y: &str, value: &str, grid: &Grid) -> Table {
    let mut table = Table::new([x, y, value]);
    for (a, b, value) in grid.points() {
        table.push(vec![grid.alpha[a].into(), grid.beta[b].into(), value.into()]);
    }
    table
}

fn bar(levels: &[f64], value: &Axis) -> ColourBar {
    let count = levels.len() as f64 + 1.0;
    let text = |(i, level): (usize, &f64)| ((i as f64 + 1.0) / count, short(value.scale.value(*level)));
    ColourBar {
        bands: (0..=levels.len()).map(|i| band(i, levels.len())).collect(),
        texts: levels.iter().enumerate().map(text).collect(),
        label: value.label.clone(),
    }
}

/// The colour of band `index` between `levels` levels.
fn band(index: usize, levels: usize) -> Rgb {
    viridis((index as f64 + 0.5) / (levels as f64 + 1.0))
}

/// The colour of the isoline between band `index` and the next.
fn ink(index: usize, levels: usize) -> Rgb {
    readable_on(viridis((index as f64 + 1.0) / (levels as f64 + 1.0)))
}

fn pixels(frame: &Frame, points: &[Point]) -> Vec<Point> {
    points.iter().filter_map(|(x, y)| frame.at(*x, *y)).collect()
}
