//! Which shapes are taken, how work is cut into chunks of images, and the step from a set found at run time to code compiled
//! for it.

#![allow(unsafe_code, reason = "functions compiled for an instruction set")]

use core::arch::x86_64::{__m256, __m512};

use super::f2::F2;
use super::f4::F4;
use super::forward::Forward;
use super::gradient::Gradient;
use super::tile::{Tile, block};
use super::tiling::{Grid, Plane};
use super::weights::{self, View};
use crate::conv::Shape;
use crate::isa::Isa;
use crate::scratch::{OWN, SHARED, with};
use crate::threads::for_chunks;

/// Images of a chunk of a forward product, at most.
const IMAGES: usize = 8;
/// Tiles of a chunk of the weight gradient, at least, in a power of two of images, as batches often are: leaving the points
/// costs as much as some tens of tiles.
const GRADIENT_TILES: usize = 128;

/// Whether tiles of this size serve a shape: 3x3 at stride 1 with padding up to 2, channels of both sides in multiples of 16, and
/// outputs that fill their tiles at least half (below that the direct kernels win). The number of images has no say.
fn takes<T: Tile>(isa: Isa, shape: &Shape) -> bool {
    let (height, width) = shape.output();
    isa >= Isa::Avx2
        && shape.kernel == (3, 3)
        && shape.stride == 1
        && shape.padding <= 2
        && shape.inputs > 0
        && shape.inputs.is_multiple_of(16)
        && shape.outputs > 0
        && shape.outputs.is_multiple_of(16)
        && height * width > 0
        && 2 * height * width >= T::SIDE * T::SIDE * Grid::new((height, width), T::SIDE).tiles()
}

/// Defines a function that runs a generic one compiled for the given set.
macro_rules! compiled {
    ($name:ident $(<$tile:ident>)? => $generic:expr, $generic_wide:expr, ($($argument:ident: $type:ty),*)) => {
        /// # Safety
        /// The processor has the set, which is one of vectors; else the generic function's.
        unsafe fn $name$(<$tile: Tile>)?(isa: Isa, $($argument: $type),*) {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn wide$(<$tile: Tile>)?($($argument: $type),*) {
                // SAFETY: the caller's promise.
                unsafe { $generic_wide($($argument),*) }
            }
            #[target_feature(enable = "avx2,fma")]
            unsafe fn narrow$(<$tile: Tile>)?($($argument: $type),*) {
                // SAFETY: the caller's promise.
                unsafe { $generic($($argument),*) }
            }
            // SAFETY: the caller's promise.
            match isa {
                Isa::Avx512 => unsafe { wide$(::<$tile>)?($($argument),*) },
                _ => unsafe { narrow$(::<$tile>)?($($argument),*) },
            }
        }
    };
}

compiled!(pack<T> => weights::pack::<T, __m256>, weights::pack::<T, __m512>,
    (weights: *const f32, view: View, channels: (usize, usize), v: *mut f32));
compiled!(forward_chunk<T> => Forward::chunk::<T, __m256>, Forward::chunk::<T, __m512>,
    (plan: Forward, x: *const f32, v: *const f32, y: *mut f32, images: usize, scratch: *mut f32));
compiled!(gradient_chunk => Gradient::chunk::<__m256>, Gradient::chunk::<__m512>,
    (plan: Gradient, x: *const f32, dy: *const f32, sum: *mut f32, images: usize, scratch: *mut f32));
compiled!(add_up => weights::add_up::<__m256>, weights::add_up::<__m512>,
    (sums: &[f32], channels: (usize, usize), dweight: *mut f32));

fn lanes(isa: Isa) -> usize {
    if isa == Isa::Avx512 { 16 } else { 8 }
}

/// Images of a chunk of a forward product: as few as fill blocks of tiles, since a block that is not full reads all weights too.
fn chunk_images<T: Tile>(isa: Isa, grid: Grid) -> usize {
    (1..IMAGES).find(|images| (images * grid.tiles()).is_multiple_of(block::<T>(lanes(isa)))).unwrap_or(IMAGES)
}

/// Tiles of a forward product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::conv) enum Tiles {
    /// 2 x 2 outputs: the error of the plain sum.
    Fine,
    /// 4 x 4 outputs: fewer multiplications, about twice that error.
    Coarse,
}

/// y from x and W where the shape is taken; false where it is not.
pub(in crate::conv) fn forward(
    isa: Isa,
    tiles: Tiles,
    shape: &Shape,
    x: &[f32],
    weight: &[f32],
    y: &mut [f32],
) -> bool {
    match tiles {
        Tiles::Fine if takes::<F2>(isa, shape) => product::<F2>(isa, shape, View::Plain, x, weight, y),
        Tiles::Coarse if takes::<F4>(isa, shape) => product::<F4>(isa, shape, View::Plain, x, weight, y),
        _ => return false,
    }
    true
}

/// dx from dy and W where the shape is taken; false where it is not.
pub(in crate::conv) fn backward_data(isa: Isa, shape: &Shape, dy: &[f32], weight: &[f32], dx: &mut [f32]) -> bool {
    if !takes::<F4>(isa, shape) {
        return false;
    }
    let (height, width) = shape.output();
    let adjoint =
        Shape { inputs: shape.outputs, height, width, outputs: shape.inputs, padding: 2 - shape.padding, ..*shape };
    product::<F4>(isa, &adjoint, View::Adjoint, dy, weight, dx);
    true
}

fn planes<T: Tile>(shape: &Shape) -> (Plane, Plane, Grid) {
    let (height, width) = shape.output();
    let x = Plane { height: shape.height, width: shape.width, channels: shape.inputs };
    (x, Plane { height, width, channels: shape.outputs }, Grid::new((height, width), T::SIDE))
}

fn product<T: Tile>(isa: Isa, shape: &Shape, view: View, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let Shape { images, inputs, outputs, padding, .. } = *shape;
    let (x_plane, y_plane, grid) = planes::<T>(shape);
    assert!(x.len() == images * x_plane.image() && y.len() == images * y_plane.image());
    assert!(weight.len() == shape.weights() && isa <= Isa::best());
    with(&SHARED, weights::floats::<T>(inputs, outputs), |v| {
        // SAFETY: lengths and set were just checked.
        unsafe { pack::<T>(isa, weight.as_ptr(), view, (inputs, outputs), v.as_mut_ptr()) };
        let v = &*v;
        let size = chunk_images::<T>(isa, grid);
        for_chunks(y, size * y_plane.image(), |chunk, y| {
            let from = chunk * size;
            let plan = Forward { x: x_plane, y: y_plane, grid, padding, images: images - from };
            let (x, count) = (&x[from * x_plane.image()..], y.len() / y_plane.image());
            with(&OWN, plan.scratch::<T>(lanes(isa)), |scratch| {
                let (y, scratch) = (y.as_mut_ptr(), scratch.as_mut_ptr());
                // SAFETY: x holds the rest of the images, y `count` of them, v the packed weights.
                unsafe { forward_chunk::<T>(isa, plan, x.as_ptr(), v.as_ptr(), y, count, scratch) };
            });
        });
    });
}

/// dW from x and dy where the shape is taken; false where it is not.
pub(in crate::conv) fn backward_weight(isa: Isa, shape: &Shape, x: &[f32], dy: &[f32], dweight: &mut [f32]) -> bool {
    if !takes::<F4>(isa, shape) {
        return false;
    }
    let Shape { images, inputs, outputs, padding, .. } = *shape;
    let (x_plane, dy_plane, grid) = planes::<F4>(shape);
    assert!(x.len() == images * x_plane.image() && dy.len() == images * dy_plane.image());
    assert!(dweight.len() == shape.weights() && isa <= Isa::best());
    if images == 0 {
        dweight.fill(0.0);
        return true;
    }
    let size = GRADIENT_TILES.div_ceil(grid.tiles()).next_power_of_two();
    let weights = shape.weights();
    let sums = images.div_ceil(size) * weights;
    with(&SHARED, sums, |partial| {
        let partial = &mut partial[..sums];
        for_chunks(partial, weights, |chunk, sum| {
            let from = chunk * size;
            let plan = Gradient { x: x_plane, dy: dy_plane, grid, padding, images: images - from };
            let (x, dy) = (&x[from * x_plane.image()..], &dy[from * dy_plane.image()..]);
            with(&OWN, plan.scratch(lanes(isa)), |scratch| {
                let (count, scratch) = (size.min(images - from), scratch.as_mut_ptr());
                // SAFETY: x and dy hold the rest of the images, of which the chunk takes `count`; `sum` holds the weights.
                unsafe { gradient_chunk(isa, plan, x.as_ptr(), dy.as_ptr(), sum.as_mut_ptr(), count, scratch) };
            });
        });
        // SAFETY: `partial` holds sums of all weights.
        unsafe { add_up(isa, partial, (inputs, outputs), dweight.as_mut_ptr()) };
    });
    true
}
