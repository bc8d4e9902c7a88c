//! Convolution as three custom ops that are each other's derivatives.
//!
//! With the bilinear forms `y = F(x, W)`, `dx = D(dy, W)`, `dW = G(x, dy)`, all adjoint to each other:
//!
//! ```text
//! op        gradient g of its result   of its first argument   of its second argument
//! F(x, W)   shaped as y                 D(g, W)                 G(x, g)
//! D(dy, W)  shaped as x                 F(g, W)                 G(g, dy)
//! G(x, dy)  shaped as W                 D(dy, g)                F(x, g)
//! ```

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use strath_kernels::conv as kernel;

use super::slices::{output, slice};
use crate::error::Computed;
use crate::pass::Pass;
use crate::route::Conv;

/// Second derivatives are taken with the plain sums.
const METHOD: kernel::Method = kernel::Method::Direct;

/// `y [N, oh, ow, O] = F(x [N, H, W, C], prefix.weight [O, C, kh, kw])`, without a bias.
pub(crate) fn convolution(x: &Tensor, pass: &Pass<'_>, prefix: &str, conv: Conv) -> Computed<Tensor> {
    let weight = pass.get(prefix, "weight")?;
    let shape = shape_of(x, weight, conv)?;
    Ok(x.contiguous()?.apply_op2(weight, Product { kind: Kind::Forward, shape })?)
}

fn shape_of(x: &Tensor, weight: &Tensor, conv: Conv) -> Result<kernel::Shape> {
    let (images, height, width, inputs) = x.dims4()?;
    let (outputs, _, kh, kw) = weight.dims4()?;
    let Conv { stride, padding } = conv;
    Ok(kernel::Shape { images, inputs, height, width, outputs, kernel: (kh, kw), stride, padding })
}

/// Which of the three products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Forward,
    BackwardData,
    BackwardWeight,
}

#[derive(Debug, Clone, Copy)]
struct Product {
    kind: Kind,
    shape: kernel::Shape,
}

impl Product {
    fn other(&self, kind: Kind, first: &Tensor, second: &Tensor) -> Result<Option<Tensor>> {
        let op = Product { kind, shape: self.shape };
        Ok(Some(first.contiguous()?.apply_op2(&second.contiguous()?, op)?))
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Forward => "convolution",
            Kind::BackwardData => "convolution-backward-data",
            Kind::BackwardWeight => "convolution-backward-weight",
        }
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (first, second) = (slice(s1, l1)?, slice(s2, l2)?);
        let kernel::Shape { images, inputs, height, width, outputs, kernel: (kh, kw), .. } = self.shape;
        let (oh, ow) = self.shape.output();
        let compute = |dims: [usize; 4], run: &dyn Fn(&mut [f32])| {
            let mut out = vec![0.0; dims.iter().product()];
            run(&mut out);
            Ok(output(out, dims.to_vec()))
        };
        match self.kind {
            Kind::Forward => {
                compute([images, oh, ow, outputs], &|y| kernel::forward(&self.shape, METHOD, first, second, y))
            }
            Kind::BackwardData => compute([images, height, width, inputs], &|dx| {
                kernel::backward_data(&self.shape, METHOD, first, second, dx);
            }),
            Kind::BackwardWeight => compute([outputs, inputs, kh, kw], &|dw| {
                kernel::backward_weight(&self.shape, METHOD, first, second, dw);
            }),
        }
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        // Nothing upstream of the images wants a gradient: the data is no variable.
        let first =
            |kind, left: &Tensor, right: &Tensor| if a.track_op() { self.other(kind, left, right) } else { Ok(None) };
        match self.kind {
            Kind::Forward => Ok((first(Kind::BackwardData, g, b)?, self.other(Kind::BackwardWeight, a, g)?)),
            Kind::BackwardData => Ok((first(Kind::Forward, g, b)?, self.other(Kind::BackwardWeight, g, a)?)),
            Kind::BackwardWeight => Ok((first(Kind::BackwardData, b, g)?, self.other(Kind::Forward, a, g)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn random(dims: &[usize], seed: u64) -> Vec<f32> {
        let mut stream = strath_core::random::Stream::new(seed, strath_core::random::Purpose::Probe);
        (0..dims.iter().product()).map(|_| stream.uniform() - 0.5).collect()
    }

    fn var(dims: &[usize], seed: u64) -> Var {
        Var::from_vec(random(dims, seed), dims, &Device::Cpu).unwrap()
    }

    #[test]
    fn each_product_has_the_gradients_of_finite_differences() {
        let shape = kernel::Shape {
            images: 2,
            inputs: 2,
            height: 5,
            width: 4,
            outputs: 3,
            kernel: (3, 2),
            stride: 2,
            padding: 1,
        };
        let (oh, ow) = shape.output();
        let (x, w, y) = ([2, 5, 4, 2], [3, 2, 3, 2], [2, oh, ow, 3]);
        for (kind, first, second, result) in
            [(Kind::Forward, x, w, y), (Kind::BackwardData, y, w, x), (Kind::BackwardWeight, x, y, w)]
        {
            let (a, b) = (var(&first, 1), var(&second, 2));
            let g = Tensor::from_vec(random(&result, 3), &result, &Device::Cpu).unwrap();
            let objective = |a: &Tensor, b: &Tensor| {
                (a.apply_op2(b, Product { kind, shape }).unwrap() * &g).unwrap().sum_all().unwrap()
            };
            let grads = objective(&a, &b).backward().unwrap();
            for (at_first, var, dims) in [(true, &a, first), (false, &b, second)] {
                let got = grads.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let values = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for at in (0..values.len()).step_by(3) {
                    let moved = |by: f32| {
                        let mut values = values.clone();
                        values[at] += by;
                        let moved = Tensor::from_vec(values, &dims, &Device::Cpu).unwrap();
                        let objective = if at_first { objective(&moved, &b) } else { objective(&a, &moved) };
                        objective.to_scalar::<f32>().unwrap()
                    };
                    let slope = moved(0.5) - moved(-0.5);
                    assert!((slope - got[at]).abs() < 1e-4, "{kind:?} {at}: {slope} against {}", got[at]);
                }
            }
        }
    }

    #[test]
    fn a_second_backward_gives_the_hessian_vector_product_of_a_smooth_network() {
        let name = "layer::convolution::tests::a_second_backward_gives_the_hessian_vector_product_of_a_smooth_network";
        crate::layer::with_graph_kept(name, second_backward);
    }

    fn second_backward() {
        let shape = kernel::Shape {
            images: 3,
            inputs: 2,
            height: 6,
            width: 5,
            outputs: 4,
            kernel: (3, 3),
            stride: 2,
            padding: 1,
        };
        let (x, w, v) = (var(&[3, 6, 5, 2], 1), var(&[4, 2, 3, 3], 2), var(&[4, 2, 3, 3], 3));
        let gradient = |w: &Var| {
            let y = x.apply_op2(w, Product { kind: Kind::Forward, shape }).unwrap();
            let objective = crate::layer::activation::gelu(&y).unwrap().sqr().unwrap().sum_all().unwrap();
            objective.backward().unwrap().get(w).unwrap().clone()
        };
        let along = (gradient(&w) * v.as_tensor()).unwrap().sum_all().unwrap();
        let product = along.backward().unwrap().get(&w).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let at = |by: f64| {
            let moved = (w.as_tensor() + (v.as_tensor() * by).unwrap()).unwrap();
            gradient(&Var::from_tensor(&moved).unwrap()).flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (ahead, behind) = (at(1e-2), at(-1e-2));
        let largest = product.iter().fold(0.0f32, |m, p| m.max(p.abs()));
        for ((ahead, behind), product) in ahead.iter().zip(&behind).zip(&product) {
            let slope = (ahead - behind) / 2e-2;
            assert!((slope - product).abs() < 2e-3 * largest, "{slope} against {product}");
        }
        assert!(largest > 0.1, "the product is not zero");
    }
}
