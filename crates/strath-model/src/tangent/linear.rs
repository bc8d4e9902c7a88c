//! The linear layer, a bias and activations, along a direction.

use strath_kernels::batch_norm::Then as AfterBias;
use strath_kernels::linear::{Linear, Then};
use strath_kernels::tangent::{Pair, PairMut};
use strath_kernels::{bias as kernel, gelu as activation, pointwise};

use super::{Tangents, halves, halves_mut};
use crate::error::Computed;
use crate::flow::{Backward, Buffer, Dims, Flow, Values};
use crate::route::Follows;

/// `y = x W' + b` and `R y = R x W' + x R W' + R b`.
pub(super) fn linear(x: &Flow, route: &Tangents<'_>, prefix: &str) -> Computed<Flow> {
    let course = &route.course;
    let (weight, bias) = (course.parameters.get(prefix, "weight")?, course.parameters.get(prefix, "bias")?);
    let (along, bias_along) = (route.direction.get(prefix, "weight")?, route.direction.get(prefix, "bias")?);
    let moves = x.values.wants_gradient;
    let rows = if moves { x.dims().rows() / 2 } else { x.dims().rows() };
    let (inputs, outputs) = (x.dims().channels, bias.values().len());
    let one = Linear { rows, inputs, outputs };
    let images = if moves { x.dims().images } else { 2 * x.dims().images };
    let dims = Dims { images, channels: outputs, ..x.dims() };
    let mut y = Buffer::stale(dims.values());
    let values = &x.values.buffer[..rows * inputs];
    let (of_values, tangent) = halves_mut(&mut y);
    one.forward(values, weight.values(), bias.values(), Then::Nothing, of_values);
    if moves {
        let mut by_weight = Buffer::stale(tangent.len());
        one.forward(values, along.values(), bias_along.values(), Then::Nothing, &mut by_weight);
        let no_bias = vec![0.0; outputs];
        one.forward(halves(&x.values.buffer).1, weight.values(), &no_bias, Then::Plus(&by_weight), tangent);
    } else {
        one.forward(values, along.values(), bias_along.values(), Then::Nothing, tangent);
    }
    let backward = || {
        let (x, sink) = (x.values.clone(), course.sink.clone());
        Box::new(move |_: &Values, g: Buffer| {
            let (g_along, g_values) = halves(&g);
            let of_bias = pointwise::bias_backward(outputs, g_along);
            sink.fill(&bias, |db| db.copy_from_slice(&of_bias));
            if !moves {
                sink.fill(&weight, |dw| one.backward_weight(g_along, &x.buffer, dw));
                return;
            }
            let both = Linear { rows: 2 * rows, ..one };
            // R g beside x, g beside R x.
            sink.fill(&weight, |dw| both.backward_weight(&g, &x.buffer, dw));
            let mut dx = Buffer::stale(x.buffer.len());
            both.backward_data(&g, weight.values(), &mut dx);
            let (tangent, _) = halves_mut(&mut dx);
            let mut by_weight = Buffer::stale(tangent.len());
            one.backward_data(g_values, along.values(), &mut by_weight);
            pointwise::add_to(&by_weight, tangent);
            x.add_gradient(dx);
        }) as Backward
    };
    Ok(course.tape.of_one("linear-tangent", x, dims, y, backward)?)
}

/// x plus `prefix.bias` and what follows.
pub(super) fn bias(x: &Flow, route: &Tangents<'_>, prefix: &str, follows: Option<Follows<&Flow>>) -> Computed<Flow> {
    let course = &route.course;
    let (bias, along) = (course.parameters.get(prefix, "bias")?, route.direction.get(prefix, "bias")?);
    let mut y = Buffer::stale(x.values.buffer.len());
    let ((of_values, tangent), (values, moved)) = (halves_mut(&mut y), halves(&x.values.buffer));
    let is_rectified = follows.is_some();
    let shortcut = match follows {
        Some(Follows::AddRelu(shortcut)) => Some(shortcut),
        _ => None,
    };
    let then = match (shortcut, is_rectified) {
        (Some(shortcut), _) => AfterBias::AddRelu(halves(&shortcut.values.buffer).0),
        (None, true) => AfterBias::Relu,
        (None, false) => AfterBias::Nothing,
    };
    kernel::forward(then, bias.values(), values, of_values);
    kernel::forward(AfterBias::Nothing, along.values(), moved, tangent);
    if let Some(shortcut) = shortcut {
        pointwise::add_to(halves(&shortcut.values.buffer).1, tangent);
    }
    if is_rectified {
        pointwise::mask_over_g(of_values, tangent);
    }
    let (input, sink, channels) = (x.values.clone(), course.sink.clone(), x.dims().channels);
    let other = shortcut.map(|shortcut| shortcut.values.clone());
    let backward = || {
        Box::new(move |y: &Values, mut g: Buffer| {
            if is_rectified {
                mask_both(y, &mut g);
            }
            let of_bias = pointwise::bias_backward(channels, halves(&g).0);
            sink.fill(&bias, |db| db.copy_from_slice(&of_bias));
            if let Some(other) = other {
                other.add_gradient(Buffer::copied(&g));
            }
            input.add_gradient(g);
        }) as Backward
    };
    Ok(match shortcut {
        Some(shortcut) => course.tape.of_two("bias-add-relu-tangent", (x, shortcut), x.dims(), y, backward)?,
        None => course.tape.of_one("bias-tangent", x, x.dims(), y, backward)?,
    })
}

/// `max(x, 0)`, whose second derivative is 0.
pub(super) fn relu(x: &Flow, route: &Tangents<'_>) -> Computed<Flow> {
    let mut y = Buffer::stale(x.values.buffer.len());
    let ((of_values, tangent), (values, moved)) = (halves_mut(&mut y), halves(&x.values.buffer));
    pointwise::relu(values, of_values);
    pointwise::mask(of_values, moved, tangent);
    let backward = || {
        let input = x.values.clone();
        Box::new(move |y: &Values, mut g: Buffer| {
            mask_both(y, &mut g);
            input.add_gradient(g);
        }) as Backward
    };
    Ok(route.course.tape.of_one("relu-tangent", x, x.dims(), y, backward)?)
}

/// R g and g where y, the result of a ReLU, is above 0.
pub(super) fn mask_both(y: &Values, g: &mut Buffer) {
    let (values, (g_along, g)) = (halves(&y.buffer).0, halves_mut(g));
    pointwise::mask_over_g(values, g_along);
    pointwise::mask_over_g(values, g);
}

/// The exact GELU.
pub(super) fn gelu(x: &Flow, route: &Tangents<'_>) -> Computed<Flow> {
    let (mut slopes, mut y) = (Buffer::copied(&x.values.buffer), Buffer::stale(x.values.buffer.len()));
    let ((z, z_along), (values, along)) = (halves_mut(&mut slopes), halves_mut(&mut y));
    activation::tangent_forward(PairMut { values: z, along: z_along }, PairMut { values, along });
    let backward = || {
        let input = x.values.clone();
        Box::new(move |_: &Values, mut g: Buffer| {
            let ((values, along), (g_along, g_values)) = (halves(&slopes), halves_mut(&mut g));
            activation::tangent_backward(Pair { values, along }, PairMut { values: g_values, along: g_along });
            input.add_gradient(g);
        }) as Backward
    };
    Ok(route.course.tape.of_one("gelu-tangent", x, x.dims(), y, backward)?)
}
