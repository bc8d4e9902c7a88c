//! The colour bar beside a grid: which colour stands for which value.

use super::canvas::{Anchor, Canvas, Pen, Point, TEXT};
use super::colour::{INK, Rgb};
use super::font;

/// From the data to the bar.
const BEFORE: f64 = 12.0;
/// Width of the bar.
const BAR: f64 = 16.0;
/// From the bar to its texts.
const GAP: f64 = 7.0;
/// Width of the label beside the texts.
const LABEL: f64 = 20.0;

/// A bar of bands from bottom to top.
pub(super) struct ColourBar {
    /// The colours of the bands.
    pub(super) bands: Vec<Rgb>,
    /// Texts, with their place from 0 at the bottom to 1 at the top.
    pub(super) texts: Vec<(f64, String)>,
    /// The quantity with its unit.
    pub(super) label: String,
}

impl ColourBar {
    /// Pixels that it takes to the right of the data.
    pub(super) fn width(&self) -> f64 {
        let widest = self.texts.iter().map(|(_, text)| font::width(text, TEXT)).fold(0.0, f64::max);
        BEFORE + BAR + GAP + widest + LABEL + 2.0
    }

    /// Draws it to the right of a box that ends at `corner` and is `height` high.
    pub(super) fn draw(&self, canvas: &mut Canvas, corner: Point, height: f64) {
        let (left, bottom) = (corner.0 + BEFORE, corner.1);
        let at = |place: f64| bottom - place * height;
        let count = self.bands.len() as f64;
        for (i, colour) in self.bands.iter().enumerate() {
            // Each reaches below the next one, so that no seam shows.
            canvas.rectangle((left, at(1.0)), (left + BAR, at(i as f64 / count)), *colour);
        }
        let around = [(left, at(0.0)), (left + BAR, at(0.0)), (left + BAR, at(1.0)), (left, at(1.0)), (left, at(0.0))];
        canvas.stroke(&around, Pen::solid(INK, 1.0));
        let mut free = f64::INFINITY;
        for (place, text) in &self.texts {
            let y = at(*place);
            canvas.stroke(&[(left + BAR, y), (left + BAR + 4.0, y)], Pen::solid(INK, 1.0));
            // A text that would touch the one below is left out; its tick stays.
            if y + 8.0 <= free {
                canvas.text((left + BAR + GAP, y), text, Anchor::Right, TEXT, INK);
                free = y - 8.0;
            }
        }
        let x = corner.0 + self.width() - LABEL / 2.0;
        canvas.turned((x, bottom - height / 2.0), &self.label, Anchor::Centre, TEXT, INK, -90.0);
    }
}
