//! Tokens in candle's graph, and the values that they stand for.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor, Var};
use strath_kernels::pointwise;

use super::Buffer;
use crate::layer::scalar;

/// Images by rows, columns and channels, channels innermost; a matrix [n, width] is n images of one pixel, tokens [N, T, width]
/// are images of T rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dims {
    pub(crate) images: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
}

impl Dims {
    pub(crate) fn matrix(rows: usize, channels: usize) -> Self {
        Self { images: rows, height: 1, width: 1, channels }
    }

    pub(crate) fn rows(self) -> usize {
        self.images * self.height * self.width
    }

    pub(crate) fn values(self) -> usize {
        self.rows() * self.channels
    }
}

/// An activation: a token in candle's graph and the values beside it.
#[derive(Clone)]
pub(crate) struct Flow {
    token: Tensor,
    pub(crate) values: Arc<Values>,
}

/// The values that a token stands for, and the gradient that has come to them so far.
pub(crate) struct Values {
    pub(crate) dims: Dims,
    pub(crate) buffer: Buffer,
    gradient: Mutex<Option<Buffer>>,
    /// Whether a gradient is of use: the images of a data set want none.
    pub(crate) wants_gradient: bool,
}

impl Values {
    /// Adds a gradient that was computed into a buffer of its own.
    pub(crate) fn add_gradient(&self, gradient: Buffer) {
        let mut slot = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_mut() {
            Some(sum) => pointwise::add_to(&gradient, sum),
            None => *slot = Some(gradient),
        }
    }

    /// The whole gradient, once everything that depends on the values has added to it.
    pub(crate) fn take_gradient(&self) -> Option<Buffer> {
        self.gradient.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a layer does on the way back, with the gradient of its result.
pub(crate) type Backward = Box<dyn FnOnce(&Values, Buffer) + Send>;

/// Whether layers leave a way back behind.
#[derive(Debug, Clone)]
pub(crate) enum Tape {
    /// They do: the first token is this variable.
    Recording(Var),
    /// They do not.
    Off,
}

impl Tape {
    pub(crate) fn recording() -> Result<Self> {
        Ok(Self::Recording(Var::new(0f32, &Device::Cpu)?))
    }

    fn is_recording(&self) -> bool {
        matches!(self, Self::Recording(_))
    }

    /// Values that come from outside.
    pub(crate) fn source(&self, dims: Dims, buffer: Buffer) -> Result<Flow> {
        let token = match self {
            Self::Recording(root) => root.as_tensor().clone(),
            Self::Off => Tensor::new(0f32, &Device::Cpu)?,
        };
        let values = Values { dims, buffer, gradient: Mutex::new(None), wants_gradient: false };
        Ok(Flow { token, values: Arc::new(values) })
    }

    /// The result of a layer of one input.
    pub(crate) fn of_one(
        &self,
        name: &'static str,
        x: &Flow,
        dims: Dims,
        buffer: Buffer,
        backward: impl FnOnce() -> Backward,
    ) -> Result<Flow> {
        let (values, step) = self.step(name, dims, buffer, backward);
        let token = match step {
            Some(step) => x.token.apply_op1(step)?,
            None => x.token.clone(),
        };
        Ok(Flow { token, values })
    }

    /// The result of a layer of two inputs.
    pub(crate) fn of_two(
        &self,
        name: &'static str,
        (a, b): (&Flow, &Flow),
        dims: Dims,
        buffer: Buffer,
        backward: impl FnOnce() -> Backward,
    ) -> Result<Flow> {
        let (values, step) = self.step(name, dims, buffer, backward);
        let token = match step {
            Some(step) => a.token.apply_op2(&b.token, step)?,
            None => a.token.clone(),
        };
        Ok(Flow { token, values })
    }

    fn step(
        &self,
        name: &'static str,
        dims: Dims,
        buffer: Buffer,
        backward: impl FnOnce() -> Backward,
    ) -> (Arc<Values>, Option<Step>) {
        debug_assert_eq!(buffer.len(), dims.values(), "{name}");
        let values = Arc::new(Values { dims, buffer, gradient: Mutex::new(None), wants_gradient: true });
        let step =
            self.is_recording().then(|| Step { name, result: values.clone(), backward: Mutex::new(Some(backward())) });
        (values, step)
    }
}

impl Flow {
    /// The token, for the loss that ends the graph.
    pub(crate) fn token(&self) -> &Tensor {
        &self.token
    }

    pub(crate) fn dims(&self) -> Dims {
        self.values.dims
    }
}

/// A layer in candle's graph.
struct Step {
    name: &'static str,
    result: Arc<Values>,
    /// Taken the first time: a graph is gone back over once.
    backward: Mutex<Option<Backward>>,
}

impl Step {
    fn go_back(&self) -> Result<()> {
        let backward = self.backward.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (backward, self.result.take_gradient()) {
            (Some(backward), Some(gradient)) => {
                backward(&self.result, gradient);
                Ok(())
            }
            _ => Err(candle_core::Error::BackwardNotSupported { op: "a second backward on the training route" }),
        }
    }
}

impl CustomOp1 for Step {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(scalar())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        self.go_back()?;
        Ok(Some(g.clone()))
    }
}

impl CustomOp2 for Step {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(scalar())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.go_back()?;
        Ok((Some(g.clone()), Some(g.clone())))
    }
}
