//! How long runs take, before they have run: by their floating-point operations and steps.

use std::cell::Cell;
use std::collections::BTreeMap;

use strath_core::ImageShape;
use strath_core::config::{Config, RunLength};
use strath_data::{DataError, Dataset, SplitName};
use strath_model::{Model, Work, convolution_method};
use strath_study::study::{Plan, gradients_an_example};

use crate::outcome::Failure;

/// Floating-point operations a second of a processor, as small networks reach them.
const RATE: f64 = 2.5e10;
/// Seconds of a step beside its passes.
const OF_A_STEP: f64 = 2e-4;
/// Seconds of starting a run's processes and of looking at what it found.
const OF_A_RUN: f64 = 0.3;

/// Examples to train on, an image's shape, and the number of classes.
type Size = (usize, ImageShape, usize);

/// Seconds that each run of a plan takes on one processor, corrected by those that have run.
pub(super) struct Estimate {
    /// `None`: its data could not be loaded.
    seconds: Vec<Option<f64>>,
    /// Why data could not be loaded, the first time.
    unknown: Option<DataError>,
    /// Seconds estimated and measured of the runs that are done.
    done: Cell<(f64, f64)>,
}

impl Estimate {
    /// Of a plan: data sets are loaded once for each `[data]`, to know their sizes.
    pub(super) fn of(plan: &Plan) -> Result<Self, Failure> {
        let mut sizes: BTreeMap<String, Option<Size>> = BTreeMap::new();
        let mut unknown = None;
        let mut seconds = Vec::with_capacity(plan.runs.len());
        for run in &plan.runs {
            let config = &run.config;
            // Noise and the like change no sizes, and are drawn from the seed.
            let key = format!(
                "{:?} {:?} {:?} {:?}",
                config.data.kind, config.data.path, config.data.train_limit, config.data.validation
            );
            let size = if let Some(size) = sizes.get(&key) {
                *size
            } else {
                let size = match Dataset::load(&config.data, config.run.seed) {
                    Ok(data) => Some((data.split(SplitName::Train).len(), data.shape(), data.classes())),
                    Err(error) => {
                        unknown.get_or_insert(error);
                        None
                    }
                };
                sizes.insert(key, size);
                size
            };
            seconds.push(size.map(|size| of_run(config, size)).transpose()?);
        }
        Ok(Self { seconds, unknown, done: Cell::new((0.0, 0.0)) })
    }

    /// Why there are runs whose time is not known: their data cannot be loaded.
    pub(super) fn unknown(&self) -> Option<&DataError> {
        self.unknown.as_ref()
    }

    /// Of each run.
    pub(super) fn seconds(&self) -> &[Option<f64>] {
        &self.seconds
    }

    /// Of all runs, where each is known.
    pub(super) fn total(&self) -> Option<f64> {
        self.seconds.iter().copied().sum()
    }

    /// A run took so long.
    pub(super) fn took(&self, run: usize, seconds: f64) {
        let (estimated, measured) = self.done.get();
        self.done.set((estimated + self.known(run), measured + seconds));
    }

    /// What the runs that are left take, by what the others took.
    pub(super) fn left(&self, runs: impl Iterator<Item = usize>) -> f64 {
        let (estimated, measured) = self.done.get();
        let factor = if estimated > 0.0 { measured / estimated } else { 1.0 };
        runs.map(|run| factor * self.known(run)).fold(0.0, |all, seconds| all + seconds)
    }

    /// Nothing where it is not known; such a study does not run.
    fn known(&self, run: usize) -> f64 {
        self.seconds[run].unwrap_or_default()
    }
}

fn of_run(config: &Config, (examples, shape, classes): Size) -> Result<f64, Failure> {
    let method = convolution_method(config.model.convolution);
    let model = Model::build(&config.model.kind, shape, classes, method).map_err(Failure::usage)?;
    let flops: f64 = model.work(1).map_err(Failure::other)?.iter().map(Work::pass_flops).sum();
    let batch = config.batch.size as f64;
    let steps = match config.run.length {
        RunLength::Steps(steps) => steps as f64,
        RunLength::Epochs(epochs) => (epochs as f64 * examples as f64 / batch).floor(),
    };
    let passes = gradients_an_example(config) as f64;
    // A walk over the weights for each lane and each update.
    let weights = model.parameters().len() as f64;
    let lanes = config.plan().map_err(Failure::usage)?.lanes().len() as f64;
    let step = batch * passes * flops / RATE + OF_A_STEP + weights * (lanes + 2.0) * 1e-9;
    Ok(OF_A_RUN + steps * step)
}

/// Seconds as people say them; a question mark where they are not known.
pub(super) fn human(seconds: impl Into<Option<f64>>) -> String {
    let Some(seconds) = seconds.into() else { return "?".into() };
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
