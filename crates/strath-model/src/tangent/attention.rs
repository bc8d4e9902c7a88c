//! Softmax attention over several heads, along a direction.

use strath_kernels::attention::{Attention, AttentionTangent};
use strath_kernels::tangent::{Pair, PairMut};

use super::{Tangents, halves, halves_mut};
use crate::error::Computed;
use crate::flow::{Backward, Buffer, Dims, Flow, Values};

/// Attention of queries, keys and values [N, T, 3 dim] over `heads` heads; the weights and their tangents are kept for the way back.
pub(super) fn attention(qkv: &Flow, route: &Tangents<'_>, heads: usize) -> Computed<Flow> {
    let Dims { images, height: tokens, channels, .. } = qkv.dims();
    let dim = channels / 3;
    let kernel = Attention { tokens, heads, width: dim / heads };
    let dims = Dims { channels: dim, ..qkv.dims() };
    let (mut y, mut weights) = (Buffer::stale(dims.values()), Buffer::stale(images * kernel.weight_values()));
    let ((y_values, y_along), (p, p_along)) = (halves_mut(&mut y), halves_mut(&mut weights));
    let (values, along) = halves(&qkv.values.buffer);
    kernel.forward(values, y_values, p);
    AttentionTangent(kernel).forward(Pair { values, along }, p, p_along, y_along);
    let backward = || {
        let x = qkv.values.clone();
        Box::new(move |_: &Values, g: Buffer| {
            let mut dx = Buffer::stale(x.buffer.len());
            let pair = |(values, along)| Pair { values, along };
            let ((g_along, g), (dx_along, dx_values)) = (halves(&g), halves_mut(&mut dx));
            let to = PairMut { values: dx_values, along: dx_along };
            let (qkv, weights) = (pair(halves(&x.buffer)), pair(halves(&weights)));
            AttentionTangent(kernel).backward(qkv, weights, pair((g, g_along)), to);
            x.add_gradient(dx);
        }) as Backward
    };
    Ok(route.course.tape.of_one("attention-tangent", qkv, dims, y, backward)?)
}
