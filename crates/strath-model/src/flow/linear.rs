//! The linear layer, GELU and the sum of two branches.

use strath_kernels::gelu as kernel;
use strath_kernels::pointwise::{self, Then};
use strath_kernels::product::{Side, Sizes, batched};

use super::course::Course;
use super::token::{Backward, Values};
use super::{Buffer, Dims, Flow};
use crate::error::Computed;

/// `x W' + b` of rows x [.., in] with `prefix.weight` [out, in] (the weights of a patch embedding lie alike) and `prefix.bias`.
pub(crate) fn linear(x: &Flow, course: &Course<'_>, prefix: &str) -> Computed<Flow> {
    layer(x, course, prefix, Then::Nothing)
}

/// ReLU of [`linear`].
pub(crate) fn linear_relu(x: &Flow, course: &Course<'_>, prefix: &str) -> Computed<Flow> {
    layer(x, course, prefix, Then::Relu)
}

fn layer(x: &Flow, course: &Course<'_>, prefix: &str, then: Then) -> Computed<Flow> {
    let (weight, bias) = (course.parameters.get(prefix, "weight")?, course.parameters.get(prefix, "bias")?);
    let (rows, inputs, outputs) = (x.dims().rows(), x.dims().channels, bias.values().len());
    let dims = Dims { channels: outputs, ..x.dims() };
    let mut y = Buffer::stale(dims.values());
    let forward = Sizes { batch: 1, rows, inner: inputs, columns: outputs };
    batched(forward, (&x.values.buffer, Side::Plain), (weight.values(), Side::Transposed), &mut y);
    pointwise::add_bias(then, bias.values(), &mut y);
    let backward = || {
        let (x, sink) = (x.values.clone(), course.sink.clone());
        Box::new(move |y: &Values, mut g: Buffer| {
            let of_bias = match then {
                Then::Nothing => pointwise::bias_backward(outputs, &g),
                Then::Relu => pointwise::bias_relu_backward(outputs, &y.buffer, &mut g),
            };
            sink.fill(&bias, |db| db.copy_from_slice(&of_bias));
            let of_weight = Sizes { batch: 1, rows: outputs, inner: rows, columns: inputs };
            sink.fill(&weight, |dw| batched(of_weight, (&g, Side::Transposed), (&x.buffer, Side::Plain), dw));
            if x.wants_gradient {
                let mut dx = Buffer::stale(x.buffer.len());
                let of_x = Sizes { batch: 1, rows, inner: outputs, columns: inputs };
                batched(of_x, (&g, Side::Plain), (weight.values(), Side::Plain), &mut dx);
                x.add_gradient(dx);
            }
        }) as Backward
    };
    Ok(course.tape.of_one("linear", x, dims, y, backward)?)
}

/// The exact GELU.
pub(crate) fn gelu(x: &Flow, course: &Course<'_>) -> Computed<Flow> {
    let mut y = Buffer::stale(x.values.buffer.len());
    kernel::forward(&x.values.buffer, &mut y);
    let backward = || {
        let x = x.values.clone();
        Box::new(move |_: &Values, mut g: Buffer| {
            kernel::backward_over_dy(&x.buffer, &mut g);
            x.add_gradient(g);
        }) as Backward
    };
    Ok(course.tape.of_one("gelu", x, x.dims(), y, backward)?)
}

/// `a + b`: where a branch joins what it left.
pub(crate) fn add(a: &Flow, b: &Flow, course: &Course<'_>) -> Computed<Flow> {
    let mut y = Buffer::stale(a.values.buffer.len());
    pointwise::add(&a.values.buffer, &b.values.buffer, &mut y);
    let backward = || {
        let (a, b) = (a.values.clone(), b.values.clone());
        Box::new(move |_: &Values, g: Buffer| {
            a.add_gradient(Buffer::copied(&g));
            b.add_gradient(g);
        }) as Backward
    };
    Ok(course.tape.of_two("add", (a, b), a.dims(), y, backward)?)
}
