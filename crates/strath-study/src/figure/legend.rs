//! The legend: a line above the data, so that it never covers any.

use super::canvas::{Anchor, Canvas, Pen, TEXT};
use super::colour::{INK, Look, Rgb};
use super::font;

/// Height of a row of the legend.
pub(super) const ROW: f64 = 20.0;
/// Width of a key with the room to its text.
const KEY: f64 = 33.0;
/// Between two entries.
const BETWEEN: f64 = 12.0;

/// What stands before an entry's text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    /// A piece of a line, where it has one, and the marker, where it has one.
    Series { look: Look, line: bool, marker: bool },
    /// A short upright line.
    Rug { colour: Rgb, width: f64 },
}

/// A legend: keys with their texts.
pub(super) type Legend = Vec<(Key, String)>;

/// Draws `legend` between `left` and `right` of the data, below `top`. One that would need a second row there begins at the
/// edge of the sheet instead.
pub(super) fn draw(canvas: &mut Canvas, legend: &Legend, left: f64, right: f64, top: f64) {
    let begin = begin(legend, left, right);
    for (row, entries) in rows(legend, right - begin).into_iter().enumerate() {
        let y = top + (row as f64 + 0.5) * ROW;
        let mut x = begin;
        for (key, text) in entries {
            draw_key(canvas, *key, x, y);
            canvas.text((x + KEY, y), text, Anchor::Right, TEXT, INK);
            x += width(text) + BETWEEN;
        }
    }
}

/// Pixels that `legend` takes above the data.
pub(super) fn height(legend: &Legend, left: f64, right: f64) -> f64 {
    rows(legend, right - begin(legend, left, right)).len() as f64 * ROW
}

fn begin(legend: &Legend, left: f64, right: f64) -> f64 {
    if rows(legend, right - left).len() > 1 { 8.0 } else { left }
}

fn draw_key(canvas: &mut Canvas, key: Key, x: f64, y: f64) {
    let (begin, middle, end) = (x, x + 14.0, x + 28.0);
    match key {
        Key::Series { look, line, marker } => {
            if line {
                canvas.stroke(&[(begin, y), (end, y)], Pen { colour: look.colour, width: 1.8, dash: look.dash });
            }
            if marker {
                canvas.marker((middle, y), look.marker, 4.0, look.colour);
            }
        }
        Key::Rug { colour, width } => {
            canvas.stroke(&[(middle, y - 6.0), (middle, y + 6.0)], Pen::solid(colour, width));
        }
    }
}

fn width(text: &str) -> f64 {
    KEY + font::width(text, TEXT)
}

fn rows(legend: &Legend, room: f64) -> Vec<&[(Key, String)]> {
    let (mut rows, mut begin, mut taken) = (Vec::new(), 0, 0.0);
    for (i, (_, text)) in legend.iter().enumerate() {
        let more = width(text) + if i > begin { BETWEEN } else { 0.0 };
        if i > begin && taken + more > room {
            rows.push(&legend[begin..i]);
            (begin, taken) = (i, width(text));
        } else {
            taken += more;
        }
    }
    if begin < legend.len() {
        rows.push(&legend[begin..]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_do_not_fit_begin_a_new_row() {
        let entry = |text: &str| (Key::Rug { colour: INK, width: 1.0 }, text.to_string());
        let legend = vec![entry("m = 1"), entry("m = 8"), entry("m = 64"), entry("m = batch")];
        assert_eq!(rows(&legend, 480.0).iter().map(|row| row.len()).collect::<Vec<_>>(), [4]);
        assert_eq!(rows(&legend, 220.0).iter().map(|row| row.len()).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(rows(&legend, 1.0).len(), 4);
        assert_eq!(height(&Vec::new(), 50.0, 480.0), 0.0);
    }
}
