//! Element by element: one pass over memory each.

#![allow(unsafe_code, reason = "launches of kernels, whose vectors' lengths are compared before")]

use super::norm::column_sums;
use crate::activation::Activation;
use crate::error::GpuError;
use crate::gpu::{Argument as Arg, Grid};
use crate::vector::{Part, PartMut, Vector};

/// What follows a bias or a norm.
#[derive(Debug, Clone, Copy)]
pub enum Follows<'a, A: Activation> {
    /// Nothing.
    Nothing,
    /// `max(., 0)`.
    Relu,
    /// `max(. + shortcut, 0)`.
    AddRelu(&'a Vector<A>),
}

impl<A: Activation> Follows<'_, A> {
    /// The number and the shortcut that kernels are given.
    pub(super) fn arguments(&self, len: usize) -> (Arg, Arg) {
        match self {
            Self::Nothing => (Arg::Int(0), Arg::Address(0)),
            Self::Relu => (Arg::Int(1), Arg::Address(0)),
            Self::AddRelu(shortcut) => {
                assert_eq!(shortcut.len(), len, "a shortcut has the shape of what it is added to");
                (Arg::Int(2), shortcut.all().address())
            }
        }
    }
}

/// `max(x, 0)`.
///
/// # Errors
/// The device's.
pub fn relu<A: Activation>(x: &Vector<A>) -> Result<Vector<A>, GpuError> {
    let mut y = x.gpu().stale(x.len())?;
    let arguments = [x.all().address(), y.all_mut().address(), Arg::Long(x.len() as i64)];
    // SAFETY: every thread stays below the length.
    unsafe { x.gpu().launch_of::<A>("relu", Grid::Elements(x.len()), arguments)? };
    Ok(y)
}

/// Leaves of g what ReLU's result y lets pass.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn relu_backward<A: Activation>(y: &Vector<A>, g: &mut Vector<A>) -> Result<(), GpuError> {
    assert_eq!(y.len(), g.len(), "vectors of one length");
    let arguments = [y.all().address(), g.all_mut().address(), Arg::Long(y.len() as i64)];
    // SAFETY: every thread stays below the length.
    unsafe { y.gpu().launch_of::<A>("relu_backward", Grid::Elements(y.len()), arguments) }
}

/// `a + b`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn add<A: Activation>(a: &Vector<A>, b: &Vector<A>) -> Result<Vector<A>, GpuError> {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let mut y = a.gpu().stale(a.len())?;
    let arguments = [a.all().address(), b.all().address(), y.all_mut().address(), Arg::Long(a.len() as i64)];
    // SAFETY: every thread stays below the length.
    unsafe { a.gpu().launch_of::<A>("add", Grid::Elements(a.len()), arguments)? };
    Ok(y)
}

/// `sum += g`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn add_to<A: Activation>(g: &Vector<A>, sum: &mut Vector<A>) -> Result<(), GpuError> {
    assert_eq!(g.len(), sum.len(), "vectors of one length");
    let at = sum.all_mut();
    let (read, write) = (Arg::Address(at.at), Arg::Address(at.at));
    // SAFETY: every thread stays below the length, and reads its own place before it writes it.
    unsafe {
        g.gpu().launch_of::<A>(
            "add",
            Grid::Elements(g.len()),
            [g.all().address(), read, write, Arg::Long(g.len() as i64)],
        )
    }
}

/// `y = x + bias` of rows of as many channels as the bias has, and what follows.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn bias<A: Activation>(x: &Vector<A>, of: Part<'_, f32>, follows: Follows<'_, A>) -> Result<Vector<A>, GpuError> {
    assert!(x.len().is_multiple_of(of.len()), "whole rows");
    let mut y = x.gpu().stale(x.len())?;
    let (number, shortcut) = follows.arguments(x.len());
    let arguments = [
        x.all().address(),
        of.address(),
        shortcut,
        y.all_mut().address(),
        number,
        Arg::Int(of.len() as i32),
        Arg::Long(x.len() as i64),
    ];
    // SAFETY: every thread stays below the length, of the bias below its own.
    unsafe { x.gpu().launch_of::<A>("bias", Grid::Elements(x.len()), arguments)? };
    Ok(y)
}

/// The bias's gradient: g summed over its rows.
///
/// # Errors
/// The device's.
pub fn bias_backward<A: Activation>(g: &Vector<A>, of_bias: &mut PartMut<'_, f32>) -> Result<(), GpuError> {
    column_sums(g, of_bias)
}

/// The exact GELU of `x + bias`, and its slopes.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn bias_gelu<A: Activation>(x: &Vector<A>, of: Part<'_, f32>) -> Result<(Vector<A>, Vector<A>), GpuError> {
    assert!(x.len().is_multiple_of(of.len()), "whole rows");
    let (mut y, mut slopes) = (x.gpu().stale(x.len())?, x.gpu().stale(x.len())?);
    let arguments = [
        x.all().address(),
        of.address(),
        y.all_mut().address(),
        slopes.all_mut().address(),
        Arg::Int(of.len() as i32),
        Arg::Long(x.len() as i64),
    ];
    // SAFETY: every thread stays below the length, of the bias below its own.
    unsafe { x.gpu().launch_of::<A>("bias_gelu", Grid::Elements(x.len()), arguments)? };
    Ok((y, slopes))
}

/// `a *= b`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn multiply<A: Activation>(a: &mut Vector<A>, b: &Vector<A>) -> Result<(), GpuError> {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let arguments = [a.all_mut().address(), b.all().address(), Arg::Long(b.len() as i64)];
    // SAFETY: every thread stays below the length.
    unsafe { b.gpu().launch_of::<A>("multiply", Grid::Elements(b.len()), arguments) }
}
