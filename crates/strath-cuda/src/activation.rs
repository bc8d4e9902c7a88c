//! What activations are made of.

#![allow(unsafe_code, reason = "launches of kernels, whose vectors' lengths are compared before")]

use half::bf16;

use crate::driver::Number;
use crate::error::GpuError;
use crate::gpu::{Argument as Arg, Gpu, Grid};
use crate::vector::{Element, Part, Vector};

/// Numbers that activations, and the gradients of activations, are made of. Weights, and their gradients, are f32 beside all of them.
pub trait Activation: Element {
    /// As the device knows it.
    const NUMBER: Number;

    /// f32 values as such numbers, to be multiplied by some: themselves, or a rounded copy.
    ///
    /// # Errors
    /// The device's.
    fn factors<'a>(gpu: &Gpu, values: Part<'a, f32>) -> Result<Factors<'a, Self>, GpuError>;

    /// f32 values as activations.
    ///
    /// # Errors
    /// The device's.
    fn from_f32(values: Vector<f32>) -> Result<Vector<Self>, GpuError>;
}

/// Values that others are multiplied by.
#[derive(Debug)]
pub enum Factors<'a, A: Activation> {
    /// As they are.
    These(Part<'a, A>),
    /// A rounded copy.
    Copy(Vector<A>),
}

impl<A: Activation> Factors<'_, A> {
    /// The values.
    pub fn part(&self) -> Part<'_, A> {
        match self {
            Self::These(part) => *part,
            Self::Copy(copy) => copy.all(),
        }
    }
}

impl Activation for f32 {
    const NUMBER: Number = Number::F32;

    fn factors<'a>(_: &Gpu, values: Part<'a, f32>) -> Result<Factors<'a, f32>, GpuError> {
        Ok(Factors::These(values))
    }

    fn from_f32(values: Vector<f32>) -> Result<Vector<f32>, GpuError> {
        Ok(values)
    }
}

impl Activation for bf16 {
    const NUMBER: Number = Number::Bf16;

    fn factors<'a>(gpu: &Gpu, values: Part<'a, f32>) -> Result<Factors<'a, bf16>, GpuError> {
        rounded(gpu, values).map(Factors::Copy)
    }

    fn from_f32(values: Vector<f32>) -> Result<Vector<bf16>, GpuError> {
        rounded(values.gpu(), values.all())
    }
}

/// Each value rounded to the nearest bf16, ties to even.
fn rounded(gpu: &Gpu, values: Part<'_, f32>) -> Result<Vector<bf16>, GpuError> {
    let mut copy = gpu.stale(values.len())?;
    let arguments = [values.address(), copy.all_mut().address(), Arg::Long(values.len() as i64)];
    // SAFETY: every thread stays below the length.
    unsafe { gpu.launch_of::<bf16>("rounded", Grid::Elements(values.len()), arguments)? };
    Ok(copy)
}
