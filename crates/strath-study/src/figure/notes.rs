//! What a figure says below itself of values that it does not show.

use super::canvas::{Anchor, Canvas, Point, SMALL, WIDTH};
use super::colour::INK;
use super::font;

/// Height of a line of notes.
const LINE: f64 = 16.0;

/// Notes being gathered.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    absent: usize,
    outside: usize,
    texts: Vec<String>,
}

impl Notes {
    /// Counts a value of the data: `place` is where it lies, if its axes have a place for it, `shown` whether within them.
    pub(super) fn count(&mut self, place: Option<Point>, shown: bool) {
        match place {
            None => self.absent += 1,
            Some(_) if !shown => self.outside += 1,
            Some(_) => {}
        }
    }

    /// Adds a sentence.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.texts.push(text.into());
    }

    fn lines(&self) -> Vec<String> {
        let values = |n: usize| if n == 1 { "1 value".to_string() } else { format!("{n} values") };
        let mut texts = self.texts.clone();
        if self.absent > 0 {
            texts.push(format!("{} not shown: not finite, or not above 0 on a logarithmic axis.", values(self.absent)));
        }
        if self.outside > 0 {
            texts.push(format!("{} outside of the axes.", values(self.outside)));
        }
        texts.iter().flat_map(|text| font::wrap(text, WIDTH - 16.0, SMALL)).collect()
    }

    /// Pixels that the notes take, with the rim of the sheet.
    pub(super) fn height(&self) -> f64 {
        4.0 + LINE * self.lines().len() as f64
    }

    /// Writes the notes below `top`.
    pub(super) fn draw(&self, canvas: &mut Canvas, top: f64) {
        for (i, line) in self.lines().iter().enumerate() {
            canvas.text((8.0, top + (i as f64 + 0.5) * LINE), line, Anchor::Right, SMALL, INK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_not_shown_are_counted() {
        let mut notes = Notes::default();
        notes.count(Some((1.0, 1.0)), true);
        assert!(notes.lines().is_empty());
        notes.count(None, false);
        notes.count(Some((1.0, 1.0)), false);
        notes.count(Some((1.0, 1.0)), false);
        assert!(notes.lines()[0].starts_with("1 value not shown"), "{notes:?}");
        assert_eq!(notes.lines().last().unwrap(), "2 values outside of the axes.");
    }
}
