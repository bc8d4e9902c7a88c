//! Random directions, which take a gradient's place where one asks what the gradient is good for.

use std::ops::Range;

use strath_core::random::Stream;

use super::Arg;
use crate::error::GpuError;
use crate::gpu::Grid;
use crate::vector::Vector;

/// Standard normal draws of a stream of random numbers from its beginning, in the place of some values: to the bits of
/// `strath_kernels::vector::normals`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vector has no such values.
pub fn normals(draws: &mut Vector<f32>, range: Range<usize>, stream: &Stream) -> Result<(), GpuError> {
    let ([key, other], [low, high]) = stream.key_and_domain();
    let word = |word: u32| Arg::Int(word.cast_signed());
    let (len, blocks) = (range.len(), range.len().div_ceil(4));
    let place = draws.part_mut(range).address();
    let arguments = [word(key), word(other), word(low), word(high), place, Arg::Long(len as i64)];
    // SAFETY: a thread four values, and every thread stays below the length.
    unsafe { draws.gpu().launch("normals", Grid::Elements(blocks), arguments) }
}
