//! Epsilon: the maximiser of the linearised loss over the ball.

mod ball;

use std::ops::Range;
use std::sync::Arc;

use strath_core::Layout;
use strath_core::config::{Norm, Perturb, SamTable};
use strath_kernels::vector;

use crate::sums::blocked_sum;

/// How a lane's ascent gradient becomes its epsilon: the ball of `[sam]` and the parameters it spans.
#[derive(Debug, Clone, PartialEq)]
pub struct Perturbation {
    rho: f64,
    pub(crate) norm: Norm,
    /// ASAM's eta; `None` is the plain ball.
    pub(crate) eta: Option<f64>,
    /// The perturbed values of the flat vector, as runs in ascending order.
    pub(crate) runs: Arc<[Range<usize>]>,
}

/// What [`Perturbation::lift`] found on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lift {
    /// l2 norm of epsilon, whatever p of the ball is.
    pub epsilon_norm: f64,
    /// `||t g||_q`, the dual norm of the gradient: epsilon lifts the linearised loss by `rho ||t g||_q`. 0 where the gradient is.
    pub dual_norm: f64,
    /// Whether the gradient is zero, and so epsilon.
    pub is_zero: bool,
}

/// `sam.perturb = "norm-only"` on a network without normalisation layers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "sam.perturb = {perturb:?} leaves no parameter of this model to perturb; choose \"all\", or a model with \
     {needs} parameters"
)]
pub struct NothingToPerturb {
    /// The value of `sam.perturb`.
    pub perturb: &'static str,
    /// Which parameters the model would need.
    pub needs: &'static str,
}

impl Perturbation {
    /// The perturbation of a model whose parameters lie as in `layout`; `of_norms` tells for each of its tensors whether
    /// it belongs to a normalisation layer.
    ///
    /// # Errors
    /// [`NothingToPerturb`] where no parameter is left to perturb.
    pub fn new(sam: &SamTable, layout: &Layout, of_norms: &[bool]) -> Result<Self, NothingToPerturb> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (entry, of_norm) in layout.entries().iter().zip(of_norms) {
            let perturbed = match sam.perturb {
                Perturb::All => true,
                Perturb::NormOnly => *of_norm,
                Perturb::NoNorm => !of_norm,
            };
            match runs.last_mut() {
                _ if !perturbed => {}
                Some(run) if run.end == entry.offset => run.end += entry.len,
                _ => runs.push(entry.range()),
            }
        }
        match sam.perturb {
            _ if !runs.is_empty() || layout.is_empty() => {}
            Perturb::NormOnly => return Err(NothingToPerturb { perturb: "norm-only", needs: "normalisation" }),
            Perturb::NoNorm | Perturb::All => return Err(NothingToPerturb { perturb: "no-norm", needs: "other" }),
        }
        let (norm, eta) = (sam.norm, sam.adaptive.then_some(sam.eta));
        Ok(Self { rho: sam.rho, norm, eta, runs: runs.into() })
    }

    /// The same over a ball of another radius: a lane's [`SamTable::radius`]. As it comes from [`new`](Self::new), it is `sam.rho`.
    #[must_use]
    pub fn with_radius(&self, rho: f64) -> Self {
        Self { rho, ..self.clone() }
    }

    /// The radius.
    pub fn rho(&self) -> f64 {
        self.rho
    }

    /// The norm of the ball.
    pub fn norm(&self) -> Norm {
        self.norm
    }

    /// ASAM's eta; `None` is the plain ball.
    pub fn eta(&self) -> Option<f64> {
        self.eta
    }

    /// The perturbed values of the flat vector, as runs in ascending order.
    pub fn runs(&self) -> &[Range<usize>] {
        &self.runs
    }

    /// Epsilon of an ascent gradient `g` at `w` (equation 2 of the paper), into `epsilon`:
    ///
    /// `epsilon = rho * t * sign(t g) |t g|^(q-1) / (||t g||_q^q)^(1/p)`, `1/p + 1/q = 1`, with `t = 1`, or for ASAM
    /// (Kwon et al. 2021) `t = |w| + eta`: the maximiser of `<epsilon, g>` over `||epsilon / t||_p <= rho`. For p = inf it
    /// is `rho t sign(g)`; for p = 1 all of rho lies on the largest `|t g|`, the first of several. It is zero where `g` is,
    /// and does not depend on the scale of `g`: `g` and `2^-40 g` have an epsilon of the same bits.
    ///
    /// All vectors have the length of the layout; parameters that are not perturbed get 0.
    pub fn epsilon(&self, gradient: &[f32], weights: &[f32], epsilon: &mut [f32]) {
        self.maximise(gradient, weights, epsilon);
    }

    /// Whether it is made of powers, which two kinds of processors may round differently in the last bit: p other than 1, 2 and inf.
    pub fn takes_powers(&self) -> bool {
        !matches!(self.norm, Norm::Infinity | Norm::P(1.0 | 2.0))
    }

    /// The same with the dual norm `||t g||_q` as it was found before ([`Lift::dual_norm`]), which for p = 2 decides the last bits.
    pub fn epsilon_of(&self, dual_norm: f64, gradient: &[f32], weights: &[f32], epsilon: &mut [f32]) {
        if self.norm == Norm::P(2.0) {
            epsilon.fill(0.0);
            self.scaled(dual_norm, gradient, weights, epsilon);
        } else {
            self.maximise(gradient, weights, epsilon);
        }
    }

    /// Epsilon for p = 2, where it is not zero.
    fn scaled(&self, norm: f64, gradient: &[f32], weights: &[f32], epsilon: &mut [f32]) {
        if norm > 0.0 {
            let factor = self.rho / norm;
            for run in self.runs.iter().cloned() {
                let (g, w) = (&gradient[run.clone()], &weights[run.clone()]);
                vector::epsilon(g, w, factor, self.eta, &mut epsilon[run]);
            }
        }
    }

    /// The same; gives `||t g||_q`.
    fn maximise(&self, gradient: &[f32], weights: &[f32], epsilon: &mut [f32]) -> f64 {
        epsilon.fill(0.0);
        let scale = |at: usize| self.scale(weights[at]);
        let scaled = |at: usize| scale(at) * f64::from(gradient[at]);
        match self.norm {
            Norm::Infinity => {
                for at in self.perturbed() {
                    if gradient[at] != 0.0 {
                        epsilon[at] = (self.rho * scale(at)).copysign(f64::from(gradient[at])) as f32;
                    }
                }
                self.sum(|at| scaled(at).abs())
            }
            Norm::P(1.0) => {
                let Some((at, largest)) = self.largest(scaled) else { return 0.0 };
                epsilon[at] = (self.rho * scale(at)).copysign(f64::from(gradient[at])) as f32;
                largest
            }
            Norm::P(2.0) => {
                let norm = self.scaled_norm(gradient, weights);
                self.scaled(norm, gradient, weights, epsilon);
                norm
            }
            Norm::P(p) => {
                let Some((_, largest)) = self.largest(scaled) else { return 0.0 };
                // q is huge for p near 1, so powers are taken of entries relative to the largest. q - 1 = 1 / (p - 1) is 0 for a
                // huge p, and 0^0 is 1: entries without a gradient are passed over.
                let exponent = 1.0 / (p - 1.0);
                let relative = |at: usize| scaled(at).abs() / largest;
                let power = self.sum(|at| libm::pow(relative(at), 1.0 + exponent));
                let factor = self.rho / libm::pow(power, 1.0 / p);
                for at in self.perturbed().filter(|at| gradient[*at] != 0.0) {
                    let magnitude = factor * libm::pow(relative(at), exponent) * scale(at);
                    epsilon[at] = magnitude.copysign(f64::from(gradient[at])) as f32;
                }
                // 1 / q = 1 - 1 / p.
                largest * libm::pow(power, 1.0 - 1.0 / p)
            }
        }
    }

    /// `w + epsilon` into `lifted`, a vector of its own: `w` never moves and is never restored by subtraction.
    ///
    /// Passes over memory for p = 2: one over `g` (and `w` for ASAM) for its norm, 4 (8) bytes a value, and one that writes
    /// `w + epsilon` and sums epsilon's squares, 12 bytes a value.
    pub fn lift(&self, gradient: &[f32], weights: &[f32], lifted: &mut [f32]) -> Lift {
        if self.norm == Norm::P(2.0) {
            return self.lift_in_one_pass(gradient, weights, lifted);
        }
        let dual_norm = self.maximise(gradient, weights, lifted);
        let epsilon_norm = crate::l2_norm(lifted);
        vector::add_scaled(lifted, weights, 1.0);
        Lift { epsilon_norm, dual_norm, is_zero: epsilon_norm == 0.0 }
    }

    fn lift_in_one_pass(&self, gradient: &[f32], weights: &[f32], lifted: &mut [f32]) -> Lift {
        let dual_norm = self.scaled_norm(gradient, weights);
        let factor = if dual_norm > 0.0 { self.rho / dual_norm } else { 0.0 };
        let (mut squares, mut end) = (0.0, 0);
        for run in self.runs.iter().cloned() {
            lifted[end..run.start].copy_from_slice(&weights[end..run.start]);
            end = run.end;
            let (g, w) = (&gradient[run.clone()], &weights[run.clone()]);
            squares += vector::lift(g, w, factor, self.eta, &mut lifted[run]);
        }
        lifted[end..].copy_from_slice(&weights[end..]);
        // The square of no f32 but 0 is 0 in f64.
        Lift { epsilon_norm: squares.sqrt(), dual_norm, is_zero: squares == 0.0 }
    }

    /// `||t g||_2`; 0 where the gradient is. No f32's square leaves the range of f64, so nothing has to be scaled by the largest entry first.
    fn scaled_norm(&self, gradient: &[f32], weights: &[f32]) -> f64 {
        let squares: f64 = (self.runs.iter().cloned())
            .map(|run| match self.eta {
                None => vector::sum_of_squares(&gradient[run]),
                Some(eta) => vector::sum_of_scaled_squares(&gradient[run.clone()], &weights[run], eta),
            })
            .sum();
        squares.sqrt()
    }

    pub(crate) fn perturbed(&self) -> impl Iterator<Item = usize> + '_ {
        self.runs.iter().flat_map(Clone::clone)
    }

    pub(crate) fn sum(&self, term: impl Fn(usize) -> f64) -> f64 {
        self.runs.iter().map(|run| blocked_sum(run.len(), |at| term(run.start + at))).sum()
    }

    /// The first of the largest magnitudes and where it is; `None` where all are zero.
    pub(crate) fn largest(&self, value: impl Fn(usize) -> f64) -> Option<(usize, f64)> {
        let mut found: Option<(usize, f64)> = None;
        for at in self.perturbed() {
            let magnitude = value(at).abs();
            if magnitude > found.map_or(0.0, |(_, largest)| largest) {
                found = Some((at, magnitude));
            }
        }
        found
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use strath_core::config::{Direction, LaneSizes, RhoRule, WeightDecay};

    use super::*;

    /// A ball around what is perturbed; `eta`: ASAM's.
    pub(crate) fn sam(rho: f64, norm: Norm, eta: Option<f64>, perturb: Perturb) -> SamTable {
        SamTable {
            rho,
            m: LaneSizes::Batch,
            norm,
            adaptive: eta.is_some(),
            eta: eta.unwrap_or(0.01),
            perturb,
            weight_decay: WeightDecay::Outside,
            rho_rule: RhoRule::Constant,
            direction: Direction::Gradient,
        }
    }

    fn layout(len: usize) -> Layout {
        Layout::new([("w".into(), vec![len])]).unwrap()
    }

    fn epsilon(norm: Norm, eta: Option<f64>, gradient: &[f32], weights: &[f32]) -> Vec<f32> {
        let table = sam(0.5, norm, eta, Perturb::All);
        let mut out = vec![f32::NAN; gradient.len()];
        Perturbation::new(&table, &layout(gradient.len()), &[false]).unwrap().epsilon(gradient, weights, &mut out);
        out
    }

    fn p_norm(values: impl Iterator<Item = f64> + Clone, norm: Norm) -> f64 {
        match norm {
            Norm::Infinity => values.map(f64::abs).fold(0.0, f64::max),
            Norm::P(p) => {
                // Relative to the largest, so that a huge p makes none of the powers vanish that count.
                let largest = values.clone().map(f64::abs).fold(0.0, f64::max);
                largest * values.map(|v| (v.abs() / largest).powf(p)).sum::<f64>().powf(1.0 / p)
            }
        }
    }

    #[test]
    fn closed_forms_of_the_three_usual_norms() {
        let gradient = [3.0, 0.0, -4.0];
        let zeros = [0.0; 3];
        assert_eq!(epsilon(Norm::P(2.0), None, &gradient, &zeros), [0.3, 0.0, -0.4]);
        assert_eq!(epsilon(Norm::Infinity, None, &gradient, &zeros), [0.5, 0.0, -0.5]);
        assert_eq!(epsilon(Norm::P(1.0), None, &gradient, &zeros), [0.0, 0.0, -0.5]);
        assert_eq!(epsilon(Norm::P(1.0), None, &[2.0, -2.0], &zeros[..2]), [0.5, 0.0], "the first of equals");
    }

    #[test]
    fn a_lane_has_the_radius_of_its_size() {
        let table = SamTable { rho_rule: RhoRule::SqrtM { m_ref: 16 }, ..sam(0.5, Norm::P(2.0), None, Perturb::All) };
        let perturbation = Perturbation::new(&table, &layout(2), &[false]).unwrap();
        let lane = |m: usize| perturbation.with_radius(table.radius(m));
        let norm = |m: usize| lane(m).lift(&[3.0, -4.0], &[0.0; 2], &mut [0.0; 2]).epsilon_norm;
        for (m, radius) in [(16, 0.5), (4, 0.25), (64, 1.0), (1, 0.125)] {
            assert!((norm(m) / radius - 1.0).abs() < 1e-7, "m = {m}: {}", norm(m));
        }
        assert_eq!((lane(16), sam(0.5, Norm::P(2.0), None, Perturb::All).radius(4)), (perturbation.clone(), 0.5));
    }

    #[test]
    fn asam_scales_by_the_weights() {
        // t = (1, 2): t g = (3, 8) / sqrt(73), epsilon = rho t (t g) / ||t g||.
        let got = epsilon(Norm::P(2.0), Some(0.0), &[3.0, 4.0], &[-1.0, 2.0]);
        let norm = 73f64.sqrt();
        assert_eq!(got, [(0.5 * 3.0 / norm) as f32, (0.5 * 16.0 / norm) as f32]);
    }

    #[test]
    fn a_zero_gradient_has_a_zero_epsilon_and_says_so() {
        for norm in [Norm::P(1.0), Norm::P(1.5), Norm::P(2.0), Norm::P(7.0), Norm::Infinity] {
            let table = sam(0.5, norm, None, Perturb::All);
            let mut lifted = vec![0.0; 2];
            let lift =
                Perturbation::new(&table, &layout(2), &[false]).unwrap().lift(&[0.0, -0.0], &[1.0, 2.0], &mut lifted);
            let zero = Lift { epsilon_norm: 0.0, dual_norm: 0.0, is_zero: true };
            assert_eq!((lifted, lift), (vec![1.0, 2.0], zero));
        }
    }

    #[test]
    fn lifted_weights_are_the_weights_plus_epsilon_whatever_is_perturbed() {
        let layout = Layout::new(["a", "b", "c"].map(|name| (name.to_string(), vec![5000]))).unwrap();
        let gradient: Vec<f32> = (0..15_000).map(|at| (at % 77) as f32 - 30.0).collect();
        let weights: Vec<f32> = (0..15_000).map(|at| 0.01 * (at % 13) as f32 - 0.05).collect();
        for (norm, eta) in
            [(Norm::P(2.0), None), (Norm::P(2.0), Some(0.1)), (Norm::P(3.0), None), (Norm::Infinity, None)]
        {
            for perturb in [Perturb::All, Perturb::NormOnly, Perturb::NoNorm] {
                let table = sam(0.5, norm, eta, perturb);
                let perturbation = Perturbation::new(&table, &layout, &[false, true, false]).unwrap();
                let (mut epsilon, mut lifted) = (vec![f32::NAN; 15_000], vec![f32::NAN; 15_000]);
                perturbation.epsilon(&gradient, &weights, &mut epsilon);
                let lift = perturbation.lift(&gradient, &weights, &mut lifted);
                assert!((0..15_000).all(|at| lifted[at] == weights[at] + epsilon[at]), "{table:?}");
                assert!((lift.epsilon_norm / crate::l2_norm(&epsilon) - 1.0).abs() < 1e-12 && !lift.is_zero);
            }
        }
    }

    #[test]
    fn only_the_chosen_layers_move() {
        let tensors = ["a", "b", "c"].map(|name| (name.to_string(), vec![2]));
        let layout = Layout::new(tensors).unwrap();
        let of_norms = [false, true, false];
        let moved = |perturb| {
            let table = sam(1.0, Norm::Infinity, None, perturb);
            let mut out = vec![0.0; 6];
            Perturbation::new(&table, &layout, &of_norms).unwrap().epsilon(&[1.0; 6], &[0.0; 6], &mut out);
            out
        };
        assert_eq!(moved(Perturb::All), [1.0; 6]);
        assert_eq!(moved(Perturb::NormOnly), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(moved(Perturb::NoNorm), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        let table = sam(1.0, Norm::Infinity, None, Perturb::NormOnly);
        let refused = Perturbation::new(&table, &layout, &[false; 3]);
        assert_eq!(refused, Err(NothingToPerturb { perturb: "norm-only", needs: "normalisation" }));
    }

    /// p from near 1, where q is huge, to where the ball is a cube but for rounding.
    fn powers() -> impl Strategy<Value = f64> {
        prop_oneof![4 => 1.01f64..12.0, 1 => 1.0001f64..1.01, 1 => Just(1e3), 1 => Just(1e17)]
    }

    fn vectors() -> impl Strategy<Value = Vec<(f32, f32)>> {
        let sizes = prop_oneof![
            1 => Just(0.0),
            4 => (-20..8i32, 0u32..1 << 23).prop_map(|(e, mantissa)| f32::from_bits(((e + 127) as u32) << 23 | mantissa)),
        ];
        let entry =
            (any::<bool>(), sizes, -2.0f32..2.0).prop_map(|(negative, x, w)| (if negative { -x } else { x }, w));
        let entries = prop::collection::vec(entry, 1..300);
        entries.prop_filter("a gradient that is not zero", |entries| entries.iter().any(|(g, _)| *g != 0.0))
    }

    proptest! {
        #[test]
        fn the_scale_of_the_gradient_does_not_matter_to_the_bit(
            entries in vectors(), p in powers(), adaptive in any::<bool>(), shift in 1..=40i32
        ) {
            let (gradient, weights): (Vec<f32>, Vec<f32>) = entries.into_iter().unzip();
            let smaller: Vec<f32> = gradient.iter().map(|g| g * 2f32.powi(-shift)).collect();
            let eta = adaptive.then_some(0.01);
            for norm in [Norm::P(1.0), Norm::P(2.0), Norm::P(p), Norm::Infinity] {
                let (a, b) = (epsilon(norm, eta, &gradient, &weights), epsilon(norm, eta, &smaller, &weights));
                prop_assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{:?}", norm);
            }
        }

        #[test]
        fn epsilon_lies_on_the_sphere(entries in vectors(), p in powers(), adaptive in any::<bool>()) {
            let (gradient, weights): (Vec<f32>, Vec<f32>) = entries.into_iter().unzip();
            let eta = adaptive.then_some(0.01);
            for norm in [Norm::P(1.0), Norm::P(2.0), Norm::P(p), Norm::Infinity] {
                let e = epsilon(norm, eta, &gradient, &weights);
                let relative = e.iter().zip(&weights).map(|(e, w)| {
                    f64::from(*e) / eta.map_or(1.0, |eta| f64::from(*w).abs() + eta)
                });
                let got = p_norm(relative, norm);
                prop_assert!((got / 0.5 - 1.0).abs() < 1e-6, "{:?}: {}", norm, got);
                let strayed = e.iter().zip(&gradient).any(|(e, g)| *g == 0.0 && *e != 0.0);
                prop_assert!(!strayed, "{:?}: no step where there is no gradient", norm);
            }
        }

        #[test]
        fn epsilon_attains_the_dual_norm(entries in vectors(), p in 1.05f64..12.0) {
            // Holder's bound <epsilon, g> <= rho ||g||_q is reached: epsilon is the maximiser, not merely on the sphere.
            let (gradient, weights): (Vec<f32>, Vec<f32>) = entries.into_iter().unzip();
            let e = epsilon(Norm::P(p), None, &gradient, &weights);
            let reached: f64 = e.iter().zip(&gradient).map(|(e, g)| f64::from(*e) * f64::from(*g)).sum();
            let bound = 0.5 * p_norm(gradient.iter().map(|g| f64::from(*g)), Norm::P(p / (p - 1.0)));
            prop_assert!((reached / bound - 1.0).abs() < 1e-5, "{} of {}", reached, bound);
        }
    }
}
