//! Convolution without a bias.

use strath_kernels::conv;

use super::course::Course;
use super::{Buffer, Dims, Flow};
use crate::error::Computed;
use crate::route::Conv;

/// `y [N, oh, ow, O]` of x [N, H, W, C] with `prefix.weight` [O, C, kh, kw].
pub(crate) fn convolution(x: &Flow, course: &Course<'_>, prefix: &str, layer: Conv) -> Computed<Flow> {
    let weight = course.parameters.get(prefix, "weight")?;
    let (&[outputs, inputs, kh, kw], Dims { images, height, width, .. }) = (&weight.shape[..], x.dims()) else {
        return Err(candle_core::Error::Msg(format!("{prefix}.weight is no weight of a convolution")).into());
    };
    let Conv { stride, padding } = layer;
    let shape = conv::Shape { images, inputs, height, width, outputs, kernel: (kh, kw), stride, padding };
    let (method, (height, width)) = (course.method, shape.output());
    let dims = Dims { images, height, width, channels: outputs };
    let mut y = Buffer::stale(dims.values());
    conv::forward(&shape, method, &x.values.buffer, weight.values(), &mut y);
    let backward = || {
        let (x, sink) = (x.values.clone(), course.sink.clone());
        Box::new(move |_: &super::token::Values, g: Buffer| {
            sink.fill(&weight, |dw| conv::backward_weight(&shape, method, &x.buffer, &g, dw));
            if x.wants_gradient {
                let mut dx = Buffer::stale(x.buffer.len());
                conv::backward_data(&shape, method, &g, weight.values(), &mut dx);
                x.add_gradient(dx);
            }
        }) as super::token::Backward
    };
    Ok(course.tape.of_one("convolution", x, dims, y, backward)?)
}
