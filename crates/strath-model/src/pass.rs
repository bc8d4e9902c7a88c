//! One forward pass: its named parameters, its phase and what batch norm sees on the way.

use std::cell::RefCell;

use candle_core::{Device, Tensor, Var};
use strath_core::Layout;

use crate::error::ModelError;

/// What batch norm normalises by.
pub(crate) enum Phase<'a> {
    /// The batch's own statistics, which are collected.
    Training(RefCell<Vec<Collected>>),
    /// Running statistics, flat in their layout.
    Evaluation(&'a Layout, &'a [f32]),
}

/// What one batch-norm layer saw.
#[derive(Debug, Clone)]
pub(crate) struct Collected {
    pub(crate) prefix: String,
    pub(crate) mean: Vec<f64>,
    pub(crate) unbiased_variance: Vec<f64>,
}

/// The named parameters of one pass and its phase.
pub(crate) struct Pass<'a> {
    layout: &'a Layout,
    tensors: Vec<Var>,
    pub(crate) phase: Phase<'a>,
}

impl<'a> Pass<'a> {
    /// A pass with the parameters `weights`, flat in `layout`.
    pub(crate) fn new(layout: &'a Layout, weights: &[f32], phase: Phase<'a>) -> Result<Self, ModelError> {
        let tensors = layout
            .entries()
            .iter()
            .map(|entry| Var::from_slice(&weights[entry.range()], entry.shape.clone(), &Device::Cpu))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { layout, tensors, phase })
    }

    /// The parameter `prefix.name`.
    pub(crate) fn get(&self, prefix: &str, name: &str) -> Result<&Tensor, ModelError> {
        let full = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        let at = self.layout.position(&full).ok_or(ModelError::NoGradient { name: full })?;
        Ok(self.tensors[at].as_tensor())
    }

    /// Every parameter, in the order of the layout.
    pub(crate) fn parameters(&self) -> &[Var] {
        &self.tensors
    }
}
