//! Batch norm and group norm with what follows, and layer norm, along a direction.

use strath_kernels::batch_norm::{By, Then};
use strath_kernels::group_norm::{GroupNorm, Normal};
use strath_kernels::layer_norm::{self, Tangent};
use strath_kernels::norm_tangent::NormTangent;
use strath_kernels::tangent::{Pair, PairMut};

use super::{Tangents, halves, halves_mut};
use crate::error::Computed;
use crate::flow::{Affine, Backward, Buffer, Flow, Values, moments};
use crate::layer::LAYER_NORM_FLOOR;
use crate::route::Follows;

/// Weight and bias of a norm, and the direction's.
struct Directed {
    at: Affine,
    along: Affine,
}

impl Directed {
    fn get(route: &Tangents<'_>, prefix: &str) -> Computed<Self> {
        let along = &route.direction;
        Ok(Self { at: Affine::get(&route.course.parameters, prefix)?, along: Affine::get(along, prefix)? })
    }

    fn tangent(&self, (groups, area, by): (usize, usize, By)) -> NormTangent<'_> {
        let (weight_along, bias_along) = (self.along.weight.values(), self.along.bias.values());
        NormTangent { groups, area, by, weight: self.at.weight.values(), weight_along, bias_along }
    }

    fn layer_norm(&self) -> Tangent<'_> {
        let (weight_along, bias_along) = (self.along.weight.values(), self.along.bias.values());
        Tangent { weight: self.at.weight.values(), weight_along, bias_along, floor: LAYER_NORM_FLOOR }
    }
}

/// Batch norm of x and what follows: the batch is one image, whose channels are groups of their own.
pub(super) fn batch_norm(x: &Flow, route: &Tangents<'_>, prefix: &str, follows: Follows<&Flow>) -> Computed<Flow> {
    let directed = Directed::get(route, prefix)?;
    let channels = x.dims().channels;
    let moments = moments(channels, halves(&x.values.buffer).0, &route.course, prefix)?;
    let of = (channels, x.dims().rows() / 2, moments.1);
    normalise("batch-norm-tangent", x, route, directed, of, follows, |affine, then, x, y| {
        let norm = affine.batch_norm(&moments);
        norm.forward(then, x, y);
        norm.normals()
    })
}

/// Group norm of x and what follows.
pub(super) fn group_norm(x: &Flow, route: &Tangents<'_>, prefix: &str, follows: Follows<&Flow>) -> Computed<Flow> {
    let directed = Directed::get(route, prefix)?;
    let dims = x.dims();
    let GroupNorm { groups, area, .. } = directed.at.group_norm(dims);
    normalise("group-norm-tangent", x, route, directed, (groups, area, By::Batch), follows, |affine, then, x, y| {
        affine.group_norm(dims).forward(then, x, y)
    })
}

/// A norm of `of` (groups, rows of an image, where the statistics come from); `forward` computes the values and finds the groups' statistics.
fn normalise(
    name: &'static str,
    x: &Flow,
    route: &Tangents<'_>,
    directed: Directed,
    of: (usize, usize, By),
    follows: Follows<&Flow>,
    forward: impl FnOnce(&Affine, Then<'_>, &[f32], &mut [f32]) -> Vec<Normal>,
) -> Computed<Flow> {
    let mut y = Buffer::stale(x.values.buffer.len());
    let ((of_values, tangent), (values, along)) = (halves_mut(&mut y), halves(&x.values.buffer));
    let shortcut = match follows {
        Follows::Relu => None,
        Follows::AddRelu(shortcut) => Some(shortcut),
    };
    let (then, shortcut_along) = match shortcut.map(|shortcut| halves(&shortcut.values.buffer)) {
        None => (Then::Relu, None),
        Some((values, along)) => (Then::AddRelu(values), Some(along)),
    };
    let normals = forward(&directed.at, then, values, of_values);
    let moved = directed.tangent(of).forward(&normals, Pair { values, along }, of_values, shortcut_along, tangent);
    let (input, sink) = (x.values.clone(), route.course.sink.clone());
    let other = shortcut.map(|shortcut| shortcut.values.clone());
    let backward = || {
        Box::new(move |y: &Values, mut g: Buffer| {
            let mut dx = Buffer::stale(input.buffer.len());
            let (values, along) = halves(&input.buffer);
            let ((g_along, g_values), (dx_along, dx_values)) = (halves_mut(&mut g), halves_mut(&mut dx));
            let (from, to) =
                (PairMut { values: g_values, along: g_along }, PairMut { values: dx_values, along: dx_along });
            let norm = directed.tangent(of);
            let gradient = norm.backward(&moved, Pair { values, along }, halves(&y.buffer).0, from, to);
            directed.at.fill(&sink, &gradient);
            if let Some(other) = other {
                // What ReLU lets pass of g is the shortcut's gradient as it is.
                other.add_gradient(g);
            }
            input.add_gradient(dx);
        }) as Backward
    };
    Ok(match shortcut {
        None => route.course.tape.of_one(name, x, x.dims(), y, backward)?,
        Some(shortcut) => route.course.tape.of_two(name, (x, shortcut), x.dims(), y, backward)?,
    })
}

/// Layer norm of each row.
pub(super) fn layer_norm(x: &Flow, route: &Tangents<'_>, prefix: &str) -> Computed<Flow> {
    let directed = Directed::get(route, prefix)?;
    let mut y = Buffer::stale(x.values.buffer.len());
    let ((of_values, tangent), (values, moved)) = (halves_mut(&mut y), halves(&x.values.buffer));
    let (weight, bias) = (directed.at.weight.values(), directed.at.bias.values());
    layer_norm::forward(values, weight, bias, LAYER_NORM_FLOOR, of_values);
    directed.layer_norm().forward(Pair { values, along: moved }, tangent);
    let (input, sink) = (x.values.clone(), route.course.sink.clone());
    let backward = || {
        Box::new(move |_: &Values, mut g: Buffer| {
            let (values, moved) = halves(&input.buffer);
            let (g_along, g_values) = halves_mut(&mut g);
            let gradient = directed
                .layer_norm()
                .backward_over_g(Pair { values, along: moved }, PairMut { values: g_values, along: g_along });
            directed.at.fill(&sink, &gradient);
            input.add_gradient(g);
        }) as Backward
    };
    Ok(route.course.tape.of_one("layer-norm-tangent", x, x.dims(), y, backward)?)
}
