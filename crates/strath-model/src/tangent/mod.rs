//! The route of exact products with the Hessian: each layer beside its derivative along a direction of the parameters.
//!
//! Pearlmutter (1994, Fast exact multiplication by the Hessian): with `R f = d/dr f(w + r v)` at r = 0, `R gradient = H v`. So every
//! activation x is carried with its tangent `R x`, and every gradient g with `R g`; what a layer's way back gives for its parameters is
//! `R` of their gradient, a part of the product. Exact as the gradient is, up to rounding in f32.
//!
//! A [`Flow`] of this route holds the values of N images and below them their tangents, as of 2 N images; its gradient holds `R g` first,
//! then g. What is linear thus is the training route's layer on twice the images, and the sum `R g' x + g' R x` of a weight's
//! gradient is one product. What comes from outside (images) does not move: it is N images alone.
//!
//! ```text
//! layer                 forward      way back       over a gradient's forward and way back
//! convolution, linear   3 products   5 (3 + 2)      8 / 3
//! the first             2            1              3 / 2
//! ```

mod attention;
mod convolution;
mod ends;
mod linear;
mod norm;

pub(crate) use ends::go_back;

use std::sync::Arc;
use strath_core::Layout;

use crate::error::Computed;
use crate::flow::{Buffer, Course, Flow, Parameters};
use crate::route::{Conv, Follows, Images, Route};

/// One pass through a network along a direction.
pub(crate) struct Tangents<'a> {
    pub(crate) course: Course<'a>,
    direction: Parameters,
}

impl<'a> Tangents<'a> {
    /// A pass along `direction`, flat in `layout`; the product goes to the course's sink.
    pub(crate) fn along(course: Course<'a>, layout: &Arc<Layout>, direction: &Arc<Vec<f32>>) -> Self {
        Self { course, direction: Parameters::new(layout.clone(), direction.clone()) }
    }
}

/// The two halves of what lies as values and tangents, or as `R g` and g.
fn halves(both: &[f32]) -> (&[f32], &[f32]) {
    both.split_at(both.len() / 2)
}

fn halves_mut(both: &mut Buffer) -> (&mut [f32], &mut [f32]) {
    let half = both.len() / 2;
    both.split_at_mut(half)
}

impl Route for Tangents<'_> {
    type Value = Flow;

    fn images(&self, images: Images<'_>) -> Computed<Flow> {
        self.course.images(images)
    }

    fn flat_images(&self, images: Images<'_>) -> Computed<Flow> {
        self.course.flat_images(images)
    }

    fn patches(&self, images: Images<'_>, patch: usize) -> Computed<Flow> {
        self.course.patches(images, patch)
    }

    fn convolution(&self, x: &Flow, prefix: &str, conv: Conv) -> Computed<Flow> {
        convolution::convolution(x, self, prefix, conv)
    }

    fn batch_norm(&self, x: &Flow, prefix: &str, follows: Follows<&Flow>) -> Computed<Flow> {
        norm::batch_norm(x, self, prefix, follows)
    }

    fn group_norm(&self, x: &Flow, prefix: &str, follows: Follows<&Flow>) -> Computed<Flow> {
        norm::group_norm(x, self, prefix, follows)
    }

    fn bias(&self, x: &Flow, prefix: &str, follows: Option<Follows<&Flow>>) -> Computed<Flow> {
        linear::bias(x, self, prefix, follows)
    }

    fn relu(&self, x: &Flow) -> Computed<Flow> {
        linear::relu(x, self)
    }

    fn subsample_and_pad(&self, x: &Flow, stride: usize, added: usize) -> Computed<Flow> {
        self.course.subsample_and_pad(x, stride, added)
    }

    fn global_average(&self, x: &Flow) -> Computed<Flow> {
        self.course.global_average(x)
    }

    fn linear(&self, x: &Flow, prefix: &str) -> Computed<Flow> {
        linear::linear(x, self, prefix)
    }

    fn linear_relu(&self, x: &Flow, prefix: &str) -> Computed<Flow> {
        self.relu(&self.linear(x, prefix)?)
    }

    fn linear_gelu(&self, x: &Flow, prefix: &str) -> Computed<Flow> {
        linear::gelu(&self.linear(x, prefix)?, self)
    }

    fn add_linear(&self, residual: &Flow, x: &Flow, prefix: &str) -> Computed<Flow> {
        self.add(residual, &self.linear(x, prefix)?)
    }

    fn add(&self, a: &Flow, b: &Flow) -> Computed<Flow> {
        self.course.add(a, b)
    }

    fn layer_norm(&self, x: &Flow, prefix: &str) -> Computed<Flow> {
        norm::layer_norm(x, self, prefix)
    }

    fn attention(&self, qkv: &Flow, heads: usize) -> Computed<Flow> {
        attention::attention(qkv, self, heads)
    }

    fn with_class_and_positions(&self, x: &Flow) -> Computed<Flow> {
        ends::with_class_and_positions(x, self)
    }

    fn first_row(&self, x: &Flow) -> Computed<Flow> {
        self.course.first_row(x)
    }
}
