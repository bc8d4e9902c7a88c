//! What came of a study's runs, as files.

use strath_study::study::{Plan, Record, Results, StudyFile, to_parquet};

use super::super::report;
use super::folder::StudyFolder;
use crate::outcome::Failure;
use crate::{log, telling};

/// Writes what came of the runs, with the plan that it is of.
pub(super) fn write(file: &StudyFile, plan: &Plan, folder: &StudyFolder) -> Result<(), Failure> {
    let results = Results::of(plan, |run| folder.finished(run, &file.study.measure));
    let record = serde_json::to_vec_pretty(&Record::of(file, plan)).map_err(Failure::other)?;
    folder.write("plan.json", &record)?;
    folder.write("results.csv", results.csv().as_bytes())?;
    folder.write("results.parquet", &to_parquet(&results).map_err(Failure::other)?)?;
    let table = telling::short(&folder.path("results.csv"));
    telling::print(&format!("{} of {} runs in {table}\n", results.rows.len(), plan.runs.len()))?;
    if results.rows.is_empty() {
        return Ok(());
    }
    // What was found is not lost by a page that could not be written.
    match report::of_study(&folder.path(""), &folder.path("")) {
        Ok(page) => telling::print(&format!("report: {}\n", telling::short(&page))),
        Err(failure) => {
            log::warn(&format!("no report was written: {}", failure.message()));
            Ok(())
        }
    }
}
