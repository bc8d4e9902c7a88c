//! One axis of a convolution: which taps of an output lie inside the input.

use std::ops::Range;

/// Rows or columns: output `i` reads the inputs `i stride + tap - before`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    /// Outputs along the axis.
    pub outputs: usize,
    /// Inputs along the axis.
    pub length: usize,
    /// Taps of the kernel.
    pub taps: usize,
    /// Distance of neighbouring outputs, inputs.
    pub stride: usize,
    /// Zeros before the first input; negative where the first inputs are never read.
    pub before: isize,
}

/// Neighbouring outputs with the same taps inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The outputs.
    pub outputs: Range<usize>,
    /// Their taps that lie inside.
    pub taps: Range<usize>,
}

impl Axis {
    /// The input of an output's tap 0; outside where the padding begins before it.
    pub(super) fn origin(&self, output: usize) -> isize {
        (output * self.stride) as isize - self.before
    }

    /// The taps of an output that lie inside.
    pub(super) fn inside(&self, output: usize) -> Range<usize> {
        let (origin, taps) = (self.origin(output), self.taps as isize);
        let past = (self.length as isize - origin).clamp(0, taps);
        (-origin).clamp(0, past) as usize..past as usize
    }

    /// The outputs whose tap lies inside.
    pub(super) fn outputs_with(&self, tap: usize) -> Range<usize> {
        let stride = self.stride as isize;
        let first = (self.before - tap as isize).max(0).unsigned_abs().div_ceil(self.stride);
        // The last output reads at most length - 1.
        let past = (self.length as isize + self.before - tap as isize + stride - 1).max(0) / stride;
        let past = (past as usize).min(self.outputs);
        first.min(past)..past
    }

    /// All outputs, in order, grouped by their taps inside.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for output in 0..self.outputs {
            let taps = self.inside(output);
            match runs.last_mut() {
                Some(run) if run.taps == taps => run.outputs.end += 1,
                _ => runs.push(Run { outputs: output..output + 1, taps }),
            }
        }
        runs
    }

    /// The axis of the adjoint's outputs `phase, phase + stride, ...` along `self`'s inputs, and its taps as `(first, step)`
    /// of the kernel's.
    ///
    /// Input `r = phase + stride m` is read by output `i` at tap `k` where `i stride + k - before = r`: the taps are those
    /// congruent to `phase + before`, and `i` falls as `k` rises, so they are taken from the last down.
    pub(super) fn adjoint(&self, phase: usize) -> (Self, isize, isize) {
        let (stride, shifted) = (self.stride, phase as isize + self.before);
        let lowest = shifted.rem_euclid(stride as isize);
        let taps = (self.taps as isize - lowest).max(0).unsigned_abs().div_ceil(stride);
        let last = taps as isize - 1;
        let axis = Self {
            outputs: self.length.saturating_sub(phase).div_ceil(stride),
            length: self.outputs,
            taps,
            stride: 1,
            before: last - (shifted - lowest) / stride as isize,
        };
        (axis, lowest + stride as isize * last, -(stride as isize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_taps_of_outputs_and_the_outputs_of_taps_are_the_same_pairs_as_the_adjoints() {
        for outputs in 1..6 {
            for (length, taps) in (1..7).flat_map(|length| (1..5).map(move |taps| (length, taps))) {
                for (stride, before) in (1..4).flat_map(|stride| (-2..4).map(move |before| (stride, before))) {
                    let axis = Axis { outputs, length, taps, stride, before };
                    for (i, k) in (0..outputs).flat_map(|i| (0..taps).map(move |k| (i, k))) {
                        let input = (i * stride + k) as isize - before;
                        let inside = (0..length as isize).contains(&input);
                        assert_eq!(axis.inside(i).contains(&k), inside, "{axis:?} {i} {k}");
                        assert_eq!(axis.outputs_with(k).contains(&i), inside, "{axis:?} {i} {k}");
                        if inside {
                            let (adjoint, first, step) = axis.adjoint(input as usize % stride);
                            let tap = (k as isize - first) / step;
                            let m = input as usize / stride;
                            assert_eq!(first + tap * step, k as isize);
                            assert_eq!(adjoint.origin(m) + tap, i as isize, "{axis:?} {i} {k}");
                            assert!(adjoint.inside(m).contains(&(tap as usize)));
                        }
                    }
                    let runs = axis.runs();
                    assert_eq!(runs.iter().map(|run| run.outputs.len()).sum::<usize>(), outputs);
                }
            }
        }
    }
}
