//! Clipping of the reduced gradient.

use crate::sums::l2_norm;

/// Scales `gradient` down to l2 norm `limit` where it is longer, and returns its norm before that.
///
/// `G <- G * (limit / ||G||)`, as in the paper's reference implementation: on the reduced descent gradient, never on a
/// lane's.
pub fn clip(gradient: &mut [f32], limit: Option<f64>) -> f64 {
    let norm = l2_norm(gradient);
    if let Some(limit) = limit.filter(|limit| norm > *limit) {
        let factor = limit / norm;
        for value in gradient {
            *value = (f64::from(*value) * factor) as f32;
        }
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_gradient_is_shortened_and_a_short_one_is_untouched() {
        let mut gradient = [3.0, 4.0];
        assert_eq!(clip(&mut gradient, None), 5.0);
        assert_eq!(clip(&mut gradient, Some(5.0)), 5.0);
        assert_eq!(gradient, [3.0, 4.0]);
        assert_eq!(clip(&mut gradient, Some(2.5)), 5.0);
        assert_eq!(gradient, [1.5, 2.0]);
    }
}
