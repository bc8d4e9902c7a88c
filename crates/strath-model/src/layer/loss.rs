//! Cross-entropy as a fused custom op, and scores of an evaluation.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use strath_kernels::softmax as kernel;

use super::activation::softmax;
use super::slices::{output, slice, tensor, with_values};
use super::twice::keeps_graph;
use crate::model::Score;

/// The mean cross-entropy of logits [n, classes], as a scalar to differentiate and in `f64` to report.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &[u32], smoothing: f64) -> Result<(Tensor, f64)> {
    let exact = Arc::new(OnceLock::new());
    let op = CrossEntropy { labels: labels.to_vec(), smoothing, exact: exact.clone() };
    let loss = logits.contiguous()?.apply_op1(op)?;
    Ok((loss, exact.get().copied().unwrap_or(f64::NAN)))
}

/// Each example's loss, without smoothing, and whether its arg-max (the first of several) is its label.
pub(crate) fn scores(logits: &Tensor, labels: &[u32]) -> Result<Vec<Score>> {
    let (_, classes) = logits.dims2()?;
    with_values(logits, |x| {
        let losses = kernel::cross_entropy(classes, x, labels, 0.0);
        let rows = x.chunks_exact(classes).zip(labels).zip(losses);
        rows.map(|((x, label), loss)| {
            let best = (1..classes).fold(0, |best, at| if x[at] > x[best] { at } else { best });
            Score { loss, correct: best == *label as usize }
        })
        .collect()
    })
}

struct CrossEntropy {
    labels: Vec<u32>,
    smoothing: f64,
    /// The loss before it is rounded to f32.
    exact: Arc<OnceLock<f64>>,
}

impl CrossEntropy {
    /// The distribution that the loss compares with: `(1 - s) onehot + s / classes`, row by row.
    fn target(&self, classes: usize) -> Vec<f32> {
        let value = |hit: bool| if hit { 1.0 - self.smoothing } else { 0.0 } + self.smoothing / classes as f64;
        let row = |label: u32| (0..classes).map(move |class| value(class == label as usize) as f32);
        self.labels.iter().flat_map(|label| row(*label)).collect()
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, classes) = layout.shape().dims2()?;
        let losses = kernel::cross_entropy(classes, slice(storage, layout)?, &self.labels, self.smoothing);
        let mean = losses.iter().sum::<f64>() / rows as f64;
        self.exact.get_or_init(|| mean);
        Ok(output(vec![mean as f32], ()))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (rows, classes) = logits.dims2()?;
        if keeps_graph() {
            let target = Tensor::from_vec(self.target(classes), (rows, classes), logits.device())?;
            return Ok(Some((softmax(logits)? - target)?.broadcast_mul(&(g / rows as f64)?)?));
        }
        let scale = f64::from(g.to_scalar::<f32>()?);
        let dx = with_values(logits, |x| {
            let mut dx = vec![0.0; x.len()];
            kernel::cross_entropy_backward(classes, x, &self.labels, self.smoothing, scale, &mut dx);
            dx
        })?;
        Ok(Some(tensor(dx, logits.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_first_of_equal_logits_is_the_answer() {
        let logits = Tensor::from_vec(vec![1.0f32, 1.0, 0.0, 0.0, 2.0, 2.0], (2, 3), &Device::Cpu).unwrap();
        let correct: Vec<bool> = scores(&logits, &[0, 2]).unwrap().iter().map(|score| score.correct).collect();
        assert_eq!(correct, [true, false]);
    }
}
