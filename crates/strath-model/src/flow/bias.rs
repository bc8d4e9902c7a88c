//! What is left of a norm that is left out: a bias with what follows it, or ReLU alone.

use strath_kernels::batch_norm::Then;
use strath_kernels::{bias as kernel, pointwise};

use super::course::Course;
use super::norm::then;
use super::token::{Backward, Values};
use super::{Buffer, Flow};
use crate::error::Computed;
use crate::route::Follows;

/// x [N, H, W, C] plus `prefix.bias` and what follows, in one pass over memory.
pub(crate) fn bias(x: &Flow, course: &Course<'_>, prefix: &str, follows: Option<Follows<&Flow>>) -> Computed<Flow> {
    let bias = course.parameters.get(prefix, "bias")?;
    let mut y = Buffer::stale(x.values.buffer.len());
    kernel::forward(follows.map_or(Then::Nothing, then), bias.values(), &x.values.buffer, &mut y);
    let (input, sink, channels) = (x.values.clone(), course.sink.clone(), x.dims().channels);
    let is_rectified = follows.is_some();
    let back = move |y: &Values, g: &mut Buffer| {
        let gradient = if is_rectified {
            pointwise::bias_relu_backward(channels, &y.buffer, g)
        } else {
            pointwise::bias_backward(channels, g)
        };
        sink.fill(&bias, |db| db.copy_from_slice(&gradient));
    };
    Ok(match follows {
        None | Some(Follows::Relu) => course.tape.of_one("bias", x, x.dims(), y, || {
            Box::new(move |y: &Values, mut g: Buffer| {
                back(y, &mut g);
                input.add_gradient(g);
            }) as Backward
        })?,
        Some(Follows::AddRelu(shortcut)) => {
            let other = shortcut.values.clone();
            course.tape.of_two("bias-add-relu", (x, shortcut), x.dims(), y, || {
                Box::new(move |y: &Values, mut g: Buffer| {
                    back(y, &mut g);
                    other.add_gradient(Buffer::copied(&g));
                    input.add_gradient(g);
                }) as Backward
            })?
        }
    })
}

/// `max(x, 0)`.
pub(crate) fn relu(x: &Flow, course: &Course<'_>) -> Computed<Flow> {
    let mut y = Buffer::stale(x.values.buffer.len());
    pointwise::relu(&x.values.buffer, &mut y);
    let backward = || {
        let input = x.values.clone();
        Box::new(move |y: &Values, mut g: Buffer| {
            pointwise::mask_over_g(&y.buffer, &mut g);
            input.add_gradient(g);
        }) as Backward
    };
    Ok(course.tape.of_one("relu", x, x.dims(), y, backward)?)
}
