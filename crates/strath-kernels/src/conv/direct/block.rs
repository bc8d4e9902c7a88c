//! The kernel of forward and backward-data: a few pixels times one or two vectors of channels, all sums in registers.
//!
//! ```text
//! y[p, o] = sum over tap rows a, tap columns b and channels c of x[a, p stride + b, c] w[a, c, b, o]
//! ```
//!
//! A block is `P` neighbouring pixels, of one image or of two at once, times `V` vectors. Where its row has taps outside of the
//! input, at its first or its last pixel, they are left out at compile time: no copy with zeros around it, no waste.

use super::lanes::{Avx2, Avx512, Lanes, fetch, opaque, unroll, unroll2, unroll3};

/// Where a block reads and writes; strides and distances in floats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// The input that the first pixel reads at the first tap; outside of the image where that tap is left out.
    pub x: *const f32,
    /// From a pixel's input to the next pixel's.
    pub x_pixel: usize,
    /// From a tap's input to that of the next tap of the row.
    pub x_tap: usize,
    /// From a tap's input to that of the next row of taps.
    pub x_row: usize,
    /// From an input of the first image to that of the second.
    pub x_image: usize,
    /// The weights of the first tap.
    pub w: *const f32,
    /// From a channel's weights to the next channel's.
    pub w_channel: usize,
    /// From a tap's weights to the next tap's.
    pub w_tap: usize,
    /// From the weights of a row of taps to the next row's.
    pub w_row: usize,
    /// The outputs of the first pixel.
    pub y: *mut f32,
    /// From a pixel's outputs to the next pixel's.
    pub y_pixel: usize,
    /// From an output of the first image to that of the second.
    pub y_image: usize,
    /// The inputs that the next block is the first to read: a line of cache is asked for with each channel.
    pub ahead: *const f32,
    /// Rows of taps.
    pub rows: usize,
    /// Taps of a row; kernels with a fixed number of them do not look.
    pub taps: usize,
    /// Channels to sum over.
    pub channels: usize,
    /// Lanes of the last vector that are outputs.
    pub tail: usize,
}

/// A kernel.
///
/// # Safety
/// It needs a processor with its instruction set, and a block whose reads and writes lie inside of slices that nobody else
/// writes or, for `y`, reads.
pub(super) type Kernel = unsafe fn(&Block);

/// What a kernel of whole rows is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// Neighbouring pixels.
    pub pixels: usize,
    /// Images.
    pub images: usize,
    /// Vectors of outputs.
    pub vectors: usize,
    /// Taps of a row.
    pub taps: usize,
    /// Distance of neighbouring pixels, in taps.
    pub stride: usize,
    /// Whether the first pixel's first tap lies outside.
    pub left: bool,
    /// Whether the last pixel's last tap lies outside.
    pub right: bool,
}

/// The kernels of an instruction set.
pub(super) struct Kernels {
    /// Floats in a vector.
    pub lanes: usize,
    /// Any taps, all of them inside: `[pixels - 1][vectors - 1]`.
    pub any: &'static [[Kernel; 2]],
    /// Whole rows, or parts of them that begin or end at the border.
    pub rows: &'static [(Form, Kernel)],
}

/// Floats of a line of cache.
const LINE: usize = 16;

/// Most sums of a block.
const SUMS: usize = 28;

#[inline(always)]
unsafe fn weights<L: Lanes, const V: usize>(from: *const f32) -> [L::V; 2] {
    // SAFETY: the caller's weights hold V vectors.
    unsafe { [L::load(from), if V == 2 { L::load(from.add(L::N)) } else { L::zero() }] }
}

/// Adds to `sums` what `TAPS` taps of one channel contribute; reads each input once for all taps, one vector of outputs.
#[inline(always)]
unsafe fn add_row<L: Lanes, const P: usize, const TAPS: usize, const LEFT: bool, const RIGHT: bool>(
    b: &Block,
    x: *const f32,
    w: *const f32,
    sums: &mut [[L::V; 2]; SUMS],
) {
    // SAFETY: as the block says; inputs outside are not read.
    unsafe {
        let mut w3 = [L::zero(); 3];
        unroll3!(t < TAPS => { w3[t] = L::load(w.add(t * b.w_tap)); });
        let mut walk = x;
        unroll!(q < (P + TAPS - 1) => {
            // Three multiples of the stride fit the addressing modes; every fourth input takes an addition.
            walk = opaque(if q.is_multiple_of(4) && q > 0 { walk.wrapping_add(4 * b.x_pixel) } else { walk });
            let outside = (LEFT && q == 0) || (RIGHT && q == P + TAPS - 2);
            if !outside {
                let input = L::splat(walk.wrapping_add((q % 4) * b.x_pixel));
                unroll3!(t < TAPS => {
                    let p = q.wrapping_sub(t);
                    if p < P {
                        sums[p][0] = L::fma(input, w3[t], sums[p][0]);
                    }
                });
            }
        });
    }
}

/// Adds to `sums` what one tap of one channel contributes; `LEFT` and `RIGHT` leave out the first and the last pixel.
#[inline(always)]
unsafe fn add_tap<L: Lanes, const P: usize, const IMAGES: usize, const V: usize>(
    b: &Block,
    x: *const f32,
    w: *const f32,
    (left, right): (bool, bool),
    sums: &mut [[L::V; 2]; SUMS],
) {
    // SAFETY: as the block says; inputs outside are not read.
    unsafe {
        let w = weights::<L, V>(w);
        unroll2!(image < IMAGES => {
            let mut walk = opaque(x.wrapping_add(image * b.x_image));
            unroll!(p < P => {
                walk = opaque(if p.is_multiple_of(4) && p > 0 { walk.wrapping_add(4 * b.x_pixel) } else { walk });
                let outside = (left && p == 0) || (right && p == P - 1);
                if !outside {
                    let input = L::splat(walk.wrapping_add((p % 4) * b.x_pixel));
                    unroll2!(v < V => {
                        sums[image * P + p][v] = L::fma(input, w[v], sums[image * P + p][v]);
                    });
                }
            });
        });
    }
}

#[inline(always)]
unsafe fn store<L: Lanes, const P: usize, const IMAGES: usize, const V: usize>(b: &Block, sums: &[[L::V; 2]; SUMS]) {
    // SAFETY: as the block says.
    unsafe {
        unroll2!(image < IMAGES => {
            unroll!(p < P => {
                let y = b.y.add(image * b.y_image + p * b.y_pixel);
                unroll2!(v < V => {
                    if v + 1 < V || b.tail == L::N {
                        L::store(y.add(v * L::N), sums[image * P + p][v]);
                    } else {
                        L::store_first(y.add(v * L::N), sums[image * P + p][v], b.tail);
                    }
                });
            });
        });
    }
}

/// Any taps, all inside.
#[inline(always)]
unsafe fn any<L: Lanes, const P: usize, const V: usize>(b: &Block) {
    // SAFETY: as the block says.
    unsafe {
        let mut sums = [[L::zero(); 2]; SUMS];
        let mut ahead = b.ahead;
        for a in 0..b.rows {
            for t in 0..b.taps {
                let mut x = b.x.wrapping_add(a * b.x_row + t * b.x_tap);
                let mut w = b.w.add(a * b.w_row + t * b.w_tap);
                for _ in 0..b.channels {
                    fetch(ahead);
                    ahead = ahead.wrapping_add(LINE);
                    add_tap::<L, P, 1, V>(b, x, w, (false, false), &mut sums);
                    (x, w) = (x.wrapping_add(1), w.wrapping_add(b.w_channel));
                }
            }
        }
        store::<L, P, 1, V>(b, &sums);
    }
}

/// A row of `TAPS` taps.
#[inline(always)]
unsafe fn row<
    L: Lanes,
    const P: usize,
    const IMAGES: usize,
    const V: usize,
    const TAPS: usize,
    const STRIDE: usize,
    const LEFT: bool,
    const RIGHT: bool,
>(
    b: &Block,
) {
    // SAFETY: as the block says.
    unsafe {
        let mut sums = [[L::zero(); 2]; SUMS];
        let mut ahead = b.ahead;
        for a in 0..b.rows {
            let mut x = b.x.wrapping_add(a * b.x_row);
            let mut w = b.w.add(a * b.w_row);
            for _ in 0..b.channels {
                // Two images fill the registers, and are small enough to be near.
                if IMAGES == 1 {
                    fetch(ahead);
                    ahead = ahead.wrapping_add(LINE);
                }
                if V == 1 && IMAGES == 1 && STRIDE == 1 {
                    add_row::<L, P, TAPS, LEFT, RIGHT>(b, x, w, &mut sums);
                } else {
                    unroll3!(t < TAPS => {
                        let outside = (LEFT && t == 0, RIGHT && t == TAPS - 1);
                        add_tap::<L, P, IMAGES, V>(b, x.wrapping_add(t * b.x_tap), w.add(t * b.w_tap), outside, &mut sums);
                    });
                }
                (x, w) = (x.wrapping_add(1), w.wrapping_add(b.w_channel));
            }
        }
        store::<L, P, IMAGES, V>(b, &sums);
    }
}

/// The kernels of an instruction set: the bodies above compiled for it.
macro_rules! kernels {
    (
        $name:ident, $lanes:ty, $features:literal, any: [$($p:literal)*],
        rows: [$($pixels:literal x $vectors:literal x $images:literal, $taps:literal / $stride:literal, $left:literal $right:literal;)*]
    ) => {
        pub(super) static $name: Kernels = {
            #[target_feature(enable = $features)]
            unsafe fn any_taps<const P: usize, const V: usize>(b: &Block) {
                // SAFETY: the caller's block and instruction set.
                unsafe { any::<$lanes, P, V>(b) }
            }

            #[target_feature(enable = $features)]
            unsafe fn row_of_taps<
                const P: usize,
                const IMAGES: usize,
                const V: usize,
                const TAPS: usize,
                const STRIDE: usize,
                const LEFT: bool,
                const RIGHT: bool,
            >(
                b: &Block,
            ) {
                // SAFETY: the caller's block and instruction set.
                unsafe { row::<$lanes, P, IMAGES, V, TAPS, STRIDE, LEFT, RIGHT>(b) }
            }

            Kernels {
                lanes: <$lanes>::N,
                any: &[$([any_taps::<$p, 1>, any_taps::<$p, 2>]),*],
                rows: &[$((
                    Form {
                        pixels: $pixels,
                        images: $images,
                        vectors: $vectors,
                        taps: $taps,
                        stride: $stride,
                        left: $left,
                        right: $right,
                    },
                    row_of_taps::<$pixels, $images, $vectors, $taps, $stride, $left, $right>,
                )),*],
            }
        };
    };
}

// Rows: pixels x vectors x images, taps / stride, whether the row's first and last tap lie outside. Widths 28, 14 and 7 are
// those of ResNet on MNIST's images, 32, 16 and 8 on CIFAR's.
kernels!(
    AVX512, Avx512, "avx512f,avx512bw,avx512dq,avx512vl", any: [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
    rows: [
        14 x 1 x 1, 3 / 1, true false;
        14 x 1 x 1, 3 / 1, false true;
        14 x 2 x 1, 3 / 1, true true;
        7 x 2 x 2, 3 / 1, true true;
        7 x 2 x 1, 3 / 1, true true;
        16 x 1 x 1, 3 / 1, true false;
        16 x 1 x 1, 3 / 1, false true;
        8 x 2 x 1, 3 / 1, true false;
        8 x 2 x 1, 3 / 1, false true;
        8 x 2 x 1, 3 / 1, true true;
        11 x 2 x 1, 3 / 1, true false;
        10 x 2 x 1, 3 / 1, false false;
        11 x 2 x 1, 3 / 1, false true;
        14 x 2 x 1, 3 / 2, true false;
        7 x 2 x 2, 3 / 2, true false;
        7 x 2 x 1, 3 / 2, true false;
        8 x 2 x 1, 3 / 2, true false;
        8 x 2 x 1, 3 / 2, false false;
        14 x 1 x 1, 2 / 1, false true;
        14 x 1 x 1, 1 / 1, false false;
        7 x 2 x 2, 1 / 1, false false;
        7 x 2 x 1, 1 / 1, false false;
        7 x 2 x 2, 2 / 1, false true;
        7 x 2 x 1, 2 / 1, false true;
        16 x 1 x 1, 2 / 1, false true;
        8 x 2 x 1, 2 / 1, false true;
    ]
);

// At most five pixels at stride 1: with six, LLVM keeps one of the twelve sums on the stack.
kernels!(
    AVX2, Avx2, "avx2,fma", any: [1 2 3 4 5 6],
    rows: [
        4 x 2 x 1, 3 / 1, true false;
        5 x 2 x 1, 3 / 1, true false;
        3 x 2 x 1, 3 / 1, false false;
        4 x 2 x 1, 3 / 1, false false;
        5 x 2 x 1, 3 / 1, false false;
        3 x 2 x 1, 3 / 1, false true;
        4 x 2 x 1, 3 / 1, false true;
        5 x 2 x 1, 3 / 1, false true;
        4 x 2 x 1, 3 / 2, true false;
        5 x 2 x 1, 3 / 2, true false;
        6 x 2 x 1, 3 / 2, true false;
        3 x 2 x 1, 3 / 2, false false;
        4 x 2 x 1, 3 / 2, false false;
        5 x 2 x 1, 3 / 2, false false;
        6 x 2 x 1, 3 / 2, false false;
    ]
);
