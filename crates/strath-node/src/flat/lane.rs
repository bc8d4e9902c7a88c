//! A lane's mathematics: decay, epsilon, products.

use strath_core::config::Norm;
use strath_core::{Layout, Step};
use strath_cuda::lanes::ball::Ball;
use strath_cuda::lanes::{self, Terms};
use strath_cuda::{Gpu, GpuError, Vector};
use strath_kernels::vector::{self, Products};
use strath_sam::{Lift, Perturbation, direction_streams, draw_direction};

use super::{Flat, Placed, Weights, apart};

/// What a device has found of a [`Lift`], the sums of squares of the dual norm and of epsilon.
#[derive(Debug)]
pub struct LiftOnDevice {
    /// Of the ascent gradient.
    pub dual: Vector<f64>,
    /// Of epsilon.
    pub epsilon: Vector<f64>,
}

impl LiftOnDevice {
    /// The lift that has these sums of squares.
    pub fn told(dual: f64, epsilon: f64) -> Lift {
        Lift { epsilon_norm: epsilon.sqrt(), dual_norm: dual.sqrt(), is_zero: epsilon == 0.0 }
    }
}

impl Placed<Lift, LiftOnDevice> {
    /// The lift; waits for it where it lies on a device.
    ///
    /// # Errors
    /// The device's.
    pub fn told(&self) -> Result<Lift, GpuError> {
        match self {
            Self::Host(lift) => Ok(*lift),
            Self::Device(LiftOnDevice { dual, epsilon }) => Ok(LiftOnDevice::told(first(dual)?, first(epsilon)?)),
        }
    }
}

impl Placed<Products, [Vector<f64>; 3]> {
    /// The products; waits for them where they lie on a device.
    ///
    /// # Errors
    /// The device's.
    pub fn told(&self) -> Result<Products, GpuError> {
        match self {
            Self::Host(products) => Ok(*products),
            Self::Device([aa, ab, bb]) => Ok(Products { aa: first(aa)?, ab: first(ab)?, bb: first(bb)? }),
        }
    }
}

impl Flat {
    /// `g <- g + lambda w`.
    ///
    /// # Errors
    /// The device's.
    pub fn add_scaled(&mut self, weights: &Weights, lambda: f32) -> Result<(), GpuError> {
        match (self, weights) {
            (Self::Host(g), Weights::Host(w)) => {
                vector::add_scaled(g, w, lambda);
                Ok(())
            }
            (Self::Device(g), Weights::Device(w)) => lanes::add_scaled(g, w, lambda),
            _ => apart(),
        }
    }

    /// Takes a random direction in its place ([`draw_direction`]), to the same bits anywhere.
    ///
    /// # Errors
    /// The device's.
    pub fn draw_direction(&mut self, seed: u64, step: Step, first: usize, layout: &Layout) -> Result<(), GpuError> {
        match self {
            Self::Host(values) => {
                draw_direction(seed, step, first, layout, values);
                Ok(())
            }
            Self::Device(there) => direction_streams(seed, step, first, layout)
                .try_for_each(|(range, stream)| lanes::direction::normals(there, range, &stream)),
        }
    }

    /// `w + epsilon` of this ascent gradient into `lifted` ([`Perturbation::lift`]).
    ///
    /// # Errors
    /// The device's.
    pub fn lift(
        &self,
        of: &Perturbation,
        weights: &Weights,
        lifted: &mut Self,
    ) -> Result<Placed<Lift, LiftOnDevice>, GpuError> {
        match (self, weights, lifted) {
            (Self::Host(g), Weights::Host(w), Self::Host(lifted)) => Ok(Placed::Host(of.lift(g, w, lifted))),
            (Self::Device(g), Weights::Device(w), Self::Device(lifted)) => lift(of, g, w, lifted).map(Placed::Device),
            _ => apart(),
        }
    }

    /// The products of two gradients over what is perturbed ([`Perturbation::products`]).
    ///
    /// # Errors
    /// The device's.
    pub fn products(&self, other: &Self, of: &Perturbation) -> Result<Placed<Products, [Vector<f64>; 3]>, GpuError> {
        match (self, other) {
            (Self::Host(a), Self::Host(b)) => Ok(Placed::Host(of.products(a, b))),
            (Self::Device(a), Self::Device(b)) => {
                let mut totals = [a.gpu().zeros::<f64>(1)?, a.gpu().zeros(1)?, a.gpu().zeros(1)?];
                for run in of.runs() {
                    let (a, b) = (a.part(run.clone()), b.part(run.clone()));
                    let terms = [Terms::Squares(a), Terms::Products(a, b), Terms::Squares(b)];
                    totals.iter_mut().zip(terms).try_for_each(|(total, terms)| lanes::sum(total, terms))?;
                }
                Ok(Placed::Device(totals))
            }
            _ => apart(),
        }
    }
}

fn first(total: &Vector<f64>) -> Result<f64, GpuError> {
    let mut found = [0.0];
    total.download(&mut found)?;
    Ok(found[0])
}

/// The lift. The factor of epsilon stays on the device, and so does what is told of the lift.
fn lift(
    of: &Perturbation,
    g: &Vector<f32>,
    w: &Vector<f32>,
    lifted: &mut Vector<f32>,
) -> Result<LiftOnDevice, GpuError> {
    if of.runs().iter().map(ExactSizeIterator::len).sum::<usize>() < w.len() {
        *lifted = w.duplicate()?;
    }
    if of.norm() == Norm::P(2.0) {
        return lift_in_two_passes(of, g, w, lifted);
    }
    let ball = Ball { norm: of.norm(), rho: of.rho(), eta: of.eta() };
    let [dual, epsilon] = ball.lift(g, w, of.runs(), lifted)?;
    Ok(LiftOnDevice { dual, epsilon })
}

/// The same over the ball of p = 2.
fn lift_in_two_passes(
    of: &Perturbation,
    g: &Vector<f32>,
    w: &Vector<f32>,
    lifted: &mut Vector<f32>,
) -> Result<LiftOnDevice, GpuError> {
    let gpu: &Gpu = g.gpu();
    let (mut dual, mut epsilon) = (gpu.zeros::<f64>(1)?, gpu.zeros::<f64>(1)?);
    for run in of.runs() {
        let terms = match of.eta() {
            None => Terms::Squares(g.part(run.clone())),
            Some(eta) => Terms::ScaledSquares(g.part(run.clone()), w.part(run.clone()), eta),
        };
        lanes::sum(&mut dual, terms)?;
    }
    let factor = lanes::epsilon_factor(&dual, of.rho())?;
    for run in of.runs() {
        let (g, w) = (g.part(run.clone()), w.part(run.clone()));
        lanes::lift(g, w, &factor, of.eta(), &mut lifted.part_mut(run.clone()), &mut epsilon)?;
    }
    Ok(LiftOnDevice { dual, epsilon })
}
