//! Batch norm and layer norm as fused custom ops.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};
use strath_kernels::norm::{self as kernel, BatchGradient, BatchShape, Moments, Then};

use super::activation::relu;
use super::slices::{output, slice, tensor, with_values};
use super::twice::keeps_graph;
use crate::error::{Computed, ModelError};
use crate::pass::{Collected, Pass, Phase};

/// PyTorch's eps of batch norm.
const BATCH_NORM_FLOOR: f64 = 1e-5;
/// The eps of the vision transformer's layer norms.
const LAYER_NORM_FLOOR: f64 = 1e-6;

/// Batch norm of x [N, C, H, W] with `prefix.weight` and `prefix.bias` [C]: by the batch's statistics in training, which the
/// pass collects, by `prefix.running_mean` and `prefix.running_var` in evaluation.
pub(crate) fn batch_norm(x: &Tensor, pass: &Pass<'_>, prefix: &str) -> Computed<Tensor> {
    normalise(x, pass, prefix, Then::Nothing)
}

/// ReLU of [`batch_norm`], in one pass over memory.
pub(crate) fn batch_norm_relu(x: &Tensor, pass: &Pass<'_>, prefix: &str) -> Computed<Tensor> {
    normalise(x, pass, prefix, Then::Relu)
}

fn normalise(x: &Tensor, pass: &Pass<'_>, prefix: &str, then: Then) -> Computed<Tensor> {
    let (weight, bias) = (pass.get(prefix, "weight")?, pass.get(prefix, "bias")?);
    let (images, channels, height, width) = x.dims4()?;
    let shape = BatchShape { images, channels, area: height * width };
    let moments = match &pass.phase {
        Phase::Training(collected) => {
            let moments = with_values(x, |x| kernel::batch_moments(shape, x))?;
            collected.borrow_mut().push(Collected {
                prefix: prefix.to_string(),
                mean: moments.mean.clone(),
                unbiased_variance: moments.unbiased(shape),
            });
            moments
        }
        Phase::Evaluation(layout, statistics) => {
            let running = |name: &str| -> Computed<Vec<f64>> {
                let full = format!("{prefix}.{name}");
                let entry = layout.get(&full).ok_or(ModelError::NoGradient { name: full })?;
                Ok(statistics[entry.range()].iter().map(|v| f64::from(*v)).collect())
            };
            Moments { mean: running("running_mean")?, variance: running("running_var")? }
        }
    };
    if keeps_graph() && matches!(pass.phase, Phase::Training(_)) {
        let y = composed_batch_norm(x, weight, bias)?;
        return Ok(if then == Then::Relu { relu(&y)? } else { y });
    }
    Ok(x.contiguous()?.apply_op3(weight, bias, BatchNorm { shape, moments, then })?)
}

/// Layer norm over the last axis with `prefix.weight` and `prefix.bias`.
pub(crate) fn layer_norm(x: &Tensor, pass: &Pass<'_>, prefix: &str) -> Computed<Tensor> {
    let (weight, bias) = (pass.get(prefix, "weight")?, pass.get(prefix, "bias")?);
    if keeps_graph() {
        return Ok(composed_layer_norm(x, weight, bias)?);
    }
    Ok(x.contiguous()?.apply_op3(weight, bias, LayerNorm)?)
}

/// Batch norm by the batch's statistics, of candle's primitive ops.
fn composed_batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let mean_over = |x: &Tensor| x.mean_keepdim(0)?.mean_keepdim(2)?.mean_keepdim(3);
    let row = |v: &Tensor| v.reshape((1, v.elem_count(), 1, 1));
    let centred = x.broadcast_sub(&mean_over(x)?)?;
    let variance = mean_over(&centred.sqr()?)?;
    let hat = centred.broadcast_div(&(variance + BATCH_NORM_FLOOR)?.sqrt()?)?;
    hat.broadcast_mul(&row(weight)?)?.broadcast_add(&row(bias)?)
}

/// Layer norm of candle's primitive ops.
fn composed_layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let hat = centred.broadcast_div(&(variance + LAYER_NORM_FLOOR)?.sqrt()?)?;
    hat.broadcast_mul(weight)?.broadcast_add(bias)
}

/// Batch norm by given moments; its gradient takes them to be the batch's own.
struct BatchNorm {
    shape: BatchShape,
    moments: Moments,
    then: Then,
}

impl BatchNorm {
    fn kernel<'a>(&'a self, weight: &'a [f32], bias: &'a [f32]) -> kernel::BatchNorm<'a> {
        let Self { shape, ref moments, then } = *self;
        kernel::BatchNorm { shape, moments, weight, bias, floor: BATCH_NORM_FLOOR, then }
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm"
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
        kernel::batch_norm(&self.kernel(slice(s2, l2)?, slice(s3, l3)?), x, &mut y);
        Ok(output(y, l1.shape()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, bias: &Tensor, _: &Tensor, g: &Tensor) -> Result<Gradients> {
        with_values(bias, |bias| {
            gradients(x, weight, g, |x, weight, g| kernel::batch_norm_backward(&self.kernel(weight, bias), x, g))
        })?
    }
}

struct LayerNorm;

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
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
        let (x, weight) = (slice(s1, l1)?, slice(s2, l2)?);
        let mut y = vec![0.0; x.len()];
        kernel::layer_norm(weight.len(), x, (weight, slice(s3, l3)?), LAYER_NORM_FLOOR, &mut y);
        Ok(output(y, l1.shape()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Gradients> {
        gradients(x, weight, g, |x, weight, g| {
            kernel::layer_norm_backward(weight.len(), x, weight, LAYER_NORM_FLOOR, g)
        })
    }
}

type Gradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

fn gradients(
    x: &Tensor,
    weight: &Tensor,
    g: &Tensor,
    backward: impl FnOnce(&[f32], &[f32], &[f32]) -> BatchGradient,
) -> Result<Gradients> {
    let got = with_values(x, |x| with_values(weight, |weight| with_values(g, |g| backward(x, weight, g))))???;
    let (dx, dweight, dbias) =
        (tensor(got.x, x.shape())?, tensor(got.weight, weight.shape())?, tensor(got.bias, weight.shape())?);
    Ok((Some(dx), Some(dweight), Some(dbias)))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use candle_core::{Device, Var};
    use strath_core::Layout as Parameters;

    use super::*;

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut stream = strath_core::random::Stream::new(seed, strath_core::random::Purpose::Probe);
        (0..count).map(|_| stream.uniform() * 2.0 - 1.0).collect()
    }

    /// Asserts that two functions of the same tensors have the same values, and the same gradients of all of them.
    fn assert_same(ours: &Tensor, theirs: &Tensor, of: &[&Tensor]) {
        let near = |a: &Tensor, b: &Tensor| {
            let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(difference < 1e-4, "{difference}");
        };
        near(ours, theirs);
        let g = Tensor::from_vec(random(ours.elem_count(), 3), ours.dims(), &Device::Cpu).unwrap();
        let gradients = |y: &Tensor| (y * &g).unwrap().sum_all().unwrap().backward().unwrap();
        let (ours, theirs) = (gradients(ours), gradients(theirs));
        for of in of {
            near(ours.get(of).unwrap(), theirs.get(of).unwrap());
        }
    }

    #[test]
    fn the_fused_layer_norm_is_the_composed_one_forward_and_backward() {
        let layout = Parameters::new([("n.weight".into(), vec![11]), ("n.bias".into(), vec![11])]).unwrap();
        let pass = Pass::new(&layout, &random(22, 1), Phase::Training(RefCell::default())).unwrap();
        let x = Var::from_vec(random(66, 2), (2, 3, 11), &Device::Cpu).unwrap();
        let (weight, bias) = (pass.get("n", "weight").unwrap(), pass.get("n", "bias").unwrap());
        let composed = composed_layer_norm(&x, weight, bias).unwrap();
        assert_same(&layer_norm(&x, &pass, "n").unwrap(), &composed, &[&x, weight, bias]);
    }

    #[test]
    fn the_fused_batch_norms_are_the_composed_ones_forward_and_backward() {
        let layout = Parameters::new([("n.weight".into(), vec![3]), ("n.bias".into(), vec![3])]).unwrap();
        let pass = Pass::new(&layout, &random(6, 1), Phase::Training(RefCell::default())).unwrap();
        let x = Var::from_vec(random(4 * 3 * 5 * 2, 2), (4, 3, 5, 2), &Device::Cpu).unwrap();
        let (weight, bias) = (pass.get("n", "weight").unwrap(), pass.get("n", "bias").unwrap());
        let composed = composed_batch_norm(&x, weight, bias).unwrap();
        assert_same(&batch_norm(&x, &pass, "n").unwrap(), &composed, &[&x, weight, bias]);
        let fused = batch_norm_relu(&x, &pass, "n").unwrap();
        assert_same(&fused, &composed.relu().unwrap(), &[&x, weight, bias]);
        let Phase::Training(collected) = &pass.phase else { panic!("this pass trains") };
        let Collected { prefix, mean, unbiased_variance } = collected.borrow()[0].clone();
        let values: Vec<f64> =
            (0..4).flat_map(|n| random(120, 2)[n * 30..n * 30 + 10].to_vec()).map(f64::from).collect();
        let want = values.iter().sum::<f64>() / 40.0;
        let unbiased = values.iter().map(|v| (v - want).powi(2)).sum::<f64>() / 39.0;
        assert_eq!(prefix, "n");
        assert!((mean[0] - want).abs() < 1e-9 && (unbiased_variance[0] - unbiased).abs() < 1e-9);
    }

    #[test]
    fn evaluation_normalises_by_the_running_statistics() {
        let layout = Parameters::new([("n.weight".into(), vec![1]), ("n.bias".into(), vec![1])]).unwrap();
        let running = Parameters::new([("n.running_mean".into(), vec![1]), ("n.running_var".into(), vec![1])]).unwrap();
        let pass = Pass::new(&layout, &[0.5, 3.0], Phase::Evaluation(&running, &[2.0, 4.0])).unwrap();
        let x = Tensor::from_vec(vec![2.0f32, 6.0], (1, 1, 1, 2), &Device::Cpu).unwrap();
        let y = batch_norm(&x, &pass, "n").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!((y[0] - 0.5).abs() < 1e-5 && (y[1] - 6.5).abs() < 1e-4, "{y:?}");
    }
}
