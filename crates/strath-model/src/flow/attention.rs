//! Softmax attention over several heads.

use strath_kernels::attention::Attention;

use super::course::Course;
use super::token::{Backward, Tape, Values};
use super::{Buffer, Dims, Flow};
use crate::error::Computed;

/// Attention of queries, keys and values [N, T, 3 dim] over `heads` heads, [N, T, dim]; the weights are kept for the way back.
pub(crate) fn attention(qkv: &Flow, course: &Course<'_>, heads: usize) -> Computed<Flow> {
    let Dims { images, height: tokens, channels, .. } = qkv.dims();
    let dim = channels / 3;
    let kernel = Attention { tokens, heads, width: dim / heads };
    let dims = Dims { channels: dim, ..qkv.dims() };
    let mut y = Buffer::stale(dims.values());
    if matches!(course.tape, Tape::Off) {
        kernel.evaluate(&qkv.values.buffer, &mut y);
        return Ok(course.tape.source(dims, y)?);
    }
    let mut weights = Buffer::stale(images * kernel.weight_values());
    kernel.forward(&qkv.values.buffer, &mut y, &mut weights);
    let backward = || {
        let x = qkv.values.clone();
        Box::new(move |_: &Values, g: Buffer| {
            let mut dx = Buffer::stale(x.buffer.len());
            kernel.backward(&x.buffer, &weights, &g, &mut dx);
            x.add_gradient(dx);
        }) as Backward
    };
    Ok(course.tape.of_one("attention", qkv, dims, y, backward)?)
}
