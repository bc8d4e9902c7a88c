//! A drawing as files: SVG for screens, PNG and PDF for print, CSV for whoever computes on.

use std::path::{Path, PathBuf};

use kuva::backend::svg::SvgBackend;
use kuva::render::render::Scene;
use kuva::{PageSize, PdfBackend};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use strath_node::files::write_whole;

use super::FigureError;
use super::canvas::WIDTH;
use super::font;
use super::table::Table;

/// Pixels of a PNG for one of the drawing: 287 to the inch in a printed column.
const PNG_SCALE: f32 = 2.0;
/// Width of a PDF: 8.5 cm in points, a printed column.
const COLUMN_PT: f64 = 8.5 / 2.54 * 72.0;

/// The contents of a figure's files, in the order of [`ENDINGS`].
pub(super) type Files = [Vec<u8>; 4];

/// What follows the stem.
const ENDINGS: [&str; 4] = ["svg", "png", "pdf", "csv"];

/// Makes all files of a drawing.
pub(super) fn files(scene: &Scene, table: &Table) -> Result<Files, FigureError> {
    let refused = |format| move |reason| FigureError::Render { format, reason };
    let page = PageSize::points(COLUMN_PT, scene.height * COLUMN_PT / WIDTH);
    let pdf = PdfBackend::new().with_page_size(page).render_scene(scene);
    let plain = SvgBackend::new().render_scene(scene);
    let png = png(&plain, scene).map_err(refused("PNG"))?;
    Ok([svg(&plain, scene).into_bytes(), png, pdf.map_err(refused("PDF"))?, table.csv().into_bytes()])
}

/// Writes `files` under `stem`, each whole or not at all.
pub(super) fn write(folder: &Path, stem: &str, files: &Files) -> Result<Vec<PathBuf>, FigureError> {
    if stem.is_empty() || stem.starts_with('.') || stem.contains(['/', '\\', '\0']) {
        return Err(FigureError::Stem { found: stem.into() });
    }
    let mut paths = Vec::new();
    for (ending, bytes) in ENDINGS.iter().zip(files) {
        let path = folder.join(format!("{stem}.{ending}"));
        write_whole(&path, bytes)?;
        paths.push(path);
    }
    Ok(paths)
}

/// kuva's SVG, made to scale with the page it stands on and to carry its own letters.
fn svg(plain: &str, scene: &Scene) -> String {
    let (head, body) = plain.split_once('>').expect("kuva begins with the opening tag");
    let (width, height) = (scene.width, scene.height);
    // On a narrow screen it shrinks; without the view box its contents would be cut off instead.
    let scaling = format!(r#" viewBox="0 0 {width} {height}" style="max-width:100%;height:auto""#);
    format!("{head}{scaling}>{}{body}\n", font::style())
}

/// The SVG as pixels, with no letters but the figures' own. Not by kuva's raster: it blurs text that is turned, begins dashes
/// anew at every point of a line and fills holes; resvg draws what a browser draws, and kuva's PDF links it anyway.
fn png(plain: &str, scene: &Scene) -> Result<Vec<u8>, String> {
    let mut options = Options::default();
    options.fontdb_mut().load_font_data(font::LETTERS.to_vec());
    let tree = Tree::from_str(plain, &options).map_err(|error| error.to_string())?;
    let pixels = |length: f64| (length * f64::from(PNG_SCALE)) as u32;
    let mut sheet = Pixmap::new(pixels(scene.width), pixels(scene.height)).ok_or("a sheet without an area")?;
    resvg::render(&tree, Transform::from_scale(PNG_SCALE, PNG_SCALE), &mut sheet.as_mut());
    sheet.encode_png().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::canvas::{Anchor, Canvas, TEXT};
    use crate::figure::colour::INK;

    #[test]
    fn a_png_has_letters_without_any_typeface_of_the_system() {
        let dark = |text: &str| {
            let mut canvas = Canvas::new(40.0);
            canvas.text((240.0, 20.0), text, Anchor::Centre, TEXT, INK);
            let [_, png, ..] = files(&canvas.into_scene(), &Table::new(["nothing"])).unwrap();
            let sheet = Pixmap::decode_png(&png).unwrap();
            sheet.pixels().iter().filter(|pixel| pixel.red() < 128).count()
        };
        assert_eq!(dark(" "), 0);
        for letter in ["m", "ρ", "ε", "λ", "−", "⁻", "³"] {
            assert!(dark(letter) > 2, "{letter}");
        }
    }

    #[test]
    fn only_the_name_of_a_file_is_a_stem() {
        let none = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for stem in ["", ".hidden", "a/b", "..", "a\\b"] {
            assert!(matches!(write(Path::new("."), stem, &none), Err(FigureError::Stem { .. })), "{stem}");
        }
    }
}
