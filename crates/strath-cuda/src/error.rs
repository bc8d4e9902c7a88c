//! What can go wrong on a device.

/// A device that cannot be used, or did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// A library that a device needs is not on this machine.
    #[error(
        "{library} is not found; install NVIDIA's driver, and for the other libraries run: eval \"$(deploy/cuda/toolchain)\""
    )]
    Library {
        /// Its name.
        library: &'static str,
    },
    /// There is no such device.
    #[error("there is no GPU {asked}; this machine has {found}; choose another by cluster.device, or \"cpu\"")]
    NoDevice {
        /// The number that was asked for.
        asked: usize,
        /// How many there are.
        found: usize,
    },
    /// The device's memory does not suffice.
    #[error("the GPU has no {bytes} bytes left; use smaller micro-batches (batch.micro), or fewer workers a GPU")]
    Memory {
        /// What was asked for.
        bytes: usize,
    },
    /// Anything else, in the words of the library.
    #[error("the GPU could not {doing}: {cause}")]
    Failed {
        /// What it was asked to do.
        doing: &'static str,
        /// What it says.
        cause: String,
    },
}

impl GpuError {
    /// What a library says of something that it was asked.
    pub fn failed(doing: &'static str, cause: impl std::fmt::Display) -> Self {
        Self::Failed { doing, cause: cause.to_string() }
    }
}
