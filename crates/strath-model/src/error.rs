//! Why a model cannot be built or computed.

use strath_core::ImageShape;

/// Why a model cannot be built or computed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Images that this model does not take.
    #[error("model.kind = {kind:?} takes {expected}, the data has images of {found}; choose another model or data")]
    Images {
        /// The model's kind.
        kind: &'static str,
        /// What it takes.
        expected: String,
        /// The shape of the data's images.
        found: ImageShape,
    },
    /// An option outside of what the network can be.
    #[error("model.{option} = {found}: expected {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        found: usize,
        /// What it must be.
        expected: String,
    },
    /// Batch norm over a single value a channel.
    #[error(
        "batch norm at {layer} would see one value a channel: micro-batches of {size} with {area} pixels there; raise sam.m or \
         batch.micro to at least 2, or choose a model without batch norm"
    )]
    OneValueAChannel {
        /// The layer.
        layer: String,
        /// Examples of the micro-batch.
        size: usize,
        /// Pixels of a plane.
        area: usize,
    },
    /// A vector of another length than the model's.
    #[error("{what}: found {found} values, expected {expected}")]
    Length {
        /// Which vector.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length it must have.
        expected: usize,
    },
    /// A parameter that the loss does not depend on.
    #[error("tensor {name:?} has no gradient; this is a fault of the program, please report it")]
    NoGradient {
        /// The tensor.
        name: String,
    },
    /// Second derivatives where candle forgets the graph of gradients.
    #[error("second derivatives need CANDLE_GRAD_DO_NOT_DETACH=1 in the environment before the process starts")]
    NoSecondDerivatives,
    /// Two tensors of one name.
    #[error(transparent)]
    Layout(#[from] strath_core::layout::DuplicateName),
    /// The device's error.
    #[error(transparent)]
    Gpu(#[from] strath_cuda::GpuError),
    /// The tensor library's error.
    #[error("{}", first_line(.0))]
    Candle(#[from] candle_core::Error),
}

/// The library appends a backtrace where one was asked for; a message is one line.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

/// What a layer computes.
pub(crate) type Computed<T> = Result<T, ModelError>;
