//! A few numbered values, such as the largest eigenvalues, of several sets side by side.

use super::FigureError;
use super::axis::{Axis, Scale, Span};
use super::canvas::{Anchor, Canvas, Pen, TEXT, WIDTH};
use super::colour::{INK, MOST, look};
use super::frame::{Frame, below, bottom_margin, left_margin};
use super::legend::{self, Key, Legend};
use super::notes::Notes;
use super::table::Table;

/// Height of the data.
const HEIGHT: f64 = 210.0;

/// Sets of numbered values: value 1 of all sets side by side, then value 2, and so on.
#[derive(Debug, Clone, PartialEq)]
pub struct Stems {
    /// What is numbered, such as `eigenvalue k`.
    pub x: String,
    /// The axis of the values.
    pub y: Axis,
    /// The sets.
    pub sets: Vec<Stem>,
}

/// One set.
#[derive(Debug, Clone, PartialEq)]
pub struct Stem {
    /// Its text in the legend, such as the checkpoint's name.
    pub name: String,
    /// Its values, from number 1.
    pub values: Vec<f64>,
}

impl Stems {
    /// Draws the figure.
    pub(super) fn draw(&self) -> Result<Canvas, FigureError> {
        let count = self.check()?;
        let y = self.heights()?;
        let left = left_margin(y, &self.y.label, HEIGHT);
        let right = WIDTH - 14.0;
        let legend: Legend = self.sets.iter().enumerate().map(|(i, set)| (key(i), set.name.clone())).collect();
        let top = legend::height(&legend, left, right) + 10.0;
        let x = Span { scale: Scale::Linear, low: 0.4, high: count as f64 + 0.6 };
        let frame = Frame { from: (left, top), to: (right, top + HEIGHT), x, y };
        let under = bottom_margin(&self.x, right - left);
        let mut notes = Notes::default();
        let all = self.sets.iter().flat_map(|set| set.values.iter().enumerate());
        all.for_each(|(k, v)| notes.count(frame.at(k as f64 + 1.0, *v), frame.y.shows(*v)));
        let mut canvas = Canvas::new(top + HEIGHT + under + notes.height());
        legend::draw(&mut canvas, &legend, left, right, 2.0);
        // Lines behind the data help to read heights; those of the numbers would run through the stems.
        let foot = frame.up(0.0).unwrap_or(frame.to.1).clamp(frame.from.1, frame.to.1);
        for at in frame.y_ticks().written.iter().filter_map(|(value, _)| frame.up(*value)) {
            canvas.stroke(&[(left, at), (right, at)], Pen::solid(super::colour::GRID, 0.8));
        }
        canvas.stroke(&[(left, foot), (right, foot)], Pen::solid(INK, 1.0));
        for (i, set) in self.sets.iter().enumerate() {
            // The sets of one number share 0.6 of its room.
            let offset = (i as f64 + 0.5) / self.sets.len() as f64 * 0.6 - 0.3;
            for (k, value) in set.values.iter().enumerate().filter(|(_, value)| frame.y.shows(**value)) {
                if let Some((x, end)) = frame.at(k as f64 + 1.0 + offset, *value) {
                    canvas.stroke(&[(x, foot), (x, end)], Pen::solid(look(i).colour, 2.2));
                    canvas.marker((x, end), look(i).marker, 4.0, look(i).colour);
                }
            }
        }
        frame.outline(&mut canvas);
        frame.label_y(&mut canvas, Some(&self.y.label));
        self.number(&mut canvas, &frame, count);
        notes.draw(&mut canvas, top + HEIGHT + under);
        Ok(canvas)
    }

    /// Its numbers: a row for each value of each set.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(["set", self.x.as_str(), self.y.label.as_str()]);
        for set in &self.sets {
            for (k, value) in set.values.iter().enumerate() {
                table.push(vec![set.name.as_str().into(), (k as f64 + 1.0).into(), (*value).into()]);
            }
        }
        table
    }

    /// The largest number, if all sets can be drawn.
    fn check(&self) -> Result<usize, FigureError> {
        if self.sets.is_empty() {
            return Err(FigureError::Empty { what: "a figure of stems".into(), needed: "one set" });
        }
        if self.sets.len() > MOST {
            return Err(FigureError::TooMany { what: "sets", found: self.sets.len(), most: MOST });
        }
        for set in &self.sets {
            let what = || format!("the set {:?}", set.name);
            if set.values.is_empty() {
                return Err(FigureError::Empty { what: what(), needed: "one value" });
            }
            if !set.values.iter().any(|value| self.y.scale.even(*value).is_some()) {
                return Err(FigureError::NothingToDraw { what: what(), count: set.values.len() });
            }
        }
        Ok(self.sets.iter().map(|set| set.values.len()).max().unwrap_or(0))
    }

    fn heights(&self) -> Result<Span, FigureError> {
        let values = self.sets.iter().flat_map(|set| set.values.iter().copied());
        // A stem's length is its value, so on a linear axis 0 is shown.
        let zero = (self.y.scale == Scale::Linear && self.y.limits.is_none()).then_some(0.0);
        self.y.span(values.chain(zero))
    }

    fn number(&self, canvas: &mut Canvas, frame: &Frame, count: usize) {
        let room = (frame.to.0 - frame.from.0) / count as f64;
        let every = (24.0 / room).ceil() as usize;
        for k in (1..=count).filter(|k| (k - 1) % every == 0) {
            if let Some(x) = frame.across(k as f64) {
                canvas.text((x, frame.to.1 + 16.0), &k.to_string(), Anchor::Centre, TEXT, INK);
            }
        }
        below(canvas, frame.from.0, frame.to.0, frame.to.1 + 25.0, &self.x);
    }
}

fn key(set: usize) -> Key {
    Key::Series { look: super::colour::Look { dash: &[], ..look(set) }, line: true, marker: true }
}
