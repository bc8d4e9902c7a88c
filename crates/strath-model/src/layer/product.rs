//! Matrix products as custom ops, and the linear layer made of them.

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
pub(crate) use strath_kernels::product::Side;
use strath_kernels::product::{Sizes, batched};

use super::slices::{output, slice};
use crate::error::Computed;
use crate::pass::Pass;

/// `C [batch, rows, columns] = A B` of [batch, ., .] tensors, each taken as it lies or transposed in its last two axes.
pub(crate) fn product((a, a_side): (&Tensor, Side), (b, b_side): (&Tensor, Side)) -> Result<Tensor> {
    a.contiguous()?.apply_op2(&b.contiguous()?, Product { a_side, b_side })
}

/// `x W' + b` of rows x [.., in] with `prefix.weight` [out, ..], whose other axes are as many as `in`, and `prefix.bias` [out].
pub(crate) fn linear(x: &Tensor, pass: &Pass<'_>, prefix: &str) -> Computed<Tensor> {
    let (weight, bias) = (pass.get(prefix, "weight")?, pass.get(prefix, "bias")?);
    let mut dims = x.dims().to_vec();
    let (inputs, outputs) = (x.dim(D::Minus1)?, weight.dim(0)?);
    let x = x.reshape((1, x.elem_count() / inputs, inputs))?;
    let y = product((&x, Side::Plain), (&weight.reshape((1, outputs, inputs))?, Side::Transposed))?;
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    Ok(y.reshape(dims)?.broadcast_add(bias)?)
}

#[derive(Debug, Clone, Copy)]
struct Product {
    a_side: Side,
    b_side: Side,
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let turned = |dims: (usize, usize, usize), side: Side| match side {
            Side::Plain => (dims.1, dims.2),
            Side::Transposed => (dims.2, dims.1),
        };
        let (a_dims, b_dims) = (l1.shape().dims3()?, l2.shape().dims3()?);
        let ((rows, inner), (b_rows, columns)) = (turned(a_dims, self.a_side), turned(b_dims, self.b_side));
        if a_dims.0 != b_dims.0 || inner != b_rows {
            return Err(candle_core::Error::ShapeMismatchBinaryOp {
                lhs: l1.shape().clone(),
                rhs: l2.shape().clone(),
                op: "product",
            });
        }
        let sizes = Sizes { batch: a_dims.0, rows, inner, columns };
        let mut c = vec![0.0; sizes.batch * rows * columns];
        batched(sizes, (slice(s1, l1)?, self.a_side), (slice(s2, l2)?, self.b_side), &mut c);
        Ok(output(c, (sizes.batch, rows, columns)))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        // C = A B: dA = g B', dB = A' g; of an operand that is taken transposed, the transpose of that.
        let da = || match self.a_side {
            Side::Plain => product((g, Side::Plain), (b, self.b_side.flipped())),
            Side::Transposed => product((b, self.b_side), (g, Side::Transposed)),
        };
        let db = match self.b_side {
            Side::Plain => product((a, self.a_side.flipped()), (g, Side::Plain))?,
            Side::Transposed => product((g, Side::Transposed), (a, self.a_side))?,
        };
        Ok((if a.track_op() { Some(da()?) } else { None }, Some(db)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn products_and_their_gradients_are_those_of_candle() {
        let mut stream = strath_core::random::Stream::new(0, strath_core::random::Purpose::Probe);
        let mut var = |dims: (usize, usize, usize)| {
            let values = (0..dims.0 * dims.1 * dims.2).map(|_| stream.uniform() - 0.5).collect();
            Var::from_vec(values, dims, &Device::Cpu).unwrap()
        };
        for (a_side, b_side) in [
            (Side::Plain, Side::Plain),
            (Side::Plain, Side::Transposed),
            (Side::Transposed, Side::Plain),
            (Side::Transposed, Side::Transposed),
        ] {
            let turned =
                |side, rows, columns| if side == Side::Plain { (2, rows, columns) } else { (2, columns, rows) };
            let (a, b, g) = (var(turned(a_side, 3, 4)), var(turned(b_side, 4, 5)), var((2, 3, 5)));
            let lie = |x: &Var, side| if side == Side::Plain { x.as_tensor().clone() } else { x.t().unwrap() };
            let ours = (product((&a, a_side), (&b, b_side)).unwrap() * g.as_tensor()).unwrap().sum_all().unwrap();
            let theirs =
                (lie(&a, a_side).contiguous().unwrap().matmul(&lie(&b, b_side).contiguous().unwrap()).unwrap()
                    * g.as_tensor())
                .unwrap()
                .sum_all()
                .unwrap();
            let (ours, theirs) = (ours.backward().unwrap(), theirs.backward().unwrap());
            for var in [&a, &b] {
                let difference =
                    (ours.get(var).unwrap() - theirs.get(var).unwrap()).unwrap().abs().unwrap().max_all().unwrap();
                assert!(difference.to_scalar::<f32>().unwrap() < 1e-6, "{a_side:?} {b_side:?}");
            }
        }
    }
}
