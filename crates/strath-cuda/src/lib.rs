//! What a worker with a GPU computes there: the layers of a pass and the mathematics of a lane, on vectors that stay in the device's memory.
//!
//! ```text
//! layers, lanes        what is computed, in launches of kernels, products and convolutions
//! Gpu, Vector          memory that goes round; every length is checked here, on the host
//! Driver               the least that a device has to do
//! ├─ Cuda              NVIDIA's: kernels compiled by NVRTC, products by cuBLAS, convolutions by cuDNN (feature `cuda`)
//! ├─ nccl              sums over the GPUs of several processes, in the device's memory
//! └─ Emulator          the same kernels compiled by a C++ compiler for the processor, for tests (strath-emulator)
//! ```
//!
//! Everything that is asked of a stream happens in order, so that memory may be given back while it is still in use: whoever gets it next
//! comes later on that stream. Several streams ([`Gpu::stream`]) may work at once; vectors are of one, and what another is to read is
//! [lent](Vector::lent) to it. Nothing waits for the device but what is copied back to the host: small results that are not wanted at once are put together
//! in a [`Ledger`], and what is large comes while the device goes on ([`Vector::fetch`]), so that it never runs out of work in the middle of a step.
//!
//! **The same bits.** No kernel adds floating-point numbers atomically, sums are taken in an order that follows from their lengths alone, and only
//! deterministic convolutions are used: on GPUs of one kind, with one version of the driver and of the libraries, the same call gives the same bits. Contractions to fused multiply-adds are off, so that what
//! is exact in `strath_kernels::vector` has the same bits here.
//!
//! **Numbers.** Weights, their gradients, statistics and moments are f32 or f64; activations and the gradients of activations are f32, or bf16 where the device computes in that, and are
//! read and written by the same kernels, compiled once for each. Sums are taken in f64 by kernels, in f32 by the libraries.
//!
//! candle's own CUDA kernels take no part. A layer here would need none of them, its backward convolution does not use cuDNN, and they want NVIDIA's
//! compiler where Strath is built; device memory is held by `cudarc`, on which candle's CUDA storage rests too.

mod activation;
#[cfg(feature = "cuda")]
mod cuda;
mod driver;
mod error;
mod fetch;
mod gpu;
pub mod lanes;
pub mod layers;
pub mod ledger;
pub mod nccl;
mod source;
mod vector;

pub use activation::{Activation, Factors};
#[cfg(feature = "cuda")]
pub use cuda::{Cuda, devices};
pub use driver::{Argument, Convolution, Copying, Driver, Kernel, Mark, Number, Numbers, Product, Products, Side};
pub use error::GpuError;
pub use fetch::Fetch;
pub use gpu::Gpu;
pub use half::bf16;
pub use ledger::Ledger;
pub use source::{KERNELS, THREADS};
pub use vector::{Element, Part, PartMut, Vector};
