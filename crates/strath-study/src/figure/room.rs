//! The box that a surface stands in: how it is seen, its walls and its axes.

use super::axis::Span;
use super::canvas::{Anchor, Canvas, Pen, Point, TEXT, WIDTH};
use super::colour::{GRID, INK};
use super::font;
use super::ticks::{Ticks, ticks};

/// Pixels of the sheet from top to bottom.
pub(super) const HEIGHT: f64 = 384.0;
/// Degrees by which the first coordinate turns towards the reader.
const TURN: f64 = 32.0;
/// Degrees from which the floor is seen.
const RISE: f64 = 28.0;
/// Pixels of the floor's edges.
const BREADTH: f64 = 262.0;
/// Pixels of the walls.
const TALL: f64 = 178.0;
/// Where the middle of the floor is seen.
const MIDDLE: Point = (WIDTH / 2.0 + 26.0, 250.0);

/// A point in the box, its height in units in which that axis is even.
pub(super) type Place = (f64, f64, f64);

/// The box: the first coordinate goes to the right and nearer, the second to the right and farther, the third up, as
/// right-handed coordinates do.
pub(super) struct Room {
    x: Span,
    y: Span,
    /// The span of heights.
    pub(super) z: Span,
}

impl Room {
    /// The box of these three spans.
    pub(super) fn new(x: Span, y: Span, z: Span) -> Self {
        Self { x, y, z }
    }

    /// Where a place is seen, and how far it is; only the order of distances has a meaning. Parallel lines stay parallel, so
    /// that heights can be compared.
    pub(super) fn project(&self, (x, y, z): Place) -> (Point, f64) {
        let share = |span: Span, at: f64| (at - span.low) / (span.high - span.low);
        let (x, y) = ((share(self.x, x) - 0.5) * BREADTH, (share(self.y, y) - 0.5) * BREADTH);
        let ((turn_sin, turn_cos), (rise_sin, rise_cos)) = (TURN.to_radians().sin_cos(), RISE.to_radians().sin_cos());
        let up = share(self.z, z) * TALL;
        let across = x * turn_cos + y * turn_sin;
        let away = y * turn_cos - x * turn_sin;
        ((MIDDLE.0 + across, MIDDLE.1 - away * rise_sin - up * rise_cos), away * rise_cos - up * rise_sin)
    }

    fn line(&self, canvas: &mut Canvas, from: Place, to: Place, pen: Pen) {
        canvas.stroke(&[self.project(from).0, self.project(to).0], pen);
    }

    fn ticks(&self) -> [Ticks; 3] {
        [ticks(self.x, 5), ticks(self.y, 5), ticks(self.z, 6)]
    }

    /// The floor and the two walls behind the surface, with lines at the ticks.
    pub(super) fn draw_walls(&self, canvas: &mut Canvas) {
        let Self { x, y, z } = *self;
        let [along, deep, up] = self.ticks();
        let pen = Pen::solid(GRID, 0.8);
        for (at, _) in &along.written {
            self.line(canvas, (*at, y.low, z.low), (*at, y.high, z.low), pen);
            self.line(canvas, (*at, y.high, z.low), (*at, y.high, z.high), pen);
        }
        for (at, _) in &deep.written {
            self.line(canvas, (x.low, *at, z.low), (x.high, *at, z.low), pen);
            self.line(canvas, (x.low, *at, z.low), (x.low, *at, z.high), pen);
        }
        for at in up.written.iter().filter_map(|(value, _)| z.scale.even(*value)) {
            self.line(canvas, (x.low, y.high, at), (x.high, y.high, at), pen);
            self.line(canvas, (x.low, y.low, at), (x.low, y.high, at), pen);
        }
        let edge = Pen::solid((150, 150, 150), 1.0);
        self.line(canvas, (x.low, y.high, z.low), (x.low, y.high, z.high), edge);
        self.line(canvas, (x.high, y.high, z.low), (x.high, y.high, z.high), edge);
        for at in [z.low, z.high] {
            self.line(canvas, (x.low, y.high, at), (x.high, y.high, at), edge);
            self.line(canvas, (x.low, y.low, at), (x.low, y.high, at), edge);
        }
    }

    /// The three axes in front, with ticks and labels outside of the box.
    pub(super) fn draw_axes(&self, canvas: &mut Canvas, x: &str, y: &str, height: &str) {
        let [along, deep, up] = self.ticks();
        let (near, right) = (|at| (at, self.y.low, self.z.low), |at| (self.x.high, at, self.z.low));
        // Below the left edge texts end, below the right one they begin: at the corner they go apart.
        self.floor_axis(canvas, self.x, &along, &near, Anchor::Left, x);
        self.floor_axis(canvas, self.y, &deep, &right, Anchor::Right, y);
        let upright = |at| (self.x.low, self.y.low, at);
        let (foot, head) = (self.project(upright(self.z.low)).0, self.project(upright(self.z.high)).0);
        canvas.stroke(&[foot, head], Pen::solid(INK, 1.0));
        let mut widest: f64 = 0.0;
        for (value, text) in &up.written {
            let Some(even) = self.z.scale.even(*value) else { continue };
            let (tick_x, tick_y) = self.project(upright(even)).0;
            canvas.stroke(&[(tick_x - 5.0, tick_y), (tick_x, tick_y)], Pen::solid(INK, 1.0));
            canvas.text((tick_x - 8.0, tick_y), text, Anchor::Left, TEXT, INK);
            widest = widest.max(font::width(text, TEXT));
        }
        // The first text of the left edge lies below the foot.
        widest = along.written.first().map_or(widest, |(_, text)| widest.max(font::width(text, TEXT)));
        let lines = font::wrap(height, HEIGHT - 120.0, TEXT);
        for (i, line) in lines.iter().rev().enumerate() {
            let at = (foot.0 - widest - 22.0 - 18.0 * i as f64, f64::midpoint(foot.1, head.1));
            let half = font::width(line, TEXT) / 2.0;
            canvas.turned((at.0, at.1.max(half + 4.0)), line, Anchor::Centre, TEXT, INK, -90.0);
        }
    }

    /// An axis along an edge of the floor.
    fn floor_axis(
        &self,
        canvas: &mut Canvas,
        span: Span,
        ticks: &Ticks,
        edge: &dyn Fn(f64) -> Place,
        side: Anchor,
        label: &str,
    ) {
        let at = |value: f64| self.project(edge(value)).0;
        canvas.stroke(&[at(span.low), at(span.high)], Pen::solid(INK, 1.0));
        let out = if side == Anchor::Left { -1.0 } else { 1.0 };
        let mut widest: f64 = 0.0;
        for (value, text) in &ticks.written {
            let (x, y) = at(*value);
            canvas.stroke(&[(x, y), (x + 3.0 * out, y + 4.0)], Pen::solid(INK, 1.0));
            canvas.text((x + 4.0 * out, y + 13.0), text, side, TEXT, INK);
            widest = widest.max(font::width(text, TEXT));
        }
        let (x, y) = at(f64::midpoint(span.low, span.high));
        canvas.text((x + (0.7 * widest + 10.0) * out, y + 34.0), label, side, TEXT, INK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::axis::Scale;

    #[test]
    fn the_box_is_right_handed_and_fits_the_sheet() {
        let span = Span { scale: Scale::Linear, low: -1.0, high: 1.0 };
        let room = Room::new(span, span, span);
        let (origin, far) = room.project((0.0, 0.0, 0.0));
        let towards = |place| {
            let ((x, y), depth) = room.project(place);
            (x - origin.0, origin.1 - y, depth - far)
        };
        let (x, y, z) = (towards((1.0, 0.0, 0.0)), towards((0.0, 1.0, 0.0)), towards((0.0, 0.0, 1.0)));
        // Seen from above, the second axis is counter-clockwise of the first.
        assert!(x.0 * y.1 - x.1 * y.0 > 0.0);
        assert!(x.2 < 0.0 && y.2 > 0.0 && z.1 > 0.0);
        for corner in [-1.0, 1.0].into_iter().flat_map(|x| [-1.0, 1.0].map(|y| (x, y))) {
            for height in [-1.0, 1.0] {
                let (at, _) = room.project((corner.0, corner.1, height));
                assert!((60.0..WIDTH - 20.0).contains(&at.0) && (4.0..HEIGHT - 40.0).contains(&at.1), "{at:?}");
            }
        }
    }
}
