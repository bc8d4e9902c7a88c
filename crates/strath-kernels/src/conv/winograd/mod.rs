//! Winograd's convolution for 3x3 kernels at stride 1 (Lavin and Gray 2016), on AVX2 and AVX-512: F(4x4, 3x3), and F(2x2, 3x3)
//! for forward products.
//!
//! ```text
//! forward           Y  = A' [sum over c of (G g G') . (B' d B)] A      g 3x3 weights, d 6x6 inputs, Y 4x4 outputs
//! backward-data     forward with weights flipped and transposed, padding 2 - p
//! backward-weight   dW = G' [sum over tiles of (B' d B) . (A dY A')] G
//! ```
//!
//! 36 multiplications do the work of 144, and in F(2x2) 16 that of 36. The price is error, kept low in F(4x4) by the points 0,
//! +-3/4, +-3/2 and infinity ([`f4`]); F(2x2) at 0, +-1 and infinity ([`f2`]) has less than the plain sum, since it adds up
//! fewer terms one after the other. Root mean square against float64, relative to the values', weights and images uniform in
//! [-1, 1):
//!
//! | channels, C = O | 16 | 32 | 64 | 160 |
//! | --- | --- | --- | --- | --- |
//! | y and dx by F(4x4) | 5.0e-7 | 6.1e-7 | 7.5e-7 | 13e-7 |
//! | y by F(2x2) | 1.6e-7 | 2.1e-7 | 2.7e-7 | 4.3e-7 |
//! | y by the plain sum in its order | 2.2e-7 | 3.0e-7 | 4.0e-7 | 6.4e-7 |
//! | dW by F(4x4), 512 to 12,544 pixels | 6.6e-7 | 6.1e-7 | 5.5e-7 | 6.3e-7 |
//!
//! Taken are shapes with both channels in multiples of 16, padding up to 2, and outputs that fill at least half of their tiles:
//! with F(4x4) 6x6 and 7x7 but not 5x5, which is two tiles wide and high too; with F(2x2) all but 1x1.
//!
//! Bits: every output is the same function of its tile's inputs wherever the tile falls, so forward and backward-data do
//! not depend on how a batch is split. The weight gradient is summed by chunks of a fixed number of images, and those are
//! added in order. Neither depends on the number of threads.

#![allow(clippy::inline_always, reason = "generic code gets its instruction set from the function it is inlined into")]
#![allow(clippy::needless_range_loop, reason = "rows and columns of matrices read better by index")]

#[cfg(target_arch = "x86_64")]
mod f2;
#[cfg(target_arch = "x86_64")]
mod f4;
#[cfg(target_arch = "x86_64")]
mod forward;
#[cfg(target_arch = "x86_64")]
mod gradient;
#[cfg(target_arch = "x86_64")]
mod products;
#[cfg(target_arch = "x86_64")]
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(target_arch = "x86_64")]
mod tile;
#[cfg(target_arch = "x86_64")]
mod tiling;
#[cfg(target_arch = "x86_64")]
mod weights;

#[cfg(target_arch = "x86_64")]
mod dispatch;
#[cfg(target_arch = "x86_64")]
pub(super) use dispatch::{Tiles, backward_data, backward_weight, forward};

#[cfg(not(target_arch = "x86_64"))]
pub(super) use elsewhere::{Tiles, backward_data, backward_weight, forward};

/// Processors without these kernels: no shape is taken.
#[cfg(not(target_arch = "x86_64"))]
mod elsewhere {
    use crate::conv::Shape;
    use crate::isa::Isa;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Tiles {
        Fine,
        Coarse,
    }

    pub(crate) fn forward(_: Isa, _: Tiles, _: &Shape, _: &[f32], _: &[f32], _: &mut [f32]) -> bool {
        false
    }
    pub(crate) fn backward_data(_: Isa, _: &Shape, _: &[f32], _: &[f32], _: &mut [f32]) -> bool {
        false
    }
    pub(crate) use backward_data as backward_weight;
}

#[cfg(all(test, target_arch = "x86_64"))]
mod sixteen;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
