//! Cross-entropy, the end of a pass.

use strath_kernels::cross_entropy as kernel;

use super::course::Course;
use super::token::{Backward, Values};
use super::{Buffer, Dims, Flow};
use crate::error::Computed;

/// The mean cross-entropy of logits [n, classes]: a node to go back from, and the loss in `f64`.
pub(crate) fn cross_entropy(
    logits: &Flow,
    course: &Course<'_>,
    labels: &[u32],
    smoothing: f64,
) -> Computed<(Flow, f64)> {
    let classes = logits.dims().channels;
    let losses = kernel::cross_entropy(classes, &logits.values.buffer, labels, smoothing);
    let mean = losses.iter().sum::<f64>() / labels.len() as f64;
    let backward = || {
        let (x, labels) = (logits.values.clone(), labels.to_vec());
        Box::new(move |_: &Values, g: Buffer| {
            let mut dx = Buffer::stale(x.buffer.len());
            kernel::cross_entropy_backward(classes, &x.buffer, &labels, smoothing, f64::from(g[0]), &mut dx);
            x.add_gradient(dx);
        }) as Backward
    };
    let value = Buffer::copied(&[mean as f32]);
    let loss = course.tape.of_one("cross-entropy", logits, Dims::matrix(1, 1), value, backward)?;
    // The derivative of the loss by itself.
    loss.values.add_gradient(Buffer::copied(&[1.0]));
    Ok((loss, mean))
}
