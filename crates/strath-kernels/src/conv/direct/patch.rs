//! The kernels of backward-weight: sums over the pixels of a few rows, for a few channels and taps, all in registers.
//!
//! ```text
//! dw[a, b, c, o] += sum over images, rows i and columns j of x[i stride + a, j stride + b, c] dy[i, j, o]
//! ```

use super::lanes::{Avx2, Avx512, Lanes, fetch, opaque, unroll, unroll2, unroll3, unroll8};

/// What a call sums over, and where; distances in floats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patch {
    /// The input of the first pixel at the first tap and channel.
    pub x: *const f32,
    /// From a pixel's input to the next pixel's.
    pub x_pixel: usize,
    /// From an input to that of the tap beside it.
    pub x_column: usize,
    /// From a row's inputs to those of the next row of pixels.
    pub x_row: usize,
    /// From a tap's input to that of the tap below it.
    pub x_tap: usize,
    /// From an image's inputs to the next image's.
    pub x_image: usize,
    /// The gradient at the first pixel's first output.
    pub dy: *const f32,
    /// From a pixel's gradient to the next pixel's.
    pub dy_pixel: usize,
    /// From a row's gradients to the next row's.
    pub dy_row: usize,
    /// From an image's gradients to the next image's.
    pub dy_image: usize,
    /// The sums of the first tap, channel and output.
    pub sum: *mut f32,
    /// From a channel's sums to the next channel's.
    pub sum_channel: usize,
    /// From a tap's sums to those of the tap beside it.
    pub sum_tap: usize,
    /// From a tap's sums to those of the tap below it.
    pub sum_row: usize,
    /// What the next patch will read: a line of cache is asked for with nearly each pixel.
    pub ahead: *const f32,
    /// Images.
    pub images: usize,
    /// Rows of pixels of an image.
    pub rows: usize,
    /// Pixels of a row.
    pub columns: usize,
    /// The pixel from which on the last tap of a row of three lies outside.
    pub last: usize,
    /// Lanes of the last vector that are outputs.
    pub tail: usize,
}

/// A kernel.
///
/// # Safety
/// It needs a processor with its instruction set, and a patch whose reads and writes lie inside of slices, the sums being nobody
/// else's.
pub(super) type Kernel = unsafe fn(&Patch);

/// The taps that a kernel sums for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taps {
    /// One; its inputs all lie inside.
    One,
    /// Three of a row, for stride and padding 1: pixels are whole rows of the image, `x` is the first pixel's own input.
    Row,
    /// Three of a row, for any stride and padding 1; `x` is the first pixel's middle input.
    Strided,
    /// Three rows of three.
    Rows,
}

/// What a kernel is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// Taps.
    pub taps: Taps,
    /// Channels.
    pub channels: usize,
    /// Vectors of outputs.
    pub vectors: usize,
}

/// The kernels of an instruction set; of those that fit, the first is the best.
pub(super) struct Kernels {
    /// Floats in a vector.
    pub lanes: usize,
    /// Each where the last vector is full, and where it has a tail.
    pub forms: &'static [(Form, [Kernel; 2])],
}

/// Floats of a line of cache.
const LINE: usize = 16;

/// Read in the place of a gradient beside the image.
static ZEROS: [f32; 32] = [0.0; 32];

#[inline(always)]
unsafe fn gradients<L: Lanes, const V: usize, const TAIL: bool>(from: *const f32, tail: usize) -> [L::V; 2] {
    // SAFETY: the caller's gradients hold V vectors, the last of `tail` floats.
    unsafe {
        let last = from.add((V - 1) * L::N);
        let last = if TAIL { L::load_first(last, tail) } else { L::load(last) };
        if V == 2 { [L::load(from), last] } else { [last, L::zero()] }
    }
}

/// One tap, `C` channels, `V` vectors.
#[inline(always)]
unsafe fn one<L: Lanes, const C: usize, const V: usize, const TAIL: bool>(b: &Patch) {
    // SAFETY: as the patch says.
    unsafe {
        let mut sums = [[L::zero(); 2]; 8];
        unroll8!(c < C => { unroll2!(v < V => {
            sums[c][v] = L::load(b.sum.add(c * b.sum_channel + v * L::N));
        }); });
        let mut ahead = b.ahead;
        for image in 0..b.images {
            for i in 0..b.rows {
                let mut x = b.x.add(image * b.x_image + i * b.x_row);
                let mut dy = b.dy.add(image * b.dy_image + i * b.dy_row);
                for _ in 0..b.columns {
                    fetch(ahead);
                    ahead = ahead.wrapping_add(LINE);
                    let d = gradients::<L, V, TAIL>(dy, b.tail);
                    unroll8!(c < C => {
                        let input = L::splat(x.add(c));
                        unroll2!(v < V => { sums[c][v] = L::fma(input, d[v], sums[c][v]); });
                    });
                    (x, dy) = (x.wrapping_add(b.x_pixel), dy.wrapping_add(b.dy_pixel));
                }
            }
        }
        unroll8!(c < C => { unroll2!(v < V => {
            L::store(b.sum.add(c * b.sum_channel + v * L::N), sums[c][v]);
        }); });
    }
}

/// `ROWS` rows of three taps, `C` channels, `V` vectors.
///
/// An input meets the gradients of the pixel to its right (tap 0), its own and the one to its left (tap 2), zeros past the ends
/// of the row. They are read again for each input: rolled along in registers, LLVM renames and spills the sums.
#[inline(always)]
unsafe fn rolling<L: Lanes, const ROWS: usize, const C: usize, const V: usize, const TAIL: bool>(b: &Patch) {
    // SAFETY: as the patch says.
    unsafe {
        let mut sums = [[[[L::zero(); 2]; 3]; 8]; 3];
        unroll3!(a < ROWS => { unroll8!(c < C => { unroll3!(t < 3 => { unroll2!(v < V => {
            sums[a][c][t][v] = L::load(b.sum.add(a * b.sum_row + c * b.sum_channel + t * b.sum_tap + v * L::N));
        }); }); }); });
        let mut ahead = b.ahead;
        for image in 0..b.images {
            for i in 0..b.rows {
                let mut x = b.x.add(image * b.x_image + i * b.x_row);
                let mut own = b.dy.add(image * b.dy_image + i * b.dy_row);
                let mut left = ZEROS.as_ptr();
                for j in 1..=b.columns {
                    fetch(ahead);
                    ahead = ahead.wrapping_add(LINE);
                    let right = if j < b.columns { own.wrapping_add(b.dy_pixel) } else { ZEROS.as_ptr() };
                    let d = [
                        gradients::<L, V, TAIL>(right, b.tail),
                        gradients::<L, V, TAIL>(own, b.tail),
                        gradients::<L, V, TAIL>(left, b.tail),
                    ];
                    unroll3!(a < ROWS => {
                        let mut input = x.wrapping_add(a * b.x_tap);
                        unroll8!(c < C => {
                            // Else all inputs are read first, into registers that the sums need.
                            input = opaque(input);
                            let value = L::splat(input.wrapping_add(c));
                            unroll3!(t < 3 => { unroll2!(v < V => {
                                sums[a][c][t][v] = L::fma(value, d[t][v], sums[a][c][t][v]);
                            }); });
                        });
                    });
                    (left, own) = (own, right);
                    x = x.wrapping_add(b.x_pixel);
                }
            }
        }
        unroll3!(a < ROWS => { unroll8!(c < C => { unroll3!(t < 3 => { unroll2!(v < V => {
            L::store(b.sum.add(a * b.sum_row + c * b.sum_channel + t * b.sum_tap + v * L::N), sums[a][c][t][v]);
        }); }); }); });
    }
}

/// Adds to `sums` what a pixel's gradients contribute, its three inputs being these.
#[inline(always)]
unsafe fn add_pixel<L: Lanes, const C: usize, const V: usize, const TAIL: bool>(
    inputs: [*const f32; 3],
    (dy, tail): (*const f32, usize),
    sums: &mut [[[L::V; 2]; 3]; 8],
) {
    // SAFETY: the caller's pixel.
    unsafe {
        let d = gradients::<L, V, TAIL>(dy, tail);
        unroll3!(t < 3 => {
            let mut input = inputs[t];
            unroll8!(c < C => {
                input = opaque(input);
                let value = L::splat(input.wrapping_add(c));
                unroll2!(v < V => { sums[c][t][v] = L::fma(value, d[v], sums[c][t][v]); });
            });
        });
    }
}

/// Three taps of a row, `C` channels, `V` vectors, pixels far enough apart that they share few inputs or none.
#[inline(always)]
unsafe fn strided<L: Lanes, const C: usize, const V: usize, const TAIL: bool>(b: &Patch) {
    // SAFETY: as the patch says; inputs past the ends of the row are read from ZEROS, which holds the 8 channels at most.
    unsafe {
        let mut sums = [[[L::zero(); 2]; 3]; 8];
        unroll8!(c < C => { unroll3!(t < 3 => { unroll2!(v < V => {
            sums[c][t][v] = L::load(b.sum.add(c * b.sum_channel + t * b.sum_tap + v * L::N));
        }); }); });
        let mut ahead = b.ahead;
        // The pixels whose three inputs lie inside: the others apart, so that the inner loop chooses nothing.
        let inner = 1.max(b.last.min(b.columns)).min(b.columns);
        for image in 0..b.images {
            for i in 0..b.rows {
                let mut x = b.x.add(image * b.x_image + i * b.x_row);
                let mut dy = b.dy.add(image * b.dy_image + i * b.dy_row);
                let right = if b.last > 0 { x.wrapping_add(b.x_column) } else { ZEROS.as_ptr() };
                add_pixel::<L, C, V, TAIL>([ZEROS.as_ptr(), x, right], (dy, b.tail), &mut sums);
                for _ in 1..inner {
                    (x, dy) = (x.wrapping_add(b.x_pixel), dy.wrapping_add(b.dy_pixel));
                    fetch(ahead);
                    ahead = ahead.wrapping_add(LINE);
                    let inputs = [x.wrapping_sub(b.x_column), x, x.wrapping_add(b.x_column)];
                    add_pixel::<L, C, V, TAIL>(inputs, (dy, b.tail), &mut sums);
                }
                for _ in inner..b.columns {
                    (x, dy) = (x.wrapping_add(b.x_pixel), dy.wrapping_add(b.dy_pixel));
                    let inputs = [x.wrapping_sub(b.x_column), x, ZEROS.as_ptr()];
                    add_pixel::<L, C, V, TAIL>(inputs, (dy, b.tail), &mut sums);
                }
            }
        }
        unroll8!(c < C => { unroll3!(t < 3 => { unroll2!(v < V => {
            L::store(b.sum.add(c * b.sum_channel + t * b.sum_tap + v * L::N), sums[c][t][v]);
        }); }); });
    }
}

/// The kernels of an instruction set: the bodies above compiled for it.
macro_rules! kernels {
    (
        $name:ident, $lanes:ty, $features:literal,
        one: [$($channels:literal x $vectors:literal)*],
        strided: [$($far_channels:literal x $far_vectors:literal)*],
        rolling: [$($taps:ident $rows:literal, $roll_channels:literal x $roll_vectors:literal;)*]
    ) => {
        pub(super) static $name: Kernels = {
            #[target_feature(enable = $features)]
            unsafe fn one_tap<const C: usize, const V: usize, const TAIL: bool>(b: &Patch) {
                // SAFETY: the caller's patch and instruction set.
                unsafe { one::<$lanes, C, V, TAIL>(b) }
            }

            #[target_feature(enable = $features)]
            unsafe fn three_taps<const ROWS: usize, const C: usize, const V: usize, const TAIL: bool>(b: &Patch) {
                // SAFETY: the caller's patch and instruction set.
                unsafe { rolling::<$lanes, ROWS, C, V, TAIL>(b) }
            }

            #[target_feature(enable = $features)]
            unsafe fn three_taps_far_apart<const C: usize, const V: usize, const TAIL: bool>(b: &Patch) {
                // SAFETY: the caller's patch and instruction set.
                unsafe { strided::<$lanes, C, V, TAIL>(b) }
            }

            Kernels {
                lanes: <$lanes>::N,
                forms: &[
                    $((
                        Form { taps: Taps::$taps, channels: $roll_channels, vectors: $roll_vectors },
                        [
                            three_taps::<$rows, $roll_channels, $roll_vectors, false>,
                            three_taps::<$rows, $roll_channels, $roll_vectors, true>,
                        ],
                    ),)*
                    $((
                        Form { taps: Taps::Strided, channels: $far_channels, vectors: $far_vectors },
                        [
                            three_taps_far_apart::<$far_channels, $far_vectors, false>,
                            three_taps_far_apart::<$far_channels, $far_vectors, true>,
                        ],
                    ),)*
                    $((
                        Form { taps: Taps::One, channels: $channels, vectors: $vectors },
                        [one_tap::<$channels, $vectors, false>, one_tap::<$channels, $vectors, true>],
                    ),)*
                ],
            }
        };
    };
}

kernels!(
    AVX512, Avx512, "avx512f,avx512bw,avx512dq,avx512vl",
    one: [8 x 2 8 x 1 4 x 2 4 x 1 2 x 2 2 x 1 1 x 2 1 x 1],
    strided: [4 x 2 8 x 1 4 x 1 2 x 2 2 x 1 1 x 2 1 x 1],
    rolling: [
        Rows 3, 3 x 1;
        Rows 3, 1 x 1;
        Row 1, 4 x 2;
        Row 1, 8 x 1;
        Row 1, 4 x 1;
        Row 1, 2 x 2;
        Row 1, 2 x 1;
        Row 1, 1 x 2;
        Row 1, 1 x 1;
    ]
);

kernels!(
    AVX2, Avx2, "avx2,fma",
    one: [4 x 2 8 x 1 4 x 1 2 x 2 2 x 1 1 x 2 1 x 1],
    // Rows at stride 1 too: three gradients and twelve sums leave no register for the input.
    strided: [2 x 2 4 x 1 2 x 1 1 x 2 1 x 1],
    rolling: [Rows 3, 1 x 1;]
);
