//! The device that a worker computes on.

use strath_core::config::{Compute, Config, Device};
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
    /// What only a GPU computes in.
    #[error(
        "model.compute = \"{compute}\" is for GPUs, and this worker computes on the processor; choose \"f32\", or a GPU by cluster.device"
    )]
    OnlyOnGpus {
        /// What it was to compute in.
        compute: &'static str,
    },
    /// The GPU cannot be used.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

/// Opens the device that a configuration gives the `local_rank`-th worker of a machine; `None` is the processor.
///
/// # Errors
/// [`DeviceError`].
pub fn open(config: &Config, local_rank: usize) -> Result<Option<Gpu>, DeviceError> {
    let compute = config.model.compute;
    match (config.cluster.device, devices()) {
        (Device::Cpu, _) | (Device::Auto, 0) if compute == Compute::F32 => Ok(None),
        (Device::Cpu, _) | (Device::Auto, 0) => Err(DeviceError::OnlyOnGpus { compute: compute.name() }),
        (Device::Auto, devices) => gpu(local_rank % devices, compute).map(Some),
        (Device::Cuda(number), _) => gpu(number, compute).map(Some),
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
fn gpu(_: usize, compute: Compute) -> Result<Gpu, DeviceError> {
    Ok(Gpu::new(strath_emulator::Emulator::new(compute)?))
}

#[cfg(all(feature = "cuda", not(feature = "emulator")))]
fn gpu(number: usize, compute: Compute) -> Result<Gpu, DeviceError> {
    let gpu = Gpu::new(strath_cuda::Cuda::open(number, compute)?);
    tracing::info!("computes on cuda:{number}, {}", gpu.name());
    Ok(gpu)
}

#[cfg(not(any(feature = "cuda", feature = "emulator")))]
fn gpu(number: usize, _: Compute) -> Result<Gpu, DeviceError> {
    Err(DeviceError::NotBuilt { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there_and_a_gpu_is_refused_by_name_where_it_is_not() {
        let opened = |device, compute, local_rank| {
            let text = "[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n";
            let mut config = Config::from_toml(text).unwrap();
            (config.cluster.device, config.model.compute) = (device, compute);
            open(&config, local_rank)
        };
        assert!(matches!(opened(Device::Cpu, Compute::F32, 3), Ok(None)));
        for compute in [Compute::Tf32, Compute::Bf16] {
            let refused = opened(Device::Cpu, compute, 3).err().map(|error| error.to_string());
            assert!(refused.is_some_and(|error| error.contains(&format!("\"{}\" is for GPUs", compute.name()))));
        }
        if devices() == 0 {
            assert!(matches!(opened(Device::Auto, Compute::F32, 0), Ok(None)));
        }
        #[cfg(not(any(feature = "cuda", feature = "emulator")))]
        assert!(matches!(opened(Device::Cuda(1), Compute::F32, 0), Err(DeviceError::NotBuilt { number: 1 })));
    }
}
