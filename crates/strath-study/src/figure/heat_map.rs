//! Values of two lists of categories, each written in its cell.

use super::FigureError;
use super::axis::Axis;
use super::canvas::{Anchor, Canvas, Pen, SMALL, TEXT, WIDTH};
use super::colour::{INK, MISSING, PAPER, readable_on, viridis};
use super::colour_bar::ColourBar;
use super::font;
use super::frame::{LINE, below};
use super::notes::Notes;
use super::table::Table;
use super::ticks::ticks;

/// Width of the label on the left.
const LABEL: f64 = 22.0;

/// A value for each pair of categories.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// What the columns are, such as `m`.
    pub x: String,
    /// The columns' names, from left to right.
    pub columns: Vec<String>,
    /// What the rows are, such as `micro`.
    pub y: String,
    /// The rows' names, from top to bottom.
    pub rows: Vec<String>,
    /// The quantity with its unit, and whether its colours follow it or its logarithm.
    pub value: Axis,
    /// The values, row by row; one that is not finite, such as of a combination that does not exist, is a grey cell.
    pub values: Vec<f64>,
    /// Digits after the point in the cells.
    pub decimals: usize,
}

impl HeatMap {
    /// Draws the figure.
    pub(super) fn draw(&self) -> Result<Canvas, FigureError> {
        self.check()?;
        let span = self.value.span(self.values.iter().copied())?;
        let share = |value: f64| span.place(value).map(|place| place.clamp(0.0, 1.0));
        let bar = ColourBar {
            bands: (0..64).map(|i| viridis((f64::from(i) + 0.5) / 64.0)).collect(),
            texts: ticks(span, 6).written.into_iter().filter_map(|(v, text)| Some((span.place(v)?, text))).collect(),
            label: self.value.label.clone(),
        };
        let names = self.rows.iter().map(|name| font::width(name, TEXT)).fold(0.0, f64::max);
        let (left, top, right) = (LABEL + names + 10.0, 10.0, WIDTH - bar.width());
        let width = (right - left) / self.columns.len() as f64;
        let height = (220.0 / self.rows.len() as f64).clamp(24.0, 110.0);
        let bottom = top + height * self.rows.len() as f64;
        let mut notes = Notes::default();
        if self.values.iter().any(|value| share(*value).is_none()) {
            notes.say("Grey: no value.");
        }
        let mut canvas = Canvas::new(bottom + 8.0 + 2.0 * LINE + notes.height());
        for (i, value) in self.values.iter().enumerate() {
            let (row, column) = ((i / self.columns.len()) as f64, (i % self.columns.len()) as f64);
            let (x, y) = (left + column * width, top + row * height);
            let ground = share(*value).map_or(MISSING, viridis);
            let around = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)];
            canvas.outlined(&around, ground, Pen::solid(PAPER, 1.0));
            let text = share(*value).map_or("–".into(), |_| format!("{value:.*}", self.decimals).replace('-', "−"));
            let size = if font::width(&text, TEXT) + 4.0 < width { TEXT } else { SMALL };
            canvas.text((x + width / 2.0, y + height / 2.0), &text, Anchor::Centre, size, readable_on(ground));
        }
        for (i, name) in self.rows.iter().enumerate() {
            canvas.text((left - 8.0, top + (i as f64 + 0.5) * height), name, Anchor::Left, TEXT, INK);
        }
        for (i, name) in self.columns.iter().enumerate() {
            canvas.text((left + (i as f64 + 0.5) * width, bottom + 8.0 + LINE / 2.0), name, Anchor::Centre, TEXT, INK);
        }
        canvas.turned((LABEL / 2.0, f64::midpoint(top, bottom)), &self.y, Anchor::Centre, TEXT, INK, -90.0);
        below(&mut canvas, left, right, bottom + 8.0 + LINE, &self.x);
        bar.draw(&mut canvas, (right, bottom), bottom - top);
        notes.draw(&mut canvas, bottom + 8.0 + 2.0 * LINE);
        Ok(canvas)
    }

    /// Its numbers: a row for each cell.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new([self.y.as_str(), self.x.as_str(), self.value.label.as_str()]);
        for (row, values) in self.rows.iter().zip(self.values.chunks(self.columns.len().max(1))) {
            for (column, value) in self.columns.iter().zip(values) {
                table.push(vec![row.as_str().into(), column.as_str().into(), (*value).into()]);
            }
        }
        table
    }

    fn check(&self) -> Result<(), FigureError> {
        for (what, names) in [("columns", &self.columns), ("rows", &self.rows)] {
            if names.is_empty() {
                return Err(FigureError::Empty { what: format!("the {what} of a heat map"), needed: "one name" });
            }
        }
        let expected = self.columns.len() * self.rows.len();
        if self.values.len() != expected {
            return Err(FigureError::Count { what: "a heat map".into(), found: self.values.len(), expected });
        }
        Ok(())
    }
}
