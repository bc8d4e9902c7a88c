//! The ball that epsilon lies in: the way back inside, and the epsilon along a direction.

use strath_core::config::Norm;

use super::Perturbation;

impl Perturbation {
    /// Brings an epsilon that has left the ball back: for p = inf each entry to its bound, which is the nearest point of the ball; else all by one factor,
    /// which for p = 2 without ASAM is the nearest point, and for others lies on the same ray.
    pub fn pull_back(&self, epsilon: &mut [f32], weights: &[f32]) {
        if self.norm == Norm::Infinity {
            for at in self.perturbed() {
                let bound = (self.rho * self.scale(weights[at])) as f32;
                epsilon[at] = epsilon[at].clamp(-bound, bound);
            }
            return;
        }
        let length = self.extent(epsilon, weights);
        if length > self.rho {
            let factor = self.rho / length;
            for at in self.perturbed() {
                epsilon[at] = (factor * f64::from(epsilon[at])) as f32;
            }
        }
    }

    /// The epsilon of length rho along `direction`: `rho t d / ||d||_p` over the perturbed parameters; zero where all of `direction` is.
    pub fn along(&self, direction: &[f32], weights: &[f32], epsilon: &mut [f32]) {
        epsilon.fill(0.0);
        for at in self.perturbed() {
            epsilon[at] = (self.scale(weights[at]) * f64::from(direction[at])) as f32;
        }
        let length = self.extent(epsilon, weights);
        if length > 0.0 {
            let factor = self.rho / length;
            for at in self.perturbed() {
                epsilon[at] = (factor * f64::from(epsilon[at])) as f32;
            }
        }
    }

    /// ASAM's t of a weight; 1 for the plain ball.
    pub(crate) fn scale(&self, weight: f32) -> f64 {
        self.eta.map_or(1.0, |eta| f64::from(weight).abs() + eta)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strath_core::Layout;
    use strath_core::config::Perturb;

    use super::*;
    use crate::perturbation::tests::sam;

    fn perturbation(norm: Norm, adaptive: bool) -> Perturbation {
        let layout = Layout::new([("a".into(), vec![4]), ("b".into(), vec![3])]).unwrap();
        let table = sam(0.3, norm, adaptive.then_some(0.1), Perturb::NoNorm);
        Perturbation::new(&table, &layout, &[false, true]).unwrap()
    }

    fn norms() -> impl Strategy<Value = Norm> {
        prop_oneof![Just(Norm::Infinity), Just(Norm::P(1.0)), Just(Norm::P(2.0)), (1.05f64..20.0).prop_map(Norm::P)]
    }

    proptest! {
        #[test]
        fn epsilon_and_what_lies_along_a_direction_are_as_long_as_rho_and_what_is_pulled_back_at_most(
            norm in norms(), adaptive: bool, g in prop::collection::vec(-3f32..3.0, 7), w in prop::collection::vec(-2f32..2.0, 7)
        ) {
            prop_assume!(g[..4].iter().any(|g| g.abs() > 1e-3));
            let ball = perturbation(norm, adaptive);
            let mut epsilon = vec![0.0; 7];
            ball.epsilon(&g, &w, &mut epsilon);
            prop_assert!((ball.extent(&epsilon, &w) / 0.3 - 1.0).abs() < 1e-6);
            ball.along(&g, &w, &mut epsilon);
            prop_assert!((ball.extent(&epsilon, &w) / 0.3 - 1.0).abs() < 1e-6);
            prop_assert_eq!(&epsilon[4..], [0.0; 3]);
            let inside: Vec<f32> = epsilon.iter().map(|e| e / 2.0).collect();
            let mut pulled = inside.clone();
            ball.pull_back(&mut pulled, &w);
            prop_assert_eq!(&pulled, &inside);
            for e in &mut epsilon {
                *e *= 5.0;
            }
            ball.pull_back(&mut epsilon, &w);
            prop_assert!(ball.extent(&epsilon, &w) <= 0.3 * (1.0 + 1e-6));
        }
    }

    #[test]
    fn the_length_of_a_three_four_vector_is_five_and_nothing_leaves_the_range_of_f64() {
        let ball = perturbation(Norm::P(2.0), false);
        assert_eq!(ball.extent(&[3.0, 0.0, -4.0, 0.0, 9.0, 9.0, 9.0], &[0.0; 7]), 5.0);
        let large = perturbation(Norm::P(19.0), false);
        let length = large.extent(&[3e38, 3e38, 0.0, 0.0, 0.0, 0.0, 0.0], &[0.0; 7]);
        assert!((length / (f64::from(3e38f32) * 2f64.powf(1.0 / 19.0)) - 1.0).abs() < 1e-12);
    }
}
