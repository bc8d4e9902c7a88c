//! Where isolines carry their level: in a gap of the line, along it, where it is straight and others are far.

use super::canvas::Point;
use super::font;
use super::frame::Frame;

/// Pixels between the places that are tried along a line.
const STRIDE: f64 = 4.0;
/// A label's place is straight enough where the chord is at least this share of the way along the line.
const STRAIGHT: f64 = 0.97;
/// Pixels that labels keep from each other, from marks and from the edge of the box.
const APART: f64 = 30.0;

/// The labels of a landscape's isolines so far.
pub(super) struct Labels<'a> {
    frame: &'a Frame,
    taken: Vec<Point>,
}

/// A line with the gap for its label, if it has one.
pub(super) struct Labelled {
    /// What is left of the line.
    pub(super) pieces: Vec<Vec<Point>>,
    /// The middle of the label and its turn in degrees, clockwise.
    pub(super) label: Option<(Point, f64)>,
}

impl<'a> Labels<'a> {
    /// No labels yet in `frame`, and none near `marks`.
    pub(super) fn new(frame: &'a Frame, marks: Vec<Point>) -> Self {
        Self { frame, taken: marks }
    }

    /// Finds a place for `text` on `line`; one that is too short or crooked has none.
    pub(super) fn place(&mut self, line: &[Point], text: &str, size: u32) -> Labelled {
        let along = lengths(line);
        let length = along[along.len() - 1];
        let gap = font::width(text, size) + 6.0;
        let unlabelled = || Labelled { pieces: vec![line.to_vec()], label: None };
        // A short line would be all label.
        if length < 2.0 * gap {
            return unlabelled();
        }
        let tries = (0..).map(|i| f64::from(i) * STRIDE).take_while(|begin| begin + gap <= length);
        let places = tries.filter_map(|begin| {
            let (a, b) = (point(line, &along, begin), point(line, &along, begin + gap));
            let middle = point(line, &along, begin + gap / 2.0);
            let straight = (b.0 - a.0).hypot(b.1 - a.1) / gap;
            // Of the places with room the straightest, a little rather in the middle of the line than at its ends.
            let score = straight - 0.02 * (begin + gap / 2.0 - length / 2.0).abs() / length;
            (straight >= STRAIGHT && self.room(middle) >= APART && self.inside(middle, gap / 2.0))
                .then_some((score, begin, a, b))
        });
        let Some((_, begin, a, b)) = places.max_by(|x, y| x.0.total_cmp(&y.0)) else { return unlabelled() };
        let middle = (f64::midpoint(a.0, b.0), f64::midpoint(a.1, b.1));
        self.taken.push(middle);
        let degrees = (b.1 - a.1).atan2(b.0 - a.0).to_degrees();
        // Never upside down.
        let upright = if degrees > 90.0 {
            degrees - 180.0
        } else if degrees < -90.0 {
            degrees + 180.0
        } else {
            degrees
        };
        let before: Vec<Point> = cut(line, &along, 0.0, begin);
        let after: Vec<Point> = cut(line, &along, begin + gap, length);
        Labelled { pieces: vec![before, after], label: Some((middle, upright)) }
    }

    fn room(&self, at: Point) -> f64 {
        self.taken.iter().map(|(x, y)| (x - at.0).hypot(y - at.1)).fold(f64::INFINITY, f64::min)
    }

    fn inside(&self, (x, y): Point, half: f64) -> bool {
        let ((left, top), (right, bottom)) = (self.frame.from, self.frame.to);
        x - half > left && x + half < right && y - half > top && y + half < bottom
    }
}

/// Pixels along the line from its beginning to each of its points.
fn lengths(line: &[Point]) -> Vec<f64> {
    let mut total = 0.0;
    let steps = line.windows(2).map(|pair| (pair[1].0 - pair[0].0).hypot(pair[1].1 - pair[0].1));
    std::iter::once(0.0)
        .chain(steps.map(|step| {
            total += step;
            total
        }))
        .collect()
}

/// The point of the line after `distance` pixels.
fn point(line: &[Point], along: &[f64], distance: f64) -> Point {
    let after = along.partition_point(|at| *at < distance).clamp(1, line.len() - 1);
    let (a, b) = (line[after - 1], line[after]);
    let step = along[after] - along[after - 1];
    let share = if step > 0.0 { ((distance - along[after - 1]) / step).clamp(0.0, 1.0) } else { 0.0 };
    (a.0 + share * (b.0 - a.0), a.1 + share * (b.1 - a.1))
}

/// The part of the line between two distances.
fn cut(line: &[Point], along: &[f64], from: f64, to: f64) -> Vec<Point> {
    let between = line.iter().zip(along).filter(|(_, at)| **at > from && **at < to).map(|(point, _)| *point);
    let ends = (point(line, along, from), point(line, along, to));
    std::iter::once(ends.0).chain(between).chain(std::iter::once(ends.1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::axis::{Scale, Span};

    fn frame() -> Frame {
        let span = Span { scale: Scale::Linear, low: 0.0, high: 1.0 };
        Frame { from: (0.0, 0.0), to: (400.0, 400.0), x: span, y: span }
    }

    #[test]
    fn a_straight_line_is_cut_in_its_middle_and_labelled_along_itself() {
        let frame = frame();
        let mut labels = Labels::new(&frame, Vec::new());
        let placed = labels.place(&[(350.0, 300.0), (50.0, 300.0)], "0.1", 12);
        let ((x, y), degrees) = placed.label.unwrap();
        assert!((x - 200.0).abs() < STRIDE && (y - 300.0).abs() < 1e-9 && degrees.abs() < 1e-9, "{x} {y} {degrees}");
        let gap = placed.pieces[0].last().unwrap().0 - placed.pieces[1][0].0;
        assert!((gap - font::width("0.1", 12) - 6.0).abs() < 1e-9);
    }

    #[test]
    fn labels_keep_apart_and_short_lines_have_none() {
        let frame = frame();
        let mut labels = Labels::new(&frame, vec![(200.0, 300.0)]);
        let ((x, _), _) = labels.place(&[(50.0, 300.0), (350.0, 300.0)], "0.1", 12).label.unwrap();
        assert!((x - 200.0).abs() >= APART, "{x}");
        assert!(labels.place(&[(50.0, 100.0), (70.0, 100.0)], "0.1", 12).label.is_none());
    }
}
