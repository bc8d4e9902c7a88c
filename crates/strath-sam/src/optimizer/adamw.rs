//! Adam with decoupled weight decay (Loshchilov and Hutter 2019), in PyTorch's form.

use strath_kernels::vector;

/// `w <- w (1 - lr lambda)`; `m <- b1 m + (1 - b1) G`; `v <- b2 v + (1 - b2) G^2`;
/// `w <- w - lr m^ / (sqrt(v^) + eps)` with `m^ = m / (1 - b1^t)`, `v^ = v / (1 - b2^t)` at update t, from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f32,
    weight_decay: f64,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl AdamW {
    /// For `len` parameters; both moments start at zero.
    pub fn new(beta1: f64, beta2: f64, adam_eps: f64, weight_decay: f64, len: usize) -> Self {
        let zeros = vec![0.0; len];
        Self { beta1, beta2, eps: adam_eps as f32, weight_decay, first: zeros.clone(), second: zeros }
    }

    /// One update at step `step` (0-based) by a gradient, multiplied by `clip` on the way: one pass over weights, gradient and
    /// both moments, 28 bytes a value.
    pub fn update(&mut self, weights: &mut [f32], gradient: &[f32], clip: Option<f64>, step: u64, lr: f64) {
        let scalars = self.scalars(step, lr);
        vector::adamw(weights, gradient, &mut self.first, &mut self.second, clip, scalars);
    }

    pub(super) fn scalars(&self, step: u64, lr: f64) -> vector::AdamW {
        let update = (step + 1) as f64;
        vector::AdamW {
            first: (self.beta1 as f32, (1.0 - self.beta1) as f32),
            second: (self.beta2 as f32, (1.0 - self.beta2) as f32),
            // The corrections are scalars: taken in f64 and folded into the rate and the root.
            rate: (lr / (1.0 - libm::pow(self.beta1, update))) as f32,
            root: (1.0 / (1.0 - libm::pow(self.beta2, update))) as f32,
            keep: (1.0 - lr * self.weight_decay) as f32,
            eps: self.eps,
        }
    }

    pub(super) fn slots(&self) -> Vec<(&'static str, &[f32])> {
        vec![("first_moment", &self.first), ("second_moment", &self.second)]
    }

    pub(super) fn slots_mut(&mut self) -> Vec<&mut [f32]> {
        vec![&mut self.first, &mut self.second]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_update_moves_by_the_rate_against_the_sign() {
        let mut adamw = AdamW::new(0.9, 0.999, 0.0, 0.0, 2);
        let mut w = [1.0, 1.0];
        adamw.update(&mut w, &[1e-3, -50.0], None, 0, 0.125);
        assert!((w[0] - 0.875).abs() < 1e-6 && (w[1] - 1.125).abs() < 1e-6, "{w:?}");
    }

    #[test]
    fn it_follows_the_formula_in_f64() {
        let (b1, b2, eps, decay, lr) = (0.9, 0.99, 1e-8, 0.1, 0.01);
        let mut adamw = AdamW::new(b1, b2, eps, decay, 1);
        let mut w = [0.5f32];
        let (mut x, mut m, mut v) = (0.5f64, 0.0, 0.0);
        for (step, g) in [0.3f64, -0.2, 0.7, 0.05].into_iter().enumerate() {
            adamw.update(&mut w, &[g as f32], None, step as u64, lr);
            let t = step as i32 + 1;
            x *= 1.0 - lr * decay;
            m = b1 * m + (1.0 - b1) * g;
            v = b2 * v + (1.0 - b2) * g * g;
            x -= lr * (m / (1.0 - b1.powi(t))) / ((v / (1.0 - b2.powi(t))).sqrt() + eps);
        }
        assert!((f64::from(w[0]) - x).abs() < 1e-6, "{} against {x}", w[0]);
    }
}
