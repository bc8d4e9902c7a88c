//! ReLU, GELU and softmax as custom ops.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};
use strath_kernels::gelu::{self, Derivative};
use strath_kernels::pointwise as kernel;
use strath_kernels::rows;

use super::slices::{output, slice};

/// `max(x, 0)`; its derivative at 0 is 0.
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Relu)
}

/// `max(a + b, 0)`: the end of a residual block.
pub(crate) fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.contiguous()?.apply_op2(&b.contiguous()?, AddRelu)
}

/// The exact GELU.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Gelu(Derivative::None))
}

/// Softmax over the last axis.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Softmax)
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let mut y = vec![0.0; x.len()];
        kernel::relu(x, &mut y);
        Ok(output(y, layout.shape()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(masked(g, y)?))
    }
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "add-relu"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (slice(s1, l1)?, slice(s2, l2)?);
        if a.len() != b.len() {
            let (lhs, rhs) = (l1.shape().clone(), l2.shape().clone());
            return Err(candle_core::Error::ShapeMismatchBinaryOp { lhs, rhs, op: "add-relu" });
        }
        let mut y = vec![0.0; a.len()];
        kernel::add_relu(a, b, &mut y);
        Ok(output(y, l1.shape()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let g = masked(g, y)?;
        Ok((Some(g.clone()), Some(g)))
    }
}

/// The gradient g through a ReLU whose result was y. The mask is constant almost everywhere, so only g has a derivative.
fn masked(g: &Tensor, y: &Tensor) -> Result<Tensor> {
    g.contiguous()?.apply_op2(&y.detach(), Mask)
}

/// `g` where `y > 0`, else 0; arguments (g, y).
struct Mask;

impl CustomOp2 for Mask {
    fn name(&self) -> &'static str {
        "mask"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (g, y) = (slice(s1, l1)?, slice(s2, l2)?);
        let mut out = vec![0.0; g.len()];
        kernel::mask(y, g, &mut out);
        Ok(output(out, l1.shape()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(g.contiguous()?.apply_op2(y, Mask)?), None))
    }
}

/// GELU or one of its derivatives.
struct Gelu(Derivative);

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let mut y = vec![0.0; x.len()];
        gelu::exact(self.0, x, &mut y);
        Ok(output(y, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let next = match self.0 {
            Derivative::None => Derivative::First,
            Derivative::First => Derivative::Second,
            Derivative::Second => {
                return Err(candle_core::Error::BackwardNotSupported { op: "gelu, third derivative" });
            }
        };
        Ok(Some(x.contiguous()?.apply_op1(Gelu(next))?.mul(g)?))
    }
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let mut y = vec![0.0; x.len()];
        rows::softmax(width(layout.shape())?, x, &mut y);
        Ok(output(y, layout.shape()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let inner = (g * y)?.sum_keepdim(D::Minus1)?;
        Ok(Some(g.broadcast_sub(&inner)?.mul(y)?)) // y is the node itself, which this op differentiates
    }
}

fn width(shape: &Shape) -> Result<usize> {
    shape.dims().last().copied().ok_or(candle_core::Error::EmptyTensor { op: "softmax" })
}
