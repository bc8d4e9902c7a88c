//! The products of a linear layer, and those of a convolution whose weights lie as PyTorch's.

use strath_kernels::conv::Shape;

use super::shapes::{filters_channels_last, filters_kernel_last};
use crate::activation::Activation;
use crate::driver::{Product, Products, Side};
use crate::error::GpuError;
use crate::vector::{Part, PartMut, Vector};

/// `y [rows, out] = x [rows, in] W'` with W [out, in].
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn forward<A: Activation>(x: &Vector<A>, w: Part<'_, f32>, inputs: usize) -> Result<Vector<A>, GpuError> {
    let (rows, outputs) = (x.len() / inputs, w.len() / inputs);
    let mut y = x.gpu().stale(rows * outputs)?;
    let product =
        Product { rows, columns: outputs, inner: inputs, transposed_a: false, transposed_b: true, adds: false };
    let w = A::factors(x.gpu(), w)?;
    x.gpu().products(Products { product, count: 1 }, x.all(), w.part(), &mut y.all_mut())?;
    Ok(y)
}

/// `dx = g W`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn backward_data<A: Activation>(g: &Vector<A>, w: Part<'_, f32>, outputs: usize) -> Result<Vector<A>, GpuError> {
    let (rows, inputs) = (g.len() / outputs, w.len() / outputs);
    let mut dx = g.gpu().stale(rows * inputs)?;
    let product =
        Product { rows, columns: inputs, inner: outputs, transposed_a: false, transposed_b: false, adds: false };
    let w = A::factors(g.gpu(), w)?;
    g.gpu().products(Products { product, count: 1 }, g.all(), w.part(), &mut dx.all_mut())?;
    Ok(dx)
}

/// `dW = g' x`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn backward_weight<A: Activation>(
    g: &Vector<A>,
    x: &Vector<A>,
    outputs: usize,
    dw: &mut PartMut<'_, f32>,
) -> Result<(), GpuError> {
    let rows = g.len() / outputs;
    let product = Product {
        rows: outputs,
        columns: x.len() / rows,
        inner: rows,
        transposed_a: true,
        transposed_b: false,
        adds: false,
    };
    g.gpu().products(Products { product, count: 1 }, g.all(), x.all(), dw)
}

/// A convolution of x with weights [O, C, kh, kw].
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn convolution<A: Activation>(x: &Vector<A>, w: Part<'_, f32>, shape: &Shape) -> Result<Vector<A>, GpuError> {
    let w = filters_channels_last::<A>(x.gpu(), w, shape.inputs, shape.kernel.0 * shape.kernel.1)?;
    let mut y = x.gpu().stale(Side::Forward.lengths(shape).2)?;
    x.gpu().convolution(shape, Side::Forward, x.all(), w.all(), &mut y.all_mut())?;
    Ok(y)
}

/// The gradient of its images.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn convolution_data<A: Activation>(g: &Vector<A>, w: Part<'_, f32>, shape: &Shape) -> Result<Vector<A>, GpuError> {
    let w = filters_channels_last::<A>(g.gpu(), w, shape.inputs, shape.kernel.0 * shape.kernel.1)?;
    let mut dx = g.gpu().stale(Side::Images.lengths(shape).2)?;
    g.gpu().convolution(shape, Side::Images, g.all(), w.all(), &mut dx.all_mut())?;
    Ok(dx)
}

/// The gradient of its weights.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn convolution_weight<A: Activation>(
    x: &Vector<A>,
    g: &Vector<A>,
    shape: &Shape,
    dw: &mut PartMut<'_, f32>,
) -> Result<(), GpuError> {
    let mut channels_last = x.gpu().stale::<A>(shape.weights())?;
    x.gpu().convolution(shape, Side::Weights, x.all(), g.all(), &mut channels_last.all_mut())?;
    filters_kernel_last(&channels_last, shape.inputs, shape.kernel.0 * shape.kernel.1, dw)
}
