//! Epsilon over the ball of a norm other than p = 2: the largest of the magnitudes |t g|, sums of their powers, and `w + epsilon`.
//!
//! As `strath_sam::Perturbation::epsilon` defines it; sums are taken in another order, and powers by the device's own function.

use std::ops::Range;

use strath_core::config::Norm;

use super::{Arg, PART, add_parts, same};
use crate::error::GpuError;
use crate::gpu::Grid;
use crate::vector::{Part, Vector};

/// A ball.
#[derive(Debug, Clone, Copy)]
pub struct Ball {
    /// Its norm.
    pub norm: Norm,
    /// Its radius.
    pub rho: f64,
    /// ASAM's eta; `None` is the plain ball.
    pub eta: Option<f64>,
}

impl Ball {
    /// p, as kernels are told it.
    fn p(self) -> f64 {
        match self.norm {
            Norm::Infinity => -1.0,
            Norm::P(p) => p,
        }
    }

    /// ASAM's scale, as kernels are told it.
    fn scale(self) -> [Arg; 2] {
        [Arg::Double(self.eta.unwrap_or(0.0)), Arg::Int(i32::from(self.eta.is_some()))]
    }

    /// `w + epsilon` of an ascent gradient into `lifted`, over the runs of the vector that are perturbed; nothing else of it is written. Gives the squares of
    /// the gradient's dual norm and of epsilon's l2 norm.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where the vectors differ in length.
    pub fn lift(
        self,
        g: &Vector<f32>,
        w: &Vector<f32>,
        runs: &[Range<usize>],
        lifted: &mut Vector<f32>,
    ) -> Result<[Vector<f64>; 2], GpuError> {
        same(g.len(), w.len());
        same(g.len(), lifted.len());
        let (gpu, p) = (g.gpu(), self.p());
        let (mut largest, mut place, mut sum) = (gpu.zeros::<f64>(1)?, gpu.zeros::<i64>(1)?, gpu.zeros::<f64>(1)?);
        if self.norm != Norm::Infinity {
            for run in runs {
                self.largest(g.part(run.clone()), w.part(run.clone()), run.start, (&mut largest, &mut place))?;
            }
        }
        if self.norm != Norm::P(1.0) {
            for run in runs {
                self.magnitudes(g.part(run.clone()), w.part(run.clone()), &largest, &mut sum)?;
            }
        }
        let (mut factor, mut dual) = (gpu.stale::<f64>(1)?, gpu.stale::<f64>(1)?);
        let arguments = [
            sum.all().address(),
            largest.all().address(),
            Arg::Double(p),
            Arg::Double(self.rho),
            factor.all_mut().address(),
            dual.all_mut().address(),
        ];
        // SAFETY: each has a value, which every thread of the one block writes alike.
        unsafe { gpu.launch("dual_of", Grid::Blocks(1, 1), arguments)? };
        let mut epsilon = gpu.zeros::<f64>(1)?;
        for run in runs {
            let parts = run.len().div_ceil(PART);
            let mut partial = gpu.stale::<f64>(parts)?;
            let [eta, is_adaptive] = self.scale();
            let arguments = [
                g.part(run.clone()).address(),
                w.part(run.clone()).address(),
                factor.all().address(),
                largest.all().address(),
                place.all().address(),
                eta,
                is_adaptive,
                Arg::Double(p),
                lifted.part_mut(run.clone()).address(),
                partial.all_mut().address(),
                Arg::Long(run.start as i64),
                Arg::Long(run.len() as i64),
            ];
            // SAFETY: a block stays within its part of the run, and there is a place for each.
            unsafe { gpu.launch("lift_in_ball", Grid::Blocks(parts, 1), arguments)? };
            add_parts(&partial, &mut epsilon)?;
        }
        Ok([dual, epsilon])
    }

    /// Takes the largest magnitude of a run in, and where it is.
    fn largest(
        self,
        g: Part<'_, f32>,
        w: Part<'_, f32>,
        offset: usize,
        (largest, place): (&mut Vector<f64>, &mut Vector<i64>),
    ) -> Result<(), GpuError> {
        let (gpu, parts) = (largest.gpu().clone(), g.len().div_ceil(PART));
        let (mut values, mut places) = (gpu.stale::<f64>(parts)?, gpu.stale::<i64>(parts)?);
        let [eta, is_adaptive] = self.scale();
        let arguments = [
            g.address(),
            w.address(),
            eta,
            is_adaptive,
            values.all_mut().address(),
            places.all_mut().address(),
            Arg::Long(offset as i64),
            Arg::Long(g.len() as i64),
        ];
        // SAFETY: a block stays within its part of the run, and there is a place for each.
        unsafe { gpu.launch("largest_parts", Grid::Blocks(parts, 1), arguments)? };
        let arguments = [
            values.all().address(),
            places.all().address(),
            Arg::Int(parts as i32),
            largest.all_mut().address(),
            place.all_mut().address(),
        ];
        // SAFETY: it reads as many parts as there are, and writes one place of each.
        unsafe { gpu.launch("largest_of", Grid::Blocks(1, 1), arguments) }
    }

    /// Adds the magnitudes of a run, of a finite p their powers relative to the largest.
    fn magnitudes(
        self,
        g: Part<'_, f32>,
        w: Part<'_, f32>,
        largest: &Vector<f64>,
        sum: &mut Vector<f64>,
    ) -> Result<(), GpuError> {
        let (gpu, parts) = (largest.gpu(), g.len().div_ceil(PART));
        let mut partial = gpu.stale::<f64>(parts)?;
        let [eta, is_adaptive] = self.scale();
        let (relative, power) = match self.norm {
            Norm::Infinity => (None, 1.0),
            Norm::P(p) => (Some(largest.all()), 1.0 + 1.0 / (p - 1.0)),
        };
        let arguments = [
            g.address(),
            w.address(),
            eta,
            is_adaptive,
            Arg::maybe(relative),
            Arg::Double(power),
            partial.all_mut().address(),
            Arg::Long(g.len() as i64),
        ];
        // SAFETY: a block stays within its part of the run, and there is a place for each.
        unsafe { gpu.launch("magnitude_parts", Grid::Blocks(parts, 1), arguments)? };
        add_parts(&partial, sum)
    }
}
