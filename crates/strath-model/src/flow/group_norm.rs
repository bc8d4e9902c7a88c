//! Group norm with what follows it.

use strath_kernels::batch_norm::Mask;
use strath_kernels::group_norm::GroupNorm;

use super::course::Course;
use super::norm::{Affine, then};
use super::token::{Backward, Values};
use super::{Buffer, Dims, Flow};
use crate::error::Computed;
use crate::layer::BATCH_NORM_FLOOR;
use crate::normaliser::groups;
use crate::route::Follows;

impl Affine {
    pub(crate) fn group_norm(&self, dims: Dims) -> GroupNorm<'_> {
        let (weight, bias) = (self.weight.values(), self.bias.values());
        let area = dims.height * dims.width;
        GroupNorm { groups: groups(dims.channels), area, weight, bias, floor: BATCH_NORM_FLOOR }
    }
}

/// Group norm of x [N, H, W, C] and what follows, in one pass over memory.
pub(crate) fn group_norm(x: &Flow, course: &Course<'_>, prefix: &str, follows: Follows<&Flow>) -> Computed<Flow> {
    let affine = Affine::get(&course.parameters, prefix)?;
    let dims = x.dims();
    let mut y = Buffer::stale(x.values.buffer.len());
    let normals = affine.group_norm(dims).forward(then(follows), &x.values.buffer, &mut y);
    let (input, sink) = (x.values.clone(), course.sink.clone());
    Ok(match follows {
        Follows::Relu => course.tape.of_one("group-norm-relu", x, dims, y, || {
            Box::new(move |_: &Values, mut g: Buffer| {
                let norm = affine.group_norm(dims);
                let gradient = norm.backward_over_dy(&normals, Mask::Relu, &input.buffer, &mut g);
                affine.fill(&sink, &gradient);
                input.add_gradient(g);
            }) as Backward
        })?,
        Follows::AddRelu(shortcut) => {
            let other = shortcut.values.clone();
            course.tape.of_two("group-norm-add-relu", (x, shortcut), dims, y, || {
                Box::new(move |y: &Values, mut g: Buffer| {
                    let mut dx = Buffer::stale(input.buffer.len());
                    let norm = affine.group_norm(dims);
                    // What ReLU lets pass of g is the shortcut's gradient as it is.
                    let gradient = norm.backward_add_relu(&normals, &input.buffer, &y.buffer, &mut g, &mut dx);
                    affine.fill(&sink, &gradient);
                    other.add_gradient(g);
                    input.add_gradient(dx);
                }) as Backward
            })?
        }
    })
}
