//! CPU kernels of Strath on contiguous `f32` slices, forward and backward.
//!
//! Images are [N, C, H, W], row-major. No kernel's bits depend on the number of threads: work is cut into pieces whose size
//! does not depend on it, each piece is computed by one thread, and what pieces contribute to a sum is added in their
//! order. `exp`, `log` and `erf` come from the `libm` crate, never from the platform's library, which differs between
//! distributions.

pub mod activation;
pub mod conv;
pub mod convolution;
pub mod isa;
pub mod norm;
pub mod pool;
pub mod product;
pub mod softmax;
pub mod threads;
