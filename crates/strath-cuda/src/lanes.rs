//! A lane's mathematics on the device: what `strath_kernels::vector` computes on a processor, value by value to the same bits; sums over a vector
//! are taken in another order, in f64.
//!
//! | what | passes over a vector | bytes a value |
//! | --- | --- | --- |
//! | [`add_fixed`], [`add_wide`], [`add_floats`] | 1 | 20, 36, 12 |
//! | [`round_fixed`], [`round_wide`] | 1 | 12, 20 |
//! | [`sum`] | 1 | 4, of two vectors 8 |
//! | [`lift`] | 2 | 4 and 12; with ASAM's scale 8 and 12 |
//! | [`ball`]: the same for other norms | 3 (p = 1, inf: 2) | 4, 4 and 12; with ASAM's scale 8, 8 and 12 |
//! | [`direction::normals`] | 1 | 4 |
//! | [`sgd`], [`sgd_momentum`], [`adamw`] | 1 | 12, 20, 28 |
//!
//! What a sum decides (the factor of epsilon, of clipping) stays on the device: nothing is waited for.

#![allow(unsafe_code, reason = "launches of kernels, whose vectors' lengths are compared before")]

pub mod ball;
pub mod direction;

use std::ops::Range;

use strath_kernels::vector::{AdamW, Momentum};

use crate::error::GpuError;
use crate::gpu::{Argument as Arg, Gpu, Grid};
use crate::vector::{Part, PartMut, Vector};

/// Values of a vector that one block sums.
const PART: usize = 4096;

/// The least index of a value that was out of range, while sums are taken: on the device.
#[derive(Debug)]
pub struct Outside(Vector<u64>);

impl Outside {
    /// None so far.
    ///
    /// # Errors
    /// The device's.
    pub fn none(gpu: &Gpu) -> Result<Self, GpuError> {
        let mut word = gpu.stale(1)?;
        // u64::MAX
        word.fill(0xff)?;
        Ok(Self(word))
    }

    /// The least index, where there is one; waits for the device.
    ///
    /// # Errors
    /// The device's.
    pub fn first(&self) -> Result<Option<usize>, GpuError> {
        let mut found = [0];
        self.0.download(&mut found)?;
        Ok(Self::index(found[0]))
    }

    /// What is put down in a ledger, an [`index`](Self::index).
    pub fn word(&self) -> &Vector<u64> {
        &self.0
    }

    /// The least index that a word tells, where there is one.
    pub fn index(word: u64) -> Option<usize> {
        Some(word).filter(|index| *index != u64::MAX).map(|index| index as usize)
    }
}

fn same(a: usize, b: usize) {
    assert_eq!(a, b, "vectors of one length");
}

/// Adds `f32(weight v)` in integers of 2^-48 to each entry of `sum`; values whose magnitude is not below `limit`, at most 2^15, are told to `outside`, and the sum is
/// then of no use.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn add_fixed(
    sum: &mut PartMut<'_, i64>,
    values: Part<'_, f32>,
    weight: f64,
    limit: f32,
    outside: &mut Outside,
) -> Result<(), GpuError> {
    same(sum.len, values.len());
    // SAFETY: the kernel adds to one vector, as long as the values.
    unsafe { add_weighted("add_fixed", [sum.address()], values, (weight, limit), outside) }
}

/// The same to a sum of two halves, of which the lower has 48 bits more.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn add_wide(
    (high, low): (&mut PartMut<'_, i64>, &mut PartMut<'_, i64>),
    values: Part<'_, f32>,
    weight: f64,
    limit: f32,
    outside: &mut Outside,
) -> Result<(), GpuError> {
    same(high.len, values.len());
    same(low.len, values.len());
    let sums = [high.address(), low.address()];
    // SAFETY: the kernel adds to two vectors, as long as the values.
    unsafe { add_weighted("add_wide", sums, values, (weight, limit), outside) }
}

/// Adds `f32(weight v)` to each entry of a sum in f32.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn add_floats(
    sum: &mut PartMut<'_, f32>,
    values: Part<'_, f32>,
    weight: f64,
    limit: f32,
    outside: &mut Outside,
) -> Result<(), GpuError> {
    same(sum.len, values.len());
    // SAFETY: the kernel adds to one vector, as long as the values.
    unsafe { add_weighted("add_floats", [sum.address()], values, (weight, limit), outside) }
}

/// Launches a kernel that adds weighted values to sums.
///
/// # Safety
/// The kernel takes as many sums, each as long as the values.
unsafe fn add_weighted<const N: usize>(
    kernel: &'static str,
    sums: [Arg; N],
    values: Part<'_, f32>,
    (weight, limit): (f64, f32),
    outside: &mut Outside,
) -> Result<(), GpuError> {
    let len = values.len();
    let rest = [
        values.address(),
        Arg::Double(weight),
        Arg::Float(limit),
        outside.0.all_mut().address(),
        Arg::Long(len as i64),
    ];
    let arguments: Vec<Arg> = sums.into_iter().chain(rest).collect();
    // SAFETY: every thread stays below the length.
    unsafe { outside.0.gpu().launch(kernel, Grid::Elements(len), arguments) }
}

/// Tells `outside` of values whose magnitude is not below `limit`.
///
/// # Errors
/// The device's.
pub fn find_outside(values: &Vector<f32>, limit: f32, outside: &mut Outside) -> Result<(), GpuError> {
    let len = values.len();
    let arguments = [values.all().address(), Arg::Float(limit), outside.0.all_mut().address(), Arg::Long(len as i64)];
    // SAFETY: every thread stays below the length.
    unsafe { values.gpu().launch("find_outside", Grid::Elements(len), arguments) }
}

/// The sum of [`add_fixed`], rounded once.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn round_fixed(sum: &Vector<i64>, rounded: &mut Vector<f32>) -> Result<(), GpuError> {
    same(sum.len(), rounded.len());
    let arguments = [sum.all().address(), rounded.all_mut().address(), Arg::Long(sum.len() as i64)];
    // SAFETY: every thread stays below the length.
    unsafe { sum.gpu().launch("round_fixed", Grid::Elements(sum.len()), arguments) }
}

/// The sum of [`add_wide`], rounded once.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn round_wide(high: &Vector<i64>, low: &Vector<i64>, rounded: &mut Vector<f32>) -> Result<(), GpuError> {
    same(high.len(), rounded.len());
    same(low.len(), rounded.len());
    let arguments =
        [high.all().address(), low.all().address(), rounded.all_mut().address(), Arg::Long(high.len() as i64)];
    // SAFETY: every thread stays below the length.
    unsafe { high.gpu().launch("round_wide", Grid::Elements(high.len()), arguments) }
}

/// What is summed over a vector.
#[derive(Debug, Clone, Copy)]
pub enum Terms<'a> {
    /// `a^2`.
    Squares(Part<'a, f32>),
    /// `((|w| + eta) a)^2`.
    ScaledSquares(Part<'a, f32>, Part<'a, f32>, f64),
    /// `a b`.
    Products(Part<'a, f32>, Part<'a, f32>),
}

/// Adds a sum over a vector, in f64, to `total`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn sum(total: &mut Vector<f64>, terms: Terms<'_>) -> Result<(), GpuError> {
    let (a, b, eta, kind) = match terms {
        Terms::Squares(a) => (a, None, 0.0, 0),
        Terms::ScaledSquares(a, w, eta) => (a, Some(w), eta, 1),
        Terms::Products(a, b) => (a, Some(b), 0.0, 2),
    };
    if let Some(b) = b {
        same(a.len(), b.len());
    }
    let (gpu, parts) = (total.gpu().clone(), a.len().div_ceil(PART));
    let mut partial = gpu.stale::<f64>(parts)?;
    let arguments = [
        a.address(),
        Arg::maybe(b),
        Arg::Double(eta),
        Arg::Int(kind),
        partial.all_mut().address(),
        Arg::Long(a.len() as i64),
    ];
    // SAFETY: a block stays within its part of the vectors, and there is a place for each.
    unsafe { gpu.launch("sum_parts", Grid::Blocks(parts, 1), arguments)? };
    add_parts(&partial, total)
}

fn add_parts(partial: &Vector<f64>, total: &mut Vector<f64>) -> Result<(), GpuError> {
    let arguments = [partial.all().address(), total.all_mut().address(), Arg::Int(partial.len() as i32)];
    // SAFETY: it reads as many parts as there are, and adds to one place.
    unsafe { partial.gpu().launch("add_parts", Grid::Blocks(1, 1), arguments) }
}

/// What clipping to the norm `most` leaves of a gradient, as a factor, from its sum of squares.
///
/// # Errors
/// The device's.
pub fn clip_factor(squares: &Vector<f64>, most: f64) -> Result<Vector<f64>, GpuError> {
    factor("clip_factor", squares, most)
}

/// What a gradient is scaled by to become an epsilon of length rho, from its sum of squares; 0 of zeros.
///
/// # Errors
/// The device's.
pub fn epsilon_factor(squares: &Vector<f64>, rho: f64) -> Result<Vector<f64>, GpuError> {
    factor("factor_of", squares, rho)
}

fn factor(kernel: &'static str, squares: &Vector<f64>, scalar: f64) -> Result<Vector<f64>, GpuError> {
    let mut factor = squares.gpu().stale(1)?;
    let arguments = [squares.all().address(), Arg::Double(scalar), factor.all_mut().address()];
    // SAFETY: both have a value, which every thread of the one block writes alike.
    unsafe { squares.gpu().launch(kernel, Grid::Blocks(1, 1), arguments)? };
    Ok(factor)
}

/// `lifted = w + e` with `e_i = f32(factor t_i (t_i g_i))`, `t = 1` or ASAM's `t_i = |w_i| + eta`; adds `sum_i e_i^2` to `squares`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn lift(
    g: Part<'_, f32>,
    w: Part<'_, f32>,
    factor: &Vector<f64>,
    eta: Option<f64>,
    lifted: &mut PartMut<'_, f32>,
    squares: &mut Vector<f64>,
) -> Result<(), GpuError> {
    same(g.len(), w.len());
    same(g.len(), lifted.len);
    let (gpu, parts) = (squares.gpu().clone(), g.len().div_ceil(PART));
    let mut partial = gpu.stale::<f64>(parts)?;
    let arguments = [
        g.address(),
        w.address(),
        factor.all().address(),
        Arg::Double(eta.unwrap_or(0.0)),
        Arg::Int(i32::from(eta.is_some())),
        lifted.address(),
        partial.all_mut().address(),
        Arg::Long(g.len() as i64),
    ];
    // SAFETY: a block stays within its part of the vectors, and there is a place for each.
    unsafe { gpu.launch("lift", Grid::Blocks(parts, 1), arguments)? };
    add_parts(&partial, squares)
}

/// `g <- g + lambda w`: weight decay as part of the loss.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn add_scaled(g: &mut Vector<f32>, w: &Vector<f32>, lambda: f32) -> Result<(), GpuError> {
    add_scaled_part(g, w, 0..w.len(), lambda)
}

/// The same of some of their values.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn add_scaled_part(g: &mut Vector<f32>, w: &Vector<f32>, range: Range<usize>, lambda: f32) -> Result<(), GpuError> {
    same(g.len(), w.len());
    let (from, len) = (w.part(range.clone()), range.len());
    let arguments = [g.part_mut(range).address(), from.address(), Arg::Float(lambda), Arg::Long(len as i64)];
    // SAFETY: every thread stays below the length of the two parts.
    unsafe { g.gpu().launch("add_scaled", Grid::Elements(len), arguments) }
}

/// `w <- w - lr (g + decay w)`, g clipped by a factor where there is one.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn sgd(
    w: &mut Vector<f32>,
    g: &Vector<f32>,
    clip: Option<&Vector<f64>>,
    lr: f32,
    decay: f32,
) -> Result<(), GpuError> {
    same(w.len(), g.len());
    let arguments = [
        w.all_mut().address(),
        g.all().address(),
        Arg::maybe(clip.map(Vector::all)),
        Arg::Float(lr),
        Arg::Float(decay),
        Arg::Long(g.len() as i64),
    ];
    // SAFETY: every thread stays below the length.
    unsafe { g.gpu().launch("sgd", Grid::Elements(g.len()), arguments) }
}

/// `g <- g + lambda w`; `b <- mu b + g`; `w <- w - lr b`, or with Nesterov `w <- w - lr (g + mu b)`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn sgd_momentum(
    w: &mut Vector<f32>,
    g: &Vector<f32>,
    b: &mut Vector<f32>,
    clip: Option<&Vector<f64>>,
    scalars: Momentum,
) -> Result<(), GpuError> {
    same(w.len(), g.len());
    same(b.len(), g.len());
    let arguments = [
        w.all_mut().address(),
        g.all().address(),
        b.all_mut().address(),
        Arg::maybe(clip.map(Vector::all)),
        Arg::Float(scalars.lr),
        Arg::Float(scalars.decay),
        Arg::Float(scalars.momentum),
        Arg::Int(i32::from(scalars.nesterov)),
        Arg::Long(g.len() as i64),
    ];
    // SAFETY: every thread stays below the length.
    unsafe { g.gpu().launch("sgd_momentum", Grid::Elements(g.len()), arguments) }
}

/// `m <- b1 m + (1 - b1) g`; `v <- b2 v + (1 - b2) g^2`; `w <- keep w - rate m / (sqrt(root v) + eps)`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the vectors differ in length.
pub fn adamw(
    w: &mut Vector<f32>,
    g: &Vector<f32>,
    (m, v): (&mut Vector<f32>, &mut Vector<f32>),
    clip: Option<&Vector<f64>>,
    scalars: AdamW,
) -> Result<(), GpuError> {
    same(w.len(), g.len());
    same(m.len(), g.len());
    same(v.len(), g.len());
    let AdamW { first, second, rate, root, keep, eps } = scalars;
    let arguments = [
        w.all_mut().address(),
        g.all().address(),
        m.all_mut().address(),
        v.all_mut().address(),
        Arg::maybe(clip.map(Vector::all)),
        Arg::Float(first.0),
        Arg::Float(first.1),
        Arg::Float(second.0),
        Arg::Float(second.1),
        Arg::Float(rate),
        Arg::Float(root),
        Arg::Float(keep),
        Arg::Float(eps),
        Arg::Long(g.len() as i64),
    ];
    // SAFETY: every thread stays below the length.
    unsafe { g.gpu().launch("adamw", Grid::Elements(g.len()), arguments) }
}
