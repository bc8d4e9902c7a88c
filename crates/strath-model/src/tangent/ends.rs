//! Class token and positions in front, cross-entropy at the end, along a direction.

use strath_kernels::cross_entropy::{cross_entropy_backward, cross_entropy_tangent};

use super::{Tangents, halves, halves_mut};
use crate::error::Computed;
use crate::flow::{Backward, Buffer, Dims, Flow, Values, embed};

/// Patches [N, T, dim] with `cls_token` before them and `pos_embed` added; the tangents with the direction's.
pub(super) fn with_class_and_positions(x: &Flow, route: &Tangents<'_>) -> Computed<Flow> {
    let course = &route.course;
    let (class, positions) = (course.parameters.get("", "cls_token")?, course.parameters.get("", "pos_embed")?);
    let along = [route.direction.get("", "cls_token")?, route.direction.get("", "pos_embed")?];
    let Dims { images, height: tokens, channels: dim, .. } = x.dims();
    let dims = Dims { images, height: tokens + 1, width: 1, channels: dim };
    let mut y = Buffer::stale(dims.values());
    let ((of_values, tangent), (values, moved)) = (halves_mut(&mut y), halves(&x.values.buffer));
    embed::place(values, class.values(), positions.values(), of_values);
    embed::place(moved, along[0].values(), along[1].values(), tangent);
    let backward = || {
        let (x, sink) = (x.values.clone(), course.sink.clone());
        Box::new(move |_: &Values, g: Buffer| {
            embed::fill([&class, &positions], &sink, halves(&g).0);
            x.add_gradient(embed::patches(&g, positions.values().len(), dim));
        }) as Backward
    };
    Ok(course.tape.of_one("class-and-positions-tangent", x, dims, y, backward)?)
}

/// Goes back from the mean cross-entropy of logits [n, classes] with their tangents: its gradient and how that moves.
pub(crate) fn go_back(logits: &Flow, labels: &[u32], smoothing: f64) -> Computed<()> {
    let (classes, (values, along)) = (logits.dims().channels, halves(&logits.values.buffer));
    let mut g = Buffer::stale(logits.values.buffer.len());
    let (g_along, g_values) = halves_mut(&mut g);
    cross_entropy_backward(classes, values, labels, smoothing, 1.0, g_values);
    cross_entropy_tangent(classes, values, along, g_along);
    logits.values.add_gradient(g);
    logits.token().backward()?;
    Ok(())
}
