//! Convolution of images [N, H, W, C]: forward and both backwards, any kernel size, stride and padding.
//!
//! ```text
//! forward           y  [N, oh, ow, O]  = sum over kh, kw, c of x[n, i s + kh - p, j s + kw - p, c] W[o, c, kh, kw]
//! backward-data     dx [N, H, W, C]    = the adjoint in x
//! backward-weight   dW [O, C, kh, kw]  = the adjoint in W
//! ```
//!
//! The three are each other's derivatives: all are bilinear in two of (x, W, dy). Weights keep PyTorch's layout outside of the
//! kernels, which pack them for their own use. Channels lie innermost, so that vectors are runs of channels.

#[cfg(target_arch = "x86_64")]
pub(crate) mod direct;
mod portable;
mod winograd;

use crate::isa::Isa;
use winograd::Tiles;

/// The shape of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Images, N.
    pub images: usize,
    /// Input channels, C.
    pub inputs: usize,
    /// Input height, H.
    pub height: usize,
    /// Input width, W.
    pub width: usize,
    /// Output channels, O.
    pub outputs: usize,
    /// Kernel height and width.
    pub kernel: (usize, usize),
    /// Distance of neighbouring outputs, input pixels.
    pub stride: usize,
    /// Zeros on each side, pixels.
    pub padding: usize,
}

/// Which kernels may serve: `model.convolution`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// The fastest whose output has the error of the plain sum: for 3x3 at stride 1 Winograd's F(2x2) forward and F(4x4) backward,
    /// else direct. An output's last bits decide which ReLUs let it through, and each that differs moves the whole gradient; an
    /// error of the same size in a gradient stays that small.
    #[default]
    Auto,
    /// F(4x4) forward too, with about twice the error of the plain sum.
    Winograd,
    /// Direct kernels only, whose error is that of the plain sum.
    Direct,
}

impl Shape {
    /// Height and width of the output: `(H + 2 padding - kh) / stride + 1`, and 0 where the kernel does not fit.
    pub fn output(&self) -> (usize, usize) {
        let side = |length: usize, kernel: usize| {
            (length + 2 * self.padding).checked_sub(kernel).map_or(0, |room| room / self.stride + 1)
        };
        (side(self.height, self.kernel.0), side(self.width, self.kernel.1))
    }

    /// Values of an input image.
    pub fn input_values(&self) -> usize {
        self.inputs * self.height * self.width
    }

    /// Values of an output image.
    pub fn output_values(&self) -> usize {
        let (height, width) = self.output();
        self.outputs * height * width
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.outputs * self.inputs * self.kernel.0 * self.kernel.1
    }

    /// Multiplications and additions of each of the three products, those with padding counted too.
    pub fn flops(&self) -> f64 {
        let (height, width) = self.output();
        2.0 * (self.images * height * width) as f64 * self.weights() as f64
    }
}

/// y [N, oh, ow, O] from x [N, H, W, C] and W [O, C, kh, kw].
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn forward(shape: &Shape, method: Method, x: &[f32], weight: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), shape.images * shape.input_values(), "x is [N, H, W, C]");
    assert_eq!(weight.len(), shape.weights(), "W is [O, C, kh, kw]");
    assert_eq!(y.len(), shape.images * shape.output_values(), "y is [N, oh, ow, O]");
    let tiles = match method {
        Method::Auto => Some(Tiles::Fine),
        Method::Winograd => Some(Tiles::Coarse),
        Method::Direct => None,
    };
    if tiles.is_some_and(|tiles| winograd::forward(Isa::active(), tiles, shape, x, weight, y)) {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if direct::forward(Isa::active(), shape, x, weight, y) {
        return;
    }
    portable::forward(shape, x, weight, y);
}

/// dx [N, H, W, C] from dy [N, oh, ow, O] and W [O, C, kh, kw].
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn backward_data(shape: &Shape, method: Method, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    assert_eq!(dy.len(), shape.images * shape.output_values(), "dy is [N, oh, ow, O]");
    assert_eq!(weight.len(), shape.weights(), "W is [O, C, kh, kw]");
    assert_eq!(dx.len(), shape.images * shape.input_values(), "dx is [N, H, W, C]");
    if method != Method::Direct && winograd::backward_data(Isa::active(), shape, dy, weight, dx) {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if direct::backward_data(Isa::active(), shape, dy, weight, dx) {
        return;
    }
    portable::backward_data(shape, dy, weight, dx);
}

/// dW [O, C, kh, kw] from x [N, H, W, C] and dy [N, oh, ow, O].
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn backward_weight(shape: &Shape, method: Method, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    assert_eq!(x.len(), shape.images * shape.input_values(), "x is [N, H, W, C]");
    assert_eq!(dy.len(), shape.images * shape.output_values(), "dy is [N, oh, ow, O]");
    assert_eq!(dweight.len(), shape.weights(), "dW is [O, C, kh, kw]");
    if method != Method::Direct && winograd::backward_weight(Isa::active(), shape, x, dy, dweight) {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if direct::backward_weight(Isa::active(), shape, x, dy, dweight) {
        return;
    }
    portable::backward_weight(shape, x, dy, dweight);
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::product::tests::values;
    use crate::threads::tests::same_bits;

    /// A float64 sum, and that of its terms' absolute values.
    #[derive(Clone, Copy, Default)]
    pub(crate) struct Sum {
        pub value: f64,
        pub size: f64,
    }

    impl Sum {
        pub(crate) fn add(&mut self, a: f32, b: f32) {
            let term = f64::from(a) * f64::from(b);
            self.value += term;
            self.size += term.abs();
        }
    }

    /// Largest difference from the sums, relative to the largest sum of absolute values: what rounding is proportional to, where
    /// the sums themselves may cancel to next to nothing.
    pub(crate) fn error(got: &[f32], want: &[Sum]) -> f64 {
        assert_eq!(got.len(), want.len());
        let largest = want.iter().fold(1e-30f64, |m, sum| m.max(sum.size));
        got.iter().zip(want).fold(0.0f64, |m, (g, w)| m.max((f64::from(*g) - w.value).abs())) / largest
    }

    /// Calls `term(y index, x index, weight index)` for every product of the convolution.
    pub(crate) fn naive(shape: &Shape, mut term: impl FnMut(usize, usize, usize)) {
        let (oh, ow) = shape.output();
        let Shape { images, inputs, height, width, outputs, kernel, stride, padding } = *shape;
        for n in 0..images {
            for o in 0..outputs {
                for (i, j) in (0..oh).flat_map(|i| (0..ow).map(move |j| (i, j))) {
                    for c in 0..inputs {
                        for (a, b) in (0..kernel.0).flat_map(|a| (0..kernel.1).map(move |b| (a, b))) {
                            let (r, s) =
                                ((i * stride + a).wrapping_sub(padding), (j * stride + b).wrapping_sub(padding));
                            if r < height && s < width {
                                term(
                                    ((n * oh + i) * ow + j) * outputs + o,
                                    ((n * height + r) * width + s) * inputs + c,
                                    ((o * inputs + c) * kernel.0 + a) * kernel.1 + b,
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    prop_compose! {
        fn any_shape()(
            images in 1usize..20, inputs in 1usize..4, height in 1usize..9, width in 1usize..9, outputs in 1usize..4,
            kernel in (1usize..4, 1usize..4), stride in 1usize..4, padding in 0usize..3,
        ) -> Shape {
            Shape { images, inputs, height, width, outputs, kernel, stride, padding }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn all_three_agree_with_the_naive_sums_and_do_not_depend_on_threads(shape in any_shape(), seed: u32) {
            let x = values(shape.images * shape.input_values(), seed);
            let weight = values(shape.weights(), seed ^ 1);
            let dy = values(shape.images * shape.output_values(), seed ^ 2);
            let (mut y64, mut dx64, mut dw64) = (vec![Sum::default(); dy.len()], vec![Sum::default(); x.len()], vec![Sum::default(); weight.len()]);
            naive(&shape, |y, i, w| {
                y64[y].add(x[i], weight[w]);
                dx64[i].add(dy[y], weight[w]);
                dw64[w].add(dy[y], x[i]);
            });
            let run = |len: usize, kernel: &dyn Fn(&mut [f32])| same_bits(|| {
                let mut out = vec![f32::NAN; len];
                kernel(&mut out);
                out
            });
            prop_assert!(error(&run(dy.len(), &|y| forward(&shape, Method::Winograd, &x, &weight, y)), &y64) < 1e-6);
            prop_assert!(error(&run(x.len(), &|dx| backward_data(&shape, Method::Auto, &dy, &weight, dx)), &dx64) < 1e-6);
            prop_assert!(error(&run(weight.len(), &|dw| backward_weight(&shape, Method::Auto, &x, &dy, dw)), &dw64) < 1e-6);
        }
    }
}
