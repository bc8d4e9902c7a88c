//! Reports: what a study or a run found, in words, tables and figures, on one page.
//!
//! ```text
//! document     title, facts, sections of text, tables and figures: data
//! study        the sections of a study, from plan.json, results.csv and its runs' metrics
//! run          those of a run, from its summary and metrics
//! epochs       what a run recorded, epoch by epoch
//! html         a document as a page that needs nothing else
//! ```
//!
//! A report says by rule what the numbers support, and what they do not; each rule stands in the page that uses it.

mod document;
mod epochs;
mod html;
mod run;
mod study;

use std::path::{Path, PathBuf};

use strath_node::files::{FileError, write_whole};

pub use document::{Block, Cell, Document, Drawing, Section, Table};
pub use run::of_run;
pub use study::of_study;

/// A report that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file that is missing or cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file that could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Reads a text file.
fn read(path: PathBuf) -> Result<String, ReportError> {
    std::fs::read_to_string(&path).map_err(|error| ReportError::Read { path, reason: error.to_string() })
}

/// Writes a document as `report.html`, `report.json` and `figures/` into a folder, and returns the page's path. A figure that cannot be drawn
/// is left out, which the page says in its place.
///
/// # Errors
/// [`ReportError`]: a file that cannot be written.
pub fn write(document: &Document, folder: &Path) -> Result<PathBuf, ReportError> {
    let figures = folder.join("figures");
    let made = std::fs::create_dir_all(&figures);
    made.map_err(|error| ReportError::Read { path: figures.clone(), reason: error.to_string() })?;
    let mut drawn: Vec<(&str, Result<String, String>)> = Vec::new();
    for drawing in document.drawings() {
        let svg = match drawing.figure.write(&figures, &drawing.stem) {
            Ok(paths) => std::fs::read_to_string(&paths[0]).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        drawn.push((&drawing.stem, svg));
    }
    let json = format!("{:#}\n", document.json());
    write_whole(&folder.join("report.json"), json.as_bytes())?;
    let page = html::page(document, |stem| {
        let found = drawn.iter().find(|(name, _)| *name == stem);
        found.map_or_else(|| Err("it has no file".into()), |(_, svg)| svg.clone())
    });
    let path = folder.join("report.html");
    write_whole(&path, page.as_bytes())?;
    Ok(path)
}
