//! The ends of a vision transformer: class token and positions in front, the class token's row at the end.

use super::course::Course;
use super::token::{Backward, Values};
use super::{Buffer, Dims, Flow};
use crate::error::Computed;

/// Patches [N, T, dim] with `cls_token` [1, 1, dim] before them and `pos_embed` [1, T + 1, dim] added.
pub(crate) fn with_class_and_positions(x: &Flow, course: &Course<'_>) -> Computed<Flow> {
    let (class, positions) = (course.parameters.get("", "cls_token")?, course.parameters.get("", "pos_embed")?);
    let Dims { images, height: tokens, channels: dim, .. } = x.dims();
    let dims = Dims { images, height: tokens + 1, width: 1, channels: dim };
    let mut y = Buffer::stale(dims.values());
    for (y, x) in y.chunks_exact_mut((tokens + 1) * dim).zip(x.values.buffer.chunks_exact(tokens * dim)) {
        let rows = class.values().iter().chain(x);
        y.iter_mut().zip(rows).zip(positions.values()).for_each(|((y, x), p)| *y = x + p);
    }
    let backward = || {
        let (x, sink) = (x.values.clone(), course.sink.clone());
        Box::new(move |_: &Values, g: Buffer| {
            sink.fill(&positions, |sum| {
                sum.fill(0.0);
                for g in g.chunks_exact(sum.len()) {
                    sum.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
                }
            });
            let mut dx = Buffer::stale(x.buffer.len());
            let mut class_sum = vec![0.0f32; dim];
            for (g, dx) in g.chunks_exact((tokens + 1) * dim).zip(dx.chunks_exact_mut(tokens * dim)) {
                class_sum.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
                dx.copy_from_slice(&g[dim..]);
            }
            sink.fill(&class, |sum| sum.copy_from_slice(&class_sum));
            x.add_gradient(dx);
        }) as Backward
    };
    Ok(course.tape.of_one("class-and-positions", x, dims, y, backward)?)
}

/// The first row of each image of x [N, T, dim], [N, dim].
pub(crate) fn first_row(x: &Flow, course: &Course<'_>) -> Computed<Flow> {
    let Dims { images, channels: dim, .. } = x.dims();
    let image = x.values.buffer.len() / images.max(1);
    let mut y = Buffer::stale(images * dim);
    for (y, x) in y.chunks_exact_mut(dim).zip(x.values.buffer.chunks_exact(image)) {
        y.copy_from_slice(&x[..dim]);
    }
    let backward = || {
        let x = x.values.clone();
        Box::new(move |_: &Values, g: Buffer| {
            let mut dx = Buffer::stale(x.buffer.len());
            dx.fill(0.0);
            for (dx, g) in dx.chunks_exact_mut(image).zip(g.chunks_exact(dim)) {
                dx[..dim].copy_from_slice(g);
            }
            x.add_gradient(dx);
        }) as Backward
    };
    Ok(course.tape.of_one("first-row", x, Dims::matrix(images, dim), y, backward)?)
}
