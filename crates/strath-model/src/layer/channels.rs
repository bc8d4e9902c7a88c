//! Tensors [.., C] with one number a channel, as custom ops that are each other's derivatives.
//!
//! ```text
//! op                gradient g of its result
//! A(x, a, b)        x a + b            of x: A(g, a, 0)   of a: P(g, x)   of b: S(g)
//! P(x, y)           sum over rows of x y   of x: A(y, g, 0)   of y: A(x, g, 0)
//! S(x)              sum over rows of x     of x: R(g)
//! R(b)              b in every row         of b: S(g)
//! ```
//!
//! Broadcasts of candle's own walk over strides, one value at a time.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor};
use strath_kernels::channels as kernel;

use super::slices::{output, slice};

/// `x a + b` of x [.., C] with a and b [C].
pub(crate) fn affine(x: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op3(&a.contiguous()?, &b.contiguous()?, Affine)
}

/// `x + b` of x [.., C] with b [C].
pub(crate) fn shift(x: &Tensor, b: &Tensor) -> Result<Tensor> {
    affine(x, &b.ones_like()?, b)
}

/// The sums over rows of `x y`, [C].
pub(crate) fn products(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&y.contiguous()?, Products)
}

/// The sums over rows, [C].
pub(crate) fn sums(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Sums)
}

fn scale(x: &Tensor, a: &Tensor) -> Result<Tensor> {
    affine(x, a, &a.zeros_like()?)
}

fn channels(layout: &Layout) -> Result<usize> {
    layout.shape().dim(D::Minus1)
}

struct Affine;

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = slice(s1, l1)?;
        let mut y = vec![0.0; x.len()];
        kernel::affine(slice(s2, l2)?, slice(s3, l3)?, x, &mut y);
        Ok(output(y, l1.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let of = |wanted: &Tensor, gradient: &dyn Fn() -> Result<Tensor>| {
            if wanted.track_op() { gradient().map(Some) } else { Ok(None) }
        };
        Ok((of(x, &|| scale(g, a))?, of(a, &|| products(g, x))?, of(b, &|| sums(g))?))
    }
}

struct Products;

impl CustomOp2 for Products {
    fn name(&self) -> &'static str {
        "products-of-channels"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let channels = channels(l1)?;
        Ok(output(kernel::dots(channels, slice(s1, l1)?, slice(s2, l2)?), channels))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let of = |wanted: &Tensor, other: &Tensor| if wanted.track_op() { scale(other, g).map(Some) } else { Ok(None) };
        Ok((of(x, y)?, of(y, x)?))
    }
}

struct Sums;

impl CustomOp1 for Sums {
    fn name(&self) -> &'static str {
        "sums-of-channels"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let channels = channels(layout)?;
        Ok(output(kernel::sums(channels, slice(storage, layout)?), channels))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(g.contiguous()?.apply_op1(Rows(x.shape().clone()))?))
    }
}

/// The same numbers in every row of this shape.
struct Rows(Shape);

impl CustomOp1 for Rows {
    fn name(&self) -> &'static str {
        "rows-of-channels"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let row = slice(storage, layout)?;
        Ok(output(row.repeat(self.0.elem_count() / row.len().max(1)), self.0.clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(sums(g)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use strath_core::random::{Purpose, Stream};

    use super::*;
    use crate::layer::with_graph_kept;

    fn var(dims: &[usize], seed: u64) -> Var {
        let mut stream = Stream::new(seed, Purpose::Probe);
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| stream.normal()).collect();
        Var::from_vec(values, dims, &Device::Cpu).unwrap()
    }

    fn gradients(objective: &Tensor, of: &[&Var]) -> Vec<Tensor> {
        let grads = objective.backward().unwrap();
        of.iter().map(|var| grads.get(var).unwrap().clone()).collect()
    }

    #[test]
    fn first_and_second_derivatives_are_those_of_candles_own_broadcasts() {
        with_graph_kept(
            "layer::channels::tests::first_and_second_derivatives_are_those_of_candles_own_broadcasts",
            || {
                let (x, a, b) = (var(&[2, 3, 2, 5], 1), var(&[5], 2), var(&[5], 3));
                let all = [&x, &a, &b];
                let along: Vec<Var> = all.iter().map(|v| var(v.dims(), 4)).collect();
                let ours = |x: &Tensor| {
                    let centred = shift(x, &(sums(x).unwrap() * (-1.0 / 12.0)).unwrap()).unwrap();
                    let y = affine(&centred, &a, &b).unwrap();
                    products(&y, &y.sqr().unwrap()).unwrap().sum_all().unwrap()
                };
                let theirs = |x: &Tensor| {
                    let mean = x.mean(0).unwrap().mean(0).unwrap().mean(0).unwrap();
                    let centred = x.broadcast_sub(&mean).unwrap();
                    let y = centred.broadcast_mul(&a).unwrap().broadcast_add(&b).unwrap();
                    (&y * y.sqr().unwrap()).unwrap().sum_all().unwrap()
                };
                let twice = |objective: &Tensor| {
                    let first = gradients(objective, &all);
                    let products =
                        first.iter().zip(&along).map(|(g, v)| (g * v.as_tensor()).unwrap().sum_all().unwrap());
                    let total = products.reduce(|a, b| (a + b).unwrap()).unwrap();
                    let second = gradients(&total, &all);
                    [first, second].concat()
                };
                for (ours, theirs) in twice(&ours(&x)).iter().zip(&twice(&theirs(&x))) {
                    let apart = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                    let size = theirs.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                    assert!(apart < 1e-5 * size, "{apart} of {size}");
                }
            },
        );
    }
}
