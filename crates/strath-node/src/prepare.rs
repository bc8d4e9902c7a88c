//! What a worker makes ready before it can take part: data, model and the digests that tell whether they are the run's.

use std::path::PathBuf;
use std::sync::Arc;

use strath_core::Digest;
use strath_core::config::{Config, ConfigError, DataKind, Isa, Reduce, Transport};
use strath_cuda::Gpu;
use strath_data::{DataError, Dataset};
use strath_kernels::isa as kernels;
use strath_model::{Model, ModelError, convolution_method};

use crate::device::{self, DeviceError};

/// A worker's data and model.
#[derive(Clone)]
pub struct Prepared {
    /// The run's configuration, `data.path` as it is on this host.
    pub config: Config,
    /// The data set.
    pub dataset: Arc<Dataset>,
    /// The network.
    pub model: Model,
    /// Digest of the probe step on this machine.
    pub numerics: Digest,
}

impl Prepared {
    /// Its GPU, where that may sum with others by itself: NCCL is at hand, and asked for or, where the ring is not encrypted, as NCCL's connections are not,
    /// allowed.
    pub(crate) fn gpu_that_sums(&self, is_encrypted: bool) -> Option<&Gpu> {
        let cluster = &self.config.cluster;
        let may = match cluster.transport {
            Transport::Nccl => true,
            Transport::Auto => !is_encrypted && cluster.reduce != Reduce::Bf16,
            Transport::Tcp | Transport::Shm => false,
        };
        self.model.gpu().filter(|gpu| may && gpu.nccl().is_some())
    }
}

/// Why a worker cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The configuration does not parse here.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model cannot be built, or not with this data.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The processor does not have the instruction set that the run is pinned to.
    #[error(transparent)]
    Isa(#[from] kernels::Unsupported),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The perturbed set is empty.
    #[error(transparent)]
    Perturbation(#[from] strath_sam::NothingToPerturb),
    /// A place was given for data that is built in.
    #[error("--data {} was given, but the digits are built in; leave it out", path.display())]
    UnusedPath {
        /// The place.
        path: PathBuf,
    },
}

impl PrepareError {
    /// Whether the configuration is at fault, not what lies on this machine.
    pub fn is_of_configuration(&self) -> bool {
        match self {
            Self::Config(_) | Self::Perturbation(_) | Self::UnusedPath { .. } => true,
            Self::Device(error) => matches!(error, DeviceError::NotBuilt { .. } | DeviceError::OnlyOnGpus { .. }),
            Self::Isa(_) => false,
            Self::Data(error) => {
                matches!(error, DataError::Limit { .. } | DataError::Validation { .. } | DataError::Augmentation { .. })
            }
            Self::Model(error) => matches!(
                error,
                ModelError::Images { .. } | ModelError::Option { .. } | ModelError::OneValueAChannel { .. }
            ),
        }
    }
}

/// Pins the kernels of this process to the instruction set that a configuration names.
///
/// # Errors
/// [`kernels::Unsupported`] where this processor does not have it.
pub fn pin(isa: Isa) -> Result<(), kernels::Unsupported> {
    match isa {
        Isa::Auto => kernels::Isa::best(),
        Isa::Avx512 => kernels::Isa::Avx512,
        Isa::Avx2 => kernels::Isa::Avx2,
        Isa::Portable => kernels::Isa::Portable,
    }
    .pin()
}

/// Loads the data (from `data_path`, where given) and builds the model of a configuration that the coordinator sent, on the device of the `local_rank`-th worker of a
/// machine.
///
/// # Errors
/// [`PrepareError`].
pub fn prepare(configuration: &str, data_path: Option<PathBuf>, local_rank: usize) -> Result<Prepared, PrepareError> {
    let mut config = Config::from_toml(configuration)?;
    if let Some(path) = data_path {
        if config.data.kind == DataKind::Digits {
            return Err(PrepareError::UnusedPath { path });
        }
        config.data.path = Some(path);
    }
    let dataset = Dataset::load(&config.data, config.run.seed)?;
    pin(config.cluster.isa)?;
    let method = convolution_method(config.model.convolution);
    let gpu = device::open(&config, local_rank)?;
    let model = Model::build(&config.model.kind, dataset.shape(), dataset.classes(), method)?.on(gpu.clone());
    if let Ok(plan) = config.plan() {
        for micro in plan.micro_batches() {
            model.micro_batch_allowed(micro.size)?;
        }
    }
    strath_sam::Perturbation::new(&config.sam, model.parameters(), &model.of_norms())?;
    let numerics = strath_model::numerics_fingerprint(gpu.as_ref())?;
    Ok(Prepared { config, dataset: Arc::new(dataset), model, numerics })
}
