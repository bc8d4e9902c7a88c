//! Convolution without a bias, along a direction.

use strath_kernels::{conv, pointwise};

use super::{Tangents, halves_mut};
use crate::error::Computed;
use crate::flow::{Backward, Buffer, Dims, Flow, Values};
use crate::route::Conv;

/// `y = x * w` and `R y = R x * w + x * R w`.
pub(super) fn convolution(x: &Flow, route: &Tangents<'_>, prefix: &str, layer: Conv) -> Computed<Flow> {
    let course = &route.course;
    let (weight, along) = (course.parameters.get(prefix, "weight")?, route.direction.get(prefix, "weight")?);
    let (&[outputs, inputs, kh, kw], Dims { images, height, width, .. }) = (&weight.shape[..], x.dims()) else {
        return Err(candle_core::Error::Msg(format!("{prefix}.weight is no weight of a convolution")).into());
    };
    let Conv { stride, padding } = layer;
    let moves = x.values.wants_gradient;
    let both = conv::Shape { images, inputs, height, width, outputs, kernel: (kh, kw), stride, padding };
    let one = conv::Shape { images: if moves { images / 2 } else { images }, ..both };
    let (method, (height, width)) = (course.method, one.output());
    let dims = Dims { images: 2 * one.images, height, width, channels: outputs };
    let mut y = Buffer::stale(dims.values());
    let values = &x.values.buffer[..one.images * inputs * x.dims().height * x.dims().width];
    if moves {
        conv::forward(&both, method, &x.values.buffer, weight.values(), &mut y);
        let (_, tangent) = halves_mut(&mut y);
        let mut by_weight = Buffer::stale(tangent.len());
        conv::forward(&one, method, values, along.values(), &mut by_weight);
        pointwise::add_to(&by_weight, tangent);
    } else {
        let (y, tangent) = halves_mut(&mut y);
        conv::forward(&one, method, values, weight.values(), y);
        conv::forward(&one, method, values, along.values(), tangent);
    }
    let backward = || {
        let (x, sink) = (x.values.clone(), course.sink.clone());
        Box::new(move |_: &Values, g: Buffer| {
            if !moves {
                let (g_along, _) = super::halves(&g);
                sink.fill(&weight, |dw| conv::backward_weight(&one, method, &x.buffer, g_along, dw));
                return;
            }
            // R g beside x, g beside R x.
            sink.fill(&weight, |dw| conv::backward_weight(&both, method, &x.buffer, &g, dw));
            let mut dx = Buffer::stale(x.buffer.len());
            conv::backward_data(&both, method, &g, weight.values(), &mut dx);
            let (tangent, _) = halves_mut(&mut dx);
            let mut by_weight = Buffer::stale(tangent.len());
            conv::backward_data(&one, method, super::halves(&g).1, along.values(), &mut by_weight);
            pointwise::add_to(&by_weight, tangent);
            x.add_gradient(dx);
        }) as Backward
    };
    Ok(course.tape.of_one("convolution-tangent", x, dims, y, backward)?)
}
