//! What a measurement is asked for, as it travels to the workers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use strath_core::config::Norm;
use strath_data::SplitName;

/// A measurement of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// What is measured.
    pub what: What,
    /// On which examples: those of a split, in file order, un-augmented.
    pub split: Part,
    /// Only the first so many of them.
    pub limit: Option<usize>,
    /// What batch norm normalises by.
    pub norms: Norms,
    /// Seed of random directions and starts.
    pub seed: u64,
    /// File of what the ranks have reduced so far, on the machine of the workers, by which an interrupted measurement goes on.
    pub progress: Option<PathBuf>,
}

/// A part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The training examples.
    Train,
    /// Those that were split off the training examples.
    Validation,
    /// The test examples.
    Test,
    /// Those training examples whose label is not the one that they came with.
    Noisy,
}

/// What batch norm normalises by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norms {
    /// The checkpoint's running statistics: evaluation mode. Losses are those of each example by itself.
    Running,
    /// The statistics of each group of examples, `batch.micro` or the lane, as training does.
    Batch,
    /// Running statistics taken anew over the whole training set, as means over groups: at the checkpoint's weights, or for a landscape at each of its
    /// points.
    Recomputed,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// How much the loss rises in a ball around the weights.
    Sharpness(SharpnessOf),
    /// The eigenvalues of the Hessian.
    Spectrum(SpectrumOf),
    /// Losses along directions.
    Landscape(LandscapeOf),
    /// The terms of the paper's theorem 2.
    Bound(BoundOf),
}

/// The ball of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ball {
    /// Radius.
    pub rho: f64,
    /// p of its norm; `None` is infinity, which JSON has no number for.
    pub p: Option<f64>,
    /// Whether each parameter's part is scaled by `|w| + eta`, as ASAM does.
    pub adaptive: bool,
    /// ASAM's eta.
    pub eta: f64,
}

impl Ball {
    /// The norm of the configuration.
    pub fn norm(&self) -> Norm {
        self.p.map_or(Norm::Infinity, Norm::P)
    }
}

/// `strath measure sharpness`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SharpnessOf {
    /// Examples of a lane, the last one shorter.
    pub m: usize,
    /// The ball of epsilon.
    pub ball: Ball,
    /// Steps of projected gradient ascent.
    pub ascent_steps: usize,
    /// Random directions a lane, beside the adversarial one.
    pub random: usize,
}

/// `strath measure spectrum`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpectrumOf {
    /// How many of the largest eigenvalues.
    pub top: usize,
    /// Random vectors for the trace.
    pub trace_samples: usize,
    /// Random vectors for the density; 0: none is taken.
    pub density_samples: usize,
    /// Lanczos steps of each of those.
    pub density_steps: usize,
}

/// `strath measure landscape`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LandscapeOf {
    /// Points along each axis; odd, so that the checkpoint is one of them, unless the line goes to another.
    pub grid: usize,
    /// Axes: 1 or 2.
    pub dims: usize,
    /// The axes go from -extent to extent.
    pub extent: f64,
    /// File of the directions; `None`: random ones, filter-normalised.
    pub directions: Option<PathBuf>,
    /// The other end of a straight line, 0 being the checkpoint and 1 this one.
    pub to: Option<PathBuf>,
}

/// `strath measure bound`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoundOf {
    /// Radius of the l2 ball.
    pub rho: f64,
    /// Probability that the bound fails.
    pub delta: f64,
    /// Steps of the ascent that looks for the worst epsilon.
    pub ascent_steps: usize,
    /// Samples of the proof's noise.
    pub samples: usize,
}

impl Part {
    /// The split of the data set.
    pub fn split(self) -> SplitName {
        match self {
            Self::Train => SplitName::Train,
            Self::Validation => SplitName::Validation,
            Self::Test => SplitName::Test,
            Self::Noisy => SplitName::Noisy,
        }
    }
}

impl Measurement {
    /// As text, for the way to the workers.
    ///
    /// # Panics
    /// Never: it has no map and no number that JSON cannot hold, which the command has checked.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("plain structures of finite numbers")
    }

    /// Reads [`to_text`](Self::to_text).
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_text(text: &str) -> Result<Self, String> {
        serde_json::from_str(text)
            .map_err(|error| format!("the measurement that was asked for cannot be read: {error}"))
    }
}
