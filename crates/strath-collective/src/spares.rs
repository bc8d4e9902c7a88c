//! Memory that operations are done with, for the next ones: fresh pages cost more than the sums that are written to them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bucket::Bucket;

/// Blocks of bytes that are kept: the terms of every other rank of a large world. More are freed.
const MOST_BYTES: usize = 64;
/// Blocks of floats that are kept: the results of operations under way at once, a gradient in pieces and some lanes. More are freed.
const MOST_FLOATS: usize = Bucket::MOST_PIECES as usize + 4;

/// A store of memory, shared by all who hold a clone. What is in it never shows in a result. The default keeps nothing: what is given to
/// it is freed.
#[derive(Debug, Clone, Default)]
pub struct Spares(Option<Arc<Mutex<Blocks>>>);

#[derive(Debug, Default)]
struct Blocks {
    bytes: Vec<Vec<u8>>,
    floats: Vec<Vec<f32>>,
}

impl Spares {
    /// An empty store.
    pub fn store() -> Self {
        Self(Some(Arc::default()))
    }

    fn blocks(&self) -> Option<MutexGuard<'_, Blocks>> {
        // Every block is whole at every time, also where a thread panicked between two of them.
        Some(self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// At least `len` bytes with anything in them.
    pub fn take_bytes(&self, len: usize) -> Vec<u8> {
        let mut block = self.blocks().and_then(|mut blocks| blocks.bytes.pop()).unwrap_or_default();
        if block.len() < len {
            block.resize(len, 0);
        }
        block
    }

    /// Gives bytes back.
    pub fn give_bytes(&self, block: Vec<u8>) {
        if let Some(mut blocks) = self.blocks()
            && blocks.bytes.len() < MOST_BYTES
        {
            blocks.bytes.push(block);
        }
    }

    /// `len` floats with anything in them: of the blocks that are kept, the smallest that is large enough.
    pub fn take_floats(&self, len: usize) -> Vec<f32> {
        let fits = |(_, block): &(usize, &Vec<f32>)| block.capacity() >= len;
        let kept = self.blocks().and_then(|mut blocks| {
            let found = blocks.floats.iter().enumerate().filter(fits).min_by_key(|(_, block)| block.capacity());
            found.map(|(at, _)| at).map(|at| blocks.floats.swap_remove(at))
        });
        let mut block = kept.unwrap_or_default();
        block.resize(len, 0.0);
        block
    }

    /// Gives floats back.
    pub fn give_floats(&self, block: Vec<f32>) {
        if let Some(mut blocks) = self.blocks()
            && blocks.floats.len() < MOST_FLOATS
            && block.capacity() > 0
        {
            blocks.floats.push(block);
        }
    }
}

/// Machines that differ only in the memory at hand are equal.
impl PartialEq for Spares {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_block_that_is_large_enough_is_taken_and_no_more_are_kept_than_allowed() {
        let spares = Spares::store();
        for len in [100, 10, 50] {
            spares.give_floats(vec![1.0; len]);
        }
        let taken = spares.clone().take_floats(40);
        assert_eq!((taken.len(), taken.capacity()), (40, 50));
        assert_eq!(spares.take_floats(60).capacity(), 100);
        assert_eq!(spares.take_floats(60), vec![0.0; 60], "none was large enough");
        for _ in 0..2 * MOST_BYTES {
            spares.give_bytes(vec![7; 3]);
            spares.give_floats(vec![7.0; 3]);
        }
        let blocks = spares.blocks().unwrap();
        assert_eq!((blocks.bytes.len(), blocks.floats.len()), (MOST_BYTES, MOST_FLOATS));
        drop(blocks);
        assert_eq!(spares.take_bytes(5), [7, 7, 7, 0, 0]);
    }

    #[test]
    fn without_a_store_nothing_is_kept() {
        let spares = Spares::default();
        spares.give_floats(vec![1.0; 10]);
        spares.give_bytes(vec![1; 10]);
        assert_eq!((spares.take_floats(3), spares.take_bytes(3)), (vec![0.0; 3], vec![0; 3]));
    }
}
