//! The vector mathematics of a lane, on flat parameter vectors: norm, epsilon, sums in fixed point, optimizers.
//!
//! These loops do little with each value, so their speed is that of memory: every function says how many passes it makes and how many
//! bytes a value it moves. Bits depend on the values alone. Each loop is written once and compiled for each instruction set
//! (`vectorised.rs`), sums are taken in `f64` over fixed blocks with a fixed number of interleaved accumulators (`blocks.rs`), and a
//! multiplication and an addition are never contracted into one rounding.
//!
//! | step of a lane | passes | bytes a value |
//! | --- | --- | --- |
//! | [`sum_of_squares`], [`sum_of_scaled_squares`] | 1 | 4, with ASAM's scale 8 |
//! | [`dot`] | 1 | 8 |
//! | [`lift`]: w + epsilon and epsilon's norm | 1 | 12 |
//! | [`products`]: what the angle of two gradients follows from | 1 | 8 |
//! | [`add_fixed`]: check, weight, convert and add | 1 | 20 |
//! | [`add_wide`], [`add_floats`], the same for a lane of several micro-batches | 1 | 36, 12 |
//! | [`round_fixed`], [`round_wide`] | 1 | 12, 20 |
//! | [`normals`]: random bits become normal draws | 1 | 8 |
//! | [`sgd`], [`sgd_momentum`], [`adamw`], clipping included | 1 | 12, 20, 28 |

#![allow(clippy::inline_always, reason = "parts of loops that are compiled anew for each instruction set")]

mod blocks;
mod fixed;
mod lift;
mod norm;
mod normal;
mod optimizer;
mod products;

pub use fixed::{add_fixed, add_floats, add_wide, first_out_of_range, round_fixed, round_wide};
pub use lift::{epsilon, lift};
pub use norm::{dot, sum_of_scaled_squares, sum_of_squares};
pub use normal::normals;
pub use optimizer::{AdamW, Momentum, adamw, add_scaled, sgd, sgd_momentum};
pub use products::{Products, products};

#[cfg(test)]
mod tests {
    use crate::isa::Isa;

    /// The sets that this processor has.
    pub(super) fn each_isa() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| *isa <= Isa::best())
    }

    /// Values of both signs and of many magnitudes, zeros among them, from a small generator.
    pub(super) fn values(len: usize, seed: u32) -> Vec<f32> {
        let mut state = u64::from(seed) * 2 + 1;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        let value = |draws: [u32; 3]| {
            let magnitude = f32::from_bits((127 - 40 + draws[0] % 54) << 23 | draws[1] >> 8);
            match draws[2] % 16 {
                0 => 0.0,
                odd if odd % 2 == 1 => -magnitude,
                _ => magnitude,
            }
        };
        (0..len).map(|_| value([draw(), draw(), draw()])).collect()
    }
}
