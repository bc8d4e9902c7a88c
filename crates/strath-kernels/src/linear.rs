//! The linear layer, forward and backward, with what follows it in the same pass.
//!
//! ```text
//! y [n, out] = then(x W' + b)     x [n, in], W [out, in], b [out]
//! dx = dy W,   dW = dy' x,   db = sum of dy's rows (in the pass that takes dy back through what followed)
//! ```
//!
//! Rows of y are finished a strip at a time, right after their products, while they are in cache: no pass over memory of its own.
//! Bits depend neither on the number of threads nor on the instruction set, and a row's not on the other rows.

use crate::columns::repeated;
use crate::gelu;
use crate::isa::Isa;
use crate::pointwise::{add_bias, add_bias_and_relu, add_bias_and_residual};
use crate::product::{Side, Sizes, Strided, product};

/// The sizes of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    /// Rows, n.
    pub rows: usize,
    /// Width of x.
    pub inputs: usize,
    /// Width of y.
    pub outputs: usize,
}

/// What follows the addition of the bias.
#[derive(Debug)]
pub enum Then<'a> {
    /// Nothing.
    Nothing,
    /// `max(., 0)`; NaN stays NaN.
    Relu,
    /// The exact GELU; its slopes [n, out] are left here, for [`gelu::backward_and_bias`].
    Gelu(&'a mut [f32]),
    /// The addition of a residual [n, out].
    Plus(&'a [f32]),
}

impl Linear {
    /// y from x, W and b, and what follows.
    ///
    /// # Panics
    /// Where a slice has another length than the sizes say.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32], then: Then<'_>, y: &mut [f32]) {
        self.forward_by(Isa::active(), x, weight, bias, then, y);
    }

    fn forward_by(&self, isa: Isa, x: &[f32], weight: &[f32], bias: &[f32], then: Then<'_>, y: &mut [f32]) {
        let Self { rows, inputs, outputs } = *self;
        assert!(outputs > 0 && bias.len() == outputs, "a bias for each output");
        let sizes = Sizes::one(rows, inputs, outputs);
        let operands = (
            Strided::whole(x, Side::Plain, (rows, inputs)),
            Strided::whole(weight, Side::Transposed, (inputs, outputs)),
        );
        let bias = repeated(bias);
        match then {
            Then::Nothing => product(isa, sizes, operands, (y, &mut []), &|_, y, _| add_bias(isa, &bias, y)),
            Then::Relu => product(isa, sizes, operands, (y, &mut []), &|_, y, _| add_bias_and_relu(isa, &bias, y)),
            Then::Plus(residual) => {
                assert_eq!(residual.len(), rows * outputs, "the residual has the shape of y");
                product(isa, sizes, operands, (y, &mut []), &|row, y, _| {
                    add_bias_and_residual(isa, &bias, &residual[row * outputs..][..y.len()], y);
                });
            }
            Then::Gelu(slopes) => {
                assert_eq!(y.len(), rows * outputs, "y is rows x outputs");
                product(isa, sizes, operands, (slopes, y), &|_, x, y| gelu::forward_after_bias(isa, &bias, x, y));
            }
        }
    }

    /// dx from dy.
    ///
    /// # Panics
    /// Where a slice has another length than the sizes say.
    pub fn backward_data(&self, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
        let Self { rows, inputs, outputs } = *self;
        let operands =
            (Strided::whole(dy, Side::Plain, (rows, outputs)), Strided::whole(weight, Side::Plain, (outputs, inputs)));
        product(Isa::active(), Sizes::one(rows, outputs, inputs), operands, (dx, &mut []), &|_, _, _| {});
    }

    /// dW from dy and x.
    ///
    /// # Panics
    /// Where a slice has another length than the sizes say.
    pub fn backward_weight(&self, dy: &[f32], x: &[f32], dweight: &mut [f32]) {
        let Self { rows, inputs, outputs } = *self;
        let operands =
            (Strided::whole(dy, Side::Transposed, (outputs, rows)), Strided::whole(x, Side::Plain, (rows, inputs)));
        product(Isa::active(), Sizes::one(outputs, rows, inputs), operands, (dweight, &mut []), &|_, _, _| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::batched;
    use crate::product::tests::{assert_slope, error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    #[test]
    fn what_follows_is_computed_of_every_row_by_every_instruction_set_and_number_of_threads() {
        for (rows, inputs, outputs) in [(200, 20, 33), (30, 300, 10), (1, 3, 1)] {
            let layer = Linear { rows, inputs, outputs };
            let (x, weight, bias) = (values(rows * inputs, 1), values(inputs * outputs, 2), values(outputs, 3));
            let residual = values(rows * outputs, 4);
            let got = same_bits_by_every_isa(|isa| {
                same_bits(|| {
                    let mut all = vec![vec![f32::NAN; rows * outputs]; 5];
                    let [nothing, relu, plus, gelu, slopes] = &mut all[..] else { unreachable!() };
                    let ends = [Then::Nothing, Then::Relu, Then::Plus(&residual), Then::Gelu(slopes)];
                    for (then, y) in ends.into_iter().zip([nothing, relu, plus, gelu]) {
                        layer.forward_by(isa, &x, &weight, &bias, then, y);
                    }
                    all.concat()
                })
            });
            let mut sum = vec![0.0; rows * outputs];
            let sizes = Sizes::one(rows, inputs, outputs);
            batched(sizes, (&x, Side::Plain), (&weight, Side::Transposed), &mut sum);
            sum.iter_mut().enumerate().for_each(|(at, sum)| *sum += bias[at % outputs]);
            let exact = |derivative| {
                let mut y = vec![0.0; sum.len()];
                gelu::exact(derivative, &sum, &mut y);
                y.iter().map(|y| f64::from(*y)).collect::<Vec<_>>()
            };
            let parts: Vec<&[f32]> = got.chunks_exact(sum.len()).collect();
            assert_eq!(parts[0], sum);
            for at in 0..sum.len() {
                assert_eq!((parts[1][at], parts[2][at]), (sum[at].max(0.0), sum[at] + residual[at]));
            }
            assert!(error(parts[3], &exact(gelu::Derivative::None)) < 1e-6);
            assert!(error(parts[4], &exact(gelu::Derivative::First)) < 1e-6);
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let layer = Linear { rows: 5, inputs: 4, outputs: 3 };
        let (x, weight, bias, dy) = (values(20, 1), values(12, 2), values(3, 3), values(15, 4));
        let objective = |x: &[f32], weight: &[f32]| {
            let mut y = vec![0.0; 15];
            layer.forward(x, weight, &bias, Then::Nothing, &mut y);
            y.iter().zip(&dy).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum::<f64>()
        };
        let (mut dx, mut dweight) = (vec![0.0; 20], vec![0.0; 12]);
        layer.backward_data(&dy, &weight, &mut dx);
        layer.backward_weight(&dy, &x, &mut dweight);
        assert_slope(&x, &dx, 1e-2, 1e-3, &|x| objective(x, &weight));
        assert_slope(&weight, &dweight, 1e-2, 1e-3, &|weight| objective(&x, weight));
    }
}
