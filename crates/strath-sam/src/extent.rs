//! How far an epsilon reaches, and how far gradients are apart, over what is perturbed.

use strath_core::config::Norm;
use strath_kernels::vector::{self, Products};

use crate::Perturbation;

impl Perturbation {
    /// `||epsilon / t||_p` in f64, with the p and t of the ball (`t = 1`, or ASAM's `|w| + eta`): the radius, for an epsilon of this
    /// [`Perturbation`], but for the rounding of its values to f32.
    ///
    /// Vectors have the length of the layout. For p = 2 without ASAM one pass over epsilon's perturbed values, 4 bytes a value.
    pub fn extent(&self, epsilon: &[f32], weights: &[f32]) -> f64 {
        let scaled = |at: usize| {
            let value = f64::from(epsilon[at]);
            // Where t is 0, so is epsilon.
            if value == 0.0 { 0.0 } else { value / self.scale(weights[at]) }
        };
        let largest = || self.largest(scaled).map_or(0.0, |(_, largest)| largest);
        match self.norm {
            Norm::Infinity => largest(),
            Norm::P(1.0) => self.sum(|at| scaled(at).abs()),
            Norm::P(2.0) if self.eta.is_none() => {
                self.runs.iter().map(|run| vector::sum_of_squares(&epsilon[run.clone()])).sum::<f64>().sqrt()
            }
            Norm::P(2.0) => self.sum(|at| scaled(at) * scaled(at)).sqrt(),
            Norm::P(p) => {
                // Relative to the largest, so that no power vanishes that counts.
                let largest = largest();
                if largest == 0.0 {
                    return 0.0;
                }
                largest * libm::pow(self.sum(|at| libm::pow(scaled(at).abs() / largest, p)), 1.0 / p)
            }
        }
    }

    /// The products of two gradients over what is perturbed; one pass, 8 bytes a value.
    pub fn products(&self, a: &[f32], b: &[f32]) -> Products {
        self.runs.iter().fold(Products::default(), |sum, run| {
            let Products { aa, ab, bb } = vector::products(&a[run.clone()], &b[run.clone()]);
            Products { aa: sum.aa + aa, ab: sum.ab + ab, bb: sum.bb + bb }
        })
    }

    /// `||g||^2` over what is perturbed; one pass, 4 bytes a value.
    pub fn squares(&self, gradient: &[f32]) -> f64 {
        self.runs.iter().map(|run| vector::sum_of_squares(&gradient[run.clone()])).sum()
    }
}

#[cfg(test)]
mod tests {
    use strath_core::Layout;
    use strath_core::config::Perturb;

    use super::*;
    use crate::perturbation::tests::sam;

    fn perturbation(norm: Norm, eta: Option<f64>, perturb: Perturb, lengths: [usize; 3]) -> Perturbation {
        let table = sam(0.05, norm, eta, perturb);
        let names = ["a", "b", "c"].map(String::from).into_iter();
        let layout = Layout::new(names.zip(lengths.map(|len| vec![len]))).unwrap();
        Perturbation::new(&table, &layout, &[false, true, false]).unwrap()
    }

    #[test]
    fn an_epsilon_reaches_to_the_radius_over_every_ball() {
        let gradient: Vec<f32> = (0..30_000).map(|at| ((at % 77) as f32 - 30.0) * 1e-3).collect();
        let weights: Vec<f32> = (0..30_000).map(|at| 0.01 * (at % 13) as f32 - 0.05).collect();
        for norm in [Norm::P(1.0), Norm::P(1.5), Norm::P(2.0), Norm::P(7.0), Norm::P(1e3), Norm::Infinity] {
            for eta in [None, Some(0.01), Some(0.0)] {
                for perturb in [Perturb::All, Perturb::NormOnly, Perturb::NoNorm] {
                    let ball = perturbation(norm, eta, perturb, [10_000; 3]);
                    let mut epsilon = vec![f32::NAN; 30_000];
                    ball.epsilon(&gradient, &weights, &mut epsilon);
                    let off = ball.extent(&epsilon, &weights) / 0.05 - 1.0;
                    assert!(off.abs() < 1e-6, "{norm:?}, eta {eta:?}, {perturb:?}: {off:e}");
                }
            }
        }
    }

    #[test]
    fn products_are_over_what_is_perturbed() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
        let all = perturbation(Norm::P(2.0), None, Perturb::All, [1, 1, 2]);
        assert_eq!(all.products(&a, &b), Products { aa: 30.0, ab: 70.0, bb: 174.0 });
        let without = perturbation(Norm::P(2.0), None, Perturb::NoNorm, [1, 1, 2]);
        assert_eq!(without.products(&a, &b), Products { aa: 26.0, ab: 58.0, bb: 138.0 });
        assert_eq!((without.squares(&a), all.extent(&[0.0; 4], &a)), (26.0, 0.0));
    }
}
