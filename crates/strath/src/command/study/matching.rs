//! Radii by which runs begin with the lift of others: `match = "lift"`.

use std::collections::BTreeMap;
use std::sync::Arc;

use strath_core::config::Config;
use strath_data::Dataset;
use strath_node::first_lift::first_lift;
use strath_study::study::{Plan, StudyError};

use crate::outcome::Failure;

/// Sets the radius of each run of a plan that has a reference.
pub(super) fn match_lifts(plan: &mut Plan) -> Result<(), Failure> {
    // Runs come seed by seed, and the seed decides noise and validation: one data set at a time.
    let mut data: Option<(String, Arc<Dataset>)> = None;
    // A reference serves many runs.
    let mut found: BTreeMap<String, f64> = BTreeMap::new();
    plan.match_lifts(|config: &Config| {
        let of_run = config.to_toml();
        if let Some(lift) = found.get(&of_run) {
            return Ok(*lift);
        }
        let of_data = format!("{:?} {}", config.data, config.run.seed);
        let dataset = match &data {
            Some((of, dataset)) if *of == of_data => dataset.clone(),
            _ => {
                let dataset = Arc::new(Dataset::load(&config.data, config.run.seed).map_err(Failure::other)?);
                data = Some((of_data, dataset.clone()));
                dataset
            }
        };
        let lift = first_lift(config, &dataset).map_err(Failure::other)?;
        found.insert(of_run, lift);
        Ok(lift)
    })
}

impl From<StudyError> for Failure {
    fn from(error: StudyError) -> Self {
        Self::usage(error)
    }
}
