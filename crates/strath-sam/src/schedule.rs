//! The learning rate over time.

use strath_core::config::{Schedule, ScheduleTable};

/// The learning rate of step `step` (0-based) of `steps`.
///
/// Warm-up: `base (step + 1) / warmup` while `step < warmup`. Then constant; or cosine (Loshchilov and Hutter 2017),
/// `base (1 + cos(pi (step - warmup) / (steps - warmup))) / 2`; or `base gamma^k` after k milestones.
pub fn learning_rate(step: u64, steps: u64, base: f64, schedule: &ScheduleTable) -> f64 {
    let warmup = schedule.warmup_steps;
    if step < warmup {
        return base * (step + 1) as f64 / warmup as f64;
    }
    match &schedule.kind {
        Schedule::Constant => base,
        Schedule::Cosine => {
            // `steps` is above `step`, and so above the warm-up; at least 1 guards a caller that asks past the end.
            let part = (step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
            0.5 * base * (1.0 + libm::cos(std::f64::consts::PI * part))
        }
        Schedule::Step { milestones, gamma } => {
            let passed = milestones.iter().filter(|at| step >= **at).count();
            base * libm::pow(*gamma, passed as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(kind: Schedule, warmup_steps: u64, steps: u64) -> Vec<f64> {
        let table = ScheduleTable { kind, warmup_steps };
        (0..steps).map(|s| learning_rate(s, steps, 0.8, &table)).collect()
    }

    #[test]
    fn the_shapes_are_those_of_their_formulas() {
        assert_eq!(rates(Schedule::Constant, 2, 4), [0.4, 0.8, 0.8, 0.8]);
        let cosine = rates(Schedule::Cosine, 0, 4);
        let want = [0.8, 0.4 * (1.0 + 0.5f64.sqrt()), 0.4, 0.4 * (1.0 - 0.5f64.sqrt())];
        assert!(cosine.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-15), "{cosine:?}");
        let steps = rates(Schedule::Step { milestones: vec![1, 3], gamma: 0.5 }, 0, 5);
        assert_eq!(steps, [0.8, 0.4, 0.4, 0.2, 0.2]);
    }

    #[test]
    fn a_warm_up_as_long_as_the_run_never_divides_by_zero() {
        assert_eq!(rates(Schedule::Cosine, 4, 4), [0.2, 0.4, 0.8 * 3.0 / 4.0, 0.8]);
        let table = ScheduleTable { kind: Schedule::Cosine, warmup_steps: 4 };
        assert!(learning_rate(4, 4, 0.8, &table).is_finite());
    }
}
