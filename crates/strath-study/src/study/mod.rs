//! Studies: a base configuration, the settings that vary, and the runs that follow from them.
//!
//! ```text
//! file         STUDY.toml as it is written
//! expression   derived settings and conditions: arithmetic over keys
//! grid         settings as products of axes and paired lists, without those that are excluded: the arms
//! plan         arms x seeds, each run with its whole configuration and the name of its folder
//! record       what is kept of the plan beside the results
//! results      what came of them, a row a run
//! parquet      the same as a Parquet file
//! ```

mod error;
mod expression;
mod file;
mod grid;
mod parquet;
mod plan;
mod record;
mod results;
mod setting;

pub use error::StudyError;
pub use file::{Compute, GridTable, Match, Measure, ReportTable, StudyFile, StudyTable};
pub use grid::{Arm, Place, arms};
pub use parquet::to_parquet;
pub use plan::{Plan, PlannedRun, gradients_an_example};
pub use record::{ArmRecord, Pairs, PlaceRecord, Record};
pub use results::{Cell, Finished, Results};
pub use setting::{Setting, Settings};
