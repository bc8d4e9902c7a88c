//! One pass through a network on the training route: its parameters, its tape, what batch norm normalises by.

use std::cell::RefCell;
use std::sync::Arc;

use strath_core::{ImageShape, Layout};
use strath_kernels::conv::Method;

use super::sink::{Parameters, Sink};
use super::token::Tape;
use super::{Buffer, Dims, Flow, attention, bias, convolution, embed, group_norm, linear, norm, pool};
use crate::error::Computed;
use crate::pass::Collected;
use crate::route::{Conv, Follows, Images, Route};

/// What batch norm normalises by.
pub(crate) enum Norms<'a> {
    /// The batch's own statistics, which are collected.
    Batch(RefCell<Vec<Collected>>),
    /// Running statistics, flat in their layout.
    Running(&'a Layout, &'a [f32]),
}

/// One pass through a network.
pub(crate) struct Course<'a> {
    pub(crate) tape: Tape,
    pub(crate) parameters: Parameters,
    pub(crate) sink: Sink,
    pub(crate) norms: Norms<'a>,
    /// Which convolution kernels may serve.
    pub(crate) method: Method,
}

impl<'a> Course<'a> {
    /// A pass that can be gone back over; the gradient goes to `sink`.
    pub(crate) fn recording(
        layout: &Arc<Layout>,
        weights: &Arc<Vec<f32>>,
        norms: Norms<'a>,
        sink: Sink,
        method: Method,
    ) -> Computed<Self> {
        let parameters = Parameters::new(layout.clone(), weights.clone());
        Ok(Self { tape: Tape::recording()?, parameters, sink, norms, method })
    }

    /// A pass that looks only forward.
    pub(crate) fn passing(layout: &Arc<Layout>, weights: &Arc<Vec<f32>>, norms: Norms<'a>, method: Method) -> Self {
        let parameters = Parameters::new(layout.clone(), weights.clone());
        Self { tape: Tape::Off, parameters, sink: Sink::default(), norms, method }
    }

    /// What batch norm saw.
    pub(crate) fn collected(self) -> Vec<Collected> {
        match self.norms {
            Norms::Batch(collected) => collected.into_inner(),
            Norms::Running(..) => Vec::new(),
        }
    }
}

impl Route for Course<'_> {
    type Value = Flow;

    fn images(&self, images: Images<'_>) -> Computed<Flow> {
        let ImageShape { channels, height, width } = images.shape;
        let dims = Dims { images: images.count, height, width, channels };
        let mut buffer = Buffer::stale(dims.values());
        let area = height * width;
        for (from, to) in images.values.chunks_exact(channels * area).zip(buffer.chunks_exact_mut(channels * area)) {
            for (channel, plane) in from.chunks_exact(area).enumerate() {
                to[channel..].iter_mut().step_by(channels).zip(plane).for_each(|(to, from)| *to = *from);
            }
        }
        Ok(self.tape.source(dims, buffer)?)
    }

    fn flat_images(&self, images: Images<'_>) -> Computed<Flow> {
        Ok(self.tape.source(Dims::matrix(images.count, images.shape.values()), Buffer::copied(images.values))?)
    }

    fn patches(&self, images: Images<'_>, patch: usize) -> Computed<Flow> {
        let ImageShape { channels, height, width } = images.shape;
        let (rows, columns) = (height / patch, width / patch);
        let dims = Dims { images: images.count, height: rows * columns, width: 1, channels: channels * patch * patch };
        let mut buffer = Buffer::stale(dims.values());
        let mut to = buffer.chunks_exact_mut(patch);
        for image in images.values.chunks_exact(images.shape.values()) {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                for (channel, line) in (0..channels).flat_map(|channel| (0..patch).map(move |line| (channel, line))) {
                    let from = (channel * height + row * patch + line) * width + column * patch;
                    if let Some(to) = to.next() {
                        to.copy_from_slice(&image[from..from + patch]);
                    }
                }
            }
        }
        Ok(self.tape.source(dims, buffer)?)
    }

    fn convolution(&self, x: &Flow, prefix: &str, conv: Conv) -> Computed<Flow> {
        convolution::convolution(x, self, prefix, conv)
    }

    fn batch_norm(&self, x: &Flow, prefix: &str, follows: Follows<&Flow>) -> Computed<Flow> {
        norm::batch_norm(x, self, prefix, follows)
    }

    fn group_norm(&self, x: &Flow, prefix: &str, follows: Follows<&Flow>) -> Computed<Flow> {
        group_norm::group_norm(x, self, prefix, follows)
    }

    fn bias(&self, x: &Flow, prefix: &str, follows: Option<Follows<&Flow>>) -> Computed<Flow> {
        bias::bias(x, self, prefix, follows)
    }

    fn relu(&self, x: &Flow) -> Computed<Flow> {
        bias::relu(x, self)
    }

    fn subsample_and_pad(&self, x: &Flow, stride: usize, added: usize) -> Computed<Flow> {
        pool::subsample_and_pad(x, self, stride, added)
    }

    fn global_average(&self, x: &Flow) -> Computed<Flow> {
        pool::global_average(x, self)
    }

    fn linear(&self, x: &Flow, prefix: &str) -> Computed<Flow> {
        linear::linear(x, self, prefix)
    }

    fn linear_relu(&self, x: &Flow, prefix: &str) -> Computed<Flow> {
        linear::linear_relu(x, self, prefix)
    }

    fn linear_gelu(&self, x: &Flow, prefix: &str) -> Computed<Flow> {
        linear::linear_gelu(x, self, prefix)
    }

    fn add_linear(&self, residual: &Flow, x: &Flow, prefix: &str) -> Computed<Flow> {
        linear::add_linear(residual, x, self, prefix)
    }

    fn add(&self, a: &Flow, b: &Flow) -> Computed<Flow> {
        linear::add(a, b, self)
    }

    fn layer_norm(&self, x: &Flow, prefix: &str) -> Computed<Flow> {
        norm::layer_norm(x, self, prefix)
    }

    fn attention(&self, qkv: &Flow, heads: usize) -> Computed<Flow> {
        attention::attention(qkv, self, heads)
    }

    fn with_class_and_positions(&self, x: &Flow) -> Computed<Flow> {
        embed::with_class_and_positions(x, self)
    }

    fn first_row(&self, x: &Flow) -> Computed<Flow> {
        embed::first_row(x, self)
    }
}
