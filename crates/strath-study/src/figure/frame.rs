//! The box that data is drawn in, with its ticks and labels.

use super::axis::Span;
use super::canvas::{Anchor, Canvas, Pen, Point, TEXT};
use super::colour::{GRID, INK};
use super::font;
use super::ticks::{Ticks, across, ticks};

/// Height of a line of text.
pub(super) const LINE: f64 = 18.0;
/// From a frame to its ticks' texts.
const GAP: f64 = 7.0;

/// A box of two axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// Pixels of its upper left corner.
    pub(super) from: Point,
    /// Pixels of its lower right corner.
    pub(super) to: Point,
    /// From left to right.
    pub(super) x: Span,
    /// From bottom to top.
    pub(super) y: Span,
}

impl Frame {
    /// Where a point of the data lies; none where an axis has no place for it.
    pub(super) fn at(&self, x: f64, y: f64) -> Option<Point> {
        Some((self.across(x)?, self.up(y)?))
    }

    /// Pixels from the left of `x`.
    pub(super) fn across(&self, x: f64) -> Option<f64> {
        self.x.place(x).map(|place| self.from.0 + place * (self.to.0 - self.from.0))
    }

    /// Pixels from the top of `y`.
    pub(super) fn up(&self, y: f64) -> Option<f64> {
        self.y.place(y).map(|place| self.to.1 - place * (self.to.1 - self.from.1))
    }

    /// Whether a point of the data lies inside.
    pub(super) fn shows(&self, x: f64, y: f64) -> bool {
        self.x.shows(x) && self.y.shows(y)
    }

    /// The ticks of the axis from left to right.
    pub(super) fn x_ticks(&self) -> Ticks {
        across(self.x, self.to.0 - self.from.0, TEXT)
    }

    /// The ticks of the axis from bottom to top.
    pub(super) fn y_ticks(&self) -> Ticks {
        ticks(self.y, (((self.to.1 - self.from.1) / 32.0) as usize).clamp(2, 8))
    }

    /// The lines behind the data, at the written ticks.
    pub(super) fn grid(&self, canvas: &mut Canvas) {
        let pen = Pen::solid(GRID, 0.8);
        for x in self.x_ticks().written.iter().filter_map(|(value, _)| self.across(*value)) {
            canvas.stroke(&[(x, self.from.1), (x, self.to.1)], pen);
        }
        for y in self.y_ticks().written.iter().filter_map(|(value, _)| self.up(*value)) {
            canvas.stroke(&[(self.from.0, y), (self.to.0, y)], pen);
        }
    }

    /// The box itself, over the data.
    pub(super) fn outline(&self, canvas: &mut Canvas) {
        let ((left, top), (right, bottom)) = (self.from, self.to);
        let around = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top), (right, top)];
        canvas.stroke(&around, Pen::solid(INK, 1.0));
    }

    /// Ticks, their texts and the label below the box.
    pub(super) fn label_x(&self, canvas: &mut Canvas, label: &str) {
        let ticks = self.x_ticks();
        let bottom = self.to.1;
        for x in ticks.minor.iter().filter_map(|value| self.across(*value)) {
            canvas.stroke(&[(x, bottom), (x, bottom + 2.5)], Pen::solid(INK, 0.8));
        }
        for (value, text) in &ticks.written {
            if let Some(x) = self.across(*value) {
                canvas.stroke(&[(x, bottom), (x, bottom + 5.0)], Pen::solid(INK, 1.0));
                canvas.text((x, bottom + GAP + LINE / 2.0), text, Anchor::Centre, TEXT, INK);
            }
        }
        below(canvas, self.from.0, self.to.0, bottom + GAP + LINE, label);
    }

    /// Ticks on the left of the box, and with `label` their texts and the label beside them.
    pub(super) fn label_y(&self, canvas: &mut Canvas, label: Option<&str>) {
        let ticks = self.y_ticks();
        let left = self.from.0;
        for y in ticks.minor.iter().filter_map(|value| self.up(*value)) {
            canvas.stroke(&[(left - 2.5, y), (left, y)], Pen::solid(INK, 0.8));
        }
        for (value, text) in &ticks.written {
            if let Some(y) = self.up(*value) {
                canvas.stroke(&[(left - 5.0, y), (left, y)], Pen::solid(INK, 1.0));
                if label.is_some() {
                    canvas.text((left - GAP, y), text, Anchor::Left, TEXT, INK);
                }
            }
        }
        if let Some(label) = label {
            let lines = font::wrap(label, self.to.1 - self.from.1, TEXT);
            let right = left - GAP - widest(&ticks) - 4.0;
            for (i, line) in lines.iter().rev().enumerate() {
                let x = right - (i as f64 + 0.5) * LINE;
                canvas.turned((x, f64::midpoint(self.from.1, self.to.1)), line, Anchor::Centre, TEXT, INK, -90.0);
            }
        }
    }
}

/// Pixels that the ticks of `y` and a label beside a box of `height` take on its left.
pub(super) fn left_margin(y: Span, label: &str, height: f64) -> f64 {
    let ticks = ticks(y, ((height / 32.0) as usize).clamp(2, 8));
    GAP + widest(&ticks) + 4.0 + LINE * font::wrap(label, height, TEXT).len() as f64
}

/// Pixels that ticks and a label below a box of `width` take.
pub(super) fn bottom_margin(label: &str, width: f64) -> f64 {
    GAP + LINE + LINE * font::wrap(label, width, TEXT).len() as f64
}

/// A label in as many lines as it needs between `left` and `right`.
pub(super) fn below(canvas: &mut Canvas, left: f64, right: f64, top: f64, label: &str) {
    for (i, line) in font::wrap(label, right - left, TEXT).iter().enumerate() {
        let at = (f64::midpoint(left, right), top + (i as f64 + 0.5) * LINE);
        canvas.text(at, line, Anchor::Centre, TEXT, INK);
    }
}

fn widest(ticks: &Ticks) -> f64 {
    ticks.written.iter().map(|(_, text)| font::width(text, TEXT)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::axis::Scale;

    #[test]
    fn the_corners_of_the_data_are_those_of_the_box() {
        let span = |low, high| Span { scale: Scale::Linear, low, high };
        let frame = Frame { from: (50.0, 10.0), to: (250.0, 110.0), x: span(0.0, 1.0), y: span(-1.0, 1.0) };
        assert_eq!(frame.at(0.0, -1.0), Some((50.0, 110.0)));
        assert_eq!(frame.at(1.0, 1.0), Some((250.0, 10.0)));
        assert_eq!(frame.at(f64::NAN, 1.0), None);
        assert!(frame.shows(0.5, 0.0) && !frame.shows(0.5, 2.0));
    }
}
