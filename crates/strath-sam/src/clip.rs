//! Clipping of the reduced gradient.

use crate::sums::l2_norm;

/// A gradient with the clipping that it needs, which the optimizer applies on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clipped<'a> {
    /// The gradient before clipping.
    pub gradient: &'a [f32],
    /// What to multiply it by; `None` where it is not too long.
    pub factor: Option<f64>,
    /// Its l2 norm before clipping.
    pub norm: f64,
}

/// Scales `gradient` down to l2 norm `limit` where it is longer.
///
/// `G <- f32(G * (limit / ||G||))`, as in the paper's reference implementation: on the reduced descent gradient, never on a
/// lane's. One pass for the norm, 4 bytes a value; [`Optimizer::update_clipped`](crate::Optimizer::update_clipped) multiplies.
pub fn clip(gradient: &[f32], limit: Option<f64>) -> Clipped<'_> {
    let norm = l2_norm(gradient);
    let factor = limit.filter(|limit| norm > *limit).map(|limit| limit / norm);
    Clipped { gradient, factor, norm }
}

impl Clipped<'_> {
    /// The gradient after clipping.
    pub fn to_vec(&self) -> Vec<f32> {
        match self.factor {
            None => self.gradient.to_vec(),
            Some(factor) => self.gradient.iter().map(|g| (f64::from(*g) * factor) as f32).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_gradient_is_shortened_and_a_short_one_is_untouched() {
        let gradient = [3.0, 4.0];
        assert_eq!(clip(&gradient, None), Clipped { gradient: &gradient, factor: None, norm: 5.0 });
        assert_eq!(clip(&gradient, Some(5.0)).norm, 5.0);
        assert_eq!(clip(&gradient, Some(5.0)).to_vec(), gradient);
        assert_eq!(clip(&gradient, Some(2.5)).norm, 5.0);
        assert_eq!(clip(&gradient, Some(2.5)).to_vec(), [1.5, 2.0]);
    }
}
