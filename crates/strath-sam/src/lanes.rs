//! What the lanes of a step tell: pure functions of a few numbers a lane, the definitions of [`strath_core::telemetry`].

use strath_core::telemetry::{Audit, Survey, Telemetry};

/// What is known of a lane after a step's passes. Norms and products are over the perturbed parameters.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LaneFacts {
    /// Its examples, m_v.
    pub size: usize,
    /// Its part of the batch, `m_v / B`.
    pub share: f64,
    /// Radius of its ball, rho_v.
    pub radius: f64,
    /// `||g_v||^2`
    pub squares: f64,
    /// `||t g_v||_q`; 0: it has no direction.
    pub dual_norm: f64,
    /// What epsilon adds to its loss.
    pub lift: f64,
    /// `g_v . h_v`, where it was asked for.
    pub along: Option<f64>,
    /// `||h_v||^2`, where a vector holds h_v.
    pub descent_squares: Option<f64>,
}

/// What a survey adds to the lanes' facts: what is known of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BatchFacts {
    /// `||G0||^2` of the reduced ascent gradient.
    pub squares: f64,
    /// `||mean e_v / t||_p`
    pub epsilon: f64,
    /// Mean over lanes of what their epsilon adds to the next lane's loss; absent where lanes are unequal or alone.
    pub crossed: Option<f64>,
}

/// What is told of the lanes at every step; `losses_are_whole`: the losses have every term whose gradient g_v is, so that a lift can be
/// compared with it.
pub fn telemetry(lanes: &[LaneFacts], losses_are_whole: bool) -> Telemetry {
    let lift_ratio =
        mean(lanes.iter().filter(|lane| lane.dual_norm > 0.0), |lane| lane.lift / (lane.radius * lane.dual_norm));
    let asked = || lanes.iter().filter(|lane| lane.along.is_some() && lane.squares > 0.0);
    let curvature = mean(asked(), |lane| {
        let length = lane.squares.sqrt();
        (lane.along.unwrap_or_default() / length - length) / lane.radius
    });
    // h_v has no angle where it is zero.
    let has_angle = |lane: &&LaneFacts| lane.descent_squares.is_some_and(|squares| squares > 0.0);
    let turned = || asked().filter(has_angle);
    let turn = mean(turned(), |lane| {
        let squares = lane.descent_squares.unwrap_or_default();
        // No cosine is beyond 1, whatever rounding says.
        (lane.along.unwrap_or_default() / (lane.squares.sqrt() * squares.sqrt())).clamp(-1.0, 1.0)
    });
    let turn_lanes = if turn.is_some() { turned().count() as u64 } else { 0 };
    Telemetry { lift_ratio: lift_ratio.filter(|_| losses_are_whole), curvature, turn, turn_lanes, survey: None }
}

/// What a survey finds.
pub fn survey(lanes: &[LaneFacts], batch: &BatchFacts, audit: Audit, losses_are_whole: bool) -> Survey {
    let squares: f64 = lanes.iter().map(|lane| lane.share * lane.squares).sum();
    let length: f64 = lanes.iter().map(|lane| lane.share * lane.squares.sqrt()).sum();
    let first_order: f64 = lanes.iter().map(|lane| lane.share * (lane.radius * lane.squares.sqrt())).sum();
    let radius: f64 = lanes.iter().map(|lane| lane.share * lane.radius).sum();
    let lift: f64 = lanes.iter().map(|lane| lane.share * lane.lift).sum();
    let (count, m) = (lanes.len() as f64, lanes.first().map_or(0, |lane| lane.size) as f64);
    let are_equal = lanes.len() > 1 && lanes.windows(2).all(|pair| pair[0].size == pair[1].size);
    let of_equal = |value: f64| Some(value).filter(|value| are_equal && value.is_finite());
    Survey {
        coherence: quotient(batch.epsilon, radius),
        noise_trace: of_equal((squares - batch.squares) * m * count / (count - 1.0)),
        signal2: of_equal((count * batch.squares - squares) / (count - 1.0)),
        amplification: quotient(length, batch.squares.sqrt()),
        rho_equivalent: quotient(first_order, batch.squares.sqrt()),
        transfer: batch.crossed.filter(|_| losses_are_whole).and_then(|crossed| quotient(crossed, lift)),
        audit,
        ladder: Vec::new(),
        seconds: 0.0,
    }
}

/// The mean of `value` over lanes, weighed by their examples; `None` where there is no lane, or no number.
fn mean<'a>(lanes: impl Iterator<Item = &'a LaneFacts>, value: impl Fn(&LaneFacts) -> f64) -> Option<f64> {
    let (sum, shares) =
        lanes.fold((0.0, 0.0), |(sum, shares), lane| (sum + lane.share * value(lane), shares + lane.share));
    quotient(sum, shares)
}

fn quotient(a: f64, b: f64) -> Option<f64> {
    Some(a / b).filter(|quotient| quotient.is_finite())
}

#[cfg(test)]
mod tests {
    use strath_core::Layout;
    use strath_core::config::{Norm, Perturb};
    use strath_kernels::vector;

    use super::*;
    use crate::Perturbation;
    use crate::perturbation::tests::sam;

    fn ball(rho: f64, norm: Norm, len: usize) -> Perturbation {
        let table = sam(rho, norm, None, Perturb::All);
        Perturbation::new(&table, &Layout::new([("w".into(), vec![len])]).unwrap(), &[false]).unwrap()
    }

    /// The lanes of losses `L_v(w) = a_v . w + k/2 ||w||^2` at w: `g = a + k w`, `h = g + k e`.
    fn quadratic(slopes: &[Vec<f32>], k: f32, weights: &[f32], rho: f64, norm: Norm) -> (Vec<LaneFacts>, BatchFacts) {
        let perturbation = ball(rho, norm, weights.len());
        let loss = |a: &[f32], w: &[f32]| -> f64 {
            a.iter()
                .zip(w)
                .map(|(a, w)| f64::from(*a) * f64::from(*w) + f64::from(k) / 2.0 * f64::from(*w).powi(2))
                .sum()
        };
        let share = 1.0 / slopes.len() as f64;
        let (mut mean_gradient, mut mean_epsilon) = (vec![0.0; weights.len()], vec![0.0; weights.len()]);
        let mut lifted_by = Vec::new();
        let facts: Vec<LaneFacts> = slopes
            .iter()
            .map(|a| {
                let gradient = |w: &[f32]| a.iter().zip(w).map(|(a, w)| a + k * w).collect::<Vec<f32>>();
                let (g, mut lifted, mut epsilon) = (gradient(weights), weights.to_vec(), weights.to_vec());
                let lift = perturbation.lift(&g, weights, &mut lifted);
                perturbation.epsilon(&g, weights, &mut epsilon);
                let products = vector::products(&g, &gradient(&lifted));
                vector::add_scaled(&mut mean_gradient, &g, share as f32);
                vector::add_scaled(&mut mean_epsilon, &epsilon, share as f32);
                let own = loss(a, &lifted) - loss(a, weights);
                lifted_by.push(lifted);
                LaneFacts {
                    size: 4,
                    share,
                    radius: rho,
                    squares: products.aa,
                    dual_norm: lift.dual_norm,
                    lift: own,
                    along: Some(products.ab),
                    descent_squares: Some(products.bb),
                }
            })
            .collect();
        let crossed = (0..slopes.len()).map(|v| {
            let next = &slopes[(v + 1) % slopes.len()];
            share * (loss(next, &lifted_by[v]) - loss(next, weights))
        });
        let batch = BatchFacts {
            squares: vector::sum_of_squares(&mean_gradient),
            epsilon: perturbation.extent(&mean_epsilon, weights),
            crossed: Some(crossed.sum()),
        };
        (facts, batch)
    }

    fn close(found: Option<f64>, expected: f64) {
        let found = found.expect("it has a value");
        assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "found {found}, expected {expected}");
    }

    #[test]
    fn of_a_quadratic_lane_lift_curvature_and_turn_are_known() {
        // g = (3, 4), rho = 1/2, h = g (1 + k rho / 5): along u the slope grows by k rho, and the lift is rho 5 + k rho^2 / 2.
        for k in [0.0, 2.0, -1.0] {
            let (facts, _) = quadratic(&[vec![3.0, 4.0]], k, &[0.0, 0.0], 0.5, Norm::P(2.0));
            let found = telemetry(&facts, true);
            close(found.lift_ratio, (2.5 + f64::from(k) * 0.125) / 2.5);
            close(found.curvature, f64::from(k));
            close(found.turn, 1.0);
            assert_eq!((found.turn_lanes, found.survey), (1, None));
            assert_eq!(telemetry(&facts, false).lift_ratio, None, "a loss without its regulariser");
        }
    }

    #[test]
    fn a_linear_loss_lifts_by_the_dual_norm_over_every_ball() {
        for norm in [Norm::P(1.0), Norm::P(1.5), Norm::P(2.0), Norm::P(7.0), Norm::Infinity] {
            let (facts, _) = quadratic(&[vec![3.0, -4.0, 1.0], vec![0.5, 0.25, -2.0]], 0.0, &[0.0; 3], 0.5, norm);
            let found = telemetry(&facts, true);
            close(found.lift_ratio, 1.0);
            close(found.curvature, 0.0);
            close(found.turn, 1.0);
        }
    }

    #[test]
    fn a_descent_gradient_at_a_right_angle_has_turned_by_one() {
        let lane = LaneFacts { size: 1, share: 0.5, radius: 0.1, squares: 4.0, dual_norm: 2.0, ..LaneFacts::default() };
        let turned = LaneFacts { descent_squares: Some(9.0), along: Some(0.0), ..lane };
        let several = LaneFacts { along: Some(4.0), ..lane };
        let found = telemetry(&[turned, several, lane], true);
        assert_eq!((found.turn, found.turn_lanes), (Some(0.0), 1), "a lane of several micro-batches has no h");
        // (0 - 2) / 0.1 and (2 - 2) / 0.1.
        close(found.curvature, -10.0);
    }

    #[test]
    fn lanes_without_a_direction_are_left_out_and_of_no_lane_nothing_is_told() {
        let zero = LaneFacts { size: 4, share: 0.5, radius: 0.1, ..LaneFacts::default() };
        assert_eq!(telemetry(&[zero], true), Telemetry::default());
        assert_eq!(telemetry(&[], true), Telemetry::default());
        let found = survey(&[zero], &BatchFacts::default(), Audit::default(), true);
        assert_eq!(found, Survey { coherence: Some(0.0), ..Survey::default() });
    }

    #[test]
    fn lanes_of_one_gradient_are_coherent_and_amplify_nothing() {
        let (facts, batch) = quadratic(&vec![vec![3.0, -4.0]; 4], 0.0, &[0.0; 2], 0.5, Norm::P(2.0));
        let found = survey(&facts, &batch, Audit::default(), true);
        close(found.coherence, 1.0);
        close(found.amplification, 1.0);
        close(found.rho_equivalent, 0.5);
        close(found.transfer, 1.0);
        close(found.noise_trace, 0.0);
        close(found.signal2, 25.0);
    }

    #[test]
    fn lanes_at_right_angles_are_as_coherent_as_chance_has_it() {
        let slopes: Vec<Vec<f32>> =
            (0..4).map(|v| (0..4).map(|at| if at == v { 3.0 } else { 0.0 }).collect()).collect();
        let (facts, batch) = quadratic(&slopes, 0.0, &[0.0; 4], 0.5, Norm::P(2.0));
        let found = survey(&facts, &batch, Audit::default(), true);
        close(found.coherence, 0.5);
        close(found.amplification, 2.0);
        close(found.rho_equivalent, 1.0);
        close(found.transfer, 0.0);
        // mean ||g||^2 = 9, ||G0||^2 = 9/4: S = (27/4) 4 4/3, and no signal is left.
        close(found.noise_trace, 36.0);
        close(found.signal2, 0.0);
    }

    #[test]
    fn a_cube_of_orthogonal_gradients_is_coherent_in_its_own_norm() {
        // sign(g) of disjoint supports: the mean is 1/2 everywhere.
        let (facts, batch) = quadratic(&[vec![2.0, 0.0], vec![0.0, 5.0]], 0.0, &[0.0; 2], 0.5, Norm::Infinity);
        close(survey(&facts, &batch, Audit::default(), true).coherence, 0.5);
    }

    /// `E ||g_v||^2 = ||G||^2 + tr / m` and `E ||G0||^2 = ||G||^2 + tr / (m V)`: put in for the means, they give tr and ||G||^2 back.
    #[test]
    fn noise_and_signal_are_estimated_without_bias() {
        let (trace, signal2) = (7.0, 3.0);
        for (m, count) in [(4usize, 2usize), (1, 16), (32, 3)] {
            let lane = LaneFacts {
                size: m,
                share: 1.0 / count as f64,
                squares: signal2 + trace / m as f64,
                ..LaneFacts::default()
            };
            let batch = BatchFacts { squares: signal2 + trace / (m * count) as f64, ..BatchFacts::default() };
            let found = survey(&vec![lane; count], &batch, Audit::default(), true);
            close(found.noise_trace, trace);
            close(found.signal2, signal2);
        }
    }

    #[test]
    fn noise_needs_two_equal_lanes() {
        let lane = |size, share| LaneFacts { size, share, squares: 2.0, radius: 0.1, ..LaneFacts::default() };
        let batch = BatchFacts { squares: 1.0, ..BatchFacts::default() };
        for lanes in [vec![lane(8, 1.0)], vec![lane(4, 0.5), lane(2, 0.25), lane(2, 0.25)]] {
            let found = survey(&lanes, &batch, Audit::default(), true);
            assert_eq!((found.noise_trace, found.signal2, found.transfer), (None, None, None));
            close(found.amplification, 2f64.sqrt());
        }
    }
}
