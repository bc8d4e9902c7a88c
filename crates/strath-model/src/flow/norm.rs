//! Batch norm with what follows it, and layer norm.

use strath_kernels::batch_norm::{self as kernel, BatchNorm, By, Gradient, Mask, Moments, Then};
use strath_kernels::layer_norm as rows;

use super::course::{Course, Norms};
use super::sink::{Parameter, Parameters};
use super::token::{Backward, Values};
use super::{Buffer, Flow};
use crate::error::{Computed, ModelError};
use crate::layer::{BATCH_NORM_FLOOR, LAYER_NORM_FLOOR};
use crate::pass::Collected;
use crate::route::Follows;

/// Weight and bias of a norm.
pub(crate) struct Affine {
    pub(crate) weight: Parameter,
    pub(crate) bias: Parameter,
}

impl Affine {
    /// Those of the norm `prefix`.
    pub(crate) fn get(parameters: &Parameters, prefix: &str) -> Computed<Self> {
        Ok(Self { weight: parameters.get(prefix, "weight")?, bias: parameters.get(prefix, "bias")? })
    }

    pub(crate) fn batch_norm<'a>(&'a self, (moments, by): &'a (Moments, By)) -> BatchNorm<'a> {
        BatchNorm { moments, weight: self.weight.values(), bias: self.bias.values(), floor: BATCH_NORM_FLOOR, by: *by }
    }

    pub(crate) fn fill(&self, sink: &super::Sink, gradient: &Gradient) {
        sink.fill(&self.weight, |dw| dw.copy_from_slice(&gradient.weight));
        sink.fill(&self.bias, |db| db.copy_from_slice(&gradient.bias));
    }
}

/// Batch norm of x [N, H, W, C] and what follows, in one pass over memory.
pub(crate) fn batch_norm(x: &Flow, course: &Course<'_>, prefix: &str, follows: Follows<&Flow>) -> Computed<Flow> {
    let affine = Affine::get(&course.parameters, prefix)?;
    let moments = moments(x.dims().channels, &x.values.buffer, course, prefix)?;
    let mut y = Buffer::stale(x.values.buffer.len());
    affine.batch_norm(&moments).forward(then(follows), &x.values.buffer, &mut y);
    let (input, sink) = (x.values.clone(), course.sink.clone());
    Ok(match follows {
        Follows::Relu => course.tape.of_one("batch-norm-relu", x, x.dims(), y, || {
            Box::new(move |_: &Values, mut g: Buffer| {
                let gradient = affine.batch_norm(&moments).backward_over_dy(Mask::Relu, &input.buffer, &mut g);
                affine.fill(&sink, &gradient);
                input.add_gradient(g);
            }) as Backward
        })?,
        Follows::AddRelu(shortcut) => {
            let other = shortcut.values.clone();
            course.tape.of_two("batch-norm-add-relu", (x, shortcut), x.dims(), y, || {
                Box::new(move |y: &Values, mut g: Buffer| {
                    let mut dx = Buffer::stale(input.buffer.len());
                    let norm = affine.batch_norm(&moments);
                    // What ReLU lets pass of g is the shortcut's gradient as it is.
                    let gradient = norm.backward_add_relu(&input.buffer, &y.buffer, &mut g, &mut dx);
                    affine.fill(&sink, &gradient);
                    other.add_gradient(g);
                    input.add_gradient(dx);
                }) as Backward
            })?
        }
    })
}

/// What follows, as the kernels take it.
pub(super) fn then(follows: Follows<&Flow>) -> Then<'_> {
    match follows {
        Follows::Relu => Then::Relu,
        Follows::AddRelu(shortcut) => Then::AddRelu(&shortcut.values.buffer),
    }
}

/// The batch's own moments, which are collected, or the running ones.
pub(crate) fn moments(channels: usize, x: &[f32], course: &Course<'_>, prefix: &str) -> Computed<(Moments, By)> {
    match &course.norms {
        Norms::Batch(collected) => {
            let moments = kernel::moments(channels, x);
            collected.borrow_mut().push(Collected {
                prefix: prefix.to_string(),
                unbiased_variance: moments.unbiased(x.len() / channels),
                mean: moments.mean.clone(),
            });
            Ok((moments, By::Batch))
        }
        Norms::Running(layout, statistics) => {
            let running = |name: &str| -> Computed<Vec<f64>> {
                let full = format!("{prefix}.{name}");
                let entry = layout.get(&full).ok_or(ModelError::NoGradient { name: full })?;
                Ok(statistics[entry.range()].iter().map(|v| f64::from(*v)).collect())
            };
            Ok((Moments { mean: running("running_mean")?, variance: running("running_var")? }, By::Constants))
        }
    }
}

/// Layer norm of each row.
pub(crate) fn layer_norm(x: &Flow, course: &Course<'_>, prefix: &str) -> Computed<Flow> {
    let (weight, bias) = (course.parameters.get(prefix, "weight")?, course.parameters.get(prefix, "bias")?);
    let mut y = Buffer::stale(x.values.buffer.len());
    rows::forward(&x.values.buffer, weight.values(), bias.values(), LAYER_NORM_FLOOR, &mut y);
    let backward = || {
        let (x, sink) = (x.values.clone(), course.sink.clone());
        Box::new(move |_: &Values, mut g: Buffer| {
            let gradient = rows::backward_over_dy(&x.buffer, weight.values(), LAYER_NORM_FLOOR, &mut g);
            sink.fill(&weight, |dw| dw.copy_from_slice(&gradient.weight));
            sink.fill(&bias, |db| db.copy_from_slice(&gradient.bias));
            x.add_gradient(g);
        }) as Backward
    };
    Ok(course.tape.of_one("layer-norm", x, x.dims(), y, backward)?)
}
