//! The sharpest point of the ball that projected gradient ascent finds.

use std::sync::Arc;

use strath_kernels::vector;

use crate::perturbation::Perturbation;

/// What an oracle is asked for at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The loss alone.
    Loss,
    /// The loss and its gradient.
    Gradient,
}

/// Losses of one lane at and around w.
#[derive(Debug, Clone, PartialEq)]
pub struct Ascent {
    /// `L(w)`.
    pub clean: f64,
    /// `L(w + epsilon)` with the epsilon of one step, equation 2: what training climbs to.
    pub one_step: f64,
    /// The largest `L(w + epsilon)` of all iterates.
    pub best: f64,
    /// The epsilon of that one.
    pub epsilon: Vec<f32>,
}

/// Climbs `steps` times in the ball around w: the first iterate is the epsilon of equation 2, each further one
///
/// `epsilon <- pull_back(epsilon + dual(gradient at w + epsilon) / 2)`, `dual` the maximiser of equation 2 and of length rho,
///
/// projected gradient ascent with steps of rho / 2 in the ball's own norm (Madry et al., ICLR 2018, attack inputs so). It bounds the maximum from below,
/// and the best of its iterates counts, so that more steps never find less. `oracle` gives loss and, where it is asked, gradient at a point.
///
/// # Errors
/// The oracle's.
///
/// # Panics
/// Where the oracle was asked for a gradient and gives none.
pub fn climb<E>(
    ball: &Perturbation,
    weights: &Arc<Vec<f32>>,
    steps: usize,
    mut oracle: impl FnMut(&Arc<Vec<f32>>, Asked) -> Result<(f64, Option<Vec<f32>>), E>,
) -> Result<Ascent, E> {
    const GIVEN: &str = "an oracle gives the gradient that it is asked for";
    let (clean, gradient) = oracle(weights, Asked::Gradient)?;
    let mut gradient = gradient.expect(GIVEN);
    let mut epsilon = vec![0.0; weights.len()];
    ball.epsilon(&gradient, weights, &mut epsilon);
    let mut found = Ascent { clean, one_step: f64::NAN, best: f64::NEG_INFINITY, epsilon: Vec::new() };
    let mut step = vec![0.0; weights.len()];
    for iterate in 1..=steps.max(1) {
        let mut lifted = (**weights).clone();
        vector::add_scaled(&mut lifted, &epsilon, 1.0);
        let asked = if iterate < steps { Asked::Gradient } else { Asked::Loss };
        let (loss, next) = oracle(&Arc::new(lifted), asked)?;
        if iterate == 1 {
            found.one_step = loss;
        }
        if loss > found.best {
            found.best = loss;
            found.epsilon.clone_from(&epsilon);
        }
        if asked == Asked::Gradient {
            gradient = next.expect(GIVEN);
            ball.epsilon(&gradient, weights, &mut step);
            vector::add_scaled(&mut epsilon, &step, 0.5);
            ball.pull_back(&mut epsilon, weights);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use strath_core::Layout;
    use strath_core::config::{Norm, Perturb};

    use super::*;
    use crate::perturbation::tests::sam;

    fn ball(rho: f64, norm: Norm) -> Perturbation {
        let layout = Layout::new([("w".into(), vec![2])]).unwrap();
        let table = sam(rho, norm, None, Perturb::All);
        Perturbation::new(&table, &layout, &[false]).unwrap()
    }

    /// `(x^2 + 9 y^2) / 2`.
    #[expect(clippy::unnecessary_wraps, reason = "an oracle may fail")]
    fn bowl(w: &Arc<Vec<f32>>, asked: Asked) -> Result<(f64, Option<Vec<f32>>), Infallible> {
        let [x, y] = [f64::from(w[0]), f64::from(w[1])];
        let gradient = (asked == Asked::Gradient).then(|| vec![w[0], 9.0 * w[1]]);
        Ok((f64::midpoint(x * x, 9.0 * y * y), gradient))
    }

    #[test]
    fn one_step_is_equation_2_and_more_find_the_steepest_way_out_of_a_bowl() {
        let w = Arc::new(vec![1.0f32, 0.001]);
        let once = climb(&ball(0.5, Norm::P(2.0)), &w, 1, bowl).unwrap();
        assert!((once.clean - 0.500_004_5).abs() < 1e-8);
        assert_eq!(once.one_step, once.best);
        assert!((once.best - 1.125).abs() < 1e-3, "{}", once.best);
        // The maximum over the ball: epsilon almost along y.
        let often = climb(&ball(0.5, Norm::P(2.0)), &w, 40, bowl).unwrap();
        let most = (0..10_000)
            .map(|at| std::f64::consts::TAU * f64::from(at) / 10_000.0)
            .map(|a| f64::midpoint((1.0 + 0.5 * a.cos()).powi(2), 9.0 * (0.001 + 0.5 * a.sin()).powi(2)))
            .fold(0.0, f64::max);
        assert!((often.best - most).abs() < 1e-4 * most, "{} of {most}", often.best);
        assert_eq!(often.one_step, once.one_step);
    }

    #[test]
    fn the_largest_corner_of_a_box_is_its_maximum_and_zero_stays_where_it_is() {
        let found = climb(&ball(0.5, Norm::Infinity), &Arc::new(vec![1.0, 0.5]), 3, bowl).unwrap();
        assert_eq!(found.best, f64::midpoint(2.25, 9.0));
        let flat = climb(&ball(0.5, Norm::P(2.0)), &Arc::new(vec![0.0, 0.0]), 3, bowl).unwrap();
        assert_eq!((flat.clean, flat.one_step, flat.best), (0.0, 0.0, 0.0));
    }
}
