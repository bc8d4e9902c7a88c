//! The ends of a vision transformer: class token and positions in front, the class token's row at the end.

use super::course::Course;
use super::sink::{Parameter, Sink};
use super::token::{Backward, Values};
use super::{Buffer, Dims, Flow};
use crate::error::Computed;

/// Patches [N, T, dim] with `cls_token` [1, 1, dim] before them and `pos_embed` [1, T + 1, dim] added.
pub(crate) fn with_class_and_positions(x: &Flow, course: &Course<'_>) -> Computed<Flow> {
    let (class, positions) = (course.parameters.get("", "cls_token")?, course.parameters.get("", "pos_embed")?);
    let Dims { images, height: tokens, channels: dim, .. } = x.dims();
    let dims = Dims { images, height: tokens + 1, width: 1, channels: dim };
    let mut y = Buffer::stale(dims.values());
    place(&x.values.buffer, class.values(), positions.values(), &mut y);
    let backward = || {
        let (x, sink) = (x.values.clone(), course.sink.clone());
        Box::new(move |_: &Values, g: Buffer| {
            fill([&class, &positions], &sink, &g);
            x.add_gradient(patches(&g, positions.values().len(), dim));
        }) as Backward
    };
    Ok(course.tape.of_one("class-and-positions", x, dims, y, backward)?)
}

/// Each image's patches x with the class token before them and the positions added.
pub(crate) fn place(x: &[f32], class: &[f32], positions: &[f32], y: &mut [f32]) {
    for (y, x) in y.chunks_exact_mut(positions.len()).zip(x.chunks_exact(positions.len() - class.len())) {
        y.iter_mut().zip(class.iter().chain(x)).zip(positions).for_each(|((y, x), p)| *y = x + p);
    }
}

/// The gradients of class token and positions: sums over the images of g.
pub(crate) fn fill([class, positions]: [&Parameter; 2], sink: &Sink, g: &[f32]) {
    let mut sums = vec![0.0f32; positions.values().len()];
    for g in g.chunks_exact(sums.len()) {
        sums.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
    }
    sink.fill(positions, |to| to.copy_from_slice(&sums));
    sink.fill(class, |to| to.copy_from_slice(&sums[..to.len()]));
}

/// The gradient of the patches: each image's g, of `image` values, without its first row of `dim`.
pub(crate) fn patches(g: &[f32], image: usize, dim: usize) -> Buffer {
    let mut dx = Buffer::stale(g.len() / image * (image - dim));
    for (g, dx) in g.chunks_exact(image).zip(dx.chunks_exact_mut(image - dim)) {
        dx.copy_from_slice(&g[dim..]);
    }
    dx
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
