//! `strath report`

use std::path::{Path, PathBuf};

use clap::Args;
use strath_study::report;

use crate::outcome::Failure;
use crate::telling;

/// Write what a study or a run found as one page with its figures and numbers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath report studies/m-sharpness      of a study
  strath report runs/digits              of a run, also while it goes on

Writes report.html (one file that needs no network), report.json (every number shown) and figures/ into the folder. Studies and runs
write theirs when they end.")]
pub struct Report {
    /// The folder of a study or of a run.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where to write [default: the folder itself]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Report {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let path = write(&self.folder, self.out.as_deref().unwrap_or(&self.folder))?;
        telling::print(&format!("{}\n", telling::short(&path)))
    }
}

/// Writes the report of a study or of a run, and returns the page's path.
fn write(folder: &Path, out: &Path) -> Result<PathBuf, Failure> {
    if folder.join("plan.json").exists() {
        of_study(folder, out)
    } else if folder.join("metrics.jsonl").exists() {
        of_run(folder, out)
    } else if folder.join("study.toml").exists() {
        let shown = folder.display();
        Err(Failure::Other(format!(
            "{shown} has no table of runs yet: it is written when the study ends or is stopped"
        )))
    } else {
        let (shown, expected) =
            (folder.display(), "expected the folder of a study (with plan.json) or of a run (with metrics.jsonl)");
        Err(Failure::Usage(format!("{shown} holds neither a study nor a run; {expected}")))
    }
}

pub(super) fn of_study(folder: &Path, out: &Path) -> Result<PathBuf, Failure> {
    report::of_study(folder).and_then(|document| report::write(&document, out)).map_err(Failure::other)
}

pub(super) fn of_run(folder: &Path, out: &Path) -> Result<PathBuf, Failure> {
    report::of_run(folder).and_then(|document| report::write(&document, out)).map_err(Failure::other)
}
