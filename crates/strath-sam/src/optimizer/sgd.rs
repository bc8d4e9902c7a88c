//! Stochastic gradient descent with momentum, in PyTorch's form.

use strath_kernels::vector;

use super::Update;

/// `g <- G + lambda w`; `b <- mu b + g`; `w <- w - lr b`, or with Nesterov `w <- w - lr (g + mu b)`.
///
/// The buffer starts at zero, so that the first step takes `b = g` (no dampening), as `torch.optim.SGD` does.
#[derive(Debug, Clone, PartialEq)]
pub struct Sgd {
    momentum: f32,
    nesterov: bool,
    weight_decay: f32,
    buffer: Vec<f32>,
}

impl Sgd {
    /// For `len` parameters. Without momentum there is no state.
    pub fn new(momentum: f64, nesterov: bool, weight_decay: f64, len: usize) -> Self {
        let buffer = if momentum == 0.0 { Vec::new() } else { vec![0.0; len] };
        Self { momentum: momentum as f32, nesterov, weight_decay: weight_decay as f32, buffer }
    }

    /// One update by a gradient, multiplied by `clip` on the way: one pass over weights, gradient and buffer, 20 bytes a value
    /// (12 without momentum).
    pub fn update(&mut self, weights: &mut [f32], gradient: &[f32], clip: Option<f64>, lr: f64) {
        match self.scalars(lr) {
            Update::Momentum(scalars) => vector::sgd_momentum(weights, gradient, &mut self.buffer, clip, scalars),
            _ => vector::sgd(weights, gradient, clip, lr as f32, self.weight_decay),
        }
    }

    pub(super) fn scalars(&self, lr: f64) -> Update {
        let (lr, decay) = (lr as f32, self.weight_decay);
        if self.buffer.is_empty() {
            Update::Sgd { lr, decay }
        } else {
            Update::Momentum(vector::Momentum { lr, decay, momentum: self.momentum, nesterov: self.nesterov })
        }
    }

    pub(super) fn slots(&self) -> Vec<(&'static str, &[f32])> {
        if self.buffer.is_empty() { Vec::new() } else { vec![("momentum", &self.buffer)] }
    }

    pub(super) fn slots_mut(&mut self) -> Vec<&mut [f32]> {
        if self.buffer.is_empty() { Vec::new() } else { vec![&mut self.buffer] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_by_hand() {
        // All factors are powers of two, so the figures are exact.
        let mut sgd = Sgd::new(0.5, false, 0.25, 1);
        let mut w = [4.0];
        sgd.update(&mut w, &[1.0], None, 0.5);
        assert_eq!(w, [3.0], "g = 1 + 1 = 2, b = 2");
        sgd.update(&mut w, &[1.25], None, 0.5);
        assert_eq!(w, [1.5], "g = 1.25 + 0.75 = 2, b = 1 + 2 = 3");

        let mut nesterov = Sgd::new(0.5, true, 0.0, 1);
        let mut w = [4.0];
        nesterov.update(&mut w, &[2.0], None, 0.5);
        assert_eq!(w, [2.5], "b = 2, g + mu b = 3");
    }

    #[test]
    fn without_momentum_there_is_no_state() {
        let mut sgd = Sgd::new(0.0, false, 0.0, 1);
        let mut w = [1.0];
        sgd.update(&mut w, &[2.0], None, 0.25);
        assert_eq!(w, [0.5]);
        assert!(sgd.slots().is_empty());
    }
}
