//! Parameter vectors that serve again, so that a step in its course allocates none.

use std::cell::RefCell;

use strath_cuda::GpuError;

use crate::flat::{Flat, Place};

/// Vectors kept at most: a lane's two gradients, the weights lifted by its epsilon, and one under way to or from the reduction.
const KEPT: usize = 4;

/// Vectors of one length whose values are spent.
#[derive(Debug)]
pub struct Buffers {
    len: usize,
    place: Place,
    spare: RefCell<Vec<Vec<f32>>>,
}

impl Buffers {
    /// None yet, of vectors of `len` values at a place.
    pub fn new(len: usize, place: Place) -> Self {
        Self { len, place, spare: RefCell::new(Vec::with_capacity(KEPT)) }
    }

    /// Where they lie.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A vector at a place, to be written: its values are whatever they were.
    ///
    /// # Errors
    /// The device's.
    pub fn take(&self, place: &Place) -> Result<Flat, GpuError> {
        match place.gpu() {
            None => Ok(Flat::Host(self.take_host())),
            // The device keeps what is given up.
            Some(gpu) => gpu.stale(self.len).map(Flat::Device),
        }
    }

    /// The same in the process's memory, wherever the others lie.
    pub fn take_host(&self) -> Vec<f32> {
        self.spare.borrow_mut().pop().unwrap_or_else(|| vec![0.0; self.len])
    }

    /// Takes back a vector whose values are spent, wherever it was made; where there is none, none.
    pub fn give(&self, vector: impl Into<Option<Flat>>) {
        let Some(Flat::Host(vector)) = vector.into() else { return };
        let mut spare = self.spare.borrow_mut();
        if vector.len() == self.len && spare.len() < KEPT {
            spare.push(vector);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_serves_again_and_no_more_are_kept_than_serve() {
        let buffers = Buffers::new(2, Place::default());
        let given = |values: &[f32]| buffers.give(Flat::Host(values.to_vec()));
        given(&[1.0, 2.0]);
        given(&[1.0]);
        assert_eq!(buffers.take(buffers.place()).unwrap().into_host().unwrap(), [1.0, 2.0]);
        assert_eq!(buffers.take_host().len(), 2);
        for _ in 0..10 {
            given(&[3.0; 2]);
        }
        assert_eq!(buffers.spare.borrow().len(), KEPT);
    }
}
