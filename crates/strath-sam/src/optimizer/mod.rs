//! The descent step: the same arithmetic, in the same order, on every rank.

mod adamw;
mod sgd;

use strath_core::config::{OptimizerKind, OptimizerTable};
use strath_kernels::vector;

pub use adamw::AdamW;
pub use sgd::Sgd;

use crate::clip::Clipped;

/// The update rule of a run with its state.
#[derive(Debug, Clone, PartialEq)]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
}

/// What an update is made with, beside the vectors: for whoever holds those elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Update {
    /// Gradient descent without momentum.
    Sgd {
        /// The learning rate.
        lr: f32,
        /// The decay of the weights.
        decay: f32,
    },
    /// Gradient descent with momentum.
    Momentum(vector::Momentum),
    /// Adam with decoupled weight decay.
    AdamW(vector::AdamW),
}

/// State tensors that are not those of this optimizer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the optimizer's state has {expected}, found {found}")]
pub struct StateMismatch {
    /// The slots, and their length, that the optimizer keeps.
    pub expected: String,
    /// What was given.
    pub found: String,
}

impl Optimizer {
    /// The optimizer of `table` for `len` parameters, its state zero. `weight_decay` is the decay that the update itself
    /// applies: `optimizer.weight_decay`, or 0 where the decay is part of the loss.
    pub fn new(table: &OptimizerTable, weight_decay: f64, len: usize) -> Self {
        match table.kind {
            OptimizerKind::Sgd { momentum, nesterov } => Self::Sgd(Sgd::new(momentum, nesterov, weight_decay, len)),
            OptimizerKind::AdamW { beta1, beta2, adam_eps } => {
                Self::AdamW(AdamW::new(beta1, beta2, adam_eps, weight_decay, len))
            }
        }
    }

    /// One update of `weights` by the reduced gradient at step `step` (0-based) with learning rate `lr`.
    pub fn update(&mut self, weights: &mut [f32], gradient: &[f32], step: u64, lr: f64) {
        self.updated(weights, gradient, None, step, lr);
    }

    /// One [`update`](Self::update) by a clipped gradient, clipped on the way: still one pass.
    pub fn update_clipped(&mut self, weights: &mut [f32], clipped: Clipped<'_>, step: u64, lr: f64) {
        self.updated(weights, clipped.gradient, clipped.factor, step, lr);
    }

    /// What the update at step `step` (0-based) with learning rate `lr` is made with.
    pub fn scalars(&self, step: u64, lr: f64) -> Update {
        match self {
            Self::Sgd(sgd) => sgd.scalars(lr),
            Self::AdamW(adamw) => Update::AdamW(adamw.scalars(step, lr)),
        }
    }

    fn updated(&mut self, weights: &mut [f32], gradient: &[f32], clip: Option<f64>, step: u64, lr: f64) {
        match self {
            Self::Sgd(sgd) => sgd.update(weights, gradient, clip, lr),
            Self::AdamW(adamw) => adamw.update(weights, gradient, clip, step, lr),
        }
    }

    /// The state: each slot's name and its values, in the layout of the parameters.
    pub fn slots(&self) -> Vec<(&'static str, &[f32])> {
        match self {
            Self::Sgd(sgd) => sgd.slots(),
            Self::AdamW(adamw) => adamw.slots(),
        }
    }

    /// Puts back a state that [`slots`](Self::slots) gave.
    ///
    /// # Errors
    /// [`StateMismatch`] where the slots or their lengths differ; the state is then unchanged.
    pub fn restore(&mut self, slots: &[(String, Vec<f32>)]) -> Result<(), StateMismatch> {
        let describe = |parts: &mut dyn Iterator<Item = (&str, usize)>| {
            let parts: Vec<String> = parts.map(|(name, len)| format!("{name} of {len} values")).collect();
            if parts.is_empty() { "no slots".into() } else { parts.join(", ") }
        };
        let expected = describe(&mut self.slots().iter().map(|(name, values)| (*name, values.len())));
        let found = describe(&mut slots.iter().map(|(name, values)| (name.as_str(), values.len())));
        if expected != found {
            return Err(StateMismatch { expected, found });
        }
        for (to, (_, from)) in self.slots_mut().into_iter().zip(slots) {
            to.copy_from_slice(from);
        }
        Ok(())
    }

    /// The values of each of the [`slots`](Self::slots), in their order, to be overwritten.
    pub fn slots_mut(&mut self) -> Vec<&mut [f32]> {
        match self {
            Self::Sgd(sgd) => sgd.slots_mut(),
            Self::AdamW(adamw) => adamw.slots_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_on_the_way_gives_the_bits_of_clipping_first() {
        let gradient: Vec<f32> = (0..1000).map(|at| 0.37 * at as f32 - 100.0).collect();
        for kind in [
            OptimizerKind::Sgd { momentum: 0.0, nesterov: false },
            OptimizerKind::Sgd { momentum: 0.9, nesterov: false },
            OptimizerKind::Sgd { momentum: 0.9, nesterov: true },
            OptimizerKind::AdamW { beta1: 0.9, beta2: 0.99, adam_eps: 1e-8 },
        ] {
            let table = OptimizerTable { kind, lr: 0.1, weight_decay: 0.01, clip_norm: None };
            let (mut first, mut second) = (Optimizer::new(&table, 0.01, 1000), Optimizer::new(&table, 0.01, 1000));
            let (mut a, mut b) = (vec![1.0; 1000], vec![1.0; 1000]);
            for step in 0..3 {
                let clipped = crate::clip(&gradient, Some(2.0));
                first.update(&mut a, &clipped.to_vec(), step, 0.1);
                second.update_clipped(&mut b, clipped, step, 0.1);
            }
            assert_eq!((&a, &first), (&b, &second));
        }
    }

    #[test]
    fn a_restored_optimizer_continues_where_the_first_left_off() {
        for kind in [
            OptimizerKind::Sgd { momentum: 0.9, nesterov: true },
            OptimizerKind::AdamW { beta1: 0.9, beta2: 0.99, adam_eps: 1e-8 },
        ] {
            let table = OptimizerTable { kind, lr: 0.1, weight_decay: 0.01, clip_norm: None };
            let mut first = Optimizer::new(&table, 0.01, 2);
            let mut weights = vec![1.0, -2.0];
            first.update(&mut weights, &[0.5, 0.25], 0, 0.1);
            let saved: Vec<_> = first.slots().iter().map(|(n, v)| ((*n).to_string(), v.to_vec())).collect();
            let mut second = Optimizer::new(&table, 0.01, 2);
            second.restore(&saved).unwrap();
            assert_eq!(first, second);
            assert!(second.restore(&saved[1..]).is_err());
            assert_eq!(first, second, "a refused state changes nothing");
        }
    }
}
