//! Weights into the points, and gradients at the points back to weights.

#![allow(unsafe_code, reason = "SIMD intrinsics")]

use super::f4::F4;
use super::simd::Simd;
use super::tile::{PAD, Tile};

/// Weights [O, C, 3, 3] as those of a forward product.
#[derive(Debug, Clone, Copy)]
pub(super) enum View {
    /// As they are: from C to O.
    Plain,
    /// Flipped and transposed, from O to C: backward-data as a forward product.
    Adjoint,
}

/// From a point of transformed weights to the next.
pub(super) fn point(inputs: usize, outputs: usize) -> usize {
    inputs * outputs + PAD
}

/// `v = G g G'` in the order that products read: [point][pair of output groups][input][2 LANES], and LANES alone where the
/// last group has no partner. `inputs` and `outputs` are the product's.
///
/// # Safety
/// [`Simd`]'s; weights and v have these sizes.
#[inline(always)]
pub(super) unsafe fn pack<T: Tile, V: Simd>(
    weights: *const f32,
    view: View,
    (inputs, outputs): (usize, usize),
    v: *mut f32,
) {
    let (from_input, from_output) = match view {
        View::Plain => (9, inputs * 9),
        View::Adjoint => (outputs * 9, 9),
    };
    let point = point(inputs, outputs);
    let groups = outputs / V::LANES;
    for group in 0..groups {
        let width = (groups - (group & !1)).min(2);
        for input in 0..inputs {
            // SAFETY: the caller's promise.
            unsafe {
                let from = weights.add(group * V::LANES * from_output + input * from_input);
                let load = |tap: usize| {
                    let tap = match view {
                        View::Plain => tap,
                        View::Adjoint => 8 - tap,
                    };
                    V::gather(from.add(tap), from_output)
                };
                let rows = [[load(0), load(1), load(2)], [load(3), load(4), load(5)], [load(6), load(7), load(8)]];
                let to = v.add(((group & !1) * inputs + input * width + (group & 1)) * V::LANES);
                T::weight(rows, to, point);
            }
        }
    }
}

/// Floats of weights, or of their gradients, at the points; the latter lie as [point][output group][input][LANES].
pub(super) fn floats<T: Tile>(inputs: usize, outputs: usize) -> usize {
    T::POINTS * point(inputs, outputs)
}

/// `G' m G` of gradients at the points, as [output group][input][tap][LANES].
///
/// # Safety
/// [`Simd`]'s; the slices have these sizes.
#[inline(always)]
pub(super) unsafe fn unpack<V: Simd>(m: *const f32, (inputs, outputs): (usize, usize), sum: *mut f32) {
    let point = point(inputs, outputs);
    for pair in 0..inputs * outputs / V::LANES {
        // SAFETY: the caller's promise.
        unsafe {
            let taps = F4::weight_gradient::<V>(m.add(pair * V::LANES), point);
            for row in 0..3 {
                for column in 0..3 {
                    taps[row][column].store(sum.add((pair * 9 + row * 3 + column) * V::LANES));
                }
            }
        }
    }
}

/// Adds `sums`, each as [`unpack`] leaves it, in their order, into dW [O, C, 3, 3].
///
/// # Safety
/// [`Simd`]'s; the slices have these sizes.
#[inline(always)]
pub(super) unsafe fn add_up<V: Simd>(sums: &[f32], (inputs, outputs): (usize, usize), dweight: *mut f32) {
    let weights = inputs * outputs * 9;
    let mut taps = [[0.0f32; 16]; 9];
    for pair in 0..inputs * outputs / V::LANES {
        let (group, input) = (pair / inputs, pair % inputs);
        // SAFETY: the caller's promise; lanes are at most 16.
        unsafe {
            for (tap, taps) in taps.iter_mut().enumerate() {
                let at = sums.as_ptr().add((pair * 9 + tap) * V::LANES);
                let mut total = V::load(at);
                for sum in 1..sums.len() / weights {
                    total = total.add(V::load(at.add(sum * weights)));
                }
                total.store(taps.as_mut_ptr());
            }
            for lane in 0..V::LANES {
                let to = dweight.add(((group * V::LANES + lane) * inputs + input) * 9);
                for (tap, taps) in taps.iter().enumerate() {
                    *to.add(tap) = taps[lane];
                }
            }
        }
    }
}
