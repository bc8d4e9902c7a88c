//! Where a rank's vectors lie.

use std::sync::Arc;

use strath_cuda::{Gpu, GpuError};

use super::{Flat, Integers, Weights};

/// The process's memory, or a GPU's.
#[derive(Debug, Clone, Default)]
pub struct Place(Option<Gpu>);

impl From<Option<&Gpu>> for Place {
    fn from(gpu: Option<&Gpu>) -> Self {
        Self(gpu.cloned())
    }
}

impl Place {
    /// The GPU, where it is one.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.0.as_ref()
    }

    /// A stream of the same GPU, by its number; the process's memory is one.
    ///
    /// # Errors
    /// The device's.
    pub fn stream(&self, number: usize) -> Result<Self, GpuError> {
        self.0.as_ref().map(|gpu| gpu.stream(number)).transpose().map(Self)
    }

    /// A vector with these values.
    ///
    /// # Errors
    /// The device's.
    pub fn holding(&self, values: Vec<f32>) -> Result<Flat, GpuError> {
        match &self.0 {
            None => Ok(Flat::Host(values)),
            Some(gpu) => gpu.copied(&values).map(Flat::Device),
        }
    }

    /// Weights with these values.
    ///
    /// # Errors
    /// The device's.
    pub fn weights(&self, values: Arc<Vec<f32>>) -> Result<Weights, GpuError> {
        match &self.0 {
            None => Ok(Weights::Host(values)),
            Some(gpu) => gpu.copied(&values).map(|values| Weights::Device(Arc::new(values))),
        }
    }

    /// Zeros.
    ///
    /// # Errors
    /// The device's.
    pub fn zeros(&self, len: usize) -> Result<Flat, GpuError> {
        match &self.0 {
            None => Ok(Flat::Host(vec![0.0; len])),
            Some(gpu) => gpu.zeros(len).map(Flat::Device),
        }
    }

    /// Integers, all 0.
    ///
    /// # Errors
    /// The device's.
    pub fn integers(&self, len: usize) -> Result<Integers, GpuError> {
        match &self.0 {
            None => Ok(Integers::Host(vec![0; len])),
            Some(gpu) => gpu.zeros(len).map(Integers::Device),
        }
    }
}
