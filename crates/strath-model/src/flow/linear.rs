//! The linear layer with what follows it, and the sum of two branches.

use strath_kernels::linear::{Linear, Then};
use strath_kernels::{gelu, pointwise};

use super::course::Course;
use super::sink::{Parameter, Sink};
use super::token::{Backward, Values};
use super::{Buffer, Dims, Flow};
use crate::error::Computed;

/// A linear layer of some rows, with its parameters.
struct Layer {
    kernel: Linear,
    weight: Parameter,
    bias: Parameter,
    sink: Sink,
}

impl Layer {
    /// `prefix.weight` [out, in] (the weights of a patch embedding lie alike) and `prefix.bias`, for x [.., in].
    fn new(x: &Flow, course: &Course<'_>, prefix: &str) -> Computed<Self> {
        let (weight, bias) = (course.parameters.get(prefix, "weight")?, course.parameters.get(prefix, "bias")?);
        let kernel = Linear { rows: x.dims().rows(), inputs: x.dims().channels, outputs: bias.values().len() };
        Ok(Self { kernel, weight, bias, sink: course.sink.clone() })
    }

    /// The shape of `x W' + b`, and memory for it.
    fn room(&self, x: &Flow) -> (Dims, Buffer) {
        let dims = Dims { channels: self.kernel.outputs, ..x.dims() };
        (dims, Buffer::stale(dims.values()))
    }

    fn forward(&self, x: &Flow, then: Then<'_>, y: &mut [f32]) {
        self.kernel.forward(&x.values.buffer, self.weight.values(), self.bias.values(), then, y);
    }

    /// From the gradient g of `x W' + b`, and what it sums to over the rows.
    fn backward(&self, x: &Values, g: &[f32], of_bias: &[f32]) {
        self.sink.fill(&self.bias, |db| db.copy_from_slice(of_bias));
        self.sink.fill(&self.weight, |dw| self.kernel.backward_weight(g, &x.buffer, dw));
        if x.wants_gradient {
            let mut dx = Buffer::stale(x.buffer.len());
            self.kernel.backward_data(g, self.weight.values(), &mut dx);
            x.add_gradient(dx);
        }
    }
}

/// `x W' + b` of rows x [.., in].
pub(crate) fn linear(x: &Flow, course: &Course<'_>, prefix: &str) -> Computed<Flow> {
    let layer = Layer::new(x, course, prefix)?;
    let (dims, mut y) = layer.room(x);
    layer.forward(x, Then::Nothing, &mut y);
    let backward = || {
        let x = x.values.clone();
        Box::new(move |_: &Values, g: Buffer| {
            layer.backward(&x, &g, &pointwise::bias_backward(layer.kernel.outputs, &g));
        }) as Backward
    };
    Ok(course.tape.of_one("linear", x, dims, y, backward)?)
}

/// ReLU of [`linear`].
pub(crate) fn linear_relu(x: &Flow, course: &Course<'_>, prefix: &str) -> Computed<Flow> {
    let layer = Layer::new(x, course, prefix)?;
    let (dims, mut y) = layer.room(x);
    layer.forward(x, Then::Relu, &mut y);
    let backward = || {
        let x = x.values.clone();
        Box::new(move |y: &Values, mut g: Buffer| {
            let of_bias = pointwise::bias_relu_backward(layer.kernel.outputs, &y.buffer, &mut g);
            layer.backward(&x, &g, &of_bias);
        }) as Backward
    };
    Ok(course.tape.of_one("linear-relu", x, dims, y, backward)?)
}

/// The exact GELU of [`linear`]; its slopes are kept for the way back, where its argument need not be.
pub(crate) fn linear_gelu(x: &Flow, course: &Course<'_>, prefix: &str) -> Computed<Flow> {
    let layer = Layer::new(x, course, prefix)?;
    let (dims, mut y) = layer.room(x);
    let mut slopes = Buffer::stale(dims.values());
    layer.forward(x, Then::Gelu(&mut slopes), &mut y);
    let backward = || {
        let x = x.values.clone();
        Box::new(move |_: &Values, mut g: Buffer| {
            let of_bias = gelu::backward_and_bias(layer.kernel.outputs, &slopes, &mut g);
            layer.backward(&x, &g, &of_bias);
        }) as Backward
    };
    Ok(course.tape.of_one("linear-gelu", x, dims, y, backward)?)
}

/// `residual +` [`linear`]: where a branch joins what it left.
pub(crate) fn add_linear(residual: &Flow, x: &Flow, course: &Course<'_>, prefix: &str) -> Computed<Flow> {
    let layer = Layer::new(x, course, prefix)?;
    let (dims, mut y) = layer.room(x);
    layer.forward(x, Then::Plus(&residual.values.buffer), &mut y);
    let backward = || {
        let (residual, x) = (residual.values.clone(), x.values.clone());
        Box::new(move |_: &Values, g: Buffer| {
            layer.backward(&x, &g, &pointwise::bias_backward(layer.kernel.outputs, &g));
            residual.add_gradient(g);
        }) as Backward
    };
    Ok(course.tape.of_two("add-linear", (residual, x), dims, y, backward)?)
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
