//! Cross-entropy, the end of a pass.

#![allow(unsafe_code, reason = "launches of kernels, whose vectors' lengths are compared before")]

use crate::activation::Activation;
use crate::error::GpuError;
use crate::gpu::{Argument as Arg, Grid};
use crate::vector::Vector;

/// The cross-entropy of each row of logits with its label, with smoothed targets `(1 - s) onehot + s / classes`, and the gradient of its sum times `factor`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the logits have not a row a label.
pub fn cross_entropy<A: Activation>(
    logits: &Vector<A>,
    labels: &Vector<u32>,
    smoothing: f64,
    factor: f64,
) -> Result<(Vector<f64>, Vector<A>), GpuError> {
    let mut dx = logits.gpu().stale(logits.len())?;
    let losses = launch(logits, labels, None, Some(&mut dx), smoothing, factor)?;
    Ok((losses, dx))
}

/// The cross-entropy of each row, without smoothing, and whether the first of its largest logits is the label (1).
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the logits have not a row a label.
pub fn scores<A: Activation>(logits: &Vector<A>, labels: &Vector<u32>) -> Result<(Vector<f64>, Vector<u32>), GpuError> {
    let mut are_correct = logits.gpu().stale(labels.len())?;
    let losses = launch(logits, labels, Some(&mut are_correct), None, 0.0, 0.0)?;
    Ok((losses, are_correct))
}

fn launch<A: Activation>(
    logits: &Vector<A>,
    labels: &Vector<u32>,
    are_correct: Option<&mut Vector<u32>>,
    dx: Option<&mut Vector<A>>,
    smoothing: f64,
    factor: f64,
) -> Result<Vector<f64>, GpuError> {
    let (gpu, rows) = (logits.gpu(), labels.len());
    let classes = logits.len() / rows.max(1);
    assert_eq!(classes * rows, logits.len(), "a row a label");
    let mut losses = gpu.stale(rows)?;
    let arguments = [
        logits.all().address(),
        labels.all().address(),
        losses.all_mut().address(),
        Arg::Address(are_correct.map_or(0, |correct| correct.all_mut().at)),
        Arg::Address(dx.map_or(0, |dx| dx.all_mut().at)),
        Arg::Double(smoothing),
        Arg::Double(factor),
        Arg::Int(classes as i32),
    ];
    // SAFETY: a block a row, which reads that row, at its label only where that is a class, and writes its own places.
    unsafe { gpu.launch_of::<A>("cross_entropy", Grid::Blocks(rows, 1), arguments)? };
    Ok(losses)
}
