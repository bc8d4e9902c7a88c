//! Batch norm, group norm and layer norm of ops that can be differentiated any number of times.

use candle_core::{D, Device, Result, Tensor};

use super::channels;
use crate::error::{Computed, ModelError};
use crate::normaliser::groups;
use crate::pass::{Collected, Pass, Phase};

/// PyTorch's eps of batch norm, and of group norm.
pub(crate) const BATCH_NORM_FLOOR: f64 = 1e-5;
/// The eps of the vision transformer's layer norms.
pub(crate) const LAYER_NORM_FLOOR: f64 = 1e-6;

/// Batch norm of x [N, H, W, C] with `prefix.weight` and `prefix.bias` [C]: by the batch's statistics in training, which the
/// pass collects, by `prefix.running_mean` and `prefix.running_var` in evaluation.
pub(crate) fn batch_norm(x: &Tensor, pass: &Pass<'_>, prefix: &str) -> Computed<Tensor> {
    let (weight, bias) = (pass.get(prefix, "weight")?, pass.get(prefix, "bias")?);
    let (mean, variance) = match &pass.phase {
        Phase::Training(collected) => {
            let count = (x.elem_count() / x.dim(D::Minus1)?) as f64;
            let mean = (channels::sums(x)? / count)?;
            let centred = channels::shift(x, &mean.neg()?)?;
            let variance = (channels::products(&centred, &centred)? / count)?;
            let numbers =
                |t: &Tensor| -> Result<Vec<f64>> { Ok(t.to_vec1::<f32>()?.into_iter().map(f64::from).collect()) };
            collected.borrow_mut().push(Collected {
                prefix: prefix.to_string(),
                mean: numbers(&mean)?,
                unbiased_variance: numbers(&variance)?.into_iter().map(|v| v * count / (count - 1.0)).collect(),
            });
            (mean, variance)
        }
        Phase::Evaluation(layout, statistics) => {
            let running = |name: &str| -> Computed<Tensor> {
                let full = format!("{prefix}.{name}");
                let entry = layout.get(&full).ok_or(ModelError::NoGradient { name: full })?;
                Ok(Tensor::from_slice(&statistics[entry.range()], entry.len, &Device::Cpu)?)
            };
            (running("running_mean")?, running("running_var")?)
        }
    };
    let scale = (weight / (variance + BATCH_NORM_FLOOR)?.sqrt()?)?;
    Ok(channels::affine(&channels::shift(x, &mean.neg()?)?, &scale, bias)?)
}

/// Group norm of x [N, H, W, C] in [`groups`] of C channels, with `prefix.weight` and `prefix.bias` [C].
pub(crate) fn group_norm(x: &Tensor, pass: &Pass<'_>, prefix: &str) -> Computed<Tensor> {
    let (weight, bias) = (pass.get(prefix, "weight")?, pass.get(prefix, "bias")?);
    let (images, height, width, channels) = x.dims4()?;
    let groups = groups(channels);
    let grouped = x.reshape((images, height * width, groups, channels / groups))?;
    let over = |x: &Tensor| x.mean_keepdim(1)?.mean_keepdim(3);
    let centred = grouped.broadcast_sub(&over(&grouped)?)?;
    let hat = centred.broadcast_div(&(over(&centred.sqr()?)? + BATCH_NORM_FLOOR)?.sqrt()?)?;
    let hat = hat.reshape((images, height, width, channels))?;
    Ok(hat.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// Layer norm over the last axis with `prefix.weight` and `prefix.bias`.
pub(crate) fn layer_norm(x: &Tensor, pass: &Pass<'_>, prefix: &str) -> Computed<Tensor> {
    let (weight, bias) = (pass.get(prefix, "weight")?, pass.get(prefix, "bias")?);
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let hat = centred.broadcast_div(&(variance + LAYER_NORM_FLOOR)?.sqrt()?)?;
    Ok(hat.broadcast_mul(weight)?.broadcast_add(bias)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use strath_core::Layout as Parameters;

    use super::*;

    #[test]
    fn evaluation_normalises_by_the_running_statistics() {
        let layout = Parameters::new([("n.weight".into(), vec![1]), ("n.bias".into(), vec![1])]).unwrap();
        let running = Parameters::new([("n.running_mean".into(), vec![1]), ("n.running_var".into(), vec![1])]).unwrap();
        let pass = Pass::new(&layout, &[0.5, 3.0], Phase::Evaluation(&running, &[2.0, 4.0])).unwrap();
        let x = Tensor::from_vec(vec![2.0f32, 6.0], (1, 1, 2, 1), &Device::Cpu).unwrap();
        let y = batch_norm(&x, &pass, "n").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!((y[0] - 0.5).abs() < 1e-5 && (y[1] - 6.5).abs() < 1e-4, "{y:?}");
    }
}
