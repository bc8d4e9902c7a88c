//! Parameter vectors that serve again, so that a step in its course allocates none.

use std::cell::RefCell;

/// Vectors kept at most: a lane's two gradients, the weights lifted by its epsilon, and one under way to or from the reduction.
const KEPT: usize = 4;

/// Vectors of one length whose values are spent.
#[derive(Debug)]
pub struct Buffers {
    len: usize,
    spare: RefCell<Vec<Vec<f32>>>,
}

impl Buffers {
    /// None yet, of vectors of `len` values.
    pub fn new(len: usize) -> Self {
        Self { len, spare: RefCell::new(Vec::with_capacity(KEPT)) }
    }

    /// A vector to be written: its values are whatever they were.
    pub fn take(&self) -> Vec<f32> {
        self.spare.borrow_mut().pop().unwrap_or_else(|| vec![0.0; self.len])
    }

    /// Takes back a vector whose values are spent, wherever it was made.
    pub fn give(&self, vector: Vec<f32>) {
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
        let buffers = Buffers::new(2);
        buffers.give(vec![1.0, 2.0]);
        buffers.give(vec![1.0]);
        assert_eq!(buffers.take(), [1.0, 2.0]);
        assert_eq!(buffers.take().len(), 2);
        for _ in 0..10 {
            buffers.give(vec![3.0; 2]);
        }
        assert_eq!(buffers.spare.borrow().len(), KEPT);
    }
}
