//! The device that a worker computes on.

use strath_core::config::Device;
use strath_cuda::{Gpu, GpuError};

/// Why a worker does not compute where it is told to.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The program was built without GPUs.
    #[error(
        "cluster.device = \"cuda:{number}\": this program was built without GPUs; build it with --features cuda, or choose \"cpu\""
    )]
    NotBuilt {
        /// The GPU that was asked for.
        number: usize,
    },
    /// The GPU cannot be used.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

/// Opens the device of a worker that is the `local_rank`-th of its machine; `None` is the processor.
///
/// # Errors
/// [`DeviceError`].
pub fn open(device: Device, local_rank: usize) -> Result<Option<Gpu>, DeviceError> {
    match (device, devices()) {
        (Device::Cpu, _) | (Device::Auto, 0) => Ok(None),
        (Device::Auto, devices) => gpu(local_rank % devices).map(Some),
        (Device::Cuda(number), _) => gpu(number).map(Some),
    }
}

/// GPUs of this machine that `auto` may choose.
fn devices() -> usize {
    #[cfg(feature = "cuda")]
    return strath_cuda::devices();
    #[cfg(not(feature = "cuda"))]
    0
}

#[cfg(feature = "emulator")]
fn gpu(_: usize) -> Result<Gpu, DeviceError> {
    Ok(Gpu::new(strath_emulator::Emulator::new()?))
}

#[cfg(all(feature = "cuda", not(feature = "emulator")))]
fn gpu(number: usize) -> Result<Gpu, DeviceError> {
    let gpu = Gpu::new(strath_cuda::Cuda::open(number, strath_cuda::Compute::F32)?);
    tracing::info!("computes on cuda:{number}, {}", gpu.name());
    Ok(gpu)
}

#[cfg(not(any(feature = "cuda", feature = "emulator")))]
fn gpu(number: usize) -> Result<Gpu, DeviceError> {
    Err(DeviceError::NotBuilt { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there_and_a_gpu_is_refused_by_name_where_it_is_not() {
        assert!(matches!(open(Device::Cpu, 3), Ok(None)));
        if devices() == 0 {
            assert!(matches!(open(Device::Auto, 0), Ok(None)));
        }
        #[cfg(not(any(feature = "cuda", feature = "emulator")))]
        assert!(matches!(open(Device::Cuda(1), 0), Err(DeviceError::NotBuilt { number: 1 })));
    }
}
