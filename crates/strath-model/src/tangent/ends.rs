//! Class token and positions in front, cross-entropy at the end, along a direction.

use strath_kernels::cross_entropy::{cross_entropy_backward, cross_entropy_tangent};

use super::{Tangents, halves, halves_mut};
use crate::error::Computed;
use crate::flow::{Backward, Buffer, Dims, Flow, Values};

/// Patches [N, T, dim] with `cls_token` before them and `pos_embed` added; the tangents with the direction's.
pub(super) fn with_class_and_positions(x: &Flow, route: &Tangents<'_>) -> Computed<Flow> {
    let course = &route.course;
    let (class, positions) = (course.parameters.get("", "cls_token")?, course.parameters.get("", "pos_embed")?);
    let along = [route.direction.get("", "cls_token")?, route.direction.get("", "pos_embed")?];
    let Dims { images, height: tokens, channels: dim, .. } = x.dims();
    let dims = Dims { images, height: tokens + 1, width: 1, channels: dim };
    let mut y = Buffer::stale(dims.values());
    let add = |x: &[f32], class: &[f32], positions: &[f32], y: &mut [f32]| {
        for (y, x) in y.chunks_exact_mut((tokens + 1) * dim).zip(x.chunks_exact(tokens * dim)) {
            y.iter_mut().zip(class.iter().chain(x)).zip(positions).for_each(|((y, x), p)| *y = x + p);
        }
    };
    let ((of_values, tangent), (values, moved)) = (halves_mut(&mut y), halves(&x.values.buffer));
    add(values, class.values(), positions.values(), of_values);
    add(moved, along[0].values(), along[1].values(), tangent);
    let backward = || {
        let (x, sink) = (x.values.clone(), course.sink.clone());
        Box::new(move |_: &Values, g: Buffer| {
            let mut sums = vec![0.0f32; (tokens + 1) * dim];
            for g in halves(&g).0.chunks_exact(sums.len()) {
                sums.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
            }
            sink.fill(&positions, |to| to.copy_from_slice(&sums));
            sink.fill(&class, |to| to.copy_from_slice(&sums[..dim]));
            let mut dx = Buffer::stale(x.buffer.len());
            for (g, dx) in g.chunks_exact((tokens + 1) * dim).zip(dx.chunks_exact_mut(tokens * dim)) {
                dx.copy_from_slice(&g[dim..]);
            }
            x.add_gradient(dx);
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
