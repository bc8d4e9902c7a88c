//! A landscape from the side: a surface over two coordinates.

use super::FigureError;
use super::axis::{Axis, Scale};
use super::canvas::{Canvas, Pen, Point};
use super::colour::{Rgb, viridis};
use super::contour::{table, tight};
use super::grid::Grid;
use super::notes::Notes;
use super::room::{HEIGHT, Place, Room};
use super::table::Table;
use super::ticks::short;

/// A landscape as a surface.
#[derive(Debug, Clone, PartialEq)]
pub struct Surface {
    /// What goes to the right, such as `α`.
    pub x: String,
    /// What goes into the depth, such as `β`.
    pub y: String,
    /// What goes up, with its unit. On a logarithmic axis the label says so; limits cut the surface off, and it says that.
    pub value: Axis,
    /// The values; where one is not finite the surface has a hole.
    pub grid: Grid,
}

/// A piece of the surface as it is seen.
struct Facet {
    depth: f64,
    outline: Vec<Point>,
    colour: Rgb,
}

impl Surface {
    /// Draws the figure.
    pub(super) fn draw(&self) -> Result<Canvas, FigureError> {
        self.grid.check(&format!("the surface of {:?}", self.value.label))?;
        let (x, y) = self.grid.spans();
        let room = Room::new(x, y, tight(&self.value, &self.grid)?);
        let missing = self.grid.values.iter().filter(|value| self.value.scale.even(**value).is_none()).count();
        let mut notes = Notes::default();
        if missing > 0 {
            notes.say(format!("Holes: no height ({missing} of {} points).", self.grid.values.len()));
        }
        let mut canvas = Canvas::new(HEIGHT + notes.height());
        room.draw_walls(&mut canvas);
        for Facet { outline, colour, .. } in self.facets(&room) {
            // Edges of the facet's own colour, darker: black ones would be all there is to see of small facets.
            let edge = (colour.0 / 5 * 3, colour.1 / 5 * 3, colour.2 / 5 * 3);
            canvas.outlined(&outline, colour, Pen::solid(edge, 0.6));
        }
        room.draw_axes(&mut canvas, &self.x, &self.y, &self.height_label());
        notes.draw(&mut canvas, HEIGHT);
        Ok(canvas)
    }

    /// Its numbers: a row for each point of the grid, as it was given.
    pub(super) fn table(&self) -> Table {
        table(&self.x, &self.y, &self.value.label, &self.grid)
    }

    fn height_label(&self) -> String {
        let scale = if self.value.scale == Scale::Log { ", log" } else { "" };
        let limits = self.value.limits.map(|(_, high)| format!(", cut off at {}", short(high))).unwrap_or_default();
        format!("{}{scale}{limits}", self.value.label)
    }

    /// The facets between the grid's points, from the farthest to the nearest, which then covers what it hides.
    fn facets(&self, room: &Room) -> Vec<Facet> {
        let columns = self.grid.alpha.len();
        let place = |a: usize, b: usize| -> Option<Place> {
            let height = self.value.scale.even(self.grid.values[b * columns + a])?;
            Some((self.grid.alpha[a], self.grid.beta[b], height))
        };
        let mut facets = Vec::new();
        for (a, b, _) in self.grid.points().filter(|(a, b, _)| a + 1 < columns && b + 1 < self.grid.beta.len()) {
            let corners = [place(a, b), place(a + 1, b), place(a + 1, b + 1), place(a, b + 1)];
            // A hole where a height is missing.
            let Some(corners) = corners.into_iter().collect::<Option<Vec<_>>>() else { continue };
            let kept = between(&corners, room.z.low, room.z.high);
            if kept.len() > 2 {
                let share = |&(_, _, z): &Place| (z - room.z.low) / (room.z.high - room.z.low);
                let mean = kept.iter().map(share).sum::<f64>() / kept.len() as f64;
                let seen: Vec<(Point, f64)> = corners.iter().map(|corner| room.project(*corner)).collect();
                facets.push(Facet {
                    depth: seen.iter().map(|(_, depth)| depth).sum(),
                    outline: kept.iter().map(|corner| room.project(*corner).0).collect(),
                    colour: viridis(mean),
                });
            }
        }
        facets.sort_by(|one, other| other.depth.total_cmp(&one.depth));
        facets
    }
}

/// The part of a polygon between two heights: Sutherland and Hodgman's clipping at both.
fn between(corners: &[Place], low: f64, high: f64) -> Vec<Place> {
    cut(&cut(corners, high, |z| z <= high), low, |z| z >= low)
}

fn cut(corners: &[Place], at: f64, keeps: impl Fn(f64) -> bool) -> Vec<Place> {
    let mut kept = Vec::new();
    for (i, corner) in corners.iter().enumerate() {
        let before = corners[(i + corners.len() - 1) % corners.len()];
        if keeps(before.2) != keeps(corner.2) {
            let share = (at - before.2) / (corner.2 - before.2);
            kept.push((before.0 + share * (corner.0 - before.0), before.1 + share * (corner.1 - before.1), at));
        }
        if keeps(corner.2) {
            kept.push(*corner);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_facet_is_cut_at_the_ceiling() {
        let facet = [(0.0, 0.0, 0.0), (1.0, 0.0, 2.0), (1.0, 1.0, 2.0), (0.0, 1.0, 0.0)];
        let below = between(&facet, 0.0, 1.0);
        assert_eq!(below, [(0.0, 0.0, 0.0), (0.5, 0.0, 1.0), (0.5, 1.0, 1.0), (0.0, 1.0, 0.0)]);
        assert!(between(&facet, 3.0, 4.0).is_empty());
        assert_eq!(between(&facet, -1.0, 3.0), facet);
    }
}
