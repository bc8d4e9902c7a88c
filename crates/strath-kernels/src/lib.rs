//! CPU kernels of Strath on contiguous `f32` slices, forward and backward.
//!
//! Images are [N, H, W, C], channels innermost; weights lie as PyTorch's. [`isa`] finds the instruction set; no kernel's bits depend on the number of threads: work is cut into pieces whose size
//! does not depend on it, each piece is computed by one thread, and what pieces contribute to a sum is added in their
//! order. `exp`, `log` and `erf` come from the `libm` crate, never from the platform's library, which differs between
//! distributions.

pub mod attention;
pub mod batch_norm;
pub mod bias;
pub mod channels;
mod columns;
pub mod conv;
pub mod cross_entropy;
mod dims;
mod elementary;
pub mod gelu;
pub mod group_norm;
pub mod isa;
mod lanes;
pub mod layer_norm;
pub mod linear;
pub mod norm_tangent;
pub mod peak;
pub mod pointwise;
pub mod pool;
pub mod product;
pub mod rows;
mod scratch;
pub mod shortcut;
pub mod tangent;
pub mod threads;
pub mod vector;
mod vectorised;

pub use dims::Dims;
