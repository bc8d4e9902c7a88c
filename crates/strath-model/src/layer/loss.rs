//! Cross-entropy as a custom op whose gradient is made of ops.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use strath_kernels::cross_entropy as kernel;

use super::activation::softmax;
use super::slices::{output, slice};

/// The mean cross-entropy of logits [n, classes], as a scalar to differentiate and in `f64` to report.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &[u32], smoothing: f64) -> Result<(Tensor, f64)> {
    let exact = Arc::new(OnceLock::new());
    let op = CrossEntropy { labels: labels.to_vec(), smoothing, exact: exact.clone() };
    let loss = logits.contiguous()?.apply_op1(op)?;
    Ok((loss, exact.get().copied().unwrap_or(f64::NAN)))
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
        let target = Tensor::from_vec(self.target(classes), (rows, classes), logits.device())?;
        Ok(Some((softmax(logits)? - target)?.broadcast_mul(&(g / rows as f64)?)?))
    }
}
