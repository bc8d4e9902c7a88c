//! The sheet that figures are drawn on: strokes, areas, markers and text in pixels, over kuva's scene.

use std::fmt::Write;

use kuva::render::color::Color;
use kuva::render::render::{PathData, Primitive, Scene, TextAnchor};

use super::colour::{INK, Marker, Rgb};
use super::font;

/// Pixels from the left and from the top.
pub(super) type Point = (f64, f64);

/// Width of every figure: a printed column of 8.5 cm at 143 pixels an inch, so that [`TEXT`] prints at 7 points.
pub(super) const WIDTH: f64 = 480.0;
/// Size of labels and ticks.
pub(super) const TEXT: u32 = 14;
/// Size of what stands inside of the data and of notes: 6 points in print.
pub(super) const SMALL: u32 = 12;

/// A stroke's looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen {
    /// Its colour.
    pub(super) colour: Rgb,
    /// Its width.
    pub(super) width: f64,
    /// Lengths of stroke and gap; empty: solid.
    pub(super) dash: &'static [f64],
}

impl Pen {
    /// A solid stroke.
    pub(super) const fn solid(colour: Rgb, width: f64) -> Self {
        Self { colour, width, dash: &[] }
    }
}

/// Where a text lies from its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Right,
    Centre,
    Left,
}

/// A figure being drawn.
pub(super) struct Canvas {
    scene: Scene,
    clips: usize,
}

impl Canvas {
    /// An empty white sheet of [`WIDTH`] and `height`.
    pub(super) fn new(height: f64) -> Self {
        let mut scene = Scene::new(WIDTH, height.ceil());
        scene.font_family = Some(font::FAMILIES.into());
        scene.text_color = Some(hex(INK));
        Self { scene, clips: 0 }
    }

    /// What was drawn.
    pub(super) fn into_scene(self) -> Scene {
        self.scene
    }

    /// A line through `points`.
    pub(super) fn stroke(&mut self, points: &[Point], pen: Pen) {
        if points.len() > 1 {
            self.path(outline(points), None, Some(pen), None);
        }
    }

    /// A filled area of `opacity` from 0 to 1 with the corners `points`.
    pub(super) fn area(&mut self, points: &[Point], colour: Rgb, opacity: f64) {
        if points.len() > 2 {
            self.path(outline(points) + "Z", Some(colour), None, (opacity < 1.0).then_some(opacity));
        }
    }

    /// A filled area with an outline.
    pub(super) fn outlined(&mut self, points: &[Point], colour: Rgb, pen: Pen) {
        self.path(outline(points) + "Z", Some(colour), Some(pen), None);
    }

    /// A filled rectangle between two corners.
    pub(super) fn rectangle(&mut self, from: Point, to: Point, colour: Rgb) {
        self.area(&[from, (to.0, from.1), to, (from.0, to.1)], colour, 1.0);
    }

    fn path(&mut self, d: String, fill: Option<Rgb>, pen: Option<Pen>, opacity: Option<f64>) {
        self.scene.add(Primitive::Path(Box::new(PathData {
            d,
            fill: Some(fill.map_or(Color::None, ink)),
            stroke: pen.map_or(Color::None, |pen| ink(pen.colour)),
            stroke_width: pen.map_or(0.0, |pen| pen.width),
            opacity,
            stroke_dasharray: pen.filter(|pen| !pen.dash.is_empty()).map(|pen| dashes(pen.dash)),
        })));
    }

    /// A marker of `radius` around `at`, with a white rim so that it stands off its line.
    pub(super) fn marker(&mut self, at: Point, marker: Marker, radius: f64, colour: Rgb) {
        let corners = |offsets: &[Point]| -> Vec<Point> {
            offsets.iter().map(|(x, y)| (at.0 + x * radius, at.1 + y * radius)).collect()
        };
        let rim = Pen::solid(super::colour::PAPER, 0.8);
        match marker {
            Marker::Circle => {
                let turn = std::f64::consts::TAU / 24.0;
                let circle: Vec<Point> = (0..24).map(|i| (f64::from(i) * turn).sin_cos()).collect();
                self.outlined(&corners(&circle), colour, rim);
            }
            Marker::Square => {
                self.outlined(&corners(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]), colour, rim);
            }
            Marker::Triangle => self.outlined(&corners(&[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)]), colour, rim),
            Marker::Inverted => self.outlined(&corners(&[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)]), colour, rim),
            Marker::Diamond => {
                self.outlined(&corners(&[(0.0, -1.3), (1.1, 0.0), (0.0, 1.3), (-1.1, 0.0)]), colour, rim);
            }
            Marker::Cross => {
                let pen = Pen::solid(colour, 1.8);
                self.stroke(&corners(&[(-0.9, -0.9), (0.9, 0.9)]), pen);
                self.stroke(&corners(&[(-0.9, 0.9), (0.9, -0.9)]), pen);
            }
        }
    }

    /// A text whose middle height is at `at`.
    pub(super) fn text(&mut self, at: Point, text: &str, anchor: Anchor, size: u32, colour: Rgb) {
        self.turned(at, text, anchor, size, colour, 0.0);
    }

    /// A text turned clockwise by `degrees` about its middle height at `at`.
    pub(super) fn turned(&mut self, at: Point, text: &str, anchor: Anchor, size: u32, colour: Rgb, degrees: f64) {
        // Half of a digit's height below the middle lies the baseline.
        let down = 0.36 * f64::from(size);
        let (sin, cos) = degrees.to_radians().sin_cos();
        self.scene.add(Primitive::Text {
            x: at.0 - sin * down,
            y: at.1 + cos * down,
            // kuva would take what stands between two dollars for a formula; XML has no control characters.
            content: text.replace('$', "\\$").replace(char::is_control, " "),
            size,
            anchor: match anchor {
                Anchor::Right => TextAnchor::Start,
                Anchor::Centre => TextAnchor::Middle,
                Anchor::Left => TextAnchor::End,
            },
            rotate: (degrees != 0.0).then_some(degrees),
            bold: false,
            color: (colour != INK).then(|| ink(colour)),
        });
    }

    /// Draws with `inside` what may be seen within two corners only.
    pub(super) fn clipped(&mut self, from: Point, to: Point, inside: impl FnOnce(&mut Self)) {
        // Numbered by figure; kuva's own clips are numbered by process, which would make equal figures differ.
        let id = format!("clip-{}", self.clips);
        self.clips += 1;
        let (x, y, width, height) = (from.0, from.1, to.0 - from.0, to.1 - from.1);
        self.scene.defs.push(format!(
            r#"<clipPath id="{id}"><rect x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}"/></clipPath>"#
        ));
        self.scene.add(Primitive::ClipStart { x, y, width, height, id });
        inside(self);
        self.scene.add(Primitive::ClipEnd);
    }
}

fn ink((r, g, b): Rgb) -> Color {
    Color::Rgb(r, g, b)
}

fn hex((r, g, b): Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn dashes(lengths: &[f64]) -> String {
    lengths.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")
}

fn outline(points: &[Point]) -> String {
    let mut path = String::new();
    for (i, (x, y)) in points.iter().enumerate() {
        write!(path, "{}{x:.2} {y:.2}", if i == 0 { 'M' } else { 'L' }).expect("a string takes any text");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stroke_of_one_point_draws_nothing() {
        let mut canvas = Canvas::new(10.0);
        canvas.stroke(&[(1.0, 1.0)], Pen::solid(INK, 1.0));
        canvas.stroke(&[], Pen { colour: INK, width: 1.0, dash: &[1.0, 1.0] });
        assert!(canvas.into_scene().elements.is_empty());
    }
}
