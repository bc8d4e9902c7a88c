//! Tokens in candle's graph, and the values that they stand for.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor, Var};

use strath_kernels::Dims;

use super::Buffer;
use super::memory::Memory;
use crate::layer::scalar;

/// An activation: a token in candle's graph and the values beside it.
pub(crate) struct Flow<B: Memory = Buffer> {
    token: Tensor,
    pub(crate) values: Arc<Values<B>>,
}

impl<B: Memory> Clone for Flow<B> {
    fn clone(&self) -> Self {
        Self { token: self.token.clone(), values: self.values.clone() }
    }
}

/// The values that a token stands for, and the gradient that has come to them so far.
pub(crate) struct Values<B: Memory = Buffer> {
    pub(crate) dims: Dims,
    pub(crate) buffer: B,
    gradient: Mutex<Option<B>>,
    /// Whether a gradient is of use: the images of a data set want none.
    pub(crate) wants_gradient: bool,
}

impl<B: Memory> Values<B> {
    /// Adds a gradient that was computed into memory of its own.
    pub(crate) fn add_gradient(&self, gradient: B) -> B::Outcome {
        let mut slot = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sum) = slot.as_mut() {
            return gradient.add_to(sum);
        }
        *slot = Some(gradient);
        B::Outcome::default()
    }

    /// The whole gradient, once everything that depends on the values has added to it.
    pub(crate) fn take_gradient(&self) -> Option<B> {
        self.gradient.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a layer does on the way back, with the gradient of its result.
pub(crate) type Backward<B = Buffer> = Box<dyn FnOnce(&Values<B>, B) -> <B as Memory>::Outcome + Send>;

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
    pub(crate) fn source<B: Memory>(&self, dims: Dims, buffer: B) -> Result<Flow<B>> {
        let token = match self {
            Self::Recording(root) => root.as_tensor().clone(),
            Self::Off => Tensor::new(0f32, &Device::Cpu)?,
        };
        let values = Values { dims, buffer, gradient: Mutex::new(None), wants_gradient: false };
        Ok(Flow { token, values: Arc::new(values) })
    }

    /// The result of a layer of one input.
    pub(crate) fn of_one<B: Memory>(
        &self,
        name: &'static str,
        x: &Flow<B>,
        dims: Dims,
        buffer: B,
        backward: impl FnOnce() -> Backward<B>,
    ) -> Result<Flow<B>> {
        let (values, step) = self.step(name, dims, buffer, backward);
        let token = match step {
            Some(step) => x.token.apply_op1(step)?,
            None => x.token.clone(),
        };
        Ok(Flow { token, values })
    }

    /// The result of a layer of two inputs.
    pub(crate) fn of_two<B: Memory>(
        &self,
        name: &'static str,
        (a, b): (&Flow<B>, &Flow<B>),
        dims: Dims,
        buffer: B,
        backward: impl FnOnce() -> Backward<B>,
    ) -> Result<Flow<B>> {
        let (values, step) = self.step(name, dims, buffer, backward);
        let token = match step {
            Some(step) => a.token.apply_op2(&b.token, step)?,
            None => a.token.clone(),
        };
        Ok(Flow { token, values })
    }

    fn step<B: Memory>(
        &self,
        name: &'static str,
        dims: Dims,
        buffer: B,
        backward: impl FnOnce() -> Backward<B>,
    ) -> (Arc<Values<B>>, Option<Step<B>>) {
        debug_assert_eq!(buffer.values(), dims.values(), "{name}");
        let values = Arc::new(Values { dims, buffer, gradient: Mutex::new(None), wants_gradient: true });
        let step =
            self.is_recording().then(|| Step { name, result: values.clone(), backward: Mutex::new(Some(backward())) });
        (values, step)
    }
}

impl<B: Memory> Flow<B> {
    /// The token, for the loss that ends the graph.
    pub(crate) fn token(&self) -> &Tensor {
        &self.token
    }

    pub(crate) fn dims(&self) -> Dims {
        self.values.dims
    }
}

/// A layer in candle's graph.
struct Step<B: Memory> {
    name: &'static str,
    result: Arc<Values<B>>,
    /// Taken the first time: a graph is gone back over once.
    backward: Mutex<Option<Backward<B>>>,
}

impl<B: Memory> Step<B> {
    fn go_back(&self) -> Result<()> {
        let backward = self.backward.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (backward, self.result.take_gradient()) {
            (Some(backward), Some(gradient)) => B::settled(backward(&self.result, gradient)),
            _ => Err(candle_core::Error::BackwardNotSupported { op: "a second backward on the training route" }),
        }
    }
}

impl<B: Memory> CustomOp1 for Step<B> {
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

impl<B: Memory> CustomOp2 for Step<B> {
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
