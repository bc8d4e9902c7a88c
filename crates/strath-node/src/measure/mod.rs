//! Measurements of a checkpoint: programs that every rank runs alike, whose passes over examples are shared out and summed.
//!
//! ```text
//! spec ─► sharpness │ spectrum │ landscape │ bound      what is done next depends on the request and on earlier sums alone
//!                 ▼
//!               ranks ── sums over the collective, to the same bits for any number of ranks
//!                 ▼
//!                log  ── the sums so far on the disk: whoever begins anew, after a worker or all of them died, is given them
//! ```

mod bound;
mod landscape;
mod log;
mod ranks;
mod sharpness;
mod spec;
mod spectrum;
mod subject;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use strath_collective::{Collective, CollectiveError};
use strath_core::config::{Perturb, RhoRule, SamTable};
use strath_core::{Digest, Rank};
use strath_data::{Loader, SplitName};
use strath_model::ModelError;
use strath_sam::Perturbation;

pub use landscape::{directions, encode_directions};
pub use ranks::Advance;
pub use spec::{Ball, BoundOf, LandscapeOf, Measurement, Norms, Part, SharpnessOf, SpectrumOf, What};

use crate::files::{self, FileError};
use crate::prepare::Prepared;
use crate::whereabouts::Whereabouts;
use log::{Access, Log};
use ranks::Ranks;
use subject::{Point, Subject};

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// Something is not finite.
    #[error(
        "{what} is not finite or too large to be summed; the network has diverged there: measure with a smaller radius or extent, or an earlier \
         checkpoint"
    )]
    NotFinite {
        /// What.
        what: &'static str,
    },
    /// Directions that do not fit.
    #[error("--directions {}: {why}; expected one tensor alpha/NAME, and beta/NAME in two dimensions, for every parameter of the model", path.display())]
    Directions {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It came to no end, in one line.
    #[error("{0}")]
    Undecided(String),
    /// It is no longer wanted.
    #[error("the measurement was cancelled")]
    Cancelled,
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A peer was lost or disagreed.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The model could not compute.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// What a rank needs to measure.
pub(crate) struct Measuring {
    pub(crate) prepared: Prepared,
    pub(crate) loader: Loader,
    pub(crate) weights: Arc<Vec<f32>>,
    pub(crate) statistics: Vec<f32>,
    /// Digest of its weights and running statistics.
    pub(crate) checkpoint: Digest,
    pub(crate) measurement: Measurement,
}

impl Measuring {
    /// Measures, and gives the result as JSON, the same on every rank. `tell` hears on rank 0 how far it has come.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub(crate) fn run(
        self,
        peers: &Collective,
        cancelled: &AtomicBool,
        here: &Whereabouts,
        tell: &mut dyn FnMut(Advance),
    ) -> Result<String, MeasureError> {
        let access = if peers.identity().rank == Rank(0) { Access::Writes } else { Access::Reads };
        let key = self.key()?;
        let log = self.measurement.progress.as_ref().map(|path| Log::open(path, key, access)).transpose()?;
        let Self { prepared, loader, weights, statistics, measurement, .. } = self;
        let mut ranks = Ranks::new(peers, log, cancelled, here, tell)?;
        let Measurement { what, split, limit, norms, seed, .. } = measurement;
        // The bound's ascent is on what was trained on.
        let split = if matches!(what, What::Bound(_)) { SplitName::Train } else { split.split() };
        let examples = limit.unwrap_or(usize::MAX).min(loader.len(split));
        let least = if matches!(what, What::Bound(_)) { 2 } else { 1 };
        if examples < least {
            let name = split.name();
            return Err(MeasureError::Undecided(format!(
                "there are {examples} {name} examples, expected at least {least}"
            )));
        }
        let group = group(&prepared, &what).min(examples);
        let model = &prepared.model;
        if norms != Norms::Running {
            let m = match &what {
                What::Sharpness(of) => of.m.min(examples),
                What::Spectrum(_) | What::Landscape(_) | What::Bound(_) => examples,
            };
            let rests = match norms {
                Norms::Recomputed => [loader.len(SplitName::Train) % group; 3],
                _ => [m % group, examples % m % group, loader.len(SplitName::Test) % group],
            };
            let counts = if matches!(what, What::Bound(_)) { 3 } else { 2 };
            let sizes = [group].into_iter().chain(rests.into_iter().take(counts));
            for size in sizes.filter(|size| *size > 0) {
                model.micro_batch_allowed(size)?;
            }
        }
        let subject = Subject { model, loader: &loader, split, examples, norms, group };
        let mut point = Point { weights, statistics: statistics.into() };
        if norms == Norms::Recomputed && !matches!(what, What::Landscape(_)) {
            let weights = point.weights.clone();
            point.statistics = subject.statistics(&mut ranks, 1, |_| weights.clone())?.remove(0);
        }
        let ball = |ball: &Ball| {
            let of_norms = model.of_norms();
            Perturbation::new(&sam(&prepared, ball), model.parameters(), &of_norms)
                .map_err(|error| MeasureError::Undecided(error.to_string()))
        };
        let found = match &what {
            What::Sharpness(of) => sharpness::measure(of, &ball(&of.ball)?, &subject, &point, seed, &mut ranks),
            What::Spectrum(of) => spectrum::measure(of, &subject, &point, seed, &mut ranks),
            What::Landscape(of) => landscape::measure(of, &subject, &point, seed, &mut ranks),
            What::Bound(of) => {
                let ball = ball(&Ball { rho: of.rho, p: Some(2.0), adaptive: false, eta: 0.0 })?;
                bound::measure(of, &ball, &subject, &point, seed, &mut ranks)
            }
        };
        let mut found = found?;
        if let Some(fields) = found.as_object_mut() {
            fields.insert("split".into(), split.name().into());
            fields.insert("examples".into(), examples.into());
            fields.insert("norms".into(), serde_json::to_value(norms).unwrap_or_default());
        }
        Ok(found.to_string())
    }

    /// What decides every sum of the measurement, but for who computes it.
    fn key(&self) -> Result<Digest, MeasureError> {
        let Self { prepared, checkpoint, measurement, .. } = self;
        let mut files = Vec::new();
        if let What::Landscape(LandscapeOf { directions, to, .. }) = &measurement.what {
            for path in directions.iter().chain(to) {
                files.push(Digest::of(&files::read(path)?));
            }
        }
        let request = Measurement { progress: None, ..measurement.clone() }.to_text();
        let (config, data, numerics) = (&prepared.config, prepared.dataset.digest(), prepared.numerics);
        let of_run = (&config.model, &config.batch, &config.sam, env!("CARGO_PKG_VERSION"));
        Ok(Digest::of(format!("{request} {checkpoint} {files:?} {data} {numerics} {of_run:?}").as_bytes()))
    }
}

/// Examples that batch norm sees together: `batch.micro`, or else the lane of the measurement or of the run.
fn group(prepared: &Prepared, what: &What) -> usize {
    let of_run = || prepared.config.plan().ok().and_then(|plan| plan.micro_batches().first().map(|first| first.size));
    let of_lane = match what {
        What::Sharpness(of) => Some(of.m),
        What::Spectrum(_) | What::Landscape(_) | What::Bound(_) => None,
    };
    let micro = prepared.config.batch.micro;
    micro.map(|micro| of_lane.map_or(micro, |m| m.min(micro))).or(of_lane).or_else(of_run).unwrap_or(1).max(1)
}

/// The configuration of a ball around all parameters.
fn sam(prepared: &Prepared, ball: &Ball) -> SamTable {
    let Ball { rho, adaptive, eta, .. } = *ball;
    let of_run = prepared.config.sam.clone();
    SamTable { rho, norm: ball.norm(), adaptive, eta, perturb: Perturb::All, rho_rule: RhoRule::Constant, ..of_run }
}
